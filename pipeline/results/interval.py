"""A number with its confidence interval, as the statistics find it and the metrics files hold it."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import ConfigDict, Field

Finite = Annotated[float, Field(allow_inf_nan=False)]


@dataclass(frozen=True)
class Interval:
    """A number with its confidence interval [`low`, `high`], from `n` images (or pairs of images).

    A record of a metrics file takes finite numbers only.
    """

    # Records check an interval that the statistics made as they check one that is read from a file.
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(revalidate_instances="always")

    value: Finite
    low: Finite
    high: Finite
    n: int


def in_percent(interval: Interval) -> str:
    """A share and its interval as card and MLflow write them: 12.3% (10.1% to 14.9%)."""
    return f"{interval.value:.1%} ({interval.low:.1%} to {interval.high:.1%})"
