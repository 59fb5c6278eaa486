"""The studies that claims name, as conf/study composes them, without the overrides of a user's environment."""

from functools import cache

from pipeline.compose import compose
from pipeline.layout import CONF
from pipeline.study.study import Study, parse_study


@cache
def composed(name: str) -> Study:
    """A study of conf/study. Raises InputError."""
    return parse_study(compose(CONF, [f"study={name}"]), f"study={name}")
