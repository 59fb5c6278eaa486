"""The table of metrics: a row says what a number is called, which end of it is good, and how it is computed.

Everything that measures, compares or shows numbers reads this table. It imports no metric: `compute` names a function,
which stage `measure` loads. docs/metrics.md has the formulas and says how to add a metric.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from pipeline.results.rates import VERDICTS

# A number of one image, of a set, of the pairs of two arms, of how an arm's set lies to the baseline's, or of an arm
# that inpaints, beside what it started from.
Level = Literal["image", "set", "pair", "shift", "mask"]
End = Literal["higher", "lower"]
# docs/statistics.md: percentile bootstrap of a mean (Wilson's where all or none are hit), random subsets of four
# fifths, delete-a-group jackknife.
IntervalKind = Literal["bootstrap", "subsets", "jackknife"]
# Where a metric is shown besides metrics/detail and the arms' runs in MLflow, which have all: metrics/<arm>.json; the
# report's first and second table of arms, its gallery, its table against the baseline; the parent runs and columns of
# MLflow; the dataset card.
Place = Literal["headlines", "arms", "further", "gallery", "against", "runs", "card"]

# How MLflow's keys of what is compared with the baseline begin.
SHIFT = "shift_"


@dataclass(frozen=True)
class Question:
    """What a verdict answers: its `topic`, and the words for a number above and below `neutral`."""

    topic: str
    above: str
    below: str
    neutral: float = 0

    @property
    def key(self) -> str:
        """The name of its p-value in compare.json."""
        return self.topic.lower()


@dataclass(frozen=True)
class Metric:
    """One metric.

    `better` is the good end, None where neither is. `words` name it in a sentence, `label` in the head of a column.
    `digits` are the decimals of metrics/<arm>.json. An interval is cut to [`least`, `most`], "n" being the number of
    images. `names_directions`: the score may say what a direction of feature space shows.

    `compute` is `module:function`. Of level image it gives values [N], or loads what gives them; they lie in `column`
    of data/scores, and the set's number is their mean, or their median where the interval comes from subsets. They are
    `optional` where a study has them only if it asks for them. Of level set the function takes x [N, D] and reference
    [M, D], in `every_space`, in that of the study's CLIP where it is `of_clip`, or in the primary one alone:
    - subsets: `function(reference)` gives a function of x [n, D] to a float;
    - jackknife: `function(x, reference, groups [N], seed)` gives Replicates, of `groups` groups where the usual 64 are
      too dear;
    - `together`: `function(x, reference, settings, clusters)` gives the intervals of several rows by name, in one pass.
    """

    name: str
    label: str
    level: Level
    interval: IntervalKind | None
    better: End | None = None
    unit: str = ""
    compute: str = ""
    words: str = ""
    column: str = ""
    shown: tuple[Place, ...] = ()
    least: float = -math.inf
    most: float | Literal["n"] = math.inf
    digits: int = 4
    every_space: bool = False
    of_clip: bool = False
    together: bool = False
    groups: int | None = None
    optional: bool = False
    names_directions: bool = False
    question: Question | None = None

    @property
    def key(self) -> str:
        """Its name within `against_baseline` of compare.json, which says no more that it is a shift."""
        return self.name.removeprefix(SHIFT)

    @property
    def in_words(self) -> str:
        return self.words or self.label

    @property
    def asked(self) -> Question:
        """Its question. Raises ValueError for a metric that no verdict asks about."""
        if self.question is None:
            raise ValueError(f"metric '{self.name}' has no question")
        return self.question

    @property
    def measured(self) -> tuple[object, ...]:
        """What of the row determines the numbers; the rest is how they are shown."""
        return (
            self.name,
            self.interval,
            self.compute,
            self.least,
            self.most,
            self.every_space,
            self.of_clip,
            self.groups,
        )

    def bounds(self, n: int) -> tuple[float, float]:
        """What the interval of a set of `n` images is cut to."""
        return float(self.least), float(n if self.most == "n" else self.most)


def best_of(values: Iterable[float], better: End | None) -> float | None:
    """The best of some values; None where neither end is good."""
    if better is None:
        return None
    return max(values) if better == "higher" else min(values)


TABLE = (
    Metric(
        "fd",
        "FD",
        "set",
        "subsets",
        better="lower",
        unit="squared feature units",
        compute="eval.distances.frechet:FrechetTo",
        words="Fréchet distance to real images",
        shown=("headlines", "arms", "runs", "card"),
        least=0,
        every_space=True,
        question=Question("Distance", "farther from the reference set", "closer to the reference set"),
    ),
    Metric(
        "precision",
        "Precision",
        "set",
        "bootstrap",
        better="higher",
        unit="share of images",
        compute="eval.scorers.set_metrics:neighbour_intervals",
        words="precision",
        shown=("headlines", "arms", "runs", "card"),
        least=0,
        most=1,
        every_space=True,
        together=True,
    ),
    Metric(
        "recall",
        "Recall",
        "set",
        "jackknife",
        better="higher",
        unit="share of real images",
        compute="eval.scorers.set_metrics:neighbour_intervals",
        words="recall",
        shown=("headlines", "arms", "runs", "card"),
        least=0,
        most=1,
        every_space=True,
        together=True,
        question=Question("Variety", "covers more of the reference set", "covers less of the reference set"),
    ),
    Metric(
        "density",
        "Density",
        "set",
        "bootstrap",
        better="higher",
        unit="balls per image, 1 if equal",
        compute="eval.scorers.set_metrics:neighbour_intervals",
        shown=("arms",),
        every_space=True,
        together=True,
    ),
    Metric(
        "coverage",
        "Coverage",
        "set",
        "jackknife",
        better="higher",
        unit="share of real images",
        compute="eval.scorers.set_metrics:neighbour_intervals",
        shown=("headlines", "arms"),
        least=0,
        most=1,
        every_space=True,
        together=True,
    ),
    Metric(
        "fd_infinity",
        "FD\N{INFINITY}",
        "set",
        "jackknife",
        better="lower",
        unit="squared feature units",
        compute="eval.distances.frechet_infinity:frechet_infinity_replicates",
        shown=("further",),
        # A group costs a whole extrapolation.
        groups=32,
    ),
    Metric(
        "kid",
        "KID",
        "set",
        "jackknife",
        better="lower",
        unit="squared discrepancy",
        compute="eval.distances.mmd:kid_replicates",
        shown=("further",),
    ),
    Metric(
        "cmmd",
        "CMMD",
        "set",
        "jackknife",
        better="lower",
        unit="thousandths of a squared discrepancy",
        compute="eval.distances.mmd:cmmd_replicates",
        shown=("further",),
        of_clip=True,
    ),
    Metric(
        "mind",
        "MIND",
        "set",
        "jackknife",
        better="lower",
        unit="squared feature units",
        compute="eval.distances.mind:mind_replicates",
        words="Monge Inception Distance to real images",
        shown=("further", "card"),
        least=0,
        every_space=True,
    ),
    Metric(
        "vendi",
        "Vendi score",
        "set",
        "subsets",
        unit="different images",
        shown=("further",),
        compute="eval.distances.vendi:vendi_beside",
        least=1,
        most="n",
        every_space=True,
    ),
    # Of the Inception extractor alone, for published numbers.
    Metric(
        "fid_torchmetrics",
        "FID (torchmetrics)",
        "set",
        None,
        better="lower",
        unit="squared feature units",
        compute="eval.distances.fid:torchmetrics_fid",
    ),
    Metric(
        "clip_score",
        "CLIP score",
        "image",
        "bootstrap",
        better="higher",
        unit="hundredths of a cosine",
        compute="eval.features.clip:clip_score",
        column="clip_score",
        shown=("headlines", "arms", "gallery", "runs", "card"),
        names_directions=True,
        question=Question("Prompt", "follows the prompt more", "follows the prompt less"),
    ),
    Metric(
        "aesthetic",
        "Aesthetic",
        "image",
        "bootstrap",
        better="higher",
        unit="points of its head",
        compute="eval.scorers.aesthetic:load_aesthetic_head",
        words="aesthetic score",
        column="aesthetic",
        shown=("headlines", "arms", "gallery", "runs", "card"),
        names_directions=True,
        question=Question("Quality", "raises the aesthetic score", "lowers the aesthetic score"),
    ),
    Metric(
        "malformed",
        "P(malformed)",
        "image",
        "bootstrap",
        better="lower",
        unit="chance",
        compute="eval.scorers.malformed:load_classifier",
        column="p_malformed",
        shown=("headlines", "arms", "gallery", "runs", "card"),
        names_directions=True,
        question=Question("Malformed", "more malformed images", "fewer malformed images"),
    ),
    *(
        Metric(
            f"kind_{kind}",
            f"Kind: {kind.replace('_', ' ')}",
            "image",
            "bootstrap",
            unit="chance",
            compute="eval.scorers.kinds:kind_probabilities",
            column=f"kind_{kind}",
        )
        for kind in reversed(VERDICTS)
    ),
    Metric(
        "realism",
        "Realism",
        "image",
        "subsets",
        better="higher",
        unit="radii, 1 is the rim",
        compute="eval.scorers.realism:realism",
        column="realism",
        shown=("further", "gallery"),
    ),
    Metric(
        "pickscore",
        "PickScore",
        "image",
        "bootstrap",
        better="higher",
        unit="logits",
        compute="eval.scorers.preference:load_preference",
        column="pickscore",
        shown=("arms", "gallery"),
        optional=True,
    ),
    Metric(
        "hpsv2_1",
        "HPSv2.1",
        "image",
        "bootstrap",
        better="higher",
        unit="cosine",
        compute="eval.scorers.preference:load_preference",
        column="hpsv2_1",
        shown=("arms", "gallery"),
        optional=True,
    ),
    Metric(
        "imagereward",
        "ImageReward",
        "image",
        "bootstrap",
        better="higher",
        unit="standard deviations",
        compute="eval.scorers.preference:load_preference",
        column="imagereward",
        shown=("arms", "gallery"),
        optional=True,
    ),
    # More is more varied, which need not be better.
    Metric(
        "lpips",
        "LPIPS within prompt",
        "image",
        "bootstrap",
        compute="eval.scorers.lpips:within_prompt_lpips",
        column="lpips",
        shown=("arms", "gallery"),
        optional=True,
    ),
    *(
        Metric(
            name,
            name.capitalize(),
            "image",
            "bootstrap",
            unit=unit,
            compute="eval.scorers.finish:finish",
            column=name,
            shown=("further",),
            names_directions=True,
        )
        for name, unit in (("saturation", "share"), ("contrast", "luma"), ("sharpness", "squared luma"))
    ),
    Metric(
        "outside_change",
        "Change outside",
        "mask",
        "bootstrap",
        better="lower",
        unit="levels of 255",
        compute="eval.scorers.inpainting:outside_change",
        words="change outside the mask",
        least=0,
    ),
    Metric(
        "rim_step",
        "Step at the rim",
        "mask",
        "bootstrap",
        better="lower",
        unit="levels of 255",
        compute="eval.scorers.inpainting:rim_step",
        words="step across the mask's edge",
    ),
    *(
        Metric(
            f"fd_{region}",
            f"FD {where}",
            "mask",
            "subsets",
            better="lower",
            unit="squared feature units",
            compute="eval.distances.frechet:FrechetTo",
            words=f"Fréchet distance to real images {where}",
            least=0,
        )
        for region, where in (("inside", "inside the mask"), ("rim", "at the rim"))
    ),
    Metric(
        "shift_fd",
        "FD to baseline",
        "shift",
        "jackknife",
        unit="squared feature units",
        words="shift (FD)",
        shown=("against", "card"),
        least=0,
        question=Question("Shift", "shifts the distribution", "shifts the distribution"),
    ),
    Metric(
        "shift_drift",
        "Drift",
        "shift",
        "jackknife",
        unit="squared feature units",
        words="drift (means)",
        shown=("against", "card"),
        least=0,
    ),
    Metric(
        "shift_contraction",
        "Spread change",
        "shift",
        "jackknife",
        unit="squared feature units",
        words="spread change (covariances)",
        shown=("against", "card"),
        least=0,
    ),
    Metric(
        "shift_spread_ratio",
        "Spread ratio",
        "shift",
        "jackknife",
        unit="times the baseline's",
        shown=("against", "card"),
        least=0,
        question=Question("Spread", "widens", "contracts", neutral=1),
    ),
    Metric("shift_within_prompt", "Spread within a prompt", "shift", "jackknife", unit="times the baseline's", least=0),
    Metric("shift_auc", "AUC against baseline", "shift", None, unit="chance, 0.5 if equal"),
    Metric("shift_kinds", "Change of kinds", "shift", "jackknife", unit="share of images", least=0, most=1),
    Metric("shift_tags", "Change of tags", "shift", "jackknife", unit="share of tags", least=0, most=1),
    Metric("shift_mean_share", "Common share", "pair", None, unit="share of the squared displacement"),
    Metric("shift_dispersion", "Dispersion", "pair", None, unit="squared feature units"),
)
_BY_NAME = {row.name: row for row in TABLE}


def metric(name: str) -> Metric:
    """The metric of that name. Raises KeyError."""
    return _BY_NAME[name]


def shown_in(place: Place) -> list[Metric]:
    """The metrics that are shown in a place, in the order of the table."""
    return [row for row in TABLE if place in row.shown]


def of_level(level: Level) -> list[Metric]:
    """The metrics of a level, in the order of the table."""
    return [row for row in TABLE if row.level == level]


def of_space(name: str) -> tuple[str, Metric] | None:
    """The extractor and the metric of a score `<extractor>_<metric>`; None where no such metric is known."""
    for row in of_level("set"):
        space = name.removesuffix(f"_{row.name}")
        if row.every_space and space != name:
            return space, row
    return None
