"""What measures and is loaded from files: a record of it that names its loader, known without importing one."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from pipeline.layout import EMBEDDED

# The place that a study names is the one file itself, and no folder of files.
THE_FILE_ITSELF = ("",)
# How to get what is in models/tinybooru, which has no name on the Hub, and what else has none.
_TRAIN, _UNNAMED = "make train", "<owner>/<name>"


@dataclass(frozen=True)
class Loadable:
    """An extractor or a scorer.

    `loader` is `module:function`: a text, so that nothing is imported before the first use. `line` says what it is, in
    one line. `files` are the names of its files in the folder that a study names as its place; THE_FILE_ITSELF where
    the place is a file, and none for what has no weights. `fetch` is the command that gets them and `missing` what is
    said where one is missing: templates over `{place}` and its folder `{parent}`, for `fetch` also `{hub}`, the place's
    name on the Hub, and for `missing` the `{path}` that is missing and the `{fetch}` command.
    """

    loader: str
    line: str
    files: tuple[str, ...] = ()
    fetch: str = ""
    missing: str = "{path} is missing; get it with `{fetch}`"

    def load(self) -> Callable[..., Any]:
        """The loader, imported now."""
        module, _, function = self.loader.partition(":")
        loader: Callable[..., Any] = getattr(import_module(module), function)
        return loader

    def paths(self, place: str | Path) -> tuple[Path, ...]:
        """The files at a place."""
        return tuple(Path(place) / name for name in self.files)

    def command(self, place: str | Path, hub: str = "") -> str:
        """The command that gets the files to a place."""
        if "{hub}" in self.fetch and not hub and Path(place).is_relative_to(EMBEDDED):
            return _TRAIN
        return self.fetch.format(place=place, parent=Path(place).parent, hub=hub or _UNNAMED)

    def faults(self, place: str | Path, hub: str = "") -> dict[Path, str]:
        """The files at a place, each with what is said where it is missing."""
        fetch = self.command(place, hub)
        return {path: self.missing.format(path=path, fetch=fetch) for path in self.paths(place)}


def one_of(known: Collection[str]) -> Callable[[str], str]:
    """A validator that takes the names of `known` alone. It raises ValueError, which lists them."""
    *most, last = map(repr, known)

    def check(name: str) -> str:
        if name not in known:
            raise ValueError(f"Input should be {', '.join(most)} or {last}")
        return name

    return check
