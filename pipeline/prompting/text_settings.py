"""How the texts of a study are read."""

from typing import Annotated, Literal

from pydantic import Field

from pipeline.errors import InputError
from pipeline.prompting.emphasis import Syntax
from pipeline.settings import Count, Settings


class TextSettings(Settings):
    """How every text of a study, prompt or negative prompt, becomes embeddings.

    `clip_skip` counts the text encoder's last layers that are left out, as diffusers does: 0 leaves out none, and
    the "CLIP skip 2" of A1111 and NovelAI is 1. `restore_mean` is A1111's correction after weighting. `underscores`
    become spaces except in emoticons such as ^_^, or are kept. `chunks` is the number of chunks (75 tokens of CLIP)
    that every text is filled up to; longer texts take more. `t5_length` is the number of T5's tokens that every text is
    filled up to, for families that read T5; a longer text is refused. Unless given it is that of the family's pipeline:
    256 for SD3, 512 for FLUX.1. The defaults are diffusers' reading.
    """

    syntax: Syntax = "plain"
    clip_skip: Annotated[int, Field(ge=0)] = 0
    restore_mean: bool = True
    underscores: Literal["spaces", "kept"] = "kept"
    chunks: Count = 1
    t5_length: Annotated[int, Field(ge=8, le=512)] | None = None


def check_clip_skip(clip_skip: int, layers: int, left_out: int) -> None:
    """Raise InputError where a text encoder of `layers` layers has none left to read.

    `left_out` are the layers at its end that are left out without being asked: one of SDXL's.
    """
    if clip_skip + left_out >= layers:
        raise InputError(
            f"text.clip_skip is {clip_skip}; the text encoder has {layers} layers, so at most "
            f"{layers - left_out - 1} can be skipped (A1111's CLIP skip 2 is 1 here)"
        )
