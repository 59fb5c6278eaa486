"""What NovelAI writes: PNG texts with `Comment` as JSON, or the same in the lowest bit of the alpha channel.

The hidden copy ("stealth") outlives programs that drop texts. Bits run down the columns from the left: a signature, the
length in bits (32, big-endian), and the texts as JSON, compressed by gzip after the signature `stealth_pngcomp`.
"""

import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from pipeline.external.metadata.json_text import json_object
from pipeline.external.metadata.record import Metadata, Unreadable, number, text, whole_number

_COMPRESSED, _PLAIN = b"stealth_pngcomp", b"stealth_pnginfo"
# Unpacked; a comment has a few kilobytes.
_MOST = 16 * 2**20
_GZIP = 16 + zlib.MAX_WBITS


def read_novelai(texts: Mapping[str, str]) -> Metadata:
    """The settings in NovelAI's texts. Raises Unreadable."""
    comment = json_object(texts.get("Comment", ""), "NovelAI's Comment")
    # Models from version 4 on have prompts of several characters.
    positive, negative = (_captions(comment.get(key)) for key in ("v4_prompt", "v4_negative_prompt"))
    return Metadata(
        tool="NovelAI",
        prompt=positive or text(comment.get("prompt")) or text(texts.get("Description")),
        negative=negative or text(comment.get("uc")),
        seed=whole_number(comment.get("seed")),
        sampler=text(comment.get("sampler")),
        steps=whole_number(comment.get("steps"), 100_000),
        scale=number(comment.get("scale")),
        model=text(texts.get("Source")),
    )


def _captions(prompt: Any) -> str:
    caption = prompt.get("caption") if isinstance(prompt, dict) else None
    if not isinstance(caption, dict):
        return ""
    characters = caption.get("char_captions")
    own = (
        [one.get("char_caption") for one in characters if isinstance(one, dict)] if isinstance(characters, list) else []
    )
    return ", ".join(part for part in map(text, [caption.get("base_caption"), *own]) if part)


def hidden_texts(image: Image.Image) -> dict[str, str] | None:
    """The texts in the lowest bits of an RGBA image's alpha channel; None where there is no signature.

    Raises Unreadable where they are cut or damaged.
    """
    if image.mode != "RGBA":
        return None
    alpha = np.asarray(image.getchannel("A"))  # [H, W]
    bits = (alpha & 1).T.reshape(-1)
    head = np.packbits(bits[: 8 * (len(_COMPRESSED) + 4)]).tobytes()
    signature, length = head[: len(_COMPRESSED)], int.from_bytes(head[len(_COMPRESSED) :], "big")
    if signature not in (_COMPRESSED, _PLAIN):
        return None
    start = 8 * len(head)
    if start + length > len(bits):
        raise Unreadable("the texts in its alpha channel are cut off; the image was cropped or resized")
    content = np.packbits(bits[start : start + length]).tobytes()
    if signature == _COMPRESSED:
        content = _unpacked(content)
    found = json_object(content.decode("utf-8", "replace"), "the text in its alpha channel")
    return {key: value for key, value in found.items() if isinstance(value, str)}


def _unpacked(content: bytes) -> bytes:
    try:
        unpacker = zlib.decompressobj(_GZIP)
        found = unpacker.decompress(content, _MOST)
    except zlib.error as error:
        raise Unreadable(f"the texts in its alpha channel are damaged ({error})") from None
    if unpacker.unconsumed_tail:
        raise Unreadable(f"the texts in its alpha channel unpack to more than {_MOST // 2**20} MiB")
    return found
