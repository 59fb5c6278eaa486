"""Rectified flow: a denoiser with a known closed form is sampled to its exact moments, and sigma means one thing."""

import itertools
import math

import numpy as np
import pyarrow as pa
import pytest
import torch

from eval.comparison.alignment import trajectories
from pipeline.guidance.algebra import GUIDE, Guidance, Perturbation, Prediction, Term
from pipeline.guidance.scale_schedules import NoiseInterval
from pipeline.guidance.trace import trace_rows
from pipeline.networks.noise_path import RECTIFIED_FLOW, VARIANCE_PRESERVING
from pipeline.networks.text.conditioning import Conditioning
from pipeline.sampling.sampler import sample
from pipeline.sampling.starts import FromImages, FromNoise
from pipeline.sampling.steppers import build_stepper
from pipeline.study.sampler import Sampler
from pipeline.study.solvers import solvers_along

CPU = torch.device("cpu")
SHAPE = (4, 64, 64)
TEXT = {"prompt": Conditioning({"tokens": torch.zeros(2, 1, 4)})}
SCHEDULE = {"num_train_timesteps": 1000, "shift": 1.0}
WEIGHTS, MEANS, DEVIATIONS = (0.3, 0.7), (-1.5, 0.8), (0.2, 0.5)


class Mixture:
    """The exact denoiser of values that are each drawn from a mixture of two Gaussians, along any path, of any type."""

    device, sample_shape, module = CPU, SHAPE, torch.nn.Identity()

    def __init__(self, path, prediction_type, means=MEANS):
        self.path, self.prediction_type, self.means = path, prediction_type, means

    def __call__(self, x, sigma, conditioning, texts=1, damage=None, timestep=None, chance=None, attention=None):
        a, b = self.path.signal_and_noise(sigma)
        likelihoods, expected = [], []
        for weight, mean, deviation in zip(WEIGHTS, self.means, DEVIATIONS, strict=True):
            variance = (a * deviation) ** 2 + b**2
            likelihoods.append(math.log(weight) - math.log(variance) / 2 - (x - a * mean).square() / (2 * variance))
            expected.append(mean + a * deviation**2 / variance * (x - a * mean))
        x0 = (torch.stack(likelihoods).softmax(0) * torch.stack(expected)).sum(0)
        return self.path.from_x0(x0, self.prediction_type, x, sigma)

    def same_schedule(self, other):
        return other.path is self.path


def moments_of(values):
    """Mean, standard deviation and third central moment."""
    mean = values.mean()
    return float(mean), float(values.std()), float((values - mean).pow(3).mean())


def exact_moments():
    mean = sum(w * m for w, m in zip(WEIGHTS, MEANS, strict=True))
    parts = [(w, m - mean, s) for w, m, s in zip(WEIGHTS, MEANS, DEVIATIONS, strict=True)]
    variance = sum(w * (d**2 + s**2) for w, d, s in parts)
    return mean, variance**0.5, sum(w * (d**3 + 3 * d * s**2) for w, d, s in parts)


def stepper_of(scheduler, kind, steps=200):
    setting = Sampler(scheduler=scheduler, steps=steps)
    return build_stepper(setting, {**SCHEDULE, "prediction_type": kind}, RECTIFIED_FLOW)


def drawn(networks, guidance, scheduler="euler", kind="flow_prediction", steps=200):
    return sample(networks, TEXT, guidance, stepper_of(scheduler, kind, steps), steps, [0, 1])


@pytest.mark.parametrize("kind", RECTIFIED_FLOW.prediction_types)
@pytest.mark.parametrize("scheduler", solvers_along("rectified_flow"))
def test_a_mixture_of_gaussians_is_sampled_to_its_exact_moments(scheduler, kind):
    samples, trace = drawn({"main": Mixture(RECTIFIED_FLOW, kind)}, Guidance(), scheduler, kind)
    # 32,768 values: the standard error of the mean is 0.006, of the third moment 0.02.
    assert moments_of(samples.flatten()) == pytest.approx(exact_moments(), abs=0.05)
    assert all(a.sigma > b.sigma for a, b in itertools.pairwise(trace)), "noise falls along the trace"


def test_ancestral_steps_are_those_of_k_diffusion_in_variance_exploding_form():
    """With its sigma_down and sigma_up, the same noise, and samples as x0 + sigma e."""
    stepper = stepper_of("euler_ancestral", "flow_prediction", 5)
    x = FromNoise().begin(stepper, 5, [0, 1], SHAPE, CPU).x
    mixture = Mixture(RECTIFIED_FLOW, "flow_prediction")
    for at in stepper.moments():
        guided = mixture(x, at.sigma, None)
        after = stepper.step(guided, x, at, [torch.Generator().manual_seed(k) for k in (5, 6)])
        signal = RECTIFIED_FLOW.signal_and_noise(at.sigma)[0]
        x0 = RECTIFIED_FLOW.to_x0(guided.double(), "flow_prediction", x.double(), at.sigma)
        up = (at.next_sigma**2 * (at.sigma**2 - at.next_sigma**2) / at.sigma**2) ** 0.5
        down = (at.next_sigma**2 - up**2) ** 0.5
        noise = torch.cat([torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(k)) for k in (5, 6)])
        exploding = x.double() / signal  # thousands at the first step, whose difference is of order 1
        expected = exploding + (exploding - x0) / at.sigma * (down - at.sigma) + up * noise
        torch.testing.assert_close(after.double() / stepper.signal_after(at), expected, atol=1e-3, rtol=1e-4)
        x = after


