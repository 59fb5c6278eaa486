"""How weights that are missing or damaged are fetched, by the place where they should lie."""

from pathlib import Path

from pipeline.layout import EMBEDDED

# What a stage reads of a repository, chat templates (*.jinja) with it; the pickles and the other frameworks' weights
# beside it stay where they are.
PATTERNS = ("*.json", "*.txt", "*.jinja", "*.safetensors")
_PARTS = (
    *("unet", "transformer", "vae", "scheduler"),
    *("text_encoder", "text_encoder_2", "text_encoder_3", "tokenizer", "tokenizer_2", "tokenizer_3"),
)


def fetching(place: Path) -> str:
    """What to do about weights below `place` that are missing or damaged, as the end of a sentence.

    The embedded networks are made by `make train`; a repository in the Hugging Face cache is downloaded by its name and
    revision; of a folder it is not known where it came from.
    """
    if place.resolve().is_relative_to(EMBEDDED.resolve()):
        return "`make train` makes it"
    snapshot = _cached(place)
    if snapshot is not None:
        repository, revision = snapshot
        return f"download it: hf download {repository} --revision {revision} --include {quoted(PATTERNS)}"
    if place.suffix == ".safetensors" and place.parent.name not in _PARTS:
        return "download the file again"
    part = place.parent if place.suffix else place
    folder = part.parent if part.name in _PARTS else part
    return (
        f"download it: hf download <owner>/<name> --include {quoted(PATTERNS)} --local-dir {folder} "
        "(docs/checkpoints.md names repositories)"
    )


def quoted(patterns: tuple[str, ...]) -> str:
    """Patterns of file names as a shell takes them."""
    return " ".join(f"'{pattern}'" for pattern in patterns)


def _cached(place: Path) -> tuple[str, str] | None:
    """Repository and revision of a place in the Hugging Face cache: models--<owner>--<name>/snapshots/<revision>."""
    parts = place.parts
    for k, part in enumerate(parts[:-2]):
        if part.startswith("models--") and parts[k + 1] == "snapshots":
            return part.removeprefix("models--").replace("--", "/"), parts[k + 2]
    return None
