"""The files of a network: that they are there, that none is a pickle, that they are whole, and their digest."""

import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from pipeline.errors import InputError
from pipeline.networks.checkpoints import Checkpoint
from pipeline.networks.weights.weight_places import fetching
from pipeline.storage.digest_memory import remembered_sha256
from pipeline.storage.files import file_digest

_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_DIFFUSERS = "diffusion_pytorch_model"
_STEMS = dict.fromkeys(("unet", "transformer", "vae"), _DIFFUSERS)
# Which variant is taken where several are there.
_FIRST = (None, "fp16")
# A file, a list of pieces, a piece.
_NAMES = (
    r"{stem}(?:\.(\w+))?\.safetensors",
    r"{stem}\.safetensors\.index(?:\.(\w+))?\.json",
    r"{stem}(?:\.(\w+))?-\d{{5}}-of-\d{{5}}(?:\.(\w+))?\.safetensors",
)
_LFS = b"version https://git-lfs.github.com/spec/"
# What is beside a vocabulary: the tokens of padding and marks, the length of a text, how a chat is written.
_TOKENIZER_SETTINGS = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja")


def weights_variant(folder: Path, part: str) -> str | None:
    """None for a part's plain weights, or the existing variant (fp16, bf16 ...), by its name in the files' names.

    Plain weights come first, then fp16; a list of pieces that are not there, which `hf download` leaves when it was
    asked for another variant, does not count beside a whole one. Raises InputError.
    """
    place, stem = folder / part, _stem(part)
    found = _variants(place, stem)
    whole = [variant for variant in found if not _lacking(place, stem, variant)]
    if whole:
        others = [variant for variant in whole if variant not in _FIRST]
        if len(others) == len(whole) > 1:
            raise InputError(
                f"{place} holds the variants {', '.join(map(str, others))} and none without a name; "
                f"keep the one to draw with as {stem}.safetensors"
            )
        return whole[0]
    if found:
        raise InputError(_lacking(place, stem, found[0]))
    pickles = sorted(p.name for p in place.glob("*") if p.suffix in _PICKLES) if place.is_dir() else []
    if pickles:
        raise InputError(
            f"{place} holds {pickles[0]}, a pickle, which can run code when it is read; "
            f"convert it to safetensors as {stem}.safetensors"
        )
    raise InputError(f"weights {place / stem}.safetensors are missing; {fetching(place)}")


def _stem(part: str) -> str:
    return _STEMS.get(part, "model")


def _dotted(variant: str | None) -> str:
    return f".{variant}" if variant else ""


def _whole(place: Path, stem: str, variant: str | None) -> Path:
    return place / f"{stem}{_dotted(variant)}.safetensors"


def _index(place: Path, stem: str, variant: str | None) -> Path:
    return place / f"{stem}.safetensors.index{_dotted(variant)}.json"


def _variants(place: Path, stem: str) -> list[str | None]:
    """The variants of which a file, a list of pieces or a piece is there; those that come first are first."""
    found = set()
    for path in place.glob(f"{stem}*"):
        for pattern in _NAMES:
            if match := re.fullmatch(pattern.format(stem=stem), path.name):
                found.add(next((group for group in match.groups() if group), None))
    return sorted(found, key=lambda v: (_FIRST.index(v) if v in _FIRST else len(_FIRST), v or ""))


def _lists(place: Path, stem: str) -> list[Path]:
    """Files that may be lists of pieces, by whatever name."""
    return sorted(path for path in place.glob(f"{stem}*.json") if ".index." in path.name and ".bin" not in path.name)


def _in_one(place: Path, stem: str, variant: str | None) -> bool:
    # Where both are there, diffusers loads the pieces and transformers the one file.
    whole, index = _whole(place, stem, variant).is_file(), _index(place, stem, variant).is_file()
    return whole and not (index and stem == _DIFFUSERS)


def _lacking(place: Path, stem: str, variant: str | None) -> str:
    """What of a variant's files is missing, as a sentence; empty where all are there."""
    if _in_one(place, stem, variant):
        return ""
    index = _index(place, stem, variant)
    if not index.is_file():
        # Versions of diffusers disagreed on where the variant stands in this name.
        others = [path for path in _lists(place, stem) if not re.fullmatch(_NAMES[1].format(stem=stem), path.name)]
        if others:
            return f"{others[0]} has a name that is not read; rename it to {index.name}"
        return f"{index} is missing, the list of the pieces beside it; {fetching(index)}"
    try:
        pieces = _pieces(index)
    except InputError as error:
        return str(error)
    missing = [name for name in pieces if not (place / name).is_file()]
    if not missing:
        return ""
    more = f" ({len(missing)} are missing)" if len(missing) > 1 else ""
    return f"{place / missing[0]} is missing, one of {len(pieces)} pieces{more}; {fetching(index)}"


def _pieces(index: Path) -> dict[str, list[str]]:
    """The names of the tensors of every piece by its file's name, as a list of pieces has them. Raises InputError."""
    found: dict[str, list[str]] = {}
    if is_lfs_pointer(index):
        raise unreadable(index, "")
    try:
        content = json.loads(index.read_text("utf-8"))
        for tensor, name in content["weight_map"].items():
            if Path(name).name != name or Path(name).suffix != ".safetensors":
                raise ValueError("weight_map must name .safetensors files beside it")
            found.setdefault(name, []).append(tensor)
        if not found:
            raise ValueError("weight_map must name .safetensors files beside it")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{index} is not a list of the pieces of a checkpoint ({reason}); {fetching(index)}") from None
    if not isinstance(content.get("metadata"), dict):  # diffusers ends with a KeyError
        raise InputError(f'{index} has no metadata; add "metadata": {{}} to it')
    return dict(sorted(found.items()))


