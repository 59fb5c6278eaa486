"""CFG++: the step that takes the noise of another prediction, against its formula along both noise paths."""

import pytest
import torch
from compositions import composed

from pipeline.errors import InputError
from pipeline.generation.arm_guidance import guidance_of
from pipeline.guidance.algebra import EMPTY, MAIN, NEGATIVE, Guidance, Renoise, Term, Walk
from pipeline.guidance.postprocess.results import Renorm
from pipeline.guidance.scale_schedules import Constant, Moment, Window
from pipeline.networks.noise_path import PATHS, RECTIFIED_FLOW, VARIANCE_PRESERVING
from pipeline.networks.text.conditioning import Conditioning
from pipeline.sampling.sampler import sample
from pipeline.sampling.starts import FromNoise
from pipeline.sampling.steppers import build_stepper
from pipeline.study.arm import Arm
from pipeline.study.sampler import Sampler
from pipeline.study.solvers import SOLVERS
from pipeline.study.study import parse_study

CPU = torch.device("cpu")
STEPS = 6
SHAPE = (2, 4, 4)
TEXTS = {name: Conditioning({"mean": torch.full((2, 1, 1, 1), mean)}) for name, mean in
         {"prompt": 0.7, "empty": -0.4, "negative": -0.9}.items()}  # fmt: skip
SCHEDULES = {
    "variance_preserving": {"num_train_timesteps": 1000, "beta_schedule": "scaled_linear"},
    "rectified_flow": {"num_train_timesteps": 1000, "shift": 1.0},
}
CASES = [
    *(("variance_preserving", scheduler, kind) for scheduler in ("ddim", "euler")
      for kind in VARIANCE_PRESERVING.prediction_types),
    *(("rectified_flow", "euler", kind) for kind in RECTIFIED_FLOW.prediction_types),
]  # fmt: skip


class Towards:
    """A denoiser that expects something between the sample and the mean that its text names."""

    device, sample_shape, module = CPU, SHAPE, torch.nn.Identity()

    def __init__(self, path, prediction_type):
        self.path, self.prediction_type = path, prediction_type

    def __call__(self, x, sigma, conditioning, texts=1, damage=None, timestep=None, chance=None, attention=None):
        x = x.repeat(texts, 1, 1, 1)
        return self.path.from_x0(self.x0(x, sigma, conditioning["mean"]), self.prediction_type, x, sigma)

    def x0(self, x, sigma, mean):
        return mean + torch.tanh(x / self.path.signal_and_noise(sigma)[0] - mean) / (1 + sigma)

    def same_schedule(self, other):
        return True


def stepper_of(path, scheduler, kind):
    setting = Sampler(scheduler=scheduler, steps=STEPS)
    return build_stepper(setting, {**SCHEDULES[path], "prediction_type": kind}, PATHS[path])


def drawn(case, guidance):
    path, _, kind = case
    network = Towards(PATHS[path], kind)
    return sample({"main": network}, TEXTS, guidance, stepper_of(*case), STEPS, [0, 1])


def written_out(case, scale, share=1.0, along="empty"):
    """CFG++ as x' = a' x0(guided) + b' e, from a level to the next, in samples x0 + sigma e."""
    path, _, kind = case
    network, stepper = Towards(PATHS[path], kind), stepper_of(*case)
    x = FromNoise().begin(stepper, STEPS, [0, 1], SHAPE, CPU).x
    y = None
    for at in stepper.moments():
        if y is None:
            y = stepper.scaled(x, at) / network.path.signal_and_noise(at.sigma)[0]
        seen = y * network.path.signal_and_noise(at.sigma)[0]
        main, reference = (network.x0(seen, at.sigma, TEXTS[name]["mean"]) for name in ("prompt", along))
        guided = reference + scale * (main - reference)
        noise = (y - (share * reference + (1 - share) * guided)) / at.sigma
        y = guided + at.next_sigma * noise
    return y


@pytest.mark.parametrize("case", CASES, ids="-".join)
@pytest.mark.parametrize(("scale", "share"), [(0.4, 1.0), (1.0, 1.0), (2.0, 1.0), (0.8, 0.5)])
def test_cfg_plus_plus_goes_to_the_guided_x0_with_the_noise_of_the_empty_prompt(case, scale, share):
    found, _ = drawn(case, Guidance((Term(EMPTY, scale),), renoise=Renoise(EMPTY, share)))
    torch.testing.assert_close(found, written_out(case, scale, share), atol=2e-4, rtol=1e-4)


class Lengthened(Constant):
    """The scale lambda / (1 - sigma' / sigma) of a term of scale 2."""

    lam: float

    def factor(self, at):
        return self.lam / (1 - at.next_sigma / at.sigma) - 1


@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_it_is_classifier_free_guidance_at_a_scale_of_every_step_s_own(case):
    found, _ = drawn(case, Guidance((Term(EMPTY, 0.3),), renoise=Renoise(EMPTY)))
    plain, _ = drawn(case, Guidance((Term(EMPTY, 2.0, Lengthened(lam=0.3)),)))
    torch.testing.assert_close(found, plain, atol=5e-4, rtol=1e-3)


