"""A study's numbers under the keys that MLflow shows them by.

The compare page's plot begins with the first metric that its runs share, so the Fréchet distance comes first.
"""

from collections.abc import Mapping

from pipeline.cost.shard_cost import ShardCost
from pipeline.results.comparison import Adherence, ComparedArm, Comparison
from pipeline.results.interval import Interval
from pipeline.results.metrics import SHIFT, shown_in
from pipeline.results.rates import SIMULATED, VERDICTS, LabelledImages, Rates, Strength

# Child runs are collapsed in MLflow's list, so the parent carries these of every arm, as `fd/<arm>`.
HEADLINES = [row.name for row in shown_in("runs")]
_MEBIBYTE = 2**20


def arm_metrics(result: ComparedArm) -> dict[str, float]:
    """An arm's numbers: `fd`, `fd_low`, `fd_high`; `shift_...` are those against the baseline, and
    `<space>_shift_...` these in every feature space, `control_...` those against plain CFG at its effective scale."""
    against = result.against_baseline
    shifts = {f"{SHIFT}{name}": interval for name, interval in against.intervals.items()} if against else {}
    metrics: dict[str, float] = {}
    for name, interval in {**result.scores, **shifts}.items():
        metrics |= _bounded(name, interval)
    if against:
        metrics[f"{SHIFT}mean_share"] = against.mean_share
        for space, own in against.spaces.items():
            for name, interval in own.intervals.items():
                metrics |= _bounded(f"{space}_{SHIFT}{name}", interval)
    if result.effective:
        metrics |= _bounded("effective_scale", result.effective.scale)
        metrics |= _bounded("push_elsewhere", result.effective.elsewhere)
    if found := result.against_control:
        differences = {"fd": found.fd, "precision": found.precision, "recall": found.recall, "vendi": found.vendi}
        shown = {f"wins_{score}": won for score, won in found.wins.items()} | differences
        shown |= {f"adjusted_wins_{score}": won for score, won in found.adjusted.items()}
        for name, interval in shown.items():
            metrics |= _bounded(f"control_{name}", interval)
    if result.cost:
        metrics |= {f"cost_{name}": value for name, value in result.cost.model_dump(exclude={"device"}).items()}
    return metrics


def system_metrics(shards: Mapping[str, ShardCost]) -> list[dict[str, float]]:
    """What drawing took of the machine, shard by shard in order; MLflow shows `system/...` on a page of their own."""
    rows = []
    for _, cost in sorted(shards.items()):
        row = {"system/seconds_per_image": cost.seconds / cost.images}
        row["system/process_cpu_percent"] = 100 * cost.cpu_seconds / cost.seconds
        row["system/process_peak_memory_mib"] = cost.memory / _MEBIBYTE
        if cost.gpu_memory is not None:
            row["system/gpu_peak_memory_mib"] = cost.gpu_memory / _MEBIBYTE
        rows.append(row)
    return rows


def label_metrics(labelled: LabelledImages) -> dict[str, float]:
    """An arm's rates by labels: `human_malformed_human` with `_low` and `_high`, prediction-powered where scores exist.

    Rates that rest on simulated labels are `simulated_...`: nothing in MLflow shall pass for people's word.
    """
    source = _source(labelled.simulated)
    metrics = {f"{source}_images": float(labelled.images)}
    for verdict, rate in labelled.verdicts.items():
        metrics |= _bounded(f"{source}_{verdict}", rate.best)
    if labelled.body_normal:
        metrics |= _bounded(f"{source}_body_normal", labelled.body_normal)
    return metrics


def strength_metrics(found: Strength) -> dict[str, float]:
    """An arm's Bradley-Terry strength: `human_strength` with `_low` and `_high`, or `simulated_strength`."""
    return _bounded(f"{_source(found.simulated)}_strength", found.strength)


def label_table(rates: Rates) -> dict[str, list[str | int]]:
    """The table of rates, a column of cells a key: a row an arm, then a row a canvas size where there are several."""
    rows = [*rates.arms, *(rates.canvases if len(rates.canvases) > 1 else [])]
    table: dict[str, list[str | int]] = {
        "images of": [row.name for row in rows],
        "labels": [_source(row.simulated) for row in rows],
        "dimension": [row.canvas for row in rows],
        "sample size": [row.images for row in rows],
    }
    for verdict in VERDICTS:
        table[verdict] = [_share(row.verdicts[verdict].best) for row in rows]
    table["body shape normal"] = [_share(row.body_normal) if row.body_normal else "" for row in rows]
    return table


def label_headlines(rates: Rates) -> dict[str, float]:
    """The parent's part of it: `<rate>/<arm>`, `<strength>/<arm>`, and Krippendorff's alpha."""
    metrics = {
        f"{name}/{in_a_key(labelled.name)}": value
        for labelled in rates.arms
        for name, value in label_metrics(labelled).items()
        if not name.endswith(("_low", "_high", "_images"))
    }
    for found in rates.strengths:
        metrics[f"{_source(found.simulated)}_strength/{in_a_key(found.arm)}"] = found.strength.value
    if rates.agreement:
        metrics[f"{_source(rates.agreement.simulated)}_krippendorff_alpha"] = rates.agreement.alpha.value
    return metrics


def adherence_metrics(found: Adherence) -> dict[str, float]:
    """What an arm's negative prompt does: `negative_obeyed`, `negative_kept`, ... with `_low` and `_high`."""
    metrics: dict[str, float] = {}
    for name in ("obeyed", "kept", "quality", "collateral"):
        metrics |= _bounded(f"negative_{name}", getattr(found, name))
    return metrics


def headline_metrics(comparison: Comparison) -> dict[str, float]:
    """The parent's numbers: `<metric>/<arm>` for every arm, and the Fréchet distance that real images have."""
    metrics = {
        f"{name}/{in_a_key(result.arm)}": result.scores[name].value
        for name in HEADLINES
        for result in comparison.arms
        if name in result.scores
    }
    return {**metrics, "fd_floor": comparison.floor.fd.value}


def in_a_key(name: str) -> str:
    """A name as a part of MLflow's keys, which take no @: the names of controls have one."""
    return name.replace("@", "-")


def _source(simulated: bool) -> str:
    return SIMULATED if simulated else "human"


def _bounded(name: str, interval: Interval) -> dict[str, float]:
    return {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}


def _share(interval: Interval) -> str:
    return f"{interval.value:.1%} ({interval.low:.1%} to {interval.high:.1%})"
