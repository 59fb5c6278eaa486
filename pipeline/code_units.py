"""Digests of the program's own code, one per unit, so that results depend on what code does and not on how it reads.

A unit is a folder directly below pipeline/, eval/ or labeling/ with everything in it; the files that lie directly in
one of the three are a unit too. `preflight` writes a file per unit, which dvc.yaml names; shard fingerprints take the
digests from here. A module counts by its syntax tree without docstrings, so a comment, a docstring or a line break
changes nothing; any other file (a template, a style sheet) counts by its bytes.
"""

import ast
import hashlib
import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

from pipeline.storage.files import write_atomically

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("pipeline", "eval", "labeling")
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def units(root: Path = ROOT) -> dict[str, list[Path]]:
    """The files of every unit below `root` by the unit's name, such as pipeline/sampling, or eval for eval/*.py."""
    found: dict[str, list[Path]] = {}
    for package in PACKAGES:
        for path in sorted(root.joinpath(package).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                unit = "/".join(path.relative_to(root).parts[:-1][:2])
                found.setdefault(unit, []).append(path)
    return found


@cache
def unit_digests(unit: str, root: Path = ROOT) -> Mapping[str, str]:
    """The digest (16 hexadecimal characters) of each file of a unit by its path below `root`."""
    return {path.relative_to(root).as_posix(): code_digest(path) for path in units(root)[unit]}


def code_digest(path: Path) -> str:
    """The digest of one file: of a module's syntax tree without docstrings, or of another file's bytes.

    Raises SyntaxError for a module that is not Python.
    """
    content = path.read_bytes()
    if path.suffix == ".py":
        content = "\n".join(_tokens(_without_docstrings(ast.parse(content)))).encode()
    return hashlib.sha256(content).hexdigest()[:16]


def write_units(folder: Path, root: Path = ROOT) -> list[str]:
    """Write `folder`/<unit>.json for every unit and delete those of units that are gone; returns the changed files.

    What was never written before counts as unchanged: there is nothing that it could differ from.
    """
    before = _read(folder)
    now = {unit: unit_digests(unit, root) for unit in units(root)}
    for unit, digests in now.items():
        write_atomically(_file(folder, unit), f"{json.dumps(digests, indent=1)}\n".encode())
    for unit in before.keys() - now.keys():
        _file(folder, unit).unlink()
    old, new = ({path: d for digests in each.values() for path, d in digests.items()} for each in (before, now))
    return sorted(path for path in old.keys() | new.keys() if old.get(path) != new.get(path)) if before else []


def _file(folder: Path, unit: str) -> Path:
    return folder / f"{unit.replace('/', '.')}.json"


def _read(folder: Path) -> dict[str, dict[str, str]]:
    found = {}
    for path in folder.glob("*.json"):
        try:
            found[path.stem.replace(".", "/")] = json.loads(path.read_text("utf-8"))
        except ValueError:  # half a file; it is written again
            found[path.stem.replace(".", "/")] = {}
    return found


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if isinstance(node, _DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:]
    return tree


def _tokens(node: object) -> Iterator[str]:
    """A syntax tree as lines. ast.dump would do, but what it leaves out differs between versions of Python."""
    if isinstance(node, ast.AST):
        yield type(node).__name__
        for name, value in ast.iter_fields(node):
            if (
                (value is None and not isinstance(node, ast.Constant))
                or value == []
                or name in ("kind", "type_comment")
            ):
                continue
            yield f"{name}("
            yield from _tokens(value)
            yield ")"
    elif isinstance(node, list):
        for item in node:
            yield from _tokens(item)
    else:
        yield f"{type(node).__name__} {node!r}"
