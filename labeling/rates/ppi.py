"""Prediction-powered inference: rates and differences from few labels and the automatic scores of all images.

The estimate is that of PPI++ (Angelopoulos, Duchi and Zrnic, arXiv 2311.01453, equation 5 with the power tuning of
section 6) with inclusion probabilities: Y is the label, f the score, N all images of an arm, w the weights 1/pi
scaled to the sum N,

    theta = lambda mean_N(f) + sum w (Y - lambda f) / N.

What is estimated is the rate of all images that the arm could draw, so the N images are a sample too:

    Var = Var(Y) / N + sum (w / N)^2 (1 - 1/w) e^2,     e = (Y - mean) - lambda (f - mean),

which is PPI++'s variance for equal weights (their unlabelled n' is N - n and their lambda is ours times (N - n) / N).
The intervals are not PPI++'s normal ones, which cover too little at rates near 0; docs/labeling-statistics.md has the
measurements behind each departure.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eval.statistics.wilson import wilson_bounds

Vector = NDArray[np.float64]

# Below this many labels the slope lambda is noise, and the scores are left out.
FEWEST_FOR_SCORES = 10
# A variance below this is rounding: all labels are the same.
_NOTHING = 1e-12
# Numbers that differ by less than this share of themselves are equal.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Powered:
    """An estimate with its interval from `n` labels; `effective_n` labels of a plain random sample tell as much.

    `scores_used` is lambda: 0 where the scores were left out, 1 where they were taken at their word.
    """

    value: float
    low: float
    high: float
    n: int
    effective_n: float
    scores_used: float


def rate(
    labels: ArrayLike,
    inclusion: ArrayLike,
    level: float,
    images: int,
    scores: ArrayLike | None = None,
    all_scores: ArrayLike | None = None,
    tuning: float | None = None,
) -> Powered:
    """A rate from labels [n] in [0, 1] of images with inclusion probabilities [n] in (0, 1].

    `scores` [n] are the automatic scores of the labelled ones of the `images`, `all_scores` [N] those of all;
    without them, or with `tuning` 0, this is the classical estimate, and for equal probabilities Wilson's interval.
    `tuning` fixes lambda, None chooses the one of least variance. Labels between 0 and 1 are means of several
    people's. Raises ValueError for no labels, unequal lengths, and numbers out of range.
    """
    sample = _Sample(labels, inclusion, images, scores, all_scores, tuning)
    if sample.labels.min() < 0 or sample.labels.max() > 1:
        raise ValueError(f"labels of a rate lie in [0, 1], found {sample.labels.min():g} to {sample.labels.max():g}")
    value = min(max(sample.value, 0.0), 1.0)
    mean = sample.label_mean
    binomial = mean * (1 - mean) * sample.n / max(1, sample.n - 1)
    # Wilson's interval at the effective sample size, as for proportions in surveys (Franco et al., Journal of Survey
    # Statistics and Methodology 7, 2019): it stays inside [0, 1] and holds its level where few labels are positive.
    effective = binomial / sample.variance if sample.spread > _NOTHING else sample.kish
    low, high = wilson_bounds(value, effective, level)
    return Powered(value, low, high, sample.n, effective, sample.slope)


def difference(
    labels: ArrayLike,
    inclusion: ArrayLike,
    level: float,
    images: int,
    scores: ArrayLike | None = None,
    all_scores: ArrayLike | None = None,
    tuning: float | None = None,
) -> Powered:
    """The mean of paired differences of labels [n] in [-1, 1], with the differences of the scores.

    Arguments as of `rate`, `images` counts pairs. For equal probabilities and without scores it is the interval of
    Bonett and Price (Journal of Educational and Behavioral Statistics 37, 2012, adjusted Wald): one more
    pair in each direction.
    """
    sample = _Sample(labels, inclusion, images, scores, all_scores, tuning)
    if np.abs(sample.labels).max() > 1:
        raise ValueError(f"differences of labels lie in [-1, 1], found {np.abs(sample.labels).max():g}")
    effective = sample.spread / sample.variance if sample.spread > _NOTHING else sample.kish
    value = min(max(sample.value, -1.0), 1.0)
    square = sample.spread * (sample.n - 1) / sample.n + sample.label_mean**2
    centre = value * effective / (effective + 2)
    variance = max((effective * square + 2) / (effective + 2) - centre**2, 0.0) / (effective + 2)
    half_width = NormalDist().inv_cdf((1 + level) / 2) * math.sqrt(variance)
    low, high = max(-1.0, centre - half_width), min(1.0, centre + half_width)
    return Powered(value, min(low, value), max(high, value), sample.n, effective, sample.slope)


class _Sample:
    """The weighted estimate and its variance.

    `spread` is the sample variance of the labels, `kish` the effective sample size of the weights alone.
    """

    def __init__(
        self,
        labels: ArrayLike,
        inclusion: ArrayLike,
        images: int,
        scores: ArrayLike | None,
        all_scores: ArrayLike | None,
        tuning: float | None,
    ):
        self.labels = _vector(labels, "labels")
        probabilities = _vector(inclusion, "inclusion probabilities")
        self.n = len(self.labels)
        if self.n == 0:
            raise ValueError("an estimate needs at least one label")
        if len(probabilities) != self.n:
            raise ValueError(f"found {self.n} labels and {len(probabilities)} inclusion probabilities")
        if probabilities.min() <= 0 or probabilities.max() > 1:
            raise ValueError(f"inclusion probabilities lie in (0, 1], found {probabilities.min():g}")
        if images < self.n:
            raise ValueError(f"found {self.n} labels of {images} images")
        shares = (1 / probabilities) / (1 / probabilities).sum()
        self.kish = float(1 / (shares**2).sum())
        self.label_mean = float(shares @ self.labels)
        deviations = self.labels - self.label_mean
        correction = self.n / max(1, self.n - 1)
        self.spread = float(shares @ deviations**2) * correction
        # (w / N)^2 (1 - 1/w) with w = N share; an image that stands for less than itself adds nothing.
        weights = shares**2 * np.maximum(0.0, 1 - 1 / (shares * images)) * correction
        # With few positive labels the weighted variance rests on a handful of weights; it is taken at no less than the
        # variance that the weights would cause by themselves (Kish, Survey Sampling, 1965).
        plain = float(weights @ deviations**2)
        floor = self.spread * max(0.0, 1 / self.kish - 1 / images)
        inflation = max(1.0, floor / plain) if plain > 0 else 1.0
        self.slope, self.value = 0.0, self.label_mean
        unexplained = plain
        if scores is not None and all_scores is not None:
            own, every = _vector(scores, "scores"), _vector(all_scores, "scores")
            if len(own) != self.n or len(every) != images:
                raise ValueError(f"found {len(own)} and {len(every)} scores for {self.n} labelled of {images} images")
            offsets = own - float(shares @ own)
            # Scores that are all alike predict nothing; what rounding leaves of their offsets must not be fitted.
            if np.ptp(own) <= _ROUNDING * np.abs(own).max():
                offsets = np.zeros(self.n)
            power = float(weights @ offsets**2)
            distance = float(every.mean()) - float(shares @ own)
            fitted = tuning is None and self.n >= FEWEST_FOR_SCORES and power > 0
            leverage = np.zeros(self.n)
            if fitted:
                self.slope = float(weights @ (deviations * offsets)) / power
                leverage = np.minimum(weights * offsets**2 / power, 0.9)
            elif tuning is not None:
                self.slope = tuning
            # A label that lambda was fitted to has too small a residual; dividing by the root of 1 - leverage makes its
            # square the right size on average (HC2 of MacKinnon and White, 1985).
            residuals = (deviations - self.slope * offsets) / np.sqrt(1 - leverage)
            unexplained = float(weights @ residuals**2)
            # A good classifier errs rarely and badly, and 100 labels may show none of its errors. One more label, as
            # uncertain as if there were no score, stands for those.
            unexplained = (self.kish * unexplained + plain) / (self.kish + 1)
            if fitted:
                # Where the images score unlike the labelled ones, the estimate rests on lambda itself; its variance
                # is that of a slope with unequal residuals.
                unexplained += distance**2 * float(((weights * offsets * residuals) ** 2).sum()) / power**2
                if unexplained >= plain:
                    self.slope, unexplained = 0.0, plain
            self.value = self.label_mean + self.slope * distance
        self.variance = self.spread / images + unexplained * inflation


def _vector(values: ArrayLike, what: str) -> Vector:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not np.isfinite(array).all():
        raise ValueError(f"{what} are finite numbers of shape [N], found shape {list(array.shape)}")
    return array
