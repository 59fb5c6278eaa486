"""The guidance that an arm's settings stand for, in terms of the algebra (pipeline/guidance/algebra.py)."""

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

from pipeline.guidance.algebra import (
    CONSTANT,
    EMPTY,
    GUIDE,
    MAIN,
    NEGATIVE,
    NOISED,
    UNRELATED,
    Guidance,
    Perturbation,
    Prediction,
    Renoise,
    Term,
)
from pipeline.guidance.postprocess.post_process import PostProcess
from pipeline.guidance.references import Damage, PerturbationKind
from pipeline.study.arm import Arm


def prediction_of(reference: str, arm: Arm) -> Prediction:
    """The prediction that a reference's name stands for in an arm."""
    plain = {"empty": EMPTY, "negative": NEGATIVE, "guide": GUIDE, "unrelated": UNRELATED, "main": MAIN}
    if reference in plain:
        return plain[reference]
    if reference in arm.texts:
        return Prediction(reference, "main", reference)
    if reference in arm.references:
        own = arm.references[reference]
        damaged = damage_of(own.perturb) if own.perturb else None
        return Prediction(reference, own.network, own.text, damaged, own.time, own.noise)
    kind = cast(PerturbationKind, reference)  # the other short names are kinds of damage
    damage = Perturbation(kind, arm.perturb.layers, arm.perturb.blur if kind == "seg" else None)
    return Prediction(reference, "main", "prompt", damage)


def damage_of(settings: Damage) -> Perturbation:
    """The damage that a reference's settings describe."""
    return Perturbation(settings.kind, settings.layers, settings.blur, settings.share)


def guidance_of(arm: Arm, built_in: Sequence[PostProcess] = ()) -> Guidance:
    """The guidance that an arm stands for: its method's terms, or those it lists, with their share of the scale.

    `built_in` are the post-processes of the pipeline of its networks' family.
    """
    terms = tuple(
        Term(
            prediction_of(term.reference, arm),
            arm.scale_of(term),
            term.schedule or arm.schedule or CONSTANT,
        )
        for term in arm.all_terms
    )
    main = MAIN if arm.noise is None else replace(MAIN, name=NOISED, noise=arm.noise)
    if arm.attention is not None and arm.attention.acts:
        main = replace(main, name=arm.attention.name, attention=arm.attention)
    renoise = Renoise(prediction_of(arm.step.along, arm), arm.step.share) if arm.step else None
    post = (*arm.post, *(own for own in built_in if _acts_beside(own, arm)))
    return Guidance(terms, post, tuple(prediction_of(name, arm) for name in arm.probes), main, renoise)


def _acts_beside(built_in: PostProcess, arm: Arm) -> bool:
    """Whether a built-in post-process acts after those of the arm: none of them is of its kind or acts alone."""
    return arm.built_in_post and not any(post.alone or isinstance(post, type(built_in)) for post in arm.post)