def weight_paths(folder: Path, part: str) -> list[Path]:
    """The files with a part's weights that are read: one, or the pieces. Raises InputError where one is missing."""
    variant = weights_variant(folder, part)
    place, stem = folder / part, _stem(part)
    if _in_one(place, stem, variant):
        return [_whole(place, stem, variant)]
    return [place / name for name in _pieces(_index(place, stem, variant))]


def _weights(folder: Path, part: str) -> list[Path]:
    """The files of a part's weights, all of them whole: one, or the list of pieces and the pieces.

    Raises InputError.
    """
    variant = weights_variant(folder, part)
    place, stem = folder / part, _stem(part)
    if _in_one(place, stem, variant):
        path = _whole(place, stem, variant)
        _tensors(path)
        return [path]
    index = _index(place, stem, variant)
    pieces = _pieces(index)
    for name, listed in pieces.items():
        lacking = sorted(set(listed) - _tensors(place / name))
        if lacking:
            raise InputError(
                f"{place / name} lacks {lacking[0]}, which {index.name} lists in it; {fetching(place / name)}"
            )
    return [index, *(place / name for name in pieces)]


def _weights_in_folder(checkpoint: Checkpoint, part: str) -> list[Path]:
    try:
        return _weights(checkpoint.folder, part)
    except InputError as error:
        if not checkpoint.is_file:
            raise
        raise InputError(f"{part} is not read from {checkpoint.path}, and {error}") from None


def check_files(checkpoint: Checkpoint, parts: tuple[str, ...]) -> list[Path]:
    """The files that determine what these parts of a checkpoint compute, after a check that they are there and whole.

    `parts` are of unet, transformer, vae, text_encoder, text_encoder_2; the schedule belongs to what denoises, the
    tokenizers to the texts.
    Raises InputError that names what is missing, before anything is loaded.
    """
    paths = []
    for part in parts:
        if not checkpoint.in_file(part):
            paths += _weights_in_folder(checkpoint, part)
        elif checkpoint.path not in paths:
            _tensors(checkpoint.path)
            paths.append(checkpoint.path)
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
        raise InputError(f"{path} is missing; {checkpoint.config} is not a complete network folder")
    return path


def _tokenizer(checkpoint: Checkpoint, part: str) -> list[Path]:
    folder = checkpoint.config / part
    for names in (("tokenizer.json",), ("vocab.json", "merges.txt")):
        paths = [folder / name for name in names]
        if all(path.is_file() for path in paths):
            return paths + _there(folder, _TOKENIZER_SETTINGS)
    raise InputError(
        f"{folder}/tokenizer.json is missing, and so is vocab.json with merges.txt; "
        f"{checkpoint.config} is not a complete network folder"
    )


def _tensors(path: Path) -> set[str]:
    """The names of a file's tensors, from its header, which also says how long the file has to be.

    Raises InputError.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return set(file.keys())
    except (SafetensorError, OSError) as error:
        raise unreadable(path, error) from None


def unreadable(path: Path, error: object) -> InputError:
    """What is said about a file of weights that cannot be read."""
    if is_lfs_pointer(path):
        return InputError(
            f"{path} is a pointer of Git LFS, not the file itself; run `git lfs pull` in its repository, or "
            f"{fetching(path)}"
        )
    return InputError(f"{path} cannot be loaded ({' '.join(str(error).split())[:200]}); {fetching(path)}")


def is_lfs_pointer(path: Path) -> bool:
    """Whether a file is what `git clone` leaves without Git LFS: a few lines of text that stand for the file."""
    try:
        with path.open("rb") as file:
            return file.read(len(_LFS)) == _LFS
    except OSError:
        return False


def check_complete(network: torch.nn.Module, missing: Iterable[str], place: Path) -> None:
    """Raise InputError where a network was loaded from files that lack some of its weights.

    `missing` are the names that the loader reports. Of the others it leaves behind what it could not fill: parameters
    without storage. Either would be drawn with at random, or fail much later.
    """
    parameters = dict(network.named_parameters())
    lacking = sorted(name for name, p in parameters.items() if p.is_meta or name in set(missing))
    if lacking:
        raise incomplete(lacking, len(parameters), type(network).__name__, place)


def incomplete(lacking: list[str], count: int, kind: str, place: Path) -> InputError:
    """What is said of weights at `place` where a network of `count` weights lacks some."""
    return InputError(
        f"{place} lacks {len(lacking)} of the {count} weights of {kind} ({lacking[0]} is the first): "
        f"the configuration beside it is of another network, or {fetching(place)}"
    )


def weights_size(checkpoint: Checkpoint) -> int:
    """The bytes of a checkpoint's weights, all parts together."""
    found = [path for path in checkpoint.folder.glob("*/*.safetensors") if not checkpoint.in_file(path.parent.name)]
    if checkpoint.is_file:
        found.append(checkpoint.path)
    return sum(path.stat().st_size for path in found)


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


def lora_digest(key: str, file: Path) -> str:
    """Hex digest of a LoRA's file. Raises InputError, by the `key` of the configuration, where there is none."""
    if not file.is_file():
        raise InputError(f"{key} {file} does not exist")
    return file_digest(file)
