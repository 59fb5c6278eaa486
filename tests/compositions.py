"""What conf/ composes, once a process: Hydra takes most of a second each time."""

import json
from functools import cache
from typing import Any

from repository_copy import ROOT

from pipeline.compose import compose


@cache
def _composed(overrides: tuple[str, ...]) -> str:
    return json.dumps(compose(ROOT / "conf", list(overrides)))


def composed(*overrides: str) -> dict[str, Any]:
    """The default study under these overrides, as plain content that the caller may change."""
    content: dict[str, Any] = json.loads(_composed(overrides))
    return content
