"""Tags that features can tell are read from images, and the shift of their shares is found."""

import pytest
import torch
from torch import Tensor

from eval.comparison.shift import tag_composition
from eval.scorers.tags import fit_tag_reader, tag_shares
from eval.statistics.jackknife import deletions
from pipeline.study.study import Metrics

TAGS = ("red hair", "blue hair", "glasses")


def images(n: int, shares: tuple[float, ...], seed: int) -> tuple[Tensor, list[str]]:
    """Features whose first axes are the tags, and captions; tags are independent."""
    generator = torch.Generator().manual_seed(seed)
    shown = torch.rand(n, len(TAGS), generator=generator) < torch.tensor(shares)
    features = torch.randn(n, 6, generator=generator)
    features[:, : len(TAGS)] += 4 * shown
    captions = [
        ", ".join(["solo", *(tag for tag, own in zip(TAGS, row, strict=True) if own)]) for row in shown.tolist()
    ]
    return features, captions


@pytest.fixture
def settings(params):
    return Metrics.model_validate(params["metrics"])


def test_tags_are_read_from_features_that_show_them() -> None:
    reader = fit_tag_reader(*images(400, (0.5, 0.3, 0.2), seed=0), seed=0)
    assert reader is not None
    # Every image is solo, so nothing tells what an image that is not would look like.
    assert reader.tags == list(TAGS)
    assert min(reader.auc) > 0.95
    features, captions = images(300, (0.2, 0.3, 0.6), seed=1)
    truth = torch.tensor([[tag in caption.split(", ") for tag in TAGS] for caption in captions]).double().mean(0)
    found, of_reference = reader(features).mean(0), torch.tensor([0.5, 0.3, 0.2]).double()
    torch.testing.assert_close(found, truth, atol=0.08, rtol=0)
    # Where a chance is wrong it leans towards the share in the reference set.
    assert of_reference[0] > found[0] > truth[0]
    assert of_reference[2] < found[2] < truth[2]


def test_tags_that_features_do_not_show_and_prose_are_left_out() -> None:
    features, captions = images(400, (0.5, 0.3, 0.2), seed=0)
    reader = fit_tag_reader(features[:, :2], captions, seed=0)
    assert reader is not None
    assert reader.tags == list(TAGS[:2])
    assert fit_tag_reader(features, [f"image number {k} of a series" for k in range(400)], seed=0) is None
    with pytest.raises(ValueError, match="a caption an image, found 399 and 400"):
        fit_tag_reader(features, captions[1:], seed=0)
    with pytest.raises(ValueError, match="NaN or infinity in 1 of 400"):
        fit_tag_reader(features.index_fill(0, torch.tensor([7]), torch.nan), captions, seed=0)


def test_a_shift_of_tags_is_measured_with_its_interval(settings: Metrics) -> None:
    reader = fit_tag_reader(*images(400, (0.5, 0.3, 0.2), seed=0), seed=0)
    assert reader is not None
    ours, theirs = (tag_shares(reader(images(150, shares, seed=2)[0])) for shares in ((0.9, 0.3, 0.2), (0.5, 0.3, 0.2)))
    alone = torch.arange(150)
    kept = deletions(alone, seed=0)
    moved = tag_composition(reader, ours, theirs, kept, alone, settings)
    assert moved["changed"][0]["tag"] == "red hair"
    assert moved["changed"][0]["difference"].low > 0
    assert moved["total_variation"].low > 0
    assert moved["p"] < 0.01
    assert moved["readable"] == 3
    same = tag_composition(reader, theirs, theirs, kept, alone, settings)
    assert (same["total_variation"].value, same["jensen_shannon"].value, same["p"]) == (0, 0, 1)


def test_an_images_shares_add_up_to_one() -> None:
    shares = tag_shares(torch.tensor([[0.5, 0.5, 1.0], [0.2, 0.0, 0.0]]).double())
    torch.testing.assert_close(shares, torch.tensor([[0.25, 0.25, 0.5], [1.0, 0.0, 0.0]]).double())
