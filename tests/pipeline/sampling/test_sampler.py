"""The sampling loop against diffusers' schedulers used directly, and against a case with a known answer."""

import itertools

import pytest
import torch

from models.tinybooru.networks.families import build_scheduler as training_schedule
from pipeline.guidance.algebra import Guidance
from pipeline.networks.denoisers.unet import DenoisingNetwork
from pipeline.networks.noise_path import VARIANCE_PRESERVING, from_x0
from pipeline.networks.text.conditioning import Conditioning
from pipeline.sampling.sampler import sample
from pipeline.sampling.steppers import build_stepper
from pipeline.study.sampler import Sampler


class _Config:
    in_channels = out_channels = 3
    sample_size, cross_attention_dim = 8, 4
    addition_embed_type = "text"  # no layer is free of the text


class PointMass(torch.nn.Module):
    """The exact denoiser of a distribution that is one image: it predicts that image from anything."""

    config = _Config()
    device = torch.device("cpu")

    def __init__(self, image, kind, schedule):
        super().__init__()
        self.image, self.kind, self.schedule = image, kind, schedule

    def forward(self, x, timestep, encoder_hidden_states):
        alpha = float(self.schedule.alphas_cumprod[int(timestep)])
        output = from_x0(self.image.expand_as(x), self.kind, x, alpha**0.5, (1 - alpha) ** 0.5)
        return type("Output", (), {"sample": output})


@pytest.mark.parametrize("kind", VARIANCE_PRESERVING.prediction_types)
@pytest.mark.parametrize("scheduler", ["ddim", "euler", "dpmsolver++"])
def test_a_point_mass_is_drawn_exactly(scheduler, kind):
    schedule = training_schedule()
    schedule.register_to_config(prediction_type=kind)
    image = torch.linspace(-1, 1, 3 * 64).reshape(1, 3, 8, 8)
    network = DenoisingNetwork(PointMass(image, kind, schedule), schedule, patch=1)
    built = build_stepper(Sampler(scheduler=scheduler, steps=20), schedule.config)
    drawn, trace = sample(
        {"main": network}, {"prompt": Conditioning({"tokens": torch.zeros(2, 1, 4)})}, Guidance(), built, 20, [5, 6]
    )
    torch.testing.assert_close(drawn, image.expand(2, -1, -1, -1), atol=2e-3, rtol=0)
    assert [step.step for step in trace] == list(range(20))
    assert all(a.sigma > b.sigma for a, b in itertools.pairwise(trace)), "noise falls along the trace"
