"""A finished study for notebooks: its scores as a table, its images, and the numbers that were compared.

from pipeline.finished_study import FinishedStudy

study = FinishedStudy.load()
study.scores().groupby("arm")["aesthetic"].mean()
study.images("cfg", seed=7)
study.numbers().query("metric == 'fd'")
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from PIL import Image

from pipeline.errors import InputError
from pipeline.layout import PARAMS, SCORES, SETS
from pipeline.results.comparison import COMPARISON, Comparison, load_comparison
from pipeline.storage.contact_sheet import same_seed_grid
from pipeline.storage.shards import decode_images, read_set, read_table, shard_paths
from pipeline.study.study import Study, load_study

# An image's place in a grid, in pixels: smaller images are enlarged to fill it.
SIDE = 128


@dataclass(frozen=True)
class FinishedStudy:
    """A study whose stages have run: `settings` is what params.yaml holds, `comparison` what metrics/compare.json does.

    Scores and images are read from `root` when they are asked for.
    """

    root: Path
    settings: Study
    comparison: Comparison

    @classmethod
    def load(cls, path: str | Path = ".") -> "FinishedStudy":
        """The study in the folder `path`, or in the nearest one around it that has a params.yaml.

        Raises InputError where there is none, or where it has not been compared, or compared before it was changed.
        """
        start = Path(path).resolve()
        root = next((folder for folder in (start, *start.parents) if (folder / PARAMS).is_file()), None)
        if root is None:
            raise InputError(f"{start} and the folders around it have no {PARAMS}; name the folder of a study")
        settings = load_study(root / PARAMS)
        return cls(root, settings, load_comparison(root / COMPARISON, settings))

    @property
    def arms(self) -> list[str]:
        """The names of the arms that are compared, in the order of the study."""
        return [arm.arm for arm in self.comparison.arms]

    @property
    def baseline(self) -> str:
        """The arm that the others are compared with."""
        return self.settings.baseline

    def scores(self, *arms: str) -> pd.DataFrame:
        """One row per image, of the named arms or of all that are compared: what it was generated from, and its scores
        (docs/metrics.md).

        Images with the same `pair_id` share prompt and seed. `arm` is a category in the order of the study. Raises
        InputError for an unknown arm, and for one whose images are not scored.
        """
        tables = [self._scores(arm) for arm in arms or self.arms]
        table = pd.concat(tables, ignore_index=True)
        # An arm that is not compared may be asked for by name.
        return table.assign(arm=pd.Categorical(table["arm"], list(dict.fromkeys([*self.arms, *arms]))))

    def _scores(self, arm: str) -> pd.DataFrame:
        self.settings.arm(arm)
        columns = ["image_id", "pair_id", "seed", "prompt", "negative_prompt"]
        generated = read_set(self.root / SETS / arm, columns).to_pandas()
        path = self.root / SCORES / f"{arm}.parquet"
        scored = read_table(path).to_pandas().drop(columns="pair_id", errors="ignore")
        if set(scored["image_id"]) != set(generated["image_id"]):
            raise InputError(f"{path} has scores of other images than the set of '{arm}'; run `dvc repro measure`")
        table = generated.merge(scored, on="image_id", validate="one_to_one")
        table.insert(0, "arm", arm)
        return table

    def images(self, arm: str, seed: int) -> Image.Image:
        """The image of an arm and a seed, in RGB. Raises InputError where the arm is unknown or has no such seed."""
        self.settings.arm(arm)
        for path in shard_paths(self.root / SETS / arm):
            table = read_table(path, ["seed", "image"])
            seeds = table.column("seed").to_pylist()
            if seed in seeds:
                (image,) = decode_images(table.slice(seeds.index(seed), 1))
                return image
        raise InputError(f"arm '{arm}' has no image of seed {seed}; its seeds are {self._seeds(arm)}")

    def grid(self, seeds: Sequence[int], arms: Sequence[str] | None = None) -> Image.Image:
        """The images of some seeds side by side: one row per seed, one column per arm, all arms unless some are named.

        Raises InputError for an unknown arm or seed.
        """
        chosen = list(arms or self.arms)
        rows = [[self.images(arm, seed) for arm in chosen] for seed in seeds]
        if not rows:
            raise InputError(f"a grid needs at least one seed; there are {self._seeds(self.baseline)}")
        return same_seed_grid(rows, chosen, max(1, SIDE // max(image.width for image in rows[0])))

    def numbers(self) -> pd.DataFrame:
        """One row per compared number of an arm: `metric`, `value`, the ends of its interval, and from how many images.

        `of` is "arm" for what an arm has by itself, such as its Fréchet distance to real images (`fd`), and "shift" for
        what lies between it and the baseline, where `fd` is the distance of the two. The level of the intervals is
        `comparison.level`; docs/metrics.md says what each metric is.
        """
        found = [
            (arm.arm, "arm", name, interval) for arm in self.comparison.arms for name, interval in arm.scores.items()
        ]
        found += [
            (arm.arm, "shift", name, interval)
            for arm, against in self.comparison.guided
            for name, interval in against.intervals.items()
        ]
        rows = [
            {"arm": arm, "of": of, "metric": name, "value": one.value, "low": one.low, "high": one.high, "n": one.n}
            for arm, of, name, one in found
        ]
        table = pd.DataFrame(rows)
        return table.assign(arm=pd.Categorical(table["arm"], self.arms))

    def _seeds(self, arm: str) -> str:
        seeds = read_set(self.root / SETS / arm, ["seed"]).column("seed").to_pylist()
        return f"{min(seeds)} to {max(seeds)}"
