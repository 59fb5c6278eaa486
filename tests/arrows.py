"""Which of the project's modules import which, read from their syntax."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

TOP = ("pipeline", "eval", "labeling", "models")
Arrows = dict[str, set[str]]


def modules_of(root: Path) -> dict[str, Path]:
    found = {}
    for path in (path for top in TOP for path in (root / top).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def file_arrows(root: Path) -> Arrows:
    """Every module of ours, and the modules of ours that it imports."""
    modules = modules_of(root)
    return {name: imported(path, modules) - {name} for name, path in modules.items()}


def imported(path: Path, modules: dict[str, Path]) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} imports relatively"
            # `from package import module` names a module; `from module import function` does not.
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
    found = {name for name in found if name in modules}
    # `from package import module` also names the package, which is empty.
    return {name for name in found if not any(other.startswith(f"{name}.") for other in found)}


def package_of(module: str) -> str:
    return ".".join(module.split(".")[:2])


def package_arrows(files: Arrows) -> Arrows:
    packages: Arrows = {package_of(module): set() for module in files}
    for module, others in files.items():
        packages[package_of(module)] |= {package_of(other) for other in others} - {package_of(module)}
    return packages


def circle(arrows: Arrows) -> list[str]:
    """One circle, from its first member round to it again; empty where there is none."""
    try:
        TopologicalSorter(arrows).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []
