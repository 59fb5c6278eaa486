"""What is kept of a finished study for the claims: one JSON file per study in docs/answers/measured/, in git.

A file holds the numbers that claims read, with the networks they hold for, and nothing else.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import Field, ValidationError

from docs.answers.image_numbers import FinishedImages, ImageNumber
from docs.answers.numbers import ComparedNumber, Number, Unread
from docs.kept_results import KEPT, rounded
from pipeline.errors import InputError
from pipeline.finished_study import FinishedStudy
from pipeline.layout import EMBEDDED
from pipeline.preflight import study_digests
from pipeline.results.comparison import Comparison
from pipeline.results.interval import Interval
from pipeline.settings import Name, Settings
from pipeline.storage.files import fingerprint
from pipeline.study.study import Study

MEASURED = Path("docs/answers/measured")


class Measured(Settings):
    """The kept numbers of one study, by their keys.

    `model` says which networks they hold for, `networks` are the digests of these, and `settings` the fingerprint of
    the study that measured them. `unread` has, by key, why a number could not be read.
    """

    study: Name
    model: str
    networks: dict[str, str | None]
    settings: str
    images: int
    level: float
    numbers: dict[str, Interval]
    unread: dict[str, str] = Field(default_factory=dict)

    @property
    def about(self) -> str:
        """What networks they are of, in words: those of the repository are the embedded ones."""
        world, _, kind = self.model.partition("_")
        if world != EMBEDDED.name:
            return self.model
        return f"embedded ({kind.replace('_', ' ')}), 64×64" if kind else "embedded, 64×64"

    def to_json(self) -> bytes:
        """The file's bytes, rounded as all kept results are."""
        return f"{json.dumps(rounded(self.model_dump(mode='json')), indent=1)}\n".encode()


def settings_of(study: Study) -> str:
    """The fingerprint of what a study asks for, without what changes none of its numbers."""
    return fingerprint(study.model_dump(mode="json", exclude={"tracking", "executor", "labeling"}))


@dataclass
class Readings:
    """Numbers by their keys, and why others could not be read."""

    numbers: dict[str, Interval] = field(default_factory=dict)
    unread: dict[str, str] = field(default_factory=dict)


def read(wanted: Mapping[str, Number], comparison: Comparison, images: FinishedImages | None) -> Readings:
    """The numbers that claims read from a comparison and, where there are some, from its images.

    Raises InputError for a number that is not there, and for one that needs images where there are none.
    """
    found = Readings()
    for key, number in sorted(wanted.items()):
        try:
            if isinstance(number, ComparedNumber):
                found.numbers[key] = number.read(comparison)
            elif isinstance(number, ImageNumber) and images is not None:
                found.numbers[key] = number.measure(images)
            else:
                raise InputError(f"'{key}' needs the images of study '{comparison.study}', of which none are kept")
        except Unread as reason:
            found.unread[key] = str(reason)
    return found


def measured(finished: FinishedStudy, wanted: Mapping[str, Number]) -> Measured:
    """What is kept of a finished study. Raises InputError."""
    study = finished.settings
    found = read(wanted, finished.comparison, FinishedImages(finished))
    return Measured(
        study=study.name,
        model=study.model.name,
        networks=study_digests(study),
        settings=settings_of(study),
        images=study.generate.images,
        level=finished.comparison.level,
        numbers=found.numbers,
        unread=found.unread,
    )


def is_current(kept: Measured | None, study: Study, wanted: Mapping[str, Number]) -> bool:
    """Whether what is kept is of this study, of the networks that are there, and has every number that is read."""
    if kept is None or kept.settings != settings_of(study) or not wanted.keys() <= {*kept.numbers, *kept.unread}:
        return False
    return kept.networks == study_digests(study)


def load_measured(study: str, wanted: Mapping[str, Number], root: Path = Path()) -> Measured | None:
    """What is kept of a study; None where it has not run. Of the default study it is docs/results/default.json.

    Raises InputError for a malformed file, and for numbers of the default study that need its images.
    """
    path = root / MEASURED / f"{study}.json"
    if study == "default":
        return _of_default(root / KEPT, wanted)
    if not path.is_file():
        return None
    try:
        return Measured.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise InputError(f"{path}: {error.errors()[0]['msg']}; `make answers` writes it") from None


def _of_default(path: Path, wanted: Mapping[str, Number]) -> Measured | None:
    if not path.is_file():
        return None
    comparison = Comparison.model_validate_json(path.read_bytes())
    found = read(wanted, comparison, None)
    source = comparison.provenance
    return Measured(
        study=comparison.study,
        model=EMBEDDED.name,
        networks={"main": source.main, "guide": source.guide},
        settings=source.params,
        images=comparison.by_name(comparison.baseline).n,
        level=comparison.level,
        numbers=found.numbers,
        unread=found.unread,
    )
