"""Feedback guidance: a scale from the tracked posterior, against the authors' recursion."""

import math
from pathlib import Path

import pytest
import torch
from compositions import composed
from pydantic import ValidationError

from pipeline.errors import InputError
from pipeline.guidance.algebra import EMPTY, MAIN, Guidance, Term, Walk
from pipeline.guidance.feedback import Feedback
from pipeline.guidance.scale_schedules import Moment
from pipeline.networks.denoisers.unet import load_network
from pipeline.networks.text.text_encoder import load_text_encoder
from pipeline.sampling.sampler import sample
from pipeline.sampling.steppers import build_stepper
from pipeline.study.arm import Arm
from pipeline.study.sampler import Sampler
from pipeline.study.study import parse_study

PROMPTS = ["1person, solo, blue hair", "object, stones, white background", "scenery, hills, sun", "pattern, waves"]
CPU = torch.device("cpu")
STEPS = 6


@pytest.fixture(scope="module")
def parts(networks_folder: Path):
    encoder = load_text_encoder(networks_folder / "main", CPU)
    texts = {"prompt": PROMPTS, "empty": [""] * 4}
    return load_network(networks_folder / "main", CPU), {name: encoder.encode(text) for name, text in texts.items()}


def draw(parts, guidance, scheduler="ddim", rows=slice(None)):
    network, told = parts
    stepper = build_stepper(Sampler(scheduler=scheduler, steps=STEPS), network.schedule.config)
    told = {name: text.rows(rows) for name, text in told.items()}
    return sample({"main": network}, told, guidance, stepper, STEPS, list(range(4))[rows])


def feedback(**settings):
    return Feedback.model_validate({"name": "feedback", "temperature": 0.1, **settings})


def test_the_scale_is_the_authors_recursion():
    """Their denoised samples of a random chain, in their own order: guide, step, update."""
    trust, start, temperature, most = 0.7, 0.4, 0.05, 6.0
    levels = [10.0, 5.0, 2.0, 1.0, 0.4, 0.0]
    generator = torch.Generator().manual_seed(0)
    walk = Walk(Guidance((Term(EMPTY, most, feedback(trust=trust, start=start, temperature=temperature)),)))
    delta = math.log((1 - trust) * 3 / 2) / ((1 - start) * 5)
    log_p, scales = torch.zeros(3, dtype=torch.float64), []
    for k in range(5):
        t, t_next = levels[k], levels[k + 1]
        x, after, cond, uncond = torch.randn(4, 3, 2, 4, 4, dtype=torch.float64, generator=generator)
        at = Moment(k, 5, 0, t, t_next)
        guided = walk.combine({MAIN: cond, EMPTY: uncond}, at)
        scale = log_p.exp() / (log_p.exp() - (1 - trust))
        torch.testing.assert_close(guided, uncond + scale.view(-1, 1, 1, 1) * (cond - uncond))
        scales.append(scale)
        walk.follow(at, x, after, {MAIN: cond, EMPTY: uncond})
        if t_next:
            variance = (t**2 - t_next**2) * t_next**2 / t**2
            means = (t_next**2 / t**2 * x + (t**2 - t_next**2) / t**2 * end for end in (cond, uncond))
            from_cond, from_uncond = (((after - mean) ** 2).sum((1, 2, 3)) for mean in means)
            log_p = log_p - temperature / (2 * variance) * (from_cond - from_uncond) + delta
            log_p = log_p.clamp(math.log((1 - trust) * most / (most - 1)), 3.0)
    spread = torch.stack(scales)
    assert spread.max() <= most + 1e-9
    assert spread.std() > 0.1


