"""Samples change inside a mask alone, whatever the solver."""

import pytest
import torch

from models.tinybooru.networks.families import build_scheduler as training_schedule
from pipeline.networks.noise_path import RECTIFIED_FLOW, NoisePath
from pipeline.sampling.starts import FromImages, Inpainting, Start
from pipeline.sampling.steppers import Stepper, build_stepper
from pipeline.study.sampler import Sampler
from pipeline.study.solvers import SOLVERS

CPU = torch.device("cpu")
SHAPE, SEEDS = (3, 8, 8), [1, 2]
STARTS = torch.rand(2, *SHAPE, generator=torch.Generator().manual_seed(0))
MASK = torch.zeros(2, 1, 8, 8)
MASK[..., :4] = 1


def stepper_of(scheduler: str, flow: bool = False) -> Stepper:
    setting = Sampler(scheduler=scheduler, steps=6)
    if flow:
        return build_stepper(setting, {"num_train_timesteps": 1000}, RECTIFIED_FLOW)
    return build_stepper(setting, training_schedule().config)


def drawn(stepper: Stepper, start: Start) -> torch.Tensor:
    """The loop in its shortest form, for some network that predicts x0."""
    beginning = start.begin(stepper, 6, SEEDS, SHAPE, CPU)
    x = beginning.x
    for at in stepper.moments():
        output = torch.tanh(stepper.scaled(x, at))
        if stepper.path is RECTIFIED_FLOW:
            output = stepper.path.from_x0(output, "flow_prediction", x, at.sigma)
        x = start.kept(stepper.step(output, x, at, beginning.generators), at, stepper, beginning)
    return x


@pytest.mark.parametrize("strength", [1.0, 0.5])
@pytest.mark.parametrize("scheduler", SOLVERS)
def test_what_is_outside_ends_as_it_began_and_the_inside_does_not(scheduler: str, strength: float) -> None:
    found = drawn(stepper_of(scheduler), Inpainting(STARTS, strength, mask=MASK))
    assert torch.equal(found[..., 4:], STARTS[..., 4:])
    assert float((found[..., :4] - STARTS[..., :4]).abs().min()) > 0
    assert torch.isfinite(found).all()


@pytest.mark.parametrize("scheduler", SOLVERS)
def test_what_is_outside_lies_on_the_noise_path_at_every_step(scheduler: str) -> None:
    _on_the_path(stepper_of(scheduler))


@pytest.mark.parametrize("scheduler", ["euler", "euler_ancestral"])
def test_what_is_outside_lies_on_rectified_flow_at_every_step(scheduler: str) -> None:
    _on_the_path(stepper_of(scheduler, flow=True))


def _on_the_path(stepper: Stepper) -> None:
    start = Inpainting(STARTS, 1.0, mask=torch.zeros_like(MASK))
    beginning = start.begin(stepper, 6, SEEDS, SHAPE, CPU)
    path: NoisePath = stepper.path
    x = beginning.x
    for at in stepper.moments():
        seen = stepper.scaled(x, at)
        if at.index:
            signal, share = path.signal_and_noise(at.sigma)
            torch.testing.assert_close(seen, signal * STARTS + share * beginning.noise, atol=1e-4, rtol=1e-4)
        output = path.from_x0(STARTS, "flow_prediction", seen, at.sigma) if path is RECTIFIED_FLOW else STARTS
        x = start.kept(stepper.step(output, x, at, beginning.generators), at, stepper, beginning)
    assert torch.equal(x, STARTS)


def test_a_mask_of_everything_is_image_to_image() -> None:
    everything = Inpainting(STARTS, 0.5, mask=torch.ones_like(MASK))
    assert torch.equal(drawn(stepper_of("euler"), everything), drawn(stepper_of("euler"), FromImages(STARTS, 0.5)))


def test_at_strength_one_nothing_of_the_inside_is_left() -> None:
    other = STARTS.clone()
    other[..., :4] = 0.7
    one, another = (drawn(stepper_of("ddim"), Inpainting(x, 1.0, mask=MASK)) for x in (STARTS, other))
    assert torch.equal(one, another)


def test_half_a_mask_is_half_of_each() -> None:
    stepper = stepper_of("euler")
    start = Inpainting(STARTS, 1.0, mask=torch.full_like(MASK, 0.5))
    beginning = start.begin(stepper, 6, SEEDS, SHAPE, CPU)
    last = stepper.moments()[-1]
    torch.testing.assert_close(start.kept(STARTS + 1, last, stepper, beginning), STARTS + 0.5)
