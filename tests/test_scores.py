"""Per-image scores and the stages that make numbers of pictures."""

import json

import pytest
import torch
from torchmetrics.functional.pairwise import pairwise_cosine_similarity

from eval.aesthetic import fit_aesthetic_head, load_aesthetic_head
from eval.clip import clip_score, load_clip
from eval.compare import reference_floor
from eval.features import SetFeatures, load_features, save_features
from eval.malformed import build_classifier, load_classifier, save_classifier
from eval.score import check_comparable, set_metrics
from pipeline.errors import InputError
from pipeline.study import Metrics
from pipeline.tinybooru.picture import draw, plan

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
    save_classifier(network, tmp_path / "m.safetensors")
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
    with pytest.raises(InputError, match="no readable feature file"):
        load_features(tmp_path / "f.safetensors")


def test_features_of_two_extractors_are_never_compared():
    one = {"extractor": "clip", "extractor_digest": "a", "resize": "r", "precision": "float32"}
    ours = SetFeatures([], torch.zeros(0, 1), torch.zeros(0, 1), one)
    other = SetFeatures([], torch.zeros(0, 1), torch.zeros(0, 1), {**one, "extractor_digest": "b"})
    check_comparable(ours, ours)
    with pytest.raises(InputError, match="features differ in extractor_digest: a and b"):
        check_comparable(ours, other)


def test_every_set_metric_has_an_interval_and_its_n(settings):
    torch.manual_seed(0)
    arm, reference = torch.randn(40, 6), torch.randn(60, 6)
    found = set_metrics(arm, reference, settings)
    assert set(found) == {"fd", "precision", "recall", "density", "coverage", "vendi"}
    assert all(interval.low <= interval.value <= interval.high for interval in found.values())
    assert (found["fd"].n, found["precision"].n, found["recall"].n) == (40, 40, 60)


def test_the_floor_is_what_real_pictures_have_from_each_other(settings):
    torch.manual_seed(0)
    reference = torch.randn(120, 6)
    floor = reference_floor(reference, 40, settings)
    assert 0 < floor.value < set_metrics(reference[:40] + 2, reference[40:], settings)["fd"].value
    assert floor.n == 40


def test_intervals_are_json(settings):
    from dataclasses import asdict

    assert json.dumps({k: asdict(v) for k, v in set_metrics(torch.randn(20, 3), torch.randn(20, 3), settings).items()})
