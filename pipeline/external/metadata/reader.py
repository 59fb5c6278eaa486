"""Which tool has left metadata in an image, and what they say."""

from collections.abc import Mapping
from dataclasses import dataclass

from PIL import Image

from pipeline.external.metadata.a1111 import read_a1111
from pipeline.external.metadata.comfyui import read_comfyui
from pipeline.external.metadata.json_text import json_object
from pipeline.external.metadata.novelai import hidden_texts, read_novelai
from pipeline.external.metadata.record import Metadata, Unreadable
from pipeline.external.metadata.swarmui import KEY, read_swarmui
from pipeline.storage.images import DAMAGED

_EXIF, _USER_COMMENT = 0x8769, 0x9286
# Tags in which ComfyUI's WebP images have "prompt:{...}" and "workflow:{...}".
_COMFY_TAGS = (0x010F, 0x0110)
_CODES = {b"ASCII\0\0\0": "ascii", b"JIS\0\0\0\0\0": "shift_jis", b"\0" * 8: "utf-8"}
_UNICODE = b"UNICODE\0"


@dataclass(frozen=True)
class Found:
    """What an image says of itself: `metadata`, None where it says nothing, and the `fault` where it cannot be read."""

    metadata: Metadata | None
    fault: str = ""


def read_metadata(image: Image.Image) -> Found:
    """The metadata of an opened image. Nothing in them is executed; what is damaged is named and left out.

    Texts of PNG chunks and of EXIF; only where there are none, those in the alpha channel, for which the pixels are
    decoded. Raises OSError and DAMAGED where that fails.
    """
    try:
        found = _of_texts(texts_of(image))
        if found is None and image.mode == "RGBA" and (hidden := hidden_texts(image)):
            found = _of_texts(hidden)
        return Found(found)
    except Unreadable as error:
        return Found(None, str(error))


def texts_of(image: Image.Image) -> dict[str, str]:
    """The texts that stand before the pixels of a PNG, and those of EXIF, as the chunks of tools are called."""
    found = {key: value for key, value in image.info.items() if isinstance(key, str) and isinstance(value, str)}
    try:
        exif = image.getexif()
        comment = exif.get_ifd(_EXIF).get(_USER_COMMENT)
        others = [exif.get(tag) for tag in _COMFY_TAGS]
    except (OSError, *DAMAGED):  # an EXIF that no one can read says nothing
        return found
    for other in others:
        name, colon, content = str(other or "").partition(":")
        if colon and name in ("prompt", "workflow"):
            found.setdefault(name, content.strip("\0"))
    said = _decoded(comment) if isinstance(comment, bytes) else str(comment or "")
    # Cameras and editors write remarks of their own there.
    if "Steps: " in said or said.lstrip().startswith("{"):
        found.setdefault("parameters", said)
    return {key: value for key, value in found.items() if value}


def _decoded(comment: bytes) -> str:
    """A UserComment, whose first eight bytes name its code.

    EXIF leaves the order of UTF-16's bytes to the file's; tools write either in any file.
    """
    code, content = comment[:8], comment[8:]
    if code != _UNICODE:
        return content.decode(_CODES.get(code, "utf-8"), "replace").strip("\0 ")
    readings = [content.decode(order, "replace").strip("\0\ufeff ") for order in ("utf-16-be", "utf-16-le")]
    # Every tool's text has some ASCII, whose letters lie in the first of the 256 rows of Unicode.
    return max(readings, key=lambda reading: sum(c.isascii() for c in reading))


def _of_texts(texts: Mapping[str, str]) -> Metadata | None:
    parameters = texts.get("parameters", "")
    if parameters.lstrip().startswith("{"):
        content = json_object(parameters, "its parameters text")
        return read_swarmui(content) if KEY in content else None
    if "prompt" in texts and texts["prompt"].lstrip().startswith("{"):
        if parameters:  # an extension has written the web UI's text beside the graph
            return read_a1111(parameters)
        return read_comfyui(json_object(texts["prompt"], "its ComfyUI graph"))
    if parameters:
        return read_a1111(parameters)
    if "Comment" in texts and texts.get("Software", "NovelAI") == "NovelAI":
        return read_novelai(texts)
    if "workflow" in texts:
        raise Unreadable("it has a ComfyUI workflow without the graph that was run (prompt)")
    return None