def test_where_the_steps_say_nothing_the_scale_reaches_three_at_the_start():
    rule, steps = feedback(trust=0.9, start=0.5, temperature=0.0), 10
    log_p = torch.zeros(1, dtype=torch.float64)
    nothing = torch.zeros(1, 1, 1, 1, dtype=torch.float64)
    for k in range(5):
        at = Moment(k, steps, 0, 10.0 - k, 9.0 - k)
        log_p = rule.updated(log_p, at, nothing, nothing, nothing, nothing, 50.0)
    assert 1 + float(rule.weight(log_p, 50.0)) == pytest.approx(3)


@pytest.mark.parametrize("scheduler", ["ddim", "euler", "euler_ancestral"])
def test_a_largest_scale_of_one_is_the_plain_conditional(parts, scheduler):
    plain, _ = draw(parts, Guidance(), scheduler)
    still, trace = draw(parts, Guidance((Term(EMPTY, 1.0, feedback()),)), scheduler)
    assert torch.equal(plain, still)
    assert all(step.references == () for step in trace)


def test_a_network_that_is_trusted_is_hardly_guided(parts):
    # Without a temperature the posterior falls by the offset alone, the same for any image, and reaches 1 - trust at
    # the end of the steps.
    scales = []
    for trust in (0.5, 1 - 1e-9):
        _, trace = draw(parts, Guidance((Term(EMPTY, 5.0, feedback(trust=trust, temperature=0.0, start=0.0)),)))
        scales.append(torch.stack([step.effective_scale for step in trace]))
    assert scales[1].max() < 1.05 < scales[0][1:].min()


def test_the_scale_never_passes_the_arm_s(parts):
    guidance = Guidance((Term(EMPTY, 2.5, feedback(temperature=0.0, start=0.0)),))
    _, trace = draw(parts, guidance)
    scales = torch.stack([step.effective_scale for step in trace])
    assert scales.max() <= 2.5 + 1e-2
    assert scales[-1].min() > 1.5


@pytest.mark.parametrize("scheduler", ["ddim", "euler", "euler_ancestral"])
def test_the_scale_does_not_depend_on_the_batch(parts, scheduler):
    guidance = Guidance((Term(EMPTY, 5.0, feedback()),))
    together, _ = draw(parts, guidance, scheduler)
    alone, _ = draw(parts, guidance, scheduler, slice(2, 3))
    torch.testing.assert_close(together[2], alone[0], atol=1e-4, rtol=0)


def test_ddim_and_euler_follow_the_same_chain(parts):
    """They keep samples at different scales; what the scale follows is the same."""
    guidance = Guidance((Term(EMPTY, 5.0, feedback(temperature=0.5)),))
    (_, ddim), (_, euler) = (draw(parts, guidance, scheduler) for scheduler in ("ddim", "euler"))
    first, second = (torch.stack([step.effective_scale for step in trace]) for trace in (ddim, euler))
    torch.testing.assert_close(first, second, atol=2e-2, rtol=0)
    assert first.std(0).min() > 0.05, "and it moves"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"method": "negative", "negative_prompt": "bad"}, "schedule feedback is for the empty prompt, not negative"),
        ({"scale": 0.5}, "schedule feedback needs a largest scale of at least 1, not 0.5"),
        ({"schedule": {"name": "feedback", "temperature": 0.1, "trust": 0.2}}, "greater than 0.34"),
        ({"schedule": {"name": "feedback"}}, "temperature"),
    ],
)
def test_what_makes_no_sense_is_refused(settings, said):
    base = {"method": "cfg", "scale": 5.0, "schedule": {"name": "feedback", "temperature": 0.1}}
    with pytest.raises(ValidationError, match=said):
        Arm.model_validate(base | settings)


def test_solvers_of_higher_order_are_refused_by_name():
    content = composed()
    content["arms"]["cfg"] |= {
        "schedule": {"name": "feedback", "temperature": 0.1},
        "sampler": {"scheduler": "heun", "steps": 20},
    }
    said = "arms.cfg.schedule feedback needs steps of first order, .*heun has not; take ddim, euler, euler_ancestral$"
    with pytest.raises(InputError, match=said):
        parse_study(content, "params.yaml")
