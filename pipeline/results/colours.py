"""The colours of arms, the same in the report, in DVC's plots, in MLflow and in the documentation's figures.

A hue is a family of arms, its lightness the scale: the strongest guidance is the darkest. Every colour has a contrast
of 3 to 1 (WCAG 2.2, 1.4.11) on white and on the report's dark ground, so both themes use the same. The first three hues
stay apart for colour-blind readers (Machado et al. 2009); beyond these a figure needs symbols or labels as well.
"""

from collections.abc import Iterable, Sequence

from pipeline.results.comparison import ComparedArm

BASELINE = "#8A8A8A"
# The lightest and the darkest shade of every hue: blue, vermilion, green, magenta, gold, violet. Their lightness and
# chroma are about equal in OKLCH (Ottosson 2020).
_HUES = (
    ("#3496EF", "#0465AF"),
    ("#EF6C22", "#A84403"),
    ("#0AA779", "#047252"),
    ("#D667DE", "#A030A8"),
    ("#B48F0A", "#7A6001"),
    ("#A37BFE", "#7746CF"),
)
HUES = len(_HUES)
# The families that most studies have keep their hue in all of them.
_OWN = {"cfg": 0, "negative": 1, "autoguidance": 2, "pure_negative": 3}
# The family that pushes away from a reference.
_PUSHES = {"empty": "cfg", "guide": "autoguidance"}


def shade(hue: int, rank: int = 0, ranks: int = 1) -> str:
    """The colour, as #RRGGBB, of the `rank`-th weakest of `ranks` scales; a scale alone has the middle shade.

    Hues repeat after `HUES`. Raises ValueError for a rank that is none of the ranks.
    """
    if not 0 <= rank < ranks:
        raise ValueError(f"rank {rank} is none of {ranks} ranks, which begin at 0")
    light, dark = _HUES[hue % HUES]
    share = rank / (ranks - 1) if ranks > 1 else 0.5
    channels = ((int(light[k : k + 2], 16), int(dark[k : k + 2], 16)) for k in (1, 3, 5))
    return "#" + "".join(f"{round(a + share * (b - a)):02X}" for a, b in channels)


def hues(families: Iterable[str]) -> dict[str, int]:
    """The number of every family's hue: its own, or the next that no family before it has.

    Numbers from `HUES` on repeat a hue, and tell that the figure needs another symbol for it.
    """
    names = list(dict.fromkeys(families))
    free = (k for k in range(len(names) + len(_OWN)) if k not in _OWN.values() or k >= HUES)
    return {name: _OWN[name] if name in _OWN else next(free) for name in names}


def arm_colours(arms: Sequence[ComparedArm], baseline: str) -> dict[str, str]:
    """The colour of every arm by its name: grey for the baseline, else its family's hue in the shade of its scale."""
    guided = [arm for arm in arms if arm.arm != baseline]
    found = {baseline: BASELINE}
    hue = hues(arm.family for arm in guided)
    for arm in guided:
        scales = sorted({other.scale for other in guided if other.family == arm.family})
        found[arm.arm] = shade(hue[arm.family], scales.index(arm.scale), len(scales))
    return found


def family_colours(arms: Sequence[ComparedArm], baseline: str) -> dict[str, str]:
    """The colour of every family of guided arms as a whole: the middle shade of its hue."""
    return {family: shade(hue) for family, hue in hues(arm.family for arm in arms if arm.arm != baseline).items()}


def push_colour(references: Sequence[str]) -> str:
    """The colour of the push away from a reference, or of the comparison of two.

    Away from the empty prompt pushes CFG, and so on; a push compared with a weaker network's has its own colour, and
    any other comparison is grey.
    """
    compared = [name for name in references if name != "guide"] if len(references) > 1 else list(references)
    if len(compared) != 1:
        return BASELINE
    family = _PUSHES.get(compared[0], compared[0])
    return shade(hues([family])[family])
