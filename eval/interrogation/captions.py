"""Captions of what images show, and the text files in which they stand beside the images."""

from collections.abc import Iterable
from dataclasses import dataclass

from eval.interrogation.asked_images import AskedImage
from pipeline.storage.files import write_atomically

Chances = dict[str, float]


def caption_of(chances: Chances, least: float) -> str:
    """The tags of at least this chance, the likeliest first, as booru-style captions list them."""
    return ", ".join(tag for tag, chance in likeliest(chances) if chance >= least)


def likeliest(chances: Chances) -> list[tuple[str, float]]:
    """Tags with their chances, the likeliest first; those of equal chance by name."""
    return sorted(chances.items(), key=lambda item: (-item[1], item[0]))


@dataclass(frozen=True)
class Written:
    """How many captions were `written`, of which some `replaced` another; how many images `kept` the prompt that they
    had; and for how many there was nothing to write (`empty`)."""

    written: int = 0
    replaced: int = 0
    kept: int = 0
    empty: int = 0


def write_captions(found: Iterable[tuple[AskedImage, str]], overwrite: bool) -> Written:
    """Write captions beside their images; without `overwrite` not for images that have a caption, or a prompt in their
    metadata, which an external arm reads first."""
    written = replaced = kept = empty = 0
    for image, caption in found:
        assert image.caption_file is not None
        if not caption:
            empty += 1
        elif (image.caption or image.prompt) and not overwrite:
            kept += 1
        else:
            write_atomically(image.caption_file, f"{caption}\n".encode())
            written += 1
            replaced += bool(image.caption)
    return Written(written, replaced, kept, empty)
