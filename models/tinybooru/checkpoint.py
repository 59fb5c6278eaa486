"""Resumable training checkpoints: one safetensors file, whole or not there, with a digest of its content."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from pipeline.errors import InputError


def tensors_digest(tensors: dict[str, torch.Tensor], more: str = "") -> str:
    """SHA-256 of tensors' names and bytes, and of a text."""
    digest = hashlib.sha256(more.encode())
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].detach().cpu().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def save_checkpoint(path: Path, tensors: dict[str, torch.Tensor], state: dict[str, Any]) -> None:
    """Write tensors and a JSON-serialisable state; an interrupted write leaves the earlier checkpoint."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Bytes can be viewed only through a dimension whose elements are adjacent: no 0-d, no channels-last.
    tensors = {
        name: t.detach().reshape(-1) if t.ndim == 0 else t.detach().clone(memory_format=torch.contiguous_format)
        for name, t in tensors.items()
    }
    temporary = path.with_name(f".{path.name}.tmp")
    text = json.dumps(state)
    save_file(tensors, temporary, {"state": text, "digest": tensors_digest(tensors, text)})
    os.replace(temporary, path)


def load_checkpoint(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Read a checkpoint back. Raises InputError where it is damaged."""
    way_out = "delete it to train from the start"
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError) as error:
        raise InputError(f"checkpoint {path} cannot be read ({error}); {way_out}") from None
    if "digest" not in metadata or tensors_digest(tensors, metadata.get("state", "")) != metadata["digest"]:
        raise InputError(f"checkpoint {path} is damaged (its digest does not match); {way_out}")
    return tensors, json.loads(metadata["state"])


def laid_out_like(parameter: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """`value` with the shape, device and memory layout of `parameter`.

    Fused optimisers walk through parameter and state side by side: a state of another layout is silently wrong.
    """
    return torch.empty_like(parameter).copy_(value.reshape(parameter.shape))
