"""Methods over their sweeps of scales: each one's frontier, and all of them at equal strength."""

from collections.abc import Mapping
from typing import Any

import torch

from eval.comparison.frontier import dominated_area, value_at
from eval.statistics.bootstrap import bounded, wilson_interval
from eval.statistics.jackknife import Replicates, combined
from pipeline.results.comparison import AXES, MATCHED, POINT
from pipeline.results.interval import Interval
from pipeline.results.metrics import metric
from pipeline.study.arm import Arm

AllReplicates = Mapping[str, Mapping[str, Replicates]]


def frontiers(
    arms: Mapping[str, Arm], baseline: str, found: AllReplicates, level: float, prompted: bool = True
) -> list[dict[str, Any]]:
    """Every family of arms as a frontier over its scales, and all of them at equal CLIP score and at equal shift.

    Without prompts, at equal shift alone.
    """
    paths = family_paths(arms, baseline)
    # A family with other prompts begins elsewhere and would move the levels away from where the others are.
    from_baseline = [
        others
        for path in paths.values()
        if baseline in path and (others := [name for name in path if name != baseline])
    ]
    axes = {axis: column for axis, column in AXES.items() if prompted or axis != "clip_score"}
    levels = {axis: matching_levels(from_baseline, baseline, found, column, level) for axis, column in axes.items()}
    return [
        {
            "family": family,
            "points": [
                {
                    "arm": arm,
                    "scale": arms[arm].scale,
                    **{name: _interval(name, found[arm][name], level) for name in POINT},
                    "shift": _interval("shift_fd", found[arm]["shift_fd"], level),
                }
                for arm in path
            ],
            "area": bounded(
                combined(
                    lambda *values: dominated_area(values[: len(values) // 2], values[len(values) // 2 :]),
                    *(found[arm]["recall"] for arm in path),
                    *(found[arm]["precision"] for arm in path),
                ).interval(level),
                0,
                1,
            ),
            "matched": [
                {"axis": axis, "level": at, "values": matched(path, found, column, at, level)}
                for axis, column in axes.items()
                for at in levels[axis]
            ],
        }
        for family, path in paths.items()
    ]


def matching_levels(
    paths: list[list[str]], baseline: str, found: AllReplicates, axis: str, confidence: float
) -> list[float]:
    """The levels of `axis` at which methods are compared: at most one below the baseline's and one above it.

    The baseline's own value is not a strength: every path begins there. Guidance may raise the CLIP score, or lower it,
    or first the one and then the other, so either side is asked by itself: a path goes as far as its farthest arm whose
    paired difference from the baseline has an interval beyond 0 on that side, and the level is half way to the path
    that goes least far. Half way, since a path ends where its last arm is, and in some replicates short of that. A side
    that fewer than two paths take compares nothing and has no level.
    """
    start = found[baseline][axis]
    levels = []
    for side in (-1, 1):
        reached = []
        for path in paths:
            away = [(found[arm][axis] - start).interval(confidence) for arm in path]
            beyond = [side * one.value for one in away if min(side * one.low, side * one.high) > 0]
            if beyond:
                reached.append(side * max(beyond))
        if len(reached) > 1:
            levels.append(start.value + min(reached, key=abs) / 2)
    return levels


def sweeps(arms: Mapping[str, Arm]) -> dict[str, str]:
    """The sweep of scales that each arm belongs to.

    It is called as the family; where arms of one family differ in more than their scale (two negative prompts, two
    canvases), there is a sweep for each, called as the first of its arms.
    """
    members: dict[str, dict[str, list[str]]] = {}
    for name, arm in arms.items():
        members.setdefault(arm.family, {}).setdefault(_all_but_scale(arm), []).append(name)
    found: dict[str, str] = {}
    for family, by_settings in members.items():
        for first, *others in by_settings.values():
            # An arm may be called as some family is.
            own = first if first == family or first not in members else f"{family}_{first}"[:40]
            found |= dict.fromkeys([first, *others], family if len(by_settings) == 1 else own)
    return found


def _all_but_scale(arm: Arm) -> str:
    apart = {"scale", "description", "family", "probes", "negative_prompt", "negative_preset", "negative_from_prompt"}
    return f"{arm.model_dump_json(exclude=apart)} {arm.used_negative}"


def family_paths(arms: Mapping[str, Arm], baseline: str) -> dict[str, list[str]]:
    """The arms of every sweep in order of their scale.

    An unguided baseline begins those that draw the same prompts the same way; another one has its place in its own.
    """
    base, sweep_of = arms[baseline], sweeps(arms)
    asked = {"prompt", "prompt_edits", "prompt_column", "quality_preset"}
    drawn = asked | {"canvas", "sampler", "image_to_image", "inpaint", "reference_images"}
    unguided = base.method == "unguided" and base.attention is None
    paths: dict[str, list[str]] = {}
    for name in sorted(arms, key=lambda name: arms[name].scale):
        if arms[name].control is not None:
            continue  # a point of CFG's curve that another arm chose
        if arms[name].from_folder is not None:
            continue  # whatever scales its images have, they are no sweep
        if name != baseline or not unguided:
            paths.setdefault(sweep_of[name], []).append(name)
    for path in paths.values():
        same_start = all(arms[name].model_dump(include=drawn) == base.model_dump(include=drawn) for name in path)
        if same_start and unguided:
            # Scales may lie below 1, which is the baseline's.
            path.insert(sum(arms[name].scale < base.scale for name in path), baseline)
    in_order = dict.fromkeys(sweep_of[name] for name in arms)
    return {sweep: paths[sweep] for sweep in in_order if sweep in paths}


def matched(path: list[str], found: AllReplicates, axis: str, level: float, confidence: float) -> dict[str, Interval]:
    """A family's values where its frontier first reaches `level` of `axis`; empty where it does not, or hardly does.

    "Hardly": some replicate does not reach it, so that no interval could be given.
    """
    if len(path) < 2:
        return {}
    result = {}
    for name in MATCHED:
        if name == axis:
            continue

        def at_level(*values: float) -> float:
            half = len(values) // 2
            value = value_at(values[:half], values[half:], level)
            return float("nan") if value is None else value

        value = combined(at_level, *(found[arm][axis] for arm in path), *(found[arm][name] for arm in path))
        if not bool(torch.isfinite(value.without).all()) or value.value != value.value:
            return {}
        result[name] = _interval(name, value, confidence)
    return result


def _interval(name: str, value: Replicates, confidence: float) -> Interval:
    if name == "precision" and value.value in (0, 1):
        # Where all or none lie inside, leaving some out changes nothing.
        return wilson_interval(round(value.value) * value.n, value.n, confidence)
    return bounded(value.interval(confidence), *metric(name).bounds(value.n))
