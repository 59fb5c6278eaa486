"""Holm's correction for asking the same question of several arms (Holm, 1979)."""

from collections.abc import Mapping


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Adjusted p-values by name: below alpha exactly where Holm's step-down test at family-wise level alpha rejects.

    Raises ValueError for values outside [0, 1].
    """
    for name, p in p_values.items():
        if not 0 <= p <= 1:
            raise ValueError(f"p-values are in [0, 1], found {p} for '{name}'")
    adjusted: dict[str, float] = {}
    largest = 0.0
    for rank, (name, p) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p))
        adjusted[name] = largest
    return {name: adjusted[name] for name in p_values}


def holm_by_question(p_values: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """{arm: {question: p}} after Holm's correction of each question over the arms, all of which have the same ones."""
    questions = next(iter(p_values.values()), {})
    corrected = {question: holm({arm: own[question] for arm, own in p_values.items()}) for question in questions}
    return {arm: {question: corrected[question][arm] for question in questions} for arm in p_values}
