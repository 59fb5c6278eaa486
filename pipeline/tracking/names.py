"""What MLflow's runs are called: an arm by its method and scale, a study's state by what changed since the last one."""

from collections import Counter
from collections.abc import Mapping

from pipeline.results.comparison import Comparison

_LONGEST = 90
# Where a parent run's params come from but for the study itself (eval/comparison/compare.py).
PROVENANCE = "provenance."
_ARMS = "arms."


def arm_names(comparison: Comparison) -> dict[str, str]:
    """The run's name by arm: `cfg x3`, from what arms have in common that differ in their scale alone, and the scale.

    Arms that share both, and controls, have their own names with the scale; the scale of no guidance is not said.
    """
    called = {arm.arm: f"{arm.family} x{arm.scale:.3g}" for arm in comparison.arms}
    several = Counter(called.values())
    names = {}
    for arm in comparison.arms:
        if arm.method == "unguided":
            names[arm.arm] = arm.arm
        elif several[called[arm.arm]] > 1 or "@" in arm.arm:  # a control is named after its arm
            names[arm.arm] = f"{arm.arm} x{arm.scale:.3g}"
        else:
            names[arm.arm] = called[arm.arm]
    return names


def state_name(
    study: str,
    params: Mapping[str, str],
    sets: Mapping[str, str],
    before: tuple[Mapping[str, str], Mapping[str, str]] | None,
    otherwise: str = "other numbers",
) -> str:
    """The name of a study's state: `cfg.scale 3.0 -> 4.0 (default)`, the change first, because MLflow's list cuts it.

    `params` and `sets` are the run's params and the fingerprints of its image sets by name; `before` holds those of the
    state that was tracked last, None where this is the first. `otherwise` is said where neither differs.
    """
    if before is None:
        return f"first state ({study})"
    changes = _changed_params(params, before[0]) or _changed_images(sets, before[1]) or [otherwise]
    said = changes[0]
    for shown, change in enumerate(changes[1:], start=1):
        rest = f" and {len(changes) - shown} more"
        if len(f"{said}, {change}{rest}") > _LONGEST:
            return f"{said[:_LONGEST]}{rest} ({study})"
        said = f"{said}, {change}"
    return f"{said[:_LONGEST]} ({study})"


def _changed_params(now: Mapping[str, str], before: Mapping[str, str]) -> list[str]:
    """What differs, the study's own settings first; arms that come or go are one change each."""
    own, earlier = _arms(now), _arms(before)
    changes = [f"with {arm}" for arm in own if arm not in earlier] + [f"without {a}" for a in earlier if a not in own]
    moved = set(own) ^ set(earlier)
    settings, origins = [], []
    for key in dict.fromkeys([*now, *before]):
        if now.get(key) == before.get(key) or _arm(key) in moved:
            continue
        if key.startswith(PROVENANCE):
            origins.append(f"other {key.removeprefix(PROVENANCE)}")
        else:
            settings.append(f"{key.removeprefix(_ARMS)} {_short(before.get(key))} -> {_short(now.get(key))}")
    # A setting changes fingerprints too, which say nothing more.
    return [*changes, *settings] or origins


def _changed_images(now: Mapping[str, str], before: Mapping[str, str]) -> list[str]:
    return [f"other images of {name}" for name, digest in now.items() if before.get(name) != digest]


def _arms(params: Mapping[str, str]) -> list[str]:
    return list(dict.fromkeys(arm for arm in map(_arm, params) if arm))


def _arm(key: str) -> str:
    return key.removeprefix(_ARMS).partition(".")[0] if key.startswith(_ARMS) else ""


def _short(value: str | None) -> str:
    if value is None:
        return "none"
    return value if len(value) <= 24 else f"{value[:23]}…"
