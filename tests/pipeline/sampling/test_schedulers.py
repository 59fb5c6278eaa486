"""The schedulers: their noise levels, whose random numbers they use, and exactness on a case with a known answer."""

import importlib
import math

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from pydantic import ValidationError

from models.tinybooru.networks.families import build_scheduler as training_schedule
from pipeline.errors import InputError
from pipeline.networks.noise_path import VARIANCE_PRESERVING, from_x0
from pipeline.sampling.schedulers import noise_levels
from pipeline.sampling.starts import IMAGE_TO_IMAGE_SEED, FromImages, FromNoise, initial_noise
from pipeline.sampling.steppers import build_stepper
from pipeline.study.sampler import Sampler
from pipeline.study.solvers import SOLVERS

CPU = torch.device("cpu")
SHAPE = (3, 8, 8)
EVERY = [(scheduler, levels) for scheduler, solver in SOLVERS.items() for levels in solver.levels]


def sampler(scheduler, levels="native", steps=12, **more):
    rho = {"rho": 2.0} if levels == "polyexponential" else {}
    return Sampler(scheduler=scheduler, steps=steps, levels=levels, **rho, **more)


def draw(setting, denoiser, seeds, start=None):
    """The loop in its shortest form, for a `denoiser` that predicts x0."""
    stepper = build_stepper(setting, training_schedule().config)
    beginning = (start or FromNoise()).begin(stepper, setting.steps, seeds, SHAPE, CPU)
    x = beginning.x
    for at in stepper.moments():
        x = stepper.step(denoiser(stepper.scaled(x, at)), x, at, beginning.generators)
    return x


def squeeze(x):
    """Some denoiser that depends on its input."""
    return torch.tanh(x)


def test_initial_noise_is_the_seeds_own():
    together, _ = initial_noise([3, 4, 5], SHAPE)
    alone, _ = initial_noise([4], SHAPE)
    assert torch.equal(together[1], alone[0])
    assert not torch.equal(together[0], together[1])


@pytest.mark.parametrize(("scheduler", "levels"), EVERY)
def test_a_point_mass_is_drawn_exactly_from_x0_predictions(scheduler, levels):
    image = torch.linspace(-1, 1, 3 * 64).reshape(1, *SHAPE)
    drawn = draw(sampler(scheduler, levels), lambda x: image.expand_as(x), [5, 6])
    torch.testing.assert_close(drawn, image.expand(2, -1, -1, -1), atol=3e-3, rtol=0)


@pytest.mark.parametrize("kind", VARIANCE_PRESERVING.prediction_types)
@pytest.mark.parametrize("spacing", ["trailing", "leading", "linspace"])
@pytest.mark.parametrize("steps", [1, 3, 12, 28, 50, 64, 150])
def test_ddim_steps_from_each_level_to_the_next_and_leaves_no_noise(steps, spacing, kind):
    """With the right prediction of one image x0 and one noise e, every sample is a x0 + b e of its own level."""
    trained = DDPMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, prediction_type=kind)
    built = build_stepper(sampler("ddim", steps=steps, spacing=spacing), trained.config).scheduler
    image = torch.linspace(-1, 1, 3 * 64).reshape(1, *SHAPE)
    built.set_timesteps(steps)
    assert len(built.timesteps) == steps
    e = torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(0))
    levels = [float(built.alphas_cumprod[t]) for t in built.timesteps] + [1.0]
    x = levels[0] ** 0.5 * image + (1 - levels[0]) ** 0.5 * e
    for timestep, now, then in zip(built.timesteps, levels, levels[1:], strict=False):
        output = from_x0(image, kind, x, now**0.5, (1 - now) ** 0.5)
        x = built.step(output, timestep, x, return_dict=False)[0]
        torch.testing.assert_close(x, then**0.5 * image + (1 - then) ** 0.5 * e, atol=1e-3, rtol=0)


def test_a_number_of_steps_that_rounding_lays_out_as_one_more_is_refused():
    for steps in range(1, 1001):
        laid_out = len(np.arange(1000, 0, -1000 / steps))
        if laid_out == steps:
            sampler("ddim", steps=steps)
        else:
            with pytest.raises(ValidationError, match=rf"{steps} trailing steps .* take \d+ or \d+ steps"):
                sampler("euler", steps=steps)
            sampler("euler", steps=steps, spacing="linspace")
    with pytest.raises(ValidationError, match=r"61 trailing steps cannot be laid out exactly: .* take 60 or 62 steps"):
        sampler("ddim", steps=61)


