"""Whether an arm's guidance does anything: settings that are read and do not act are the quietest of faults."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

# What a trace calls the plain prediction of the prompt where it is not the main one.
PLAIN = "main"
# In x0, whose values have a deviation of about 0.5: half precision has ten bits behind the point, bfloat16 seven.
ROUNDING = {"float32": 1e-5, "float16": 5e-4, "bfloat16": 4e-3}


def largest_push(trace: pa.Table) -> float:
    """The root mean square of guided - main in x0 at the step where it is largest, mean over images.

    Where the main prediction is itself steered or noisy and the plain one is recorded beside it, as `main`, how far the
    two lie apart counts as well, |main - plain| / |main|. `trace` has the columns step, direction, references and
    relative_norms.
    """
    by_step = trace.group_by("step").aggregate([("direction", "mean")])
    largest = float(pc.max(by_step["direction_mean"]).as_py() or 0.0)
    columns = (trace.column(name).to_pylist() for name in ("step", "references", "relative_norms"))
    apart: dict[int, list[float]] = {}
    for step, names, norms in zip(*columns, strict=True):
        if PLAIN in names:
            apart.setdefault(step, []).append(norms[names.index(PLAIN)])
    return max([largest, *(float(np.mean(norms)) for norms in apart.values())])


def does_nothing(meant: bool, push: float, dtype: str) -> bool:
    """Whether the push of an arm that is `meant` to be guided is no more than rounding in `dtype`."""
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
