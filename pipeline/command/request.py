"""What a command line asks of a study, as overrides of conf/."""

from dataclasses import dataclass
from typing import Any

from pipeline.command.project import as_called
from pipeline.compose import compose, composed_study
from pipeline.errors import InputError
from pipeline.layout import CONF
from pipeline.overrides import literal
from pipeline.study.study import Study


@dataclass(frozen=True)
class Request:
    """A study of conf/ with what a command line changes of it; None and empty where it leaves conf/ as it is."""

    study: str | None = None
    negative: str | None = None
    scales: tuple[float, ...] = ()
    model: str | None = None
    images: int | None = None
    prompts: str | None = None
    overrides: tuple[str, ...] = ()

    def composed(self) -> tuple[dict[str, Any], Study]:
        """The study as plain content and validated. Raises InputError."""
        return composed_study(self.as_overrides(), self.negative, self.scales)

    def as_overrides(self) -> list[str]:
        """The overrides that options stand for, then the written ones. Raises InputError."""
        found = [literal(f"{key}={value}") for key, value in (("study", self.study), ("model", self.model)) if value]
        if self.prompts:
            found += ["prompts=file", literal(f"prompts.path={as_called(self.prompts)}")]
        if self.images is not None:
            found.append(f"generate.images={self.images}")
            found += self._enough_real_images(found)
        return found + list(self.overrides)

    def _enough_real_images(self, found: list[str]) -> list[str]:
        # Two disjoint halves of the reference set are compared with each other, each as large as an arm.
        if self.images is None or any(one.lstrip("+").startswith("reference.images=") for one in self.overrides):
            return []
        there = compose(CONF, [*found, *self.overrides])["reference"]["images"]
        return [f"reference.images={2 * self.images}"] if there < 2 * self.images else []


def parse_scales(text: str | None) -> tuple[float, ...]:
    """The scales of a list such as `1.5,3`. Raises InputError."""
    if not text:
        return ()
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"--scales is '{text}'; write numbers with commas between them, for instance 1.5,3") from None
    if wrong := [scale for scale in found if not 0 < scale <= 100]:
        raise InputError(f"--scales has {wrong[0]:g}; a scale is above 0 and at most 100, and 1 means no guidance")
    return tuple(dict.fromkeys(found))
