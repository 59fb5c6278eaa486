"""Per-image scores and the stages that make numbers of images."""

import json

import pyarrow as pa
import pytest
import torch
from torchmetrics.functional.pairwise import pairwise_cosine_similarity

from eval.comparison.feature_spaces import floors
from eval.distances.fid import torchmetrics_fid
from eval.distances.frechet import frechet_distance
from eval.features.clip import clip_score, load_clip
from eval.features.extraction import SetFeatures, load_features, save_features
from eval.features.spaces import check_comparable
from eval.scorers.aesthetic import convert_linear_head, fit_aesthetic_head, load_aesthetic_head
from eval.scorers.arm_scores import (
    LearnedScorers,
    known_mean,
    learned_scores,
)
from eval.scorers.image_classifier import save_weights
from eval.scorers.malformed import build_classifier, load_classifier
from eval.scorers.set_metrics import EVERYWHERE, OF_CLIP, PRIMARY_ALONE, set_metrics
from eval.statistics.clusters import prompt_clusters
from pipeline.errors import InputError
from pipeline.study.study import Metrics
from pipeline.tinybooru.image import draw, plan

CPU = torch.device("cpu")


@pytest.fixture
def settings(params):
    return Metrics.model_validate(params["metrics"])


def test_clip_score_is_a_hundred_times_the_cosine_and_never_negative():
    torch.manual_seed(0)
    images, texts = torch.randn(20, 8), torch.randn(20, 8)
    cosine = pairwise_cosine_similarity(images, texts).diagonal()
    torch.testing.assert_close(clip_score(images, texts), (100 * cosine).clamp(min=0).double(), atol=1e-4, rtol=1e-4)
    assert clip_score(images, images).tolist() == pytest.approx([100.0] * 20)
    assert clip_score(images, -images).tolist() == [0.0] * 20


def test_the_aesthetic_head_finds_a_linear_quality_and_survives_its_file(tmp_path):
    torch.manual_seed(0)
    embeddings = torch.randn(500, 16)
    direction = torch.randn(16)
    unit = torch.nn.functional.normalize(embeddings, dim=1)
    head = fit_aesthetic_head(embeddings, unit @ direction + 2, ridge=1e-8)
    torch.testing.assert_close(head(embeddings), (unit @ direction + 2).double(), atol=1e-4, rtol=1e-4)
    head.save(tmp_path / "head.safetensors")
    back = load_aesthetic_head(tmp_path / "head.safetensors")
    torch.testing.assert_close(back(embeddings), head(embeddings), atol=1e-4, rtol=1e-4)
    with pytest.raises(ValueError, match="width 16, found 8"):
        back(torch.randn(2, 8))


def test_the_classifier_survives_its_file_and_batches_change_nothing(tmp_path):
    torch.manual_seed(0)
    network = build_classifier().eval()
    save_weights(network, tmp_path / "m.safetensors")
    loaded = load_classifier(tmp_path / "m.safetensors", CPU)
    images = [draw(plan(0, k), 64) for k in range(9)]
    together, alone = loaded(images), loaded(images, batch=1)
    assert ((together >= 0) & (together <= 1)).all()
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("load", [load_aesthetic_head, lambda path: load_classifier(path, CPU)])
def test_missing_and_damaged_weights_are_named(load, tmp_path):
    with pytest.raises(InputError, match=r"x.safetensors is missing; `make train`"):
        load(tmp_path / "x.safetensors")
    (tmp_path / "x.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0not json")
    with pytest.raises(InputError, match=r"x.safetensors cannot be read"):
        load(tmp_path / "x.safetensors")


def test_a_missing_clip_is_named(tmp_path):
    with pytest.raises(InputError, match=r"open_clip_config\.json is missing"):
        load_clip(tmp_path, CPU)


def test_features_keep_ids_and_provenance(tmp_path):
    features = SetFeatures(["a", "b"], torch.randn(2, 4), torch.randn(2, 4), {"extractor": "clip"})
    save_features(tmp_path / "f.safetensors", features)
    back = load_features(tmp_path / "f.safetensors")
    assert (back.ids, back.provenance) == (features.ids, features.provenance)
    assert torch.equal(back.images, features.images)
    (tmp_path / "f.safetensors").write_bytes((tmp_path / "f.safetensors").read_bytes()[:50])
    with pytest.raises(InputError, match="not a readable feature file"):
        load_features(tmp_path / "f.safetensors")


def test_features_of_two_extractors_are_never_compared():
    one = {"extractor": "clip", "extractor_digest": "a", "resize": "r", "precision": "float32"}
    ours = SetFeatures([], torch.zeros(0, 1), torch.zeros(0, 1), one)
    other = SetFeatures([], torch.zeros(0, 1), torch.zeros(0, 1), {**one, "extractor_digest": "b"})
    check_comparable("cfg", ours, ours)
    with pytest.raises(InputError, match="features of 'cfg' and of the reference differ in extractor_digest: a and b"):
        check_comparable("cfg", ours, other)


