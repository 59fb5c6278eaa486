"""The numbers of claims are those of the images, scores and prompts that they name."""

from pathlib import Path

import pytest
import torch
from compositions import composed
from repository_copy import ROOT
from small_study import ARMS, IMAGES, comparison, image, write_study

from docs.answers.computed import Interrogated, Preset, Price, PriceUnknown, Refused, Setting, Weight
from docs.answers.image_numbers import FinishedImages, Pixels, Relation, ScoreDifference, correlation, seed_share
from docs.answers.measured import read
from docs.answers.numbers import Change, Number, Score, Shows, Variety
from docs.interrogator_figures import load_kept as load_interrogated
from docs.kept_results import load_kept
from pipeline.errors import InputError
from pipeline.finished_study import FinishedStudy
from pipeline.results.interval import Interval
from pipeline.study.study import parse_study


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> FinishedStudy:
    folder = tmp_path_factory.mktemp("study")
    write_study(folder)
    return FinishedStudy.load(folder)


def colours(arm: str) -> torch.Tensor:
    """The one colour of each image [N, 3] of an arm."""
    pixels = [image(ARMS.index(arm), k).convert("RGB").getpixel((0, 0)) for k in range(IMAGES)]
    return torch.tensor(pixels, dtype=torch.float64)


def test_two_arms_differ_by_the_mean_difference_of_their_pixels(study: FinishedStudy) -> None:
    found = Pixels(of="pixels", arms=("cfg", "unguided")).measure(FinishedImages(study))
    assert found.value == pytest.approx((colours("cfg") - colours("unguided")).abs().mean().item())
    assert Pixels(of="pixels", arms=("cfg", "cfg")).measure(FinishedImages(study)).high == 0


def test_a_difference_of_scores_is_paired(study: FinishedStudy) -> None:
    found = ScoreDifference(of="difference", score="clip_score", arms=("cfg", "unguided"))
    scores = [study.scores(arm).sort_values("pair_id")["clip_score"] for arm in ("cfg", "unguided")]
    assert found.measure(FinishedImages(study)).value == pytest.approx(float((scores[0] - scores[1]).mean()))


def test_an_unknown_score_is_named(study: FinishedStudy) -> None:
    number = ScoreDifference(of="difference", score="beauty", arms=("cfg", "unguided"))
    with pytest.raises(InputError, match="study 'small' has no score 'beauty' of single images"):
        number.measure(FinishedImages(study))


def test_numbers_of_the_comparison_are_its_own(study: FinishedStudy) -> None:
    wanted: list[Number] = [
        Score(of="score", metric="recall", arm="cfg"),
        Change(of="change", metric="clip_score", arm="cfg"),
        Variety(of="variety", arm="negative", space="pyramid"),
    ]
    found = read({number.key: number for number in wanted}, study.comparison, None).numbers
    arms = {arm["arm"]: arm for arm in comparison()["arms"]}
    assert found["score recall cfg"].value == arms["cfg"]["scores"]["recall"]["value"]
    assert found["change clip_score cfg"].low == arms["cfg"]["against_baseline"]["clip_score"]["low"]
    own = arms["negative"]["against_baseline"]["spaces"]["pyramid"]["variety"]
    assert found["variety negative pyramid"].high == own["high"]


def test_a_concept_that_no_classifier_reads_is_kept_with_the_reason(study: FinishedStudy) -> None:
    number = Shows(of="shows", concept="watermark", arm="cfg")
    found = read({number.key: number}, study.comparison, None)
    assert not found.numbers
    assert found.unread == {"shows watermark cfg": "no classifier tells images of watermark from others well enough"}


def test_a_number_of_images_needs_them(study: FinishedStudy) -> None:
    number = Pixels(of="pixels", arms=("cfg", "unguided"))
    with pytest.raises(InputError, match="'pixels cfg unguided' needs the images of study 'small'"):
        read({number.key: number}, study.comparison, None)


def test_the_baseline_has_no_change(study: FinishedStudy) -> None:
    with pytest.raises(InputError, match="arm 'unguided' is the baseline of study 'small'"):
        Change(of="change", metric="clip_score", arm="unguided").read(study.comparison)


def test_a_trace_without_the_reference_is_refused(study: FinishedStudy) -> None:
    number = Relation(of="relation", reference="negative", score="clip_score", arm="unguided")
    with pytest.raises(InputError, match="unguided"):
        number.measure(FinishedImages(study))


def test_seeds_and_arms_share_the_variance_of_what_they_add_up_to() -> None:
    seeds, arms = torch.tensor([-1.0, 1.0, -1.0, 1.0]), torch.tensor([-2.0, 2.0])
    assert seed_share((seeds[:, None] + arms)[..., None]) == pytest.approx(1 / 5)
    assert seed_share(seeds[:, None, None].expand(4, 2, 1)) == 1
    assert seed_share(arms[None, :, None].expand(4, 2, 1)) == 0


def test_a_correlation_has_the_sign_of_the_relation_and_none_without_variance() -> None:
    x = torch.linspace(0, 1, 20)
    assert correlation(torch.stack([x, 3 - 2 * x], 1)) == pytest.approx(-1)
    assert correlation(torch.stack([x, torch.ones(20)], 1)) == 0


def test_what_the_code_computes_is_called_and_not_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Weight(of="weight", text="{{x}}, y", part="x", syntax="novelai").value() == pytest.approx(1.1025)
    assert Price(of="price", width=832, height=1216, steps=28).value() == 20
    assert PriceUnknown(of="price_unknown", width=1536, height=1024, steps=28, generation="v1").value() == 1
    assert PriceUnknown(of="price_unknown", width=1536, height=1024, steps=28, generation="v3").value() == 0
    assert Refused(of="refused", text="cat | dog", syntax="novelai").value() == 1
    assert Preset(of="preset", name="novelai-light", text="nsfw").value() == 0
    monkeypatch.chdir(Path(__file__).parents[2])
    assert Setting(of="setting", study="default", path="arms.cfg.scale").value() == 3
    found = Interrogated(of="interrogated", share="recall", images="every")
    assert found.compute() == load_interrogated().every.recall
    assert found.shown(Interval(0.25, 0.2, 0.3, 4)) == "25 % (20–30)"  # noqa: RUF001 (a dash between numbers)


def test_a_weight_of_words_that_are_not_there_is_refused() -> None:
    with pytest.raises(InputError, match="'cat' in syntax plain has no part 'dog'"):
        Weight(of="weight", text="cat", part="dog", syntax="plain").value()


def test_a_claim_names_a_space_without_its_principal_components() -> None:
    """Their number follows the number of images, so studies of different sizes have different names for a space."""
    kept = load_kept(parse_study(composed(), "test"), ROOT)
    arm = kept.by_name("cfg")
    named = Score(of="score", metric="efficientnet_lite0_fd", arm="cfg").read(kept)
    assert named == arm.scores["efficientnet_lite0_pc48_fd"]
    assert arm.against_baseline is not None
    variety = Variety(of="variety", arm="cfg", space="efficientnet_lite0").read(kept)
    assert variety == arm.against_baseline.spaces["efficientnet_lite0_pc48"].variety
    with pytest.raises(InputError, match="'efficientnet_fd' is not a score; known: "):
        Score(of="score", metric="efficientnet_fd", arm="cfg").read(kept)
