"""The analytic check: on a mixture with known scores autoguidance keeps every mode and CFG loses some."""

from docs.toy import MODES, SCALE, draw, mode_shares
from pipeline.guidance.algebra import EMPTY, GUIDE, Guidance, Term


def test_autoguidance_keeps_every_mode_and_classifier_free_guidance_loses_some():
    plain = mode_shares(draw(Guidance(), 1000))
    cfg = mode_shares(draw(Guidance((Term(EMPTY, SCALE),)), 1000))
    auto = mode_shares(draw(Guidance((Term(GUIDE, SCALE),)), 1000))
    assert (plain > 0.1).all()
    assert (auto > 0.75 * plain).all(), "every mode keeps its share"
    assert int((cfg < 0.1 * plain).sum()) == 2, "the two modes beside the other class are lost"
    assert plain.sum() < auto.sum() <= 1, "and fewer points lie between the modes"
    assert len(cfg) == len(MODES)
