"""The stages of a study and DVC's experiments, for people to read."""

import subprocess
import sys
from pathlib import Path

import yaml

_PIPELINE = Path("dvc.yaml")
_DVC = [sys.executable, "-m", "dvc"]
# `dvc exp show` alone has a column for every param, metric and dependency of every arm: hundreds.
_DROPPED = r"^(data|eval|labeling|labels|metrics|models|pipeline|prompts|reports)(/[^:]*)?$|^Created"


def stages() -> dict[str, tuple[str, list[str]]]:
    """What each stage is for and what it writes, in the order in which they run."""
    found = {}
    for name, stage in yaml.safe_load(_PIPELINE.read_text("utf-8"))["stages"].items():
        own = stage.get("do", stage)
        made = [
            next(iter(out)) if isinstance(out, dict) else out for key in ("outs", "metrics") for out in own.get(key, [])
        ]
        found[name] = own["desc"], [str(out).replace("${item}", "<arm>") for out in made]
    return found


def shown_stages() -> str:
    """The stages as text, each with what it is for, and below it what it writes."""
    found = stages()
    width = max(len(name) for name in found)
    lines = []
    for name, (purpose, made) in found.items():
        lines.append(f"  {name:<{width}}  {purpose}")
        if made:
            lines.append(f"  {'':<{width}}    -> {', '.join(made)}")
    return "\n".join(["stages of dvc.yaml, in the order in which they run:", *lines])


def show_experiments() -> int:
    """Print the params and numbers in which DVC's experiments differ; returns DVC's exit code."""
    listed = subprocess.run([*_DVC, "exp", "list", "--names-only"], capture_output=True, text=True, check=False)
    if listed.returncode == 0 and not listed.stdout.strip():
        print("no experiments of this commit yet; `.venv/bin/dvc exp run -S arms.cfg.scale=4` makes one")
        return 0
    options = ["--no-pager", "--only-changed", "--hide-workspace", "--drop", _DROPPED]
    return subprocess.run([*_DVC, "exp", "show", *options], check=False).returncode