def test_every_set_metric_has_an_interval_and_its_n(settings):
    torch.manual_seed(0)
    arm, reference = torch.randn(40, 6), torch.randn(60, 6)
    found = set_metrics(EVERYWHERE, arm, reference, settings)
    assert set(found) == {"fd", "precision", "recall", "density", "coverage", "mind", "vendi"}
    assert all(interval.low <= interval.value <= interval.high for interval in found.values())
    assert (found["fd"].n, found["precision"].n, found["recall"].n) == (40, 40, 40)


def test_the_floor_is_what_real_images_have_from_each_other(settings):
    torch.manual_seed(0)
    reference = torch.randn(120, 6)
    floor = floors(reference, 40, settings)["fd"]
    assert 0 < floor.value < set_metrics(EVERYWHERE, reference[:40] + 2, reference[40:], settings)["fd"].value
    assert floor.n == 40


def test_intervals_are_json(settings):
    from dataclasses import asdict

    assert json.dumps(
        {k: asdict(v) for k, v in set_metrics(EVERYWHERE, torch.randn(20, 3), torch.randn(20, 3), settings).items()}
    )


def test_the_head_of_laion_is_a_pickled_linear_layer(tmp_path):
    torch.manual_seed(0)
    layer = torch.nn.Linear(768, 1)
    torch.save(layer.state_dict(), tmp_path / "sa_0_4_vit_l_14_linear.pth")
    convert_linear_head(tmp_path / "sa_0_4_vit_l_14_linear.pth", tmp_path / "head.safetensors")
    embeddings = torch.randn(7, 768)
    expected = layer(embeddings / embeddings.norm(dim=1, keepdim=True)).squeeze(1)
    found = load_aesthetic_head(tmp_path / "head.safetensors")(embeddings)
    torch.testing.assert_close(found, expected.detach().double(), atol=1e-5, rtol=1e-5)
    # The pickle itself is never read as a head, nor is a pickle of something else converted.
    with pytest.raises(InputError, match=r"linear\.pth cannot be read"):
        load_aesthetic_head(tmp_path / "sa_0_4_vit_l_14_linear.pth")
    torch.save({"weight": print}, tmp_path / "other.pth")
    with pytest.raises(InputError, match=r"other\.pth is not a pickled linear head"):
        convert_linear_head(tmp_path / "other.pth", tmp_path / "no.safetensors")
    with pytest.raises(InputError, match=r"`python -m eval\.scorers\.aesthetic .*no\.safetensors` fetches LAION's"):
        load_aesthetic_head(tmp_path / "no.safetensors")


def test_images_of_one_prompt_are_resampled_together(settings):
    torch.manual_seed(0)
    of_prompt = torch.randn(20, 6).repeat_interleave(5, 0)
    arm, reference = of_prompt + 0.05 * torch.randn(100, 6), torch.randn(150, 6)
    prompts = prompt_clusters([f"prompt {k // 5}" for k in range(100)])
    alone, together = (
        set_metrics([*EVERYWHERE, *OF_CLIP, *PRIMARY_ALONE], arm, reference, settings, clusters)
        for clusters in (None, prompts)
    )
    assert {k: v.value for k, v in alone.items()} == {k: v.value for k, v in together.items()}
    # Five images that are alike say little more than one: by the square root of 5 wider.
    for name in ("fd", "precision", "density", "coverage", "kid", "cmmd", "fd_infinity"):
        assert together[name].high - together[name].low > 1.4 * (alone[name].high - alone[name].low) > 0, name


def test_images_are_on_their_own_where_no_prompt_repeats_or_all_are_one():
    assert prompt_clusters(list("abcdefghijkl")) is None
    assert prompt_clusters([""] * 12) is None
    assert prompt_clusters(list("abcdefghija")).tolist() == [*range(10), 0]


def test_of_few_prompts_images_are_on_their_own():
    assert prompt_clusters(list("abcabcabc")) is None
    assert prompt_clusters([f"{k % 9}" for k in range(90)]) is None
    assert prompt_clusters([f"{k % 10}" for k in range(90)]).tolist() == [k % 10 for k in range(90)]


def test_kernel_distances_and_extrapolations_have_intervals_too(settings):
    torch.manual_seed(1)
    found = set_metrics([*PRIMARY_ALONE, *OF_CLIP], torch.randn(40, 6) + 0.3, torch.randn(60, 6), settings)
    assert set(found) == {"fd_infinity", "kid", "cmmd"}
    assert all(interval.low < interval.value < interval.high for interval in found.values())
    assert {interval.n for interval in found.values()} == {40}


