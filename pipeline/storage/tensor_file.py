"""Tensors and what is known of them in one safetensors file with its own checksum."""

import json
from collections.abc import Mapping
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from pipeline.errors import InputError
from pipeline.storage.checksum import KEY, ROOM, is_whole, seal
from pipeline.storage.remote_path import AnyPath

_METADATA = "guidedrift"
# How the key stands in the header, which is JSON within JSON.
_MARK = json.dumps(f'"{KEY}": "')[1:-1].encode()


def encode_tensors(tensors: Mapping[str, torch.Tensor], known: Mapping[str, Any]) -> bytes:
    """The bytes of a file; equal tensors and JSON-serialisable `known` give equal bytes."""
    # One key: safetensors writes several in random order.
    text = json.dumps({**known, KEY: ROOM}, sort_keys=True)
    content = save(dict(tensors), {_METADATA: text})
    return seal(content, content.find(_MARK) + len(_MARK))


def read_tensors(path: AnyPath) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The tensors of a file and what is known of them. Raises InputError where it is missing or damaged."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; `dvc repro` makes it") from None
    try:
        # The header is in front, so this is the header's even where a tensor's bytes spell the same.
        at = content.find(_MARK)
        if at < 0:
            raise ValueError("it has no checksum of guidedrift's: damaged, or of an earlier version")
        if not is_whole(content, at + len(_MARK)):
            raise ValueError("its checksum is of other bytes")
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        known: dict[str, Any] = json.loads(header["__metadata__"][_METADATA])
        del known[KEY]
        return load(content), known
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} is not a readable feature file ({error}); delete it and run `dvc repro`") from None
