"""Files of embeddings (textual inversion, arXiv 2208.01618): vectors that a text encoder reads in place of words.

A1111 calls the vectors of one text encoder `emb_params`, diffusers has the token's name there. For SDXL, A1111 calls
those of its two encoders `clip_l` and `clip_g`, diffusers' trainers text_encoders_0 and _1.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from pipeline.errors import InputError
from pipeline.networks.checkpoints import Checkpoint
from pipeline.prompting.named_files import PICKLES

_TOWERS = (("clip_l", "clip_g"), ("text_encoders_0", "text_encoders_1"))
_KINDS = {768: "SD 1.x", 1024: "SD 2.x"}


def read_embedding(path: Path, widths: Sequence[int], most: int) -> list[torch.Tensor]:
    """The vectors [N, W] of an embedding for each of a checkpoint's text encoders, which have these `widths`.

    N is at most `most`, what a chunk holds. Raises InputError, by the file's name, for a pickle, for what cannot be
    read or is not an embedding, and for vectors of other text encoders.
    """
    if path.suffix in PICKLES:
        raise InputError(
            f"{path} is a pickle, which can run code when it is read; convert it to "
            f"{path.with_suffix('.safetensors')}, with its vectors as the tensor emb_params"
        )
    try:
        with safe_open(path, "pt") as file:
            shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118 (no mapping)
            keys = _keys(path, shapes)
            _check_fit(path, [shapes[key] for key in keys], widths, most)
            vectors = [file.get_tensor(key) for key in keys]
    except (SafetensorError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path} cannot be loaded ({reason}); download it again") from None
    if not all(own.is_floating_point() and own.isfinite().all() for own in vectors):
        raise InputError(f"{path} holds values that are not finite numbers, so its training has failed; name another")
    return [own.float().view(-1, own.shape[-1]) for own in vectors]


def check_takes_embeddings(checkpoint: Checkpoint, files: Mapping[str, Path]) -> None:
    """Raise InputError where texts call embeddings and a family reads more of a text than tokens of CLIPs."""
    family = checkpoint.family
    if files and not family.reads_clip_alone:
        raise InputError(
            f"{next(iter(files.values()))} is called in a text, and {checkpoint.config} ({family.name}) reads "
            f"{' and '.join(dict.fromkeys(text.title for text in family.texts))}; embeddings are for families that "
            "read CLIP's tokens alone (SD 1.x, SD 2.x, SDXL): take its name out of the text"
        )


def tensor_names(encoders: int) -> tuple[str, ...]:
    """What A1111 calls the vectors of one or two text encoders."""
    return _TOWERS[0] if encoders > 1 else ("emb_params",)


def _keys(path: Path, shapes: dict[str, tuple[int, ...]]) -> list[str]:
    """The names of the tensors of each text encoder. Raises InputError where a file is not an embedding."""
    for keys in _TOWERS:
        if set(keys) <= set(shapes):
            return list(keys)
    if len(shapes) == 1 and len(next(iter(shapes.values()))) in (1, 2):
        return list(shapes)
    found = ", ".join(sorted(shapes)[:3]) + (" ..." if len(shapes) > 3 else "")
    raise InputError(
        f"{path} is not an embedding: it holds {found or 'nothing'}; name a file with one tensor of vectors "
        "(emb_params), or clip_l and clip_g for SDXL"
    )


def _check_fit(path: Path, shapes: Sequence[tuple[int, ...]], widths: Sequence[int], most: int) -> None:
    found, numbers = [shape[-1] for shape in shapes], {shape[0] if len(shape) > 1 else 1 for shape in shapes}
    if found != list(widths):
        raise InputError(
            f"{path} holds vectors of width {_listed(found)} ({_kind(found)}), and this model's text encoders have "
            f"{_listed(widths)} ({_kind(widths)}); use an embedding that was trained for this kind of model"
        )
    if len(numbers) > 1 or not 0 < max(numbers) <= most:
        raise InputError(
            f"{path} holds {_listed(sorted(numbers))} vectors; a chunk of this model's texts has room for 1 to {most}, "
            "the same number for each text encoder"
        )


def _listed(numbers: Sequence[int]) -> str:
    return " and ".join(map(str, numbers))


def _kind(widths: Sequence[int]) -> str:
    if len(widths) == 2:
        return "SDXL" if list(widths) == [768, 1280] else "two text encoders"
    return _KINDS.get(widths[0], "one text encoder")
