"""Files that prompts call by name, which lie anywhere below `loras/` and `embeddings/`."""

from collections.abc import Collection
from pathlib import Path

from pipeline.settings import nearest

SAFE = ".safetensors"
# What other tools keep there besides, which can run code when it is read.
PICKLES = (".pt", ".bin", ".ckpt", ".pth")


def named_files(folder: Path) -> dict[str, Path]:
    """The files below `folder` by their names without the ending, in lower case as CLIP reads all words.

    A pickle counts where no .safetensors file has its name; whoever asks for it refuses it. Raises ValueError where two
    files share a name.
    """
    found: dict[str, Path] = {}
    paths = (path for path in folder.rglob("*") if path.suffix in (SAFE, *PICKLES) and path.is_file())
    for path in sorted(paths, key=lambda path: (path.suffix != SAFE, path)):
        name = path.stem.lower()
        if name in found and path.suffix == SAFE:
            raise ValueError(f"{found[name]} and {path} share a name; rename one of them")
        found.setdefault(name, path)
    return found


def unknown_name(name: str, folder: Path, known: Collection[str]) -> str:
    """What to do where `folder` has no file of a `name`."""
    near = nearest(name.lower(), known)
    return f"put {folder / name}{SAFE} there" + (f"; did you mean {near}?" if near else "")
