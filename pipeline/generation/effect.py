"""Whether an arm's guidance does anything: settings that are read and do not act are the quietest of faults."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.study.arm import Arm

# In x0, whose values have a deviation of about 0.5: half precision has ten bits behind the point, bfloat16 seven.
ROUNDING = {"float32": 1e-5, "float16": 5e-4, "bfloat16": 4e-3}


def largest_push(trace: pa.Table) -> float:
    """The root mean square of guided - main in x0 at the step where it is largest, mean over images.

    `trace` has the columns step and direction.
    """
    by_step = trace.group_by("step").aggregate([("direction", "mean")])
    return float(pc.max(by_step["direction_mean"]).as_py() or 0.0)


def does_nothing(arm: Arm, push: float, dtype: str) -> bool:
    """Whether the push of an arm that is meant to be guided is no more than rounding in `dtype`.

    An arm with a scale of 1 is not meant to be.
    """
    meant = arm.scale != 1 or any(term.scale != 1 for term in arm.terms)
    return meant and not push > ROUNDING[dtype]


def in_words(arm_name: str, push: float, trace: pa.Table) -> str:
    """What to tell of an arm that does nothing; `trace` has the columns references and relative_norms."""
    sizes: dict[str, list[float]] = {}
    columns = (trace.column(name).to_pylist() for name in ("references", "relative_norms"))
    for names, norms in zip(*columns, strict=True):
        for name, norm in zip(names, norms, strict=True):
            sizes.setdefault(name, []).append(norm)
    shown = ", ".join(f"{name} {np.mean(norms):.1e}" for name, norms in sizes.items())
    found = f"; |main - reference| / |main| is {shown}" if shown else "; none of its references was evaluated"
    return (
        f"arm '{arm_name}' does nothing: its guidance changes x0 by {push:.1e} at most, which is rounding{found}; its "
        "texts may read alike, or its schedule leaves every step out"
    )
