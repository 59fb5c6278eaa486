"""At which scale would plain CFG have pushed as an arm did, and how much of the arm's push goes elsewhere?

Per image and step the trace has `effective_scale`, <guided - empty, D> / <D, D> with D = prompt - empty, and
`elsewhere`, the share of the squared push across D (arXiv 2602.22570; pipeline/guidance/trace.py).
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from eval.comparison.alignment import Means
from eval.notation import number, percent
from pipeline.results.comparison import EffectiveScale, TraceStep
from pipeline.results.interval import Interval
from pipeline.study.study import Metrics

COLUMNS = ["image_id", "step", "sigma", "effective_scale", "elsewhere"]
# Less than half a per cent of a push's square is not spoken of; rounding of half precision is less still.
_ALL_OF_IT = 5e-3
# A scale that changes by less over the steps is one number.
_CHANGES = 0.1


@dataclass(frozen=True)
class Pushes:
    """An arm's trace by image and step: `sigma` [S], `scale` and `elsewhere` [N, S], of the `images` that have both.

    Images whose prompt reads as the empty text does have no direction of CFG, and are left out.
    """

    images: NDArray[np.int64]
    sigma: NDArray[np.float64]
    scale: NDArray[np.float64]
    elsewhere: NDArray[np.float64]


def pushes(trace: pa.Table) -> Pushes | None:
    """The trace of an arm; None where fewer than two images have an effective scale at every step.

    `trace` has the columns of COLUMNS. Raises ValueError where an image lacks a step.
    """
    rows = trace.sort_by([("image_id", "ascending"), ("step", "ascending")])
    images = len(rows["image_id"].unique())
    if not images or len(rows) % images:
        raise ValueError(f"a trace of {images} images has {len(rows)} rows, which is not as many steps for each")
    by_image = {name: rows[name].to_numpy().astype(np.float64).reshape(images, -1) for name in COLUMNS[2:]}
    known = np.isfinite(by_image["effective_scale"]).all(1) & np.isfinite(by_image["elsewhere"]).all(1)
    if known.sum() < 2:
        return None
    return Pushes(
        known.nonzero()[0],
        by_image["sigma"].mean(0),
        by_image["effective_scale"][known],
        by_image["elsewhere"][known],
    )


def effective_scale(trace: pa.Table, prompts: Tensor, settings: Metrics) -> EffectiveScale | None:
    """The effective scale of an arm whose images have the numbers of their `prompts` [N]; None where it has none."""
    if not set(COLUMNS) <= set(trace.column_names):
        return None
    found = pushes(trace.select(COLUMNS))
    if found is None:
        return None
    clusters = prompts[torch.from_numpy(found.images)]
    repeated = clusters if len(torch.unique(clusters)) < len(clusters) else None
    mean = Means(settings.resamples, settings.level, settings.seed, repeated)
    scale, elsewhere = mean(found.scale.mean(1)), mean(found.elsewhere.mean(1))
    return EffectiveScale(
        scale=scale,
        elsewhere=elsewhere,
        steps=[TraceStep(sigma=sigma, value=value) for sigma, value in mean.over_steps(found.sigma, found.scale)],
        over_steps=float(found.scale.mean(0).std()),
        over_images=float(found.scale.mean(1).std()),
        without_direction=len(prompts) - len(found.images),
        answer=in_words(scale, elsewhere, found.scale.mean(0)),
    )


def in_words(scale: Interval, elsewhere: Interval, by_step: NDArray[np.float64]) -> str:
    """A sentence about an arm's push: `by_step` [S] is its effective scale from the first step to the last."""
    said = f"this is CFG at {number(scale.value, 2)}"
    if float(np.ptp(by_step)) >= _CHANGES:
        said += f" ({number(by_step[0], 2)} at the first step, {number(by_step[-1], 2)} at the last)"
    return said if elsewhere.value < _ALL_OF_IT else f"{said} with {percent(elsewhere.value)} of its push elsewhere"