def test_the_steps_are_spoken_of_by_sigma():
    """t of rectified flow is sigma / (1 + sigma); at t = 1 there is the most noise that there is."""
    stepper = stepper_of("euler", "flow_prediction", 4)
    FromNoise().begin(stepper, 4, [0], SHAPE, CPU)
    first, *later = stepper.moments()
    assert first.sigma == pytest.approx(4096, rel=1e-3)
    ts = stepper.scheduler.sigmas.tolist()[1:-1]
    assert [at.sigma / (1 + at.sigma) for at in later] == pytest.approx(ts)


@pytest.mark.parametrize("kind", VARIANCE_PRESERVING.prediction_types)
def test_a_guide_along_another_path_says_the_same_of_the_same_noise(kind):
    """A guide that was trained on the variance preserving path and knows the same mixture changes nothing."""
    main = Mixture(RECTIFIED_FLOW, "flow_prediction")
    plain, _ = drawn({"main": main}, Guidance(), steps=20)
    guide = Mixture(VARIANCE_PRESERVING, kind)
    guided, trace = drawn({"main": main, "guide": guide}, Guidance((Term(GUIDE, 3.0),)), steps=20)
    torch.testing.assert_close(guided, plain, atol=2e-2, rtol=0)
    assert max(float(step.relative_norms.max()) for step in trace) < 1e-2


def test_an_interval_means_the_same_noise_levels_on_both_paths():
    """Guidance acts, and the trace says so, where sigma = b / a is in (lo, hi], whatever the path calls it."""
    interval = NoiseInterval(name="interval", lo=0.5, hi=5.0)
    vp = {"num_train_timesteps": 1000, "beta_schedule": "linear", "prediction_type": "epsilon"}
    for path, kind, schedule in (
        (RECTIFIED_FLOW, "flow_prediction", SCHEDULE),
        (VARIANCE_PRESERVING, "epsilon", vp),
    ):
        networks = {"main": Mixture(path, kind), "guide": Mixture(path, kind, means=(-1.0, 1.0))}
        stepper = build_stepper(Sampler(scheduler="euler", steps=20), schedule, path)
        _, trace = sample(networks, TEXT, Guidance((Term(GUIDE, 3.0, interval),)), stepper, 20, [0, 1])
        acted = [step.sigma for step in trace if step.references]
        assert acted == [step.sigma for step in trace if 0.5 < step.sigma <= 5.0]
        assert 2 < len(acted) < 18


def test_image_to_image_begins_on_the_path():
    source = torch.linspace(-1, 1, 2 * math.prod(SHAPE)).reshape(2, *SHAPE)
    stepper = stepper_of("euler", "flow_prediction", 12)
    beginning = FromImages(source, 0.5).begin(stepper, 12, [1, 2], SHAPE, CPU)
    at = stepper.moments()
    assert len(at) == 6
    a, b = RECTIFIED_FLOW.signal_and_noise(at[0].sigma)
    noise = (beginning.x - a * source) / b
    assert float(noise.std()) == pytest.approx(1, abs=0.02)
    assert abs(float((noise * source).mean())) < 0.02


class Damaged(Mixture):
    """A mixture that damage moves, for a second reference."""

    def __call__(self, x, sigma, conditioning, texts=1, damage=None, timestep=None, chance=None, attention=None):
        means = self.means if damage is None else tuple(mean / 2 for mean in self.means)
        return Mixture(self.path, self.prediction_type, means)(x, sigma, conditioning)


def aligned(path, kind, schedule):
    """The alignment of two references along one path: noise levels [S], and by them norms [S, 2] and cosines [S]."""
    networks = {"main": Damaged(path, kind), "guide": Mixture(path, kind, means=(-1.0, 1.0))}
    damaged = Prediction("pag", "main", "prompt", Perturbation("pag", ("mid_block",)))
    stepper = build_stepper(Sampler(scheduler="euler", steps=200), schedule, path)
    _, trace = sample(networks, TEXT, Guidance(probes=(GUIDE, damaged)), stepper, 200, [0, 1])
    columns = [{"image_id": [str(k)] * len(trace), **trace_rows(trace, k)} for k in range(2)]
    found = trajectories(pa.concat_tables([pa.table(own) for own in columns]))
    assert found is not None
    return found.sigma, found.norms.mean(0), found.cosine("guide", "pag").mean(0)


def test_alignment_means_the_same_noise_levels_on_both_paths():
    """Both paths lead from the same noise through the same images with noise, so directions agree level by level."""
    vp = {"num_train_timesteps": 1000, "beta_schedule": "linear", "prediction_type": "epsilon"}
    flow_sigma, flow_norms, flow_cosines = aligned(RECTIFIED_FLOW, "flow_prediction", SCHEDULE)
    sigma, norms, cosines = aligned(VARIANCE_PRESERVING, "epsilon", vp)
    levels = np.geomspace(0.2, 5, 12)

    def at(levels_of, values):
        return np.interp(levels, levels_of[::-1], values[::-1])

    assert np.ptp(at(sigma, cosines)) > 0.5, "a level ten per cent away would differ by 0.04"
    np.testing.assert_allclose(at(flow_sigma, flow_cosines), at(sigma, cosines), atol=0.005)
    for reference in range(2):
        ours, theirs = at(flow_sigma, flow_norms[:, reference]), at(sigma, norms[:, reference])
        np.testing.assert_allclose(ours, theirs, rtol=0.005)
