"""The analytic check: on a mixture with known scores autoguidance keeps every mode and CFG loses some."""

import torch

from docs.mechanisms import MECHANISMS, push, share_outside
from docs.toy import MODES, OTHER, SCALE, draw, mode_shares
from pipeline.guidance.algebra import EMPTY, GUIDE, NEGATIVE, Guidance, Term


def test_autoguidance_keeps_every_mode_and_classifier_free_guidance_loses_some():
    plain = mode_shares(draw(Guidance(), 1000))
    cfg = mode_shares(draw(Guidance((Term(EMPTY, SCALE),)), 1000))
    auto = mode_shares(draw(Guidance((Term(GUIDE, SCALE),)), 1000))
    assert (plain > 0.1).all()
    assert (auto > 0.75 * plain).all(), "every mode keeps its share"
    assert int((cfg < 0.1 * plain).sum()) == 2, "the two modes beside the other class are lost"
    assert plain.sum() < auto.sum() <= 1, "and fewer points lie between the modes"
    assert len(cfg) == len(MODES)


def test_a_negative_prompt_throws_points_out_of_the_class_and_a_weaker_network_does_not():
    outside = {one.reference: share_outside(draw(one.guidance, 1000)) for one in MECHANISMS}
    assert outside[NEGATIVE] > 0.5
    assert outside[EMPTY] < 0.05
    assert outside[GUIDE] < 0.05


def test_a_negative_prompt_pushes_hardest_on_the_mode_farthest_from_what_it_names():
    farthest = int(torch.cdist(MODES, OTHER).amin(1).argmax())
    assert int(push(MODES, NEGATIVE).norm(dim=1).argmax()) == farthest
    assert int(push(MODES, EMPTY).norm(dim=1).argmax()) != farthest