@pytest.mark.parametrize("steps", [20, 28, 50])
@pytest.mark.parametrize(("scheduler", "levels"), EVERY)
def test_sampling_begins_at_the_first_noise_level(scheduler, levels, steps):
    # Of a schedule that ends without signal several levels are nearest to the last timestep.
    trained = DDPMScheduler(rescale_betas_zero_snr=True, prediction_type="v_prediction")
    stepper = build_stepper(sampler(scheduler, levels, steps), trained.config)
    x = FromNoise().begin(stepper, steps, [1], SHAPE, CPU).x
    at = stepper.moments()[0]
    stepper.step(stepper.scaled(x, at), x, at, [torch.Generator()])
    assert getattr(stepper.scheduler, "step_index", 1) in (None, 1)


@pytest.mark.parametrize(("scheduler", "levels"), EVERY)
def test_an_image_does_not_depend_on_its_batch(scheduler, levels):
    together = draw(sampler(scheduler, levels), squeeze, [3, 4, 5])
    alone = draw(sampler(scheduler, levels), squeeze, [4])
    torch.testing.assert_close(together[1], alone[0], atol=1e-6, rtol=0)
    assert not torch.allclose(together[0], together[1])


@pytest.mark.parametrize("scheduler", SOLVERS)
def test_schedulers_that_add_noise_use_the_images_own_generator(scheduler):
    """The same start with other random numbers after it: only a stochastic sampler ends elsewhere."""

    def end(seeds):
        setting = sampler(scheduler)
        stepper = build_stepper(setting, training_schedule().config)
        beginning = FromNoise().begin(stepper, setting.steps, seeds, SHAPE, CPU)
        x = stepper.from_noise(torch.ones_like(beginning.x))
        for at in stepper.moments():
            x = stepper.step(squeeze(stepper.scaled(x, at)), x, at, beginning.generators)
        return x

    stochastic = scheduler in ("euler_ancestral", "smea_like", "dpmsolver++_2m_sde", "dpmsolver++_sde")
    assert torch.equal(end([1]), end([2])) is not stochastic
    assert torch.equal(end([1]), end([1]))


@pytest.mark.parametrize("scheduler", [name for name, solver in SOLVERS.items() if len(solver.levels) > 1])
@pytest.mark.parametrize("levels", ["karras", "exponential", "polyexponential"])
def test_noise_levels_are_those_of_k_diffusion(scheduler, levels):
    schedule = training_schedule()
    alphas = schedule.alphas_cumprod.double()
    trained = ((1 - alphas) / alphas).sqrt()
    low, high = float(trained[0]), float(trained[-1])
    ramp = torch.linspace(0, 1, 12, dtype=torch.float64)
    if levels == "karras":
        expected = (high ** (1 / 7) + ramp * (low ** (1 / 7) - high ** (1 / 7))) ** 7
    else:
        rho = 2.0 if levels == "polyexponential" else 1.0
        expected = ((1 - ramp) ** rho * (math.log(high) - math.log(low)) + math.log(low)).exp()
    built = build_stepper(sampler(scheduler, levels), schedule.config).scheduler
    built.set_timesteps(12)
    visited = torch.tensor(sorted({float(s) for s in built.sigmas if s > 0}, reverse=True), dtype=torch.float64)
    torch.testing.assert_close(visited, expected, rtol=2e-4, atol=1e-6)


def test_polyexponential_with_exponent_one_is_exponential():
    torch.testing.assert_close(
        torch.from_numpy(noise_levels("polyexponential", 0.03, 14.6, 10, 1.0)),
        torch.from_numpy(noise_levels("exponential", 0.03, 14.6, 10)),
    )


def test_the_smea_like_sampler_goes_over_the_middle_twice_and_never_up_in_between():
    built = build_stepper(sampler("smea_like"), training_schedule().config).scheduler
    built.set_timesteps(12)
    plain = build_stepper(sampler("euler_ancestral"), training_schedule().config).scheduler
    plain.set_timesteps(12)
    counts = [built.sigmas.tolist().count(level) for level in plain.sigmas.tolist()]
    assert counts == [1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 1, 1, 1]
    assert (built.sigmas.diff() <= 0).all()


def test_a_second_pass_keeps_the_noise_level():
    """Of an image that is all noise the first pass leaves the noise's size, at the level it had."""
    setting = sampler("smea_like", steps=40)
    stepper = build_stepper(setting, training_schedule().config)
    beginning = FromNoise().begin(stepper, 40, [0], (3, 64, 64), CPU)
    x = beginning.x
    for at in stepper.moments()[:-1]:
        stepper.scaled(x, at)
        x = stepper.step(torch.zeros_like(x), x, at, beginning.generators)
        assert float(x.std()) == pytest.approx(at.next_sigma, rel=0.03)


