"""Arms are paired where their images have the same pair numbers, and only there."""

import pytest
from compositions import composed

from eval.comparison.pairing import are_paired, check_pairing
from pipeline.errors import InputError
from pipeline.study.study import Study, parse_study


@pytest.fixture
def own() -> Study:
    content = composed()
    content["arms"] = {name: content["arms"][name] for name in ("unguided", "cfg", "reseeded")}
    return parse_study(content, "study")


def test_arms_of_the_same_seeds_are_paired() -> None:
    assert are_paired(range(4), [0, 1, 2, 3])
    assert not are_paired(range(4), range(5, 9))
    assert not are_paired(range(4), [0, 1, 3, 2])


def test_every_arm_pairs_as_the_study_says(own: Study) -> None:
    pairs = {name: list(own.pairs_of(name)) for name in own.arms}
    check_pairing(own, pairs)
    with pytest.raises(InputError, match=r"arms 'cfg'.* and 'unguided'.* do not share their pairs, only 0"):
        check_pairing(own, pairs | {"cfg": pairs["reseeded"]})
    with pytest.raises(InputError, match="arm 'reseeded' has other seeds than 'unguided', and its images share 192"):
        check_pairing(own, pairs | {"reseeded": pairs["unguided"]})
