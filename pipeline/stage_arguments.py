"""The command line of a stage: its help says what the stage reads and writes, as dvc.yaml declares it."""

import argparse
from pathlib import Path
from typing import Any

import yaml

from pipeline.layout import CODE

_PIPELINE = Path("dvc.yaml")
_RUN = ["sh", "pipeline/stage.sh"]


def stage_parser(module: str, documentation: str | None) -> argparse.ArgumentParser:
    """A parser for `python -m <module>`, described by the module's `documentation`."""
    return argparse.ArgumentParser(
        prog=f"python -m {module}",
        description=documentation,
        epilog=_reads_and_writes(module),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def _reads_and_writes(module: str) -> str:
    if not _PIPELINE.is_file():
        return ""
    stages = [stage.get("do", stage) for stage in yaml.safe_load(_PIPELINE.read_text("utf-8"))["stages"].values()]
    own = [stage for stage in stages if stage["cmd"].split()[:3] == [*_RUN, module]]

    def names(*keys: str) -> str:
        found = {_name(entry) for stage in own for key in keys for entry in stage.get(key, [])}
        return ", ".join(sorted(name for name in found if CODE not in Path(name).parents)) or "nothing"

    params = sorted({_name(entry) for stage in own for entry in stage.get("params", [])} - {"params.yaml"})
    settings = f"params.yaml ({', '.join(params)})" if params else "params.yaml"
    return f"reads: {settings}; {names('deps')}\nwrites: {names('outs', 'metrics', 'plots')}"


def _name(entry: Any) -> str:
    text = next(iter(entry)) if isinstance(entry, dict) else str(entry)
    return text.replace("${key}", "<arm>").replace("${", "").replace("}", "")
