"""The files of a network: that they are there, that none is a pickle, and their digest."""

import hashlib
from pathlib import Path

from pipeline.errors import InputError

_UNET_WEIGHTS = "unet/diffusion_pytorch_model.safetensors"
_TEXT_WEIGHTS = "text_encoder/model.safetensors"
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


def _weights_file(folder: Path, name: str) -> Path:
    """The path of a weight file. Raises InputError where it is missing or only a pickle is there."""
    path = folder / name
    if path.is_file():
        return path
    pickles = [p.name for p in path.parent.glob("*") if p.suffix in _PICKLES] if path.parent.is_dir() else []
    if pickles:
        raise InputError(
            f"{path.parent} holds {pickles[0]}, a pickle, which can run code when it is read; "
            f"convert it to safetensors as {path.name}"
        )
    raise InputError(f"weights {path} are missing; `make train` makes the embedded ones, or set model in conf/")


def check_folder(folder: Path, with_text_encoder: bool) -> list[Path]:
    """The files that determine a network's predictions, after a check that they are there.

    Raises InputError that names what is missing, before anything is loaded.
    """
    names = [_UNET_WEIGHTS, "unet/config.json", "scheduler/scheduler_config.json"]
    if with_text_encoder:
        names += [_TEXT_WEIGHTS, "text_encoder/config.json", "tokenizer/tokenizer.json"]
    paths = []
    for name in names:
        path = _weights_file(folder, name) if name.endswith(".safetensors") else folder / name
        if not path.is_file():
            raise InputError(f"{path} is missing; {folder} is no complete network folder")
        paths.append(path)
    return paths


def network_digest(folder: Path, with_text_encoder: bool) -> str:
    """Hex digest (16 characters) of a network's weights and configuration. Raises InputError."""
    digest = hashlib.sha256()
    for path in check_folder(folder, with_text_encoder):
        digest.update(path.relative_to(folder).as_posix().encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]
