"""The page docs/hands.md and its figure, from what is kept of `study=hands` at stages of training."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np
from scipy.stats import t as student

from docs.hands.kept import KeptArm, KeptHands
from docs.markdown import markdown_templates
from eval.notation import quoted, quoted_percent, quoted_points
from pipeline.errors import InputError
from pipeline.results.colours import BASELINE, push_colour
from pipeline.results.interval import Interval
from pipeline.storage.files import write_atomically

PAGE, FIGURE = Path("docs/hands.md"), Path("docs/hands.svg")
FAMILIES = {"unet": "UNet", "flow": "flow transformer"}
# The arms of the figure: the label of each line, and the reference that the arm moves away from.
LINES = {
    "unguided": ("unguided", ""),
    "cfg": ("CFG", "empty"),
    "negative_hands": ("negative prompt: wrong hands", "negative"),
    "autoguidance": ("autoguidance", "guide"),
}
# What the issue set out to reach or to refute: FD over the best FD of CFG.
TARGETS = {"autoguidance": 0.70, "composed": 0.60}
LEVEL = 0.95
# How far apart the markers of the figure's methods stand, as a share of its longest training: intervals do not overlap.
_BESIDE = 0.01


@dataclass(frozen=True)
class Finding:
    """A number at every stage, with its interval over images, and over training seeds where there are several."""

    said: str
    over_seeds: str


def over_seeds(values: Sequence[float]) -> str:
    """The mean over training seeds with Student's interval; with one seed there is none."""
    if len(values) < 2:
        return "one training seed"
    mean, spread = fmean(values), float(np.std(values, ddof=1)) / len(values) ** 0.5
    reach = float(student.ppf((1 + LEVEL) / 2, len(values) - 1)) * spread
    return f"{quoted_points(Interval(mean, mean - reach, mean + reach, len(values)))} over {len(values)} seeds"


def decided(difference: Interval) -> str:
    """What an interval of differences in wrong hands decides."""
    if difference.high < 0:
        return "fixes"
    return "spoils" if difference.low > 0 else "undecided"


def best_fd(arms: Iterable[KeptArm], space: str) -> float:
    """The lowest FD to real images among arms."""
    return min(arm.fd[space].value for arm in arms)


def ratios(one: KeptHands) -> dict[str, dict[str, float]]:
    """By method of `TARGETS` and feature space: its lowest FD to real waving people over CFG's lowest."""
    by_method: dict[str, list[KeptArm]] = {}
    for name, arm in one.arms.items():
        by_method.setdefault("composed" if name == "composed" else arm.method, []).append(arm)
    return {
        method: {space: best_fd(by_method[method], space) / best_fd(by_method["cfg"], space) for space in one.floor}
        for method in TARGETS
        if method in by_method
    }


def rows(one: KeptHands) -> list[list[str]]:
    """The table of a stage: wrong hands, their difference from unguided, FD in floors, recall, Vendi, shift."""
    found = []
    for name, arm in one.arms.items():
        difference = arm.against.get("malformed")
        in_floors = [f"{arm.fd[space].value / one.floor[space].value:.1f}" for space in one.floor]
        found.append(
            [
                f"`{name}`",
                f"{arm.scale:g}",
                quoted_percent(arm.scores["malformed"]),
                "" if difference is None else f"{quoted_points(difference)}: {decided(difference)}",
                *in_floors,
                quoted(arm.scores["recall"]),
                quoted(arm.scores["vendi"]),
                "" if not arm.shift else quoted(arm.shift[one.primary]),
            ]
        )
    return found


def plot(kept: Sequence[KeptHands], path: Path) -> None:
    """Five-digit hands over the training of the main network: a panel per family, a line per method and seed."""
    import matplotlib as mpl
    from matplotlib import pyplot as plt

    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "hands", "font.size": 10})
    own = [one for one in kept if not one.same_size]
    families = [family for family in FAMILIES if any(one.family == family for one in own)]
    figure, axes = plt.subplots(1, len(families), figsize=(5.2 * len(families), 4.2), sharey=True, squeeze=False)
    for ax, family in zip(axes[0], families, strict=True):
        finished = max(one.guide_step for one in own if one.family == family)
        longest = max(one.step for one in own if one.family == family)
        for seed in sorted({one.seed for one in own if one.family == family}):
            line = [one for one in own if (one.family, one.seed, one.guide_step) == (family, seed, finished)]
            for place, (arm, (said, reference)) in enumerate(LINES.items()):
                beside = (place - len(LINES) / 2) * _BESIDE * longest
                right = [1 - one.arms[arm].scores["malformed"].value for one in line]
                ends = [one.arms[arm].scores["malformed"] for one in line]
                low, high = [1 - end.high for end in ends], [1 - end.low for end in ends]
                colour = push_colour([reference]) if reference else BASELINE
                bars = [np.subtract(right, low), np.subtract(high, right)]
                ax.errorbar(
                    [one.step + beside for one in line],
                    right,
                    bars,
                    color=colour,
                    marker="o",
                    markersize=4,
                    capsize=2,
                    linewidth=1.5,
                    label=said if seed == 0 else None,
                )
        ax.set(
            title=FAMILIES[family], xlabel="training steps of the main network", xlim=(0, 1.05 * longest), ylim=(0, 1)
        )
    axes[0, 0].set_ylabel("waving people with a five-digit hand")
    axes[0, 0].legend(loc="lower right", fontsize=8)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def seeds_at(kept: Sequence[KeptHands], one: KeptHands, arm: str) -> list[float]:
    """The differences in wrong hands of an arm from unguided, of all training seeds at one's stage."""
    alike = [k for k in kept if (k.family, k.step, k.guide_step, k.same_size) == _place(one)]
    return [k.arms[arm].against["malformed"].value for k in alike]


def _place(one: KeptHands) -> tuple[str, int, int, bool]:
    return one.family, one.step, one.guide_step, one.same_size


def sentences(kept: Sequence[KeptHands], one: KeptHands) -> list[Finding]:
    """What a negative prompt against wrong hands and autoguidance do to hands at a stage, as rules say it."""
    found = []
    for arm, said in (("negative_hands", "A negative prompt against wrong hands"), ("autoguidance", "Autoguidance")):
        difference = one.arms[arm].against["malformed"]
        verb = {"fixes": "fixes hands", "spoils": "spoils hands", "undecided": "cannot be told to change hands"}
        words = f"{said} {verb[decided(difference)]}: {quoted_points(difference)} of wrong ones."
        found.append(Finding(words, over_seeds(seeds_at(kept, one, arm))))
    return found


def write_page(kept: Sequence[KeptHands], root: Path = Path()) -> None:
    """Write the page and the figure below `root`. Raises InputError where nothing is kept."""
    if not kept:
        raise InputError("no stage is measured yet; `python -m docs.hands.run` measures them")
    plot(kept, root / FIGURE)
    environment = markdown_templates(Path(__file__).parent)
    content = environment.get_template("hands.md.j2").render(
        kept=kept,
        families=FAMILIES,
        rows=rows,
        ratios=ratios,
        sentences=lambda one: sentences(kept, one),
        targets=TARGETS,
        quoted_percent=quoted_percent,
    )
    write_atomically(root / PAGE, content.encode())