@pytest.mark.parametrize(("scheduler", "levels"), EVERY)
def test_image_to_image_starts_from_the_image_with_the_noise_of_its_first_step(scheduler, levels):
    source = torch.linspace(-1, 1, 2 * 3 * 64).reshape(2, *SHAPE)
    stepper = build_stepper(sampler(scheduler, levels), training_schedule().config)
    evaluations = stepper.lay_out(12, CPU)
    beginning = FromImages(source, 0.5).begin(stepper, 12, [1, 2], SHAPE, CPU)
    left = stepper.moments()
    assert len(left) == pytest.approx(evaluations / 2, abs=1)
    sigma = left[0].sigma
    noise, _ = initial_noise([1 + IMAGE_TO_IMAGE_SEED, 2 + IMAGE_TO_IMAGE_SEED], SHAPE)
    seen = stepper.scaled(beginning.x, left[0])  # what the network reads: of unit total variance
    torch.testing.assert_close(seen, (source + sigma * noise) / (1 + sigma**2) ** 0.5, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("scheduler", SOLVERS)
def test_image_to_image_draws_no_random_number_that_its_start_was_drawn_with(scheduler):
    """The start comes from the same seed: the largest one as well."""
    seeds = [1, 2**31 - 1]
    stepper = build_stepper(sampler(scheduler), training_schedule().config)
    theirs, generators = initial_noise(seeds, SHAPE)
    beginning = FromImages(torch.zeros(2, *SHAPE), 1.0).begin(stepper, 12, seeds, SHAPE, CPU)
    pairs = [(beginning.x, theirs)]
    pairs += [
        (torch.randn(1, *SHAPE, generator=own), torch.randn(1, *SHAPE, generator=other))
        for own, other in zip(beginning.generators, generators, strict=True)
    ]
    for ours, others in pairs:
        for one, other in zip(ours, others, strict=True):
            assert abs(float(torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1])) < 0.25
    assert not {g.initial_seed() for g in beginning.generators} & {g.initial_seed() for g in generators}
    at = stepper.moments()[0]
    stepper.step(stepper.scaled(beginning.x, at), beginning.x, at, beginning.generators)


def test_a_multistep_solver_that_begins_later_begins_with_eulers_step():
    """It knows one derivative then, whatever number its first step has among all."""
    ends = []
    for scheduler in ("euler", "lms"):
        stepper = build_stepper(sampler(scheduler, "karras"), training_schedule().config)
        start = FromImages(torch.ones(1, *SHAPE) / 2, 0.5)
        x = start.begin(stepper, 12, [1], SHAPE, CPU).x
        at = stepper.moments()[0]
        ends.append(stepper.step(squeeze(stepper.scaled(x, at)), x, at, []))
    torch.testing.assert_close(*ends)


def test_noise_on_the_start_is_added_to_it():
    source = torch.zeros(2, *SHAPE)
    still = draw(sampler("euler", steps=4), lambda x: x, [1, 2], FromImages(source, 0.5))
    moved = draw(sampler("euler", steps=4), lambda x: x, [1, 2], FromImages(source, 0.5, noise=0.2))
    assert not torch.allclose(still, moved)


def test_image_to_image_without_a_step_is_refused():
    with pytest.raises(InputError, match=r"image_to_image.strength 0.05 of 12 steps is none"):
        draw(sampler("euler"), squeeze, [1], FromImages(torch.zeros(1, *SHAPE), 0.05))


def test_schedules_without_signal_are_drawn_from_by_those_that_know_them():
    """diffusers' argument for them, for v predictions: every level an image begins at is finite and as large."""
    schedule = DDPMScheduler(rescale_betas_zero_snr=True, prediction_type="v_prediction").config
    ignoring = []
    for scheduler in SOLVERS:
        stepper = build_stepper(sampler(scheduler), schedule)
        FromNoise().begin(stepper, 12, [1], SHAPE, CPU)
        if stepper.moments()[0].sigma < 4000:
            ignoring.append(scheduler)
        assert all(math.isfinite(at.sigma) for at in stepper.moments())
    assert ignoring == [name for name, solver in SOLVERS.items() if not solver.from_pure_noise]


@pytest.mark.parametrize(("name", "solver"), SOLVERS.items(), ids=SOLVERS)
def test_what_a_solver_names_is_there(name, solver):
    for place in (solver.scheduler, solver.stepper, solver.flow):
        if place is not None:
            module, _, found = place.partition(":")
            assert hasattr(importlib.import_module(module), found), f"{name} names {place}"


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"scheduler": "ddpm"}, "is unknown; known schedulers: ddim, euler"),
        ({"scheduler": "ddim", "levels": "karras"}, "scheduler ddim has no levels karras; it takes native"),
        ({"scheduler": "euler", "levels": "polyexponential"}, "rho is the exponent"),
        ({"scheduler": "euler", "levels": "karras", "rho": 7}, "rho is the exponent"),
        ({"scheduler": "euler", "levels": "karras", "spacing": "leading"}, "spacing is for levels native"),
    ],
)
def test_an_unfit_sampler_is_refused_with_what_fits(setting, message):
    with pytest.raises(ValidationError, match=message):
        Sampler(steps=10, **setting)
