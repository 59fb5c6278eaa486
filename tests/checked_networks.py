"""Networks of a small study, changed on disk and looked at before anything is generated."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.compatibility.networks import check_networks
from pipeline.errors import InputError
from pipeline.study.study import parse_study

ARMS = {"cfg": {"method": "cfg", "scale": 4.0}, "autoguidance": {"method": "autoguidance", "scale": 1.5}}


class Networks:
    """Copies of the random pipelines in the current folder: what is changed there, and what is said of it."""

    def __init__(self, params: dict[str, Any], source: Path):
        self.params, self.source = params, source
        params["arms"], params["baseline"] = ARMS, "cfg"
        params["sampler"] = {"scheduler": "ddim", "steps": 2}

    def copy(self, kind: str, name: str | None = None) -> Path:
        """A folder `name` with the pipeline of a kind (sd, sd2, sdxl, and with _guide)."""
        return Path(shutil.copytree(self.source / kind, name or kind))

    def configuration(self, kind: str, name: str) -> Path:
        """A folder `name` with the configurations and tokenizers of a kind alone."""
        return Path(shutil.copytree(self.source / kind, name, ignore=shutil.ignore_patterns("*.safetensors")))

    def check(self, main: str, guide: str | None = None, arms: Any = None, **model: Any) -> None:
        """Look at a study of these networks."""
        self.params["model"] = {"name": "small", "main": main, "guide": guide or main, **model}
        self.params["arms"] = arms or ARMS
        study = parse_study(self.params, "test")
        check_networks(study, study.arms)

    def refused(self, main: str, guide: str | None = None, **model: Any) -> str:
        """What is said where a study of these networks is refused, in one line."""
        with pytest.raises(InputError) as raised:
            self.check(main, guide, **model)
        said = str(raised.value)
        assert "\n" not in said
        return said


def edit(path: Path, change: Callable[[dict[str, Any]], object] | None = None, **values: Any) -> None:
    """Change a JSON file: set `values`, then call `change` with its content."""
    content = json.loads(path.read_text())
    content.update(values)
    if change is not None:
        change(content)
    path.write_text(json.dumps(content))


def scheduler(folder: Path) -> Path:
    return folder / "scheduler/scheduler_config.json"


def declaring(path: Path, *marks: str, **metadata: str) -> None:
    """Give a safetensors file empty tensors by name, and metadata (a dot of a name is written as two underscores)."""
    tensors = load_file(path) | {mark: torch.tensor([]) for mark in marks}
    words = {name.replace("__", "."): value for name, value in metadata.items()}
    save_file(tensors, path, {"format": "pt", **words})
