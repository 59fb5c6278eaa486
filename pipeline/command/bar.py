"""One progress bar over a whole study, from the stages that DVC names and the files that they leave."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from pipeline.command.durations import in_words
from pipeline.layout import HEADLINES, SETS

# Below that share of a run its own speed says little.
_ENOUGH_TO_JUDGE = 20.0


@dataclass
class Progress:
    """How far a run is: `seconds` that are expected by stage, `missing` shards to generate, and `arms` in all."""

    seconds: Mapping[str, float]
    missing: int
    arms: int
    started: float = field(default_factory=time.time)
    stage: str = ""
    passed: set[str] = field(default_factory=set)

    def enter(self, stage: str) -> None:
        """Note that DVC has come to a stage, which it may skip."""
        if stage != self.stage:
            self.passed.add(self.stage)
            self.stage = stage

    def within(self) -> float:
        """The share of the current stage that is done, where files tell."""
        if self.stage == "generate":
            return min(1.0, self.new_shards() / self.missing) if self.missing else 0.0
        if self.stage == "measure":
            return min(1.0, self._new(HEADLINES, "*.json") / self.arms)
        return 0.0

    def new_shards(self) -> int:
        """Shards of image sets that this run has written."""
        return self._new(SETS, "*/part-*.parquet")

    def done(self) -> float:
        """Expected seconds of what is done."""
        finished = sum(self.seconds.get(stage, 0.0) for stage in self.passed)
        return finished + self.seconds.get(self.stage, 0.0) * self.within()

    @property
    def total(self) -> float:
        return sum(self.seconds.values())

    def remaining(self) -> float:
        """Seconds that are left, by the expectation and, once it can be judged, by the speed of this run."""
        done, spent = self.done(), time.time() - self.started
        speed = spent / done if done >= _ENOUGH_TO_JUDGE else 1.0
        return max(0.0, self.total - done) * speed

    def words(self) -> str:
        """Where the run is, for people to read."""
        place = self.stage or "starting"
        if self.stage == "generate" and self.missing:
            place = f"generate, {self.new_shards()} of {self.missing} shards"
        return f"{place}; about {in_words(self.remaining())} left"

    def _new(self, folder: Path, pattern: str) -> int:
        return sum(path.stat().st_mtime >= self.started for path in folder.glob(pattern))


class StudyBar:
    """The bar on a terminal; nothing where standard error is none."""

    def __init__(self, progress: Progress):
        self.progress = progress
        self._total = round(progress.total)
        self._bar = tqdm(
            total=self._total,
            desc=progress.words(),
            bar_format="{percentage:3.0f}% |{bar:30}| {desc}",
            dynamic_ncols=True,
            disable=None,
        )

    def update(self) -> None:
        """Show where the run is now."""
        self._bar.n = max(self._bar.n, min(round(self.progress.done()), self._total))
        self._bar.set_description_str(self.progress.words())

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        tqdm.write(line)

    def close(self) -> None:
        self._bar.leave = False
        self._bar.close()
