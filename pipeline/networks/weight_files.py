"""The files of a network: that they are there, that none is a pickle, that they are whole, and their digest."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from pipeline.errors import InputError
from pipeline.networks.checkpoints import Checkpoint
from pipeline.storage.digest_memory import remembered_sha256
from pipeline.storage.files import file_digest
from pipeline.study.weaken import Lora

_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_STEMS = dict.fromkeys(("unet", "transformer", "vae"), "diffusion_pytorch_model")
# What is beside a vocabulary: the tokens of padding and marks, the length of a text.
_TOKENIZER_SETTINGS = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")


def weights_variant(folder: Path, part: str) -> str | None:
    """None for a part's plain weights, "fp16" where only those are there (diffusers' file names). Raises InputError."""
    stem = _STEMS.get(part, "model")
    for variant in (None, "fp16"):
        if _whole(folder, part, variant).is_file() or _index(folder, part, variant).is_file():
            return variant
    place = folder / part
    pickles = sorted(p.name for p in place.glob("*") if p.suffix in _PICKLES) if place.is_dir() else []
    if pickles:
        raise InputError(
            f"{place} holds {pickles[0]}, a pickle, which can run code when it is read; "
            f"convert it to safetensors as {stem}.safetensors"
        )
    raise InputError(
        f"weights {place / stem}.safetensors are missing; `make train` makes the embedded ones, "
        "docs/checkpoints.md names the commands that fetch others"
    )


def _dotted(variant: str | None) -> str:
    return f".{variant}" if variant else ""


def _whole(folder: Path, part: str, variant: str | None) -> Path:
    return folder / part / f"{_STEMS.get(part, 'model')}{_dotted(variant)}.safetensors"


def _index(folder: Path, part: str, variant: str | None) -> Path:
    return folder / part / f"{_STEMS.get(part, 'model')}.safetensors.index{_dotted(variant)}.json"


def _weights(folder: Path, part: str) -> list[Path]:
    """The files of a part's weights: one, or the list of pieces and the pieces. Raises InputError."""
    variant = weights_variant(folder, part)
    path, index = _whole(folder, part, variant), _index(folder, part, variant)
    if path.is_file():
        return [path]
    try:
        pieces = sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values()))
        if not pieces or any(Path(name).name != name or Path(name).suffix != ".safetensors" for name in pieces):
            raise ValueError("weight_map must name .safetensors files beside it")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{index} is no list of the pieces of a checkpoint ({reason}); fetch it again") from None
    for name in pieces:
        if not (index.parent / name).is_file():
            raise InputError(f"{index.parent / name} is missing, one of {len(pieces)} pieces; fetch it again")
    return [index, *(index.parent / name for name in pieces)]


def check_files(checkpoint: Checkpoint, parts: tuple[str, ...]) -> list[Path]:
    """The files that determine what these parts of a checkpoint compute, after a check that they are there and whole.

    `parts` are of unet, transformer, vae, text_encoder, text_encoder_2; the schedule belongs to what denoises, the
    tokenizers to the texts.
    Raises InputError that names what is missing, before anything is loaded.
    """
    if checkpoint.is_file:
        _check_whole(checkpoint.path)
        paths = [checkpoint.path]
    else:
        paths = []
        for part in parts:
            for path in _weights(checkpoint.path, part):
                if path.suffix == ".safetensors":
                    _check_whole(path)
                paths.append(path)
    for part in parts:
        paths.append(_needed(checkpoint, f"{part}/config.json"))
        if part in ("unet", "transformer"):
            paths.append(_needed(checkpoint, "scheduler/scheduler_config.json"))
        if part.startswith("text_encoder"):
            paths += _tokenizer(checkpoint, part.replace("text_encoder", "tokenizer"))
    if "text_encoder_2" in parts:  # whether an empty prompt reads as zeros
        paths += _there(checkpoint.config, ("model_index.json",))
    return paths


def _there(folder: Path, names: tuple[str, ...]) -> list[Path]:
    return [path for name in names if (path := folder / name).is_file()]


def _needed(checkpoint: Checkpoint, name: str) -> Path:
    path = checkpoint.config / name
    if not path.is_file():
        raise InputError(f"{path} is missing; {checkpoint.config} is no complete network folder")
    return path


def _tokenizer(checkpoint: Checkpoint, part: str) -> list[Path]:
    folder = checkpoint.config / part
    for names in (("tokenizer.json",), ("vocab.json", "merges.txt")):
        paths = [folder / name for name in names]
        if all(path.is_file() for path in paths):
            return paths + _there(folder, _TOKENIZER_SETTINGS)
    raise InputError(
        f"{folder}/tokenizer.json is missing, and so is vocab.json with merges.txt; "
        f"{checkpoint.config} is no complete network folder"
    )


def _check_whole(path: Path) -> None:
    # Reads the header alone, which says how long the file has to be.
    try:
        with safe_open(path, framework="pt"):
            pass
    except (SafetensorError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path} cannot be loaded ({reason}); fetch it again or train it anew") from None


def check_complete(network: torch.nn.Module, missing: Iterable[str], place: Path) -> None:
    """Raise InputError where a network was loaded from files that lack some of its weights.

    `missing` are the names that the loader reports. Of the others it leaves behind what it could not fill: parameters
    without storage. Either would be drawn with at random, or fail much later.
    """
    parameters = dict(network.named_parameters())
    lacking = sorted(name for name, p in parameters.items() if p.is_meta or name in set(missing))
    if lacking:
        raise InputError(
            f"{place} lacks {len(lacking)} of the {len(parameters)} weights of {type(network).__name__} "
            f"({lacking[0]} is the first); fetch it again, or the configuration beside it is of another network"
        )


def weights_size(checkpoint: Checkpoint) -> int:
    """The bytes of a checkpoint's weights, all parts together."""
    if checkpoint.is_file:
        return checkpoint.path.stat().st_size
    return sum(path.stat().st_size for path in checkpoint.path.glob("*/*.safetensors"))


def network_digest(source: Checkpoint | Path, with_text_encoder: bool) -> str:
    """Hex digest (16 characters) of a network's weights and configuration. Raises InputError."""
    checkpoint = source if isinstance(source, Checkpoint) else Checkpoint(source, source)
    family = checkpoint.family
    latents = ("vae",) if checkpoint.settings("vae") is not None else ()
    return digest_of(checkpoint, (family.network, *latents, *(family.text_parts if with_text_encoder else ())))


def digest_of(checkpoint: Checkpoint, parts: tuple[str, ...]) -> str:
    """Hex digest (16 characters) of the weights and configuration of these parts. Raises InputError."""
    digest = hashlib.sha256()
    for path in check_files(checkpoint, parts):
        root = checkpoint.config if path.is_relative_to(checkpoint.config) else path.parent
        digest.update(path.relative_to(root).as_posix().encode())
        digest.update(bytes.fromhex(remembered_sha256(path)))
    return digest.hexdigest()[:16]


def lora_digest(lora: Lora) -> str:
    """Hex digest of a LoRA's file. Raises InputError where there is none."""
    if not Path(lora.file).is_file():
        raise InputError(f"model.weaken.file {lora.file} does not exist")
    return file_digest(Path(lora.file))
