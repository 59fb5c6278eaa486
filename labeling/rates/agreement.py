"""How far people agree: with each other (Krippendorff's alpha) and with themselves."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

FEWEST_IMAGES = 10


def krippendorff_alpha(units: Iterable[Sequence[str]]) -> float | None:
    """Nominal alpha (Krippendorff, Content Analysis, chapter 12): 1 is perfect, 0 is chance, below 0 is opposition.

    `units` holds for each image the verdicts that it got, of at least two people to count; missing ones are just not
    there. None where no image has two verdicts, and where only one verdict ever occurs (alpha is 0/0 then).
    """
    return _alpha(_coincidences(units))


def alpha_interval(
    units: Iterable[Sequence[str]], resamples: int, level: float, seed: int
) -> tuple[float, float, float] | None:
    """Alpha with the percentile interval of a bootstrap over images; None where alpha is.

    Few images that all agree, or none, vary in no resample: below FEWEST_IMAGES alpha may be anything in [-1, 1].
    """
    tables = _coincidences(units)
    alpha = _alpha(tables)
    if alpha is None:
        return None
    if len(tables) < FEWEST_IMAGES:
        return alpha, min(-1.0, alpha), 1.0
    random = np.random.default_rng(seed)
    replicates = []
    for _ in range(resamples):
        drawn = _alpha(tables[random.integers(len(tables), size=len(tables))])
        # One verdict only: nothing to disagree about.
        replicates.append(1.0 if drawn is None else drawn)
    tail = (1 - level) / 2
    low, high = np.quantile(replicates, [tail, 1 - tail]).tolist()
    return alpha, min(low, alpha), max(high, alpha)


def repeat_agreement(verdicts: Mapping[tuple[str, str], str], repeats: Mapping[str, str]) -> dict[str, tuple[int, int]]:
    """For each labeller, of how many repeated images both verdicts are the same, and how many were repeated.

    `verdicts` maps (task id, labeller) to the verdict, `repeats` the id of a repeat to that of its first showing.
    """
    same: dict[str, tuple[int, int]] = {}
    for (task, labeller), verdict in sorted(verdicts.items()):
        first = verdicts.get((repeats.get(task, ""), labeller))
        if first is not None:
            equal, shown = same.get(labeller, (0, 0))
            same[labeller] = (equal + (first == verdict), shown + 1)
    return same


def _coincidences(units: Iterable[Sequence[str]]) -> NDArray[np.float64]:
    # [units, K, K]: within an image of m verdicts every ordered pair of them counts 1 / (m - 1).
    several = [Counter(unit) for unit in units if len(unit) > 1]
    numbers = {verdict: k for k, verdict in enumerate(sorted({verdict for unit in several for verdict in unit}))}
    cells = [[(numbers[verdict], count) for verdict, count in sorted(unit.items())] for unit in several]
    tables = np.zeros((len(cells), len(numbers), len(numbers)))
    for table, unit in zip(tables, cells, strict=True):
        m = sum(count for _, count in unit)
        for a, count_a in unit:
            for b, count_b in unit:
                table[a, b] = (count_a * count_b - (count_a if a == b else 0)) / (m - 1)
    return tables


def _alpha(tables: NDArray[np.float64]) -> float | None:
    table = tables.sum(axis=0)
    totals = table.sum(axis=0)
    n = totals.sum()
    expected = n**2 - (totals**2).sum()
    if n == 0 or expected == 0:
        return None
    # 1 - observed / expected disagreement, (n - 1) (n - trace) / (n^2 - sum of squares).
    return float(1 - (n - 1) * (n - np.trace(table)) / expected)
