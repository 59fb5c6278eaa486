"""The guidance that an arm's settings stand for, in terms of the algebra (pipeline/guidance/algebra.py)."""

from pipeline.guidance.algebra import (
    CONSTANT,
    EMPTY,
    GUIDE,
    NEGATIVE,
    UNRELATED,
    Guidance,
    Perturbation,
    Prediction,
    Term,
)
from pipeline.study.arm import Arm, ReferenceName


def prediction_of(reference: ReferenceName, arm: Arm) -> Prediction:
    """The prediction that a reference's name stands for in an arm."""
    plain: dict[ReferenceName, Prediction] = {
        "empty": EMPTY,
        "negative": NEGATIVE,
        "guide": GUIDE,
        "unrelated": UNRELATED,
    }
    if reference in plain:
        return plain[reference]
    assert reference == "pag" or reference == "seg" or reference == "skip_layers"
    damage = Perturbation(reference, arm.perturb.layers, arm.perturb.blur if reference == "seg" else None)
    return Prediction(reference, "main", "prompt", damage)


def guidance_of(arm: Arm) -> Guidance:
    """The guidance that an arm stands for: its method's terms, or those it lists, with their share of the scale."""
    terms = tuple(
        Term(
            prediction_of(term.reference, arm),
            1 + term.share * (arm.scale - 1),
            term.schedule or arm.schedule or CONSTANT,
        )
        for term in arm.all_terms
    )
    return Guidance(terms, arm.post, tuple(prediction_of(name, arm) for name in arm.probes))
