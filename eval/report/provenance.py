"""The report's footer: what its numbers were made with."""

import json
import subprocess
from pathlib import Path
from typing import Any

import yaml

from pipeline.errors import InputError
from pipeline.layout import METRICS
from pipeline.results.comparison import Comparison
from pipeline.storage.json_file import read_json_text
from pipeline.study.study import Study

# What the provenance of an arm's scores names besides the weights that scored them.
_NOT_WEIGHTS = {
    *("code", "extractor", "extractor_digest", "precision", "resize", "set", "reference", "reference_n"),
    *("space", "spaces"),
    *("precision_recall_k", "density_coverage_k", "intervals"),
}


def scorer_digests(comparison: Comparison, root: Path) -> dict[str, str]:
    """The digests of the weights and texts that scored the images, by name. Raises InputError."""
    path = root / METRICS / "detail" / f"{comparison.baseline}.json"
    try:
        measured: dict[str, Any] = json.loads(read_json_text(path))["provenance"]
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; `dvc repro` makes it") from None
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} holds no provenance ({error!r}); delete it and run `dvc repro`") from None
    return {name.replace("_", " "): str(value) for name, value in measured.items() if name not in _NOT_WEIGHTS}


def seeds(study: Study) -> str:
    """The first and the last seed of an arm."""
    first = study.generate.first_seed
    return f"{first} to {first + study.generate.images - 1}"


def parameters(study: Study) -> str:
    """All parameters as YAML, defaults included."""
    return yaml.safe_dump(study.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=100)


def networks(study: Study, canvas: str) -> str:
    """What networks the page is about, with the size of their images."""
    if not study.generated:
        return f"Images made elsewhere, {canvas}"
    return f"Toy networks, {canvas}" if study.is_embedded else f"Networks of {study.model.name}, {canvas}"


def measured_alone(study: Study) -> bool:
    """Whether an arm's seconds are its own: one worker, on a machine whose other work is not known of."""
    return study.executor.kind == "local" and study.executor.workers == 1


def commit(root: Path) -> str:
    """The commit that is checked out in `root`, and whether files differ from it; empty outside a repository."""
    try:
        head = _git(root, "rev-parse", "HEAD").strip()
        changed = _git(root, "status", "--porcelain", "--untracked-files=no").strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
    return f"{head[:12]}, with changes that are not committed" if changed else head[:12]


def _git(root: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=root, check=True, capture_output=True, text=True).stdout
