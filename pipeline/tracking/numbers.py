"""A study's numbers under the keys that MLflow shows them by.

The compare page's plot begins with the first metric that its runs share, so the Fréchet distance comes first.
"""

from collections.abc import Iterable, Mapping

from pipeline.cost.shard_cost import ShardCost
from pipeline.results.comparison import Adherence, ComparedArm, Comparison
from pipeline.results.interval import Interval, in_percent
from pipeline.results.metrics import SHIFT, shown_in
from pipeline.results.rates import SIMULATED, VERDICTS, Rates

# By name, in the order in which MLflow gets them.
Numbers = dict[str, Interval | float]
# A column of cells per key, as MLflow's tables are logged.
Table = dict[str, list[str | float | None]]

# Child runs are collapsed in MLflow's list, so the parent carries these of every arm, as `fd/<arm>`.
HEADLINES = [row.name for row in shown_in("runs")]
_MEBIBYTE = 2**20


def arm_numbers(result: ComparedArm) -> Numbers:
    """An arm's numbers: `shift_...` are those against the baseline, and `<space>_shift_...` these in every feature
    space, `control_...` those against plain CFG at its effective scale."""
    against = result.against_baseline
    numbers: Numbers = {**result.scores, **result.inpainted}
    if against:
        numbers |= {f"{SHIFT}{name}": interval for name, interval in against.intervals.items()}
        if against.mean_share is not None:
            numbers[f"{SHIFT}mean_share"] = against.mean_share
        for space, own in against.spaces.items():
            numbers |= {f"{space}_{SHIFT}{name}": interval for name, interval in own.intervals.items()}
    if result.effective:
        numbers |= {"effective_scale": result.effective.scale, "push_elsewhere": result.effective.elsewhere}
    if found := result.against_control:
        differences = {"fd": found.fd, "precision": found.precision, "recall": found.recall, "vendi": found.vendi}
        shown = {f"wins_{score}": won for score, won in found.wins.items()} | differences
        shown |= {f"adjusted_wins_{score}": won for score, won in found.adjusted.items()}
        numbers |= {f"control_{name}": interval for name, interval in shown.items()}
    if result.cost:
        cost = result.cost.model_dump(exclude={"device"}, exclude_none=True)
        numbers |= {f"cost_{name}": value for name, value in cost.items()}
    return numbers


def values(numbers: Numbers) -> dict[str, float]:
    """The numbers without their intervals, as MLflow's metrics are."""
    return {name: number.value if isinstance(number, Interval) else number for name, number in numbers.items()}


def interval_table(numbers: Mapping[str, Numbers]) -> Table:
    """The numbers with their intervals, by the run that they are of; one row per number.

    Bounds and the number of images are None where a number has no interval.
    """
    rows = [(run, name, number) for run, own in numbers.items() for name, number in own.items()]
    intervals = [number if isinstance(number, Interval) else None for *_, number in rows]
    return {
        "run": [run for run, *_ in rows],
        "number": [name for _, name, _ in rows],
        "value": [number.value if isinstance(number, Interval) else number for *_, number in rows],
        "low": [interval.low if interval else None for interval in intervals],
        "high": [interval.high if interval else None for interval in intervals],
        "n": [interval.n if interval else None for interval in intervals],
    }


def system_metrics(shards: Mapping[str, ShardCost]) -> list[dict[str, float]]:
    """What drawing took of the machine, shard by shard in order; MLflow shows `system/...` on a separate page."""
    rows = []
    for _, cost in sorted(shards.items()):
        row = {"system/seconds_per_image": cost.seconds / cost.images}
        row["system/process_cpu_percent"] = 100 * cost.cpu_seconds / cost.seconds
        row["system/process_peak_memory_mib"] = cost.memory / _MEBIBYTE
        if cost.gpu_memory is not None:
            row["system/gpu_peak_memory_mib"] = cost.gpu_memory / _MEBIBYTE
        rows.append(row)
    return rows


def label_numbers(rates: Rates, arm: str) -> Numbers:
    """An arm's rates by labels, prediction-powered where scores exist, and its Bradley-Terry strength; empty where
    no one labelled it: `human_images`, `human_malformed_human`, ..., `human_strength`.

    Numbers that rest on simulated labels are `simulated_...`: nothing in MLflow must pass for people's word.
    """
    numbers: Numbers = {}
    if labelled := rates.of_arm(arm):
        source = _source(labelled.simulated)
        numbers[f"{source}_images"] = float(labelled.images)
        numbers |= {f"{source}_{verdict}": rate.best for verdict, rate in labelled.verdicts.items()}
        if labelled.body_normal:
            numbers[f"{source}_body_normal"] = labelled.body_normal
    if found := rates.strength_of(arm):
        numbers[f"{_source(found.simulated)}_strength"] = found.strength
    return numbers


def label_table(rates: Rates) -> Table:
    """The table of rates, a column of cells per key: one row per arm, then one per canvas size if there are several."""
    rows = [*rates.arms, *(rates.canvases if len(rates.canvases) > 1 else [])]
    table: Table = {
        "images of": [row.name for row in rows],
        "labels": [_source(row.simulated) for row in rows],
        "dimension": [row.canvas for row in rows],
        "sample size": [row.images for row in rows],
    }
    for verdict in VERDICTS:
        table[verdict] = [in_percent(row.verdicts[verdict].best) for row in rows]
    table["body shape normal"] = [in_percent(row.body_normal) if row.body_normal else "" for row in rows]
    return table


def label_headlines(rates: Rates) -> dict[str, float]:
    """The parent's part of it: `<rate>/<arm>`, `<strength>/<arm>`, and Krippendorff's alpha."""
    arms = dict.fromkeys([*(labelled.name for labelled in rates.arms), *(found.arm for found in rates.strengths)])
    metrics = {
        f"{name}/{in_a_key(arm)}": value
        for arm in arms
        for name, value in values(label_numbers(rates, arm)).items()
        if not name.endswith("_images")
    }
    if rates.agreement:
        metrics[f"{_source(rates.agreement.simulated)}_krippendorff_alpha"] = rates.agreement.alpha.value
    return metrics


def label_keys(metrics: Iterable[str]) -> set[str]:
    """Those of a run's metrics that rest on labels."""
    return {key for key in metrics if key.startswith((f"{_source(False)}_", f"{_source(True)}_"))}


def adherence_numbers(found: Adherence) -> Numbers:
    """What an arm's negative prompt does: `negative_obeyed`, `negative_kept`, `negative_quality`, ..."""
    return {f"negative_{name}": getattr(found, name) for name in ("obeyed", "kept", "quality", "collateral")}


def headline_metrics(comparison: Comparison) -> dict[str, float]:
    """The parent's numbers: `<metric>/<arm>` for every arm, the Fréchet distance that real images have in place of an
    arm, and that of the baseline from other seeds where it is known."""
    metrics = {
        f"{name}/{in_a_key(result.arm)}": result.scores[name].value
        for name in HEADLINES
        for result in comparison.arms
        if name in result.scores
    }
    other_seeds = comparison.floor.other_seeds
    floors = {"fd_floor": comparison.floor.fd.value}
    return metrics | floors | ({"shift_fd_floor": other_seeds.value} if other_seeds is not None else {})


def in_a_key(name: str) -> str:
    """A name as a part of MLflow's keys, which take no @: the names of controls have one."""
    return name.replace("@", "-")


def _source(simulated: bool) -> str:
    return SIMULATED if simulated else "human"