def test_images_without_a_value_are_left_out_of_the_mean(settings):
    values = torch.tensor([1.0, 2.0, torch.nan, 3.0]).double()
    found = known_mean(values, settings, None)
    assert (found.value, found.n) == (2, 3)


@pytest.fixture(scope="module")
def repeated_prompts():
    """Twenty images of ten prompts, as a set's columns."""
    from pipeline.storage.shards import encode_png

    planned = [plan(0, k) for k in range(20)]
    prompts = [f"{k // 2}" for k in range(20)]
    return pa.table({"prompt": prompts, "image": [{"bytes": encode_png(draw(one, 64))} for one in planned]})


def test_a_rate_of_all_or_none_is_not_certain(settings):
    torch.manual_seed(0)
    arm, reference = 0.05 * torch.randn(40, 6), torch.randn(200, 6)
    found = set_metrics(EVERYWHERE, arm, reference, settings)
    assert (found["precision"].value, found["precision"].high) == (1, 1)
    assert 0.85 < found["precision"].low < 0.95
    of_prompts = set_metrics(EVERYWHERE, arm, reference, settings, torch.arange(8).repeat_interleave(5))
    assert of_prompts["precision"].low < found["precision"].low - 0.1, "eight prompts say less than forty images"
    for name in ("recall", "coverage"):
        assert 0 <= found[name].low <= found[name].value <= found[name].high <= 1


def learned(table: pa.Table, own: list[str], asked: Metrics) -> tuple[dict[str, torch.Tensor], dict[str, object]]:
    """The columns of the scores that are asked for by name, and the digests of their weights."""
    scorers = LearnedScorers(asked, CPU)
    return learned_scores(table, own, asked, scorers), scorers.digests()


def test_preferences_are_for_what_the_pair_was_asked_for(repeated_prompts, settings, pickscore_folder):
    asked = settings.model_copy(update={"scorers": {"pickscore": str(pickscore_folder)}})
    own = repeated_prompts.column("prompt").to_pylist()
    drawn_from_nothing = repeated_prompts.set_column(0, "prompt", pa.array([""] * len(own)))
    theirs, _ = learned(drawn_from_nothing, own, asked)
    torch.testing.assert_close(theirs["pickscore"], learned(repeated_prompts, own, asked)[0]["pickscore"])


def test_lpips_is_among_the_images_of_what_was_asked_whatever_the_arm_drew_from(repeated_prompts, settings, vgg16):
    asked = settings.model_copy(update={"lpips": str(vgg16)})
    own = repeated_prompts.column("prompt").to_pylist()
    drawn_from_nothing = repeated_prompts.set_column(0, "prompt", pa.array([""] * len(own)))
    theirs, ours = (learned(table, own, asked)[0]["lpips"] for table in (drawn_from_nothing, repeated_prompts))
    torch.testing.assert_close(theirs, ours)


def test_learned_scores_are_columns_beside_the_others(repeated_prompts, settings, vgg16, pickscore_folder):
    asked = settings.model_copy(update={"scorers": {"pickscore": str(pickscore_folder)}, "lpips": str(vgg16)})
    own = repeated_prompts.column("prompt").to_pylist()
    columns, digests = learned(repeated_prompts, own, asked)
    assert {name: len(values) for name, values in columns.items()} == {"pickscore": 20, "lpips": 20}
    assert set(digests) == {"pickscore", "lpips"}
    assert columns["lpips"].min() > 0
    assert columns["lpips"][0] == columns["lpips"][1]
    assert learned(repeated_prompts, own, settings) == ({}, {})


def test_lpips_without_a_repeated_prompt_is_refused_before_weights_are_looked_for(repeated_prompts, settings):
    asked = settings.model_copy(update={"lpips": "none.safetensors"})
    own = repeated_prompts.column("prompt").to_pylist()
    with pytest.raises(ValueError, match="a prompt with 2 images; 10 prompts have 1 each"):
        learned(repeated_prompts.take(list(range(0, 20, 2))), own[::2], asked)
    with pytest.raises(InputError, match=r"none\.safetensors is missing; get it with `hf download timm/vgg16"):
        learned(repeated_prompts, own, asked)


def test_the_comparable_fid_is_torchmetrics_and_agrees_with_ours():
    torch.manual_seed(0)
    x, y = torch.randn(90, 12) + 0.2, torch.randn(120, 12)
    assert torchmetrics_fid(x, y) == pytest.approx(frechet_distance(x, y), rel=1e-6)
    with pytest.raises(ValueError, match="at least 2 images per set, found 1"):
        torchmetrics_fid(x[:1], y)
    with pytest.raises(ValueError, match="NaN or infinity in 0 of 90 and 1 of 120"):
        torchmetrics_fid(x, y.index_fill(0, torch.tensor([3]), torch.nan))