@pytest.mark.parametrize("case", CASES[:1], ids="-".join)
def test_it_re_noises_along_any_term(case):
    found, _ = drawn(case, Guidance((Term(NEGATIVE, 0.6),), renoise=Renoise(NEGATIVE)))
    torch.testing.assert_close(found, written_out(case, 0.6, along="negative"), atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_without_a_share_the_step_is_the_solver_s_own_bit_for_bit(case):
    plain, _ = drawn(case, Guidance())
    still, trace = drawn(case, Guidance((Term(EMPTY, 1.0),), renoise=Renoise(EMPTY, 0.0)))
    assert torch.equal(plain, still)
    assert all(step.references == () for step in trace), "and costs no evaluation"
    cfg, _ = drawn(case, Guidance((Term(EMPTY, 2.0),)))
    assert torch.equal(drawn(case, Guidance((Term(EMPTY, 2.0),), renoise=Renoise(EMPTY, 0.0)))[0], cfg)


@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_an_empty_prompt_that_is_the_prompt_changes_nothing(case):
    path, _, kind = case
    network, same = Towards(PATHS[path], kind), {**TEXTS, "empty": TEXTS["prompt"]}
    guidance = Guidance((Term(EMPTY, 0.4),), renoise=Renoise(EMPTY))
    found, _ = sample({"main": network}, same, guidance, stepper_of(*case), STEPS, [0, 1])
    assert torch.equal(found, drawn(case, Guidance())[0])


def test_at_a_scale_of_one_the_empty_prompt_is_still_evaluated():
    guidance = Guidance((Term(EMPTY, 1.0),), renoise=Renoise(EMPTY))
    assert guidance.predictions() == (MAIN, EMPTY)
    _, trace = drawn(CASES[0], guidance)
    assert all((step.references, step.probed) == (("empty",), ()) for step in trace)


def test_a_schedule_weighs_the_noise_as_well():
    late = Window(name="window", start=0.5)
    guidance = Guidance((Term(EMPTY, 0.4, late),), renoise=Renoise(EMPTY, 0.8))
    walk = Walk(guidance)
    shares = [walk.renoise_share(Moment(k, 4, 0, 1.0, 0.5)) for k in range(4)]
    assert shares == [0, 0, 0.8, 0.8]
    assert walk.predictions(Moment(0, 4, 0, 1.0, 0.5)) == (MAIN,)


def test_it_acts_on_what_the_post_processes_have_made():
    """A cap that holds x0 down holds the step's aim down, and not the noise."""
    case = CASES[2]  # DDIM of a network that predicts v
    post = Renorm(name="renorm", per="image", cap=0.5)
    capped, _ = drawn(case, Guidance((Term(EMPTY, 0.4),), post, renoise=Renoise(EMPTY)))
    assert (capped - drawn(case, Guidance((Term(EMPTY, 0.4),), renoise=Renoise(EMPTY)))[0]).abs().max() > 1e-3


def test_the_arm_s_step_becomes_the_guidance_s():
    arm = Arm.model_validate({"method": "cfg", "scale": 0.4, "step": {"name": "cfg_plus_plus", "share": 0.5}})
    assert guidance_of(arm).renoise == Renoise(EMPTY, 0.5)


def params(**arm):
    content = composed()
    content["arms"]["cfg"] |= {"step": {"name": "cfg_plus_plus"}, **arm}
    return content


@pytest.mark.parametrize("scheduler", [name for name in SOLVERS if name not in ("ddim", "euler")])
def test_other_solvers_are_refused_by_name(scheduler):
    content = params(sampler={"scheduler": scheduler, "steps": 20})
    said = (
        rf"arms.cfg.step cfg_plus_plus needs deterministic steps of first order, .*{scheduler.replace('+', '.')} "
        "has not; take ddim, euler$"
    )
    with pytest.raises(InputError, match=said) as raised:
        parse_study(content, "params.yaml")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("scheduler", ["ddim", "euler"])
def test_solvers_of_first_order_are_taken(scheduler):
    parse_study(params(sampler={"scheduler": scheduler, "steps": 20}), "params.yaml")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"step": {"name": "cfg_plus_plus", "along": "negative"}}, "along 'negative', which no term names; .* empty"),
        ({"step": {"name": "cfg_plus_plus", "share": 1.5}}, "step.share is 1.5: Input should be less than or equal"),
        ({"step": {"name": "cfg++"}}, "cfg_plus_plus"),
        ({"method": "unguided", "scale": 1}, "no terms for a schedule, post or step to act on"),
        ({"schedule": {"name": "feedback", "temperature": 0.1}}, "step cfg_plus_plus leaves the steps that a schedule"),
    ],
)
def test_what_makes_no_sense_is_refused(settings, said):
    with pytest.raises(InputError, match=said) as raised:
        parse_study(params(**settings), "params.yaml")
    assert "\n" not in str(raised.value)
