"""Which arms are compared image by image: those whose images have, one by one, the same pair numbers.

Image k of any two generated arms shares its prompt. Only where it shares its seed as well, the two start from the same
noise, and their difference is what the arms do. pipeline/external/pairing.py numbers images made elsewhere, and records
whether equal numbers there are pairs or stand beside each other by chance.
"""

from collections.abc import Mapping, Sequence

from pipeline.errors import InputError
from pipeline.study.study import Study


def are_paired(ours: Sequence[int], theirs: Sequence[int]) -> bool:
    """Whether two arms form pairs, by the pair numbers of their images in order."""
    return list(ours) == list(theirs)


def check_pairing(study: Study, pairs: Mapping[str, Sequence[int]]) -> None:
    """Raise InputError where an arm, by its images' pair numbers, does not pair with the baseline as the study says."""
    base = pairs[study.baseline]
    for name, own in pairs.items():
        shared = len(set(own) & set(base))
        if name in study.compared and not are_paired(own, base):
            raise InputError(
                f"arms '{name}' ({len(own)} images) and '{study.baseline}' ({len(base)}) do not share their pairs, "
                f"only {shared}; run `dvc repro`"
            )
        if name not in study.compared and shared:
            raise InputError(
                f"arm '{name}' has other seeds than '{study.baseline}', and its images share {shared} pairs with "
                "that one's; run `dvc repro`"
            )
