"""Guides: separate networks, degraded copies and LoRA epochs, and what may differ between main and guide."""

import copy

import pytest
import torch
from diffusers import DDPMScheduler
from peft import LoraConfig, get_peft_model_state_dict
from pydantic import TypeAdapter
from safetensors.torch import save_file

from pipeline.errors import InputError
from pipeline.guidance.algebra import GUIDE, MAIN
from pipeline.guidance.scale_schedules import Moment
from pipeline.networks.checkpoints import check_fit
from pipeline.networks.denoisers.unet import DenoisingNetwork, load_network
from pipeline.networks.noise_path import VARIANCE_PRESERVING
from pipeline.networks.noise_schedule import timestep_at
from pipeline.networks.text.conditioning import Conditioning
from pipeline.networks.weaken import weaken
from pipeline.sampling.sampler import _Evaluation
from pipeline.study.weaken import Weaken

CPU = torch.device("cpu")
TEXT = Conditioning({"tokens": torch.zeros(2, 8, 32)})


def network(networks_folder, name="main"):
    return load_network(networks_folder / name, CPU)


def prediction(net, x=None):
    return net.at_timestep(torch.ones(2, 48, 16, 16) if x is None else x, torch.tensor(500), TEXT)


def test_two_loads_of_one_path_are_two_networks(networks_folder):
    first, second = network(networks_folder), network(networks_folder)
    before = prediction(first)
    weaken(second.unet, TypeAdapter(Weaken).validate_python({"name": "weight_noise", "strength": 1.0}))
    assert torch.equal(prediction(first), before)
    assert not torch.equal(prediction(second), before)


@pytest.mark.parametrize(
    ("mild", "strong"),
    [
        ({"name": "weight_noise", "strength": 0.01}, {"name": "weight_noise", "strength": 0.3}),
        ({"name": "dropout", "rate": 0.02}, {"name": "dropout", "rate": 0.5}),
        ({"name": "low_bits", "bits": 8}, {"name": "low_bits", "bits": 3}),
    ],
)
def test_more_degradation_is_further_from_main_and_every_time_the_same(networks_folder, mild, strong):
    main = prediction(network(networks_folder))
    distances = []
    for how in (mild, strong):
        predictions = []
        for _ in range(2):
            guide = network(networks_folder)
            weaken(guide.unet, TypeAdapter(Weaken).validate_python(how))
            predictions.append(prediction(guide))
        assert torch.equal(*predictions)
        distances.append(float((predictions[0] - main).norm()))
    assert 0 < distances[0] < distances[1]


def test_dropped_layers_stay_dropped(networks_folder):
    guide, main = network(networks_folder), network(networks_folder)
    weaken(guide.unet, TypeAdapter(Weaken).validate_python({"name": "drop_layers", "layers": ["mid_block"]}))
    assert not torch.equal(prediction(guide), prediction(main))


def test_a_lora_epoch_is_a_guide(networks_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trained = copy.deepcopy(network(networks_folder).unet)
    trained.add_adapter(LoraConfig(r=2, lora_alpha=2, target_modules=["to_q", "to_v"], init_lora_weights=False))
    state = {f"unet.{k}": v.contiguous() for k, v in get_peft_model_state_dict(trained).items()}
    save_file(state, "epoch2.safetensors")
    guide, main = network(networks_folder), network(networks_folder)
    weaken(guide.unet, TypeAdapter(Weaken).validate_python({"name": "lora", "file": "epoch2.safetensors"}))
    with torch.inference_mode():
        expected = trained(torch.ones(2, 48, 16, 16), 500, encoder_hidden_states=TEXT["tokens"]).sample
    torch.testing.assert_close(prediction(guide), expected, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(prediction(main), expected, atol=1e-3)
    save_file({"unet.nowhere.lora_A.weight": torch.ones(2, 2)}, "other.safetensors")
    with pytest.raises(InputError, match=r"model.weaken.file other.safetensors"):
        weaken(main.unet, TypeAdapter(Weaken).validate_python({"name": "lora", "file": "other.safetensors"}))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"name": "noise"}, "'weight_noise', 'dropout', 'drop_layers', 'low_bits', 'lora'"),
        ({"name": "lora", "file": "epoch.pt"}, "must be a .safetensors file"),
        ({"name": "dropout", "rate": 1.0}, "less than 1"),
        ({"name": "low_bits", "bits": 1}, "greater than or equal to 2"),
    ],
)
def test_wrong_settings_are_named(how, message):
    with pytest.raises(ValueError, match=message):
        TypeAdapter(Weaken).validate_python(how)


class _Exact(torch.nn.Module):
    """The exact denoiser of one image under any schedule and prediction type."""

    def __init__(self, image, schedule):
        super().__init__()
        self.image, self.schedule = image, schedule
        shape = {"in_channels": 3, "out_channels": 3, "sample_size": 8, "cross_attention_dim": 4}
        self.config = type("Config", (), {**shape, "addition_embed_type": "text"})  # no layer is free of the text
        self.device = CPU
        alphas = schedule.alphas_cumprod.double()
        self.levels = ((1 - alphas) / alphas).sqrt().log()

    def forward(self, x, timestep, encoder_hidden_states):
        t = float(timestep)
        low = min(int(t), len(self.levels) - 2)
        sigma = float((self.levels[low] + (t - low) * (self.levels[low + 1] - self.levels[low])).exp())
        kind = self.schedule.config.prediction_type
        return type("Output", (), {"sample": VARIANCE_PRESERVING.from_x0(self.image.expand_as(x), kind, x, sigma)})


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_a_guide_of_another_type_and_schedule_says_the_same_of_the_same_noise(kind):
    """Two exact denoisers of one image agree at every noise level, whatever they were trained with."""
    image = torch.linspace(-1, 1, 3 * 64).reshape(1, 3, 8, 8)
    schedules = {
        "main": DDPMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012),
        "guide": DDPMScheduler(beta_schedule="linear", prediction_type=kind),
    }
    networks = {name: DenoisingNetwork(_Exact(image, s), s, patch=1) for name, s in schedules.items()}
    evaluate = _Evaluation(networks, {"prompt": Conditioning({"tokens": torch.zeros(1, 1, 4)})}, [0])
    for t in (50, 400, 900):
        alpha = float(schedules["main"].alphas_cumprod[t])
        sigma = ((1 - alpha) / alpha) ** 0.5
        x = alpha**0.5 * image + (1 - alpha) ** 0.5 * torch.randn(1, 3, 8, 8)
        predicted = evaluate([MAIN, GUIDE], x, Moment(0, 1, t, sigma, 0.0))
        torch.testing.assert_close(predicted[MAIN], predicted[GUIDE], atol=1e-3, rtol=0)


def test_timesteps_of_the_same_noise_level_are_found_back():
    schedule = DDPMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
    alphas = schedule.alphas_cumprod.double()
    for t in (0, 1, 333, 999):
        assert timestep_at(float(((1 - alphas[t]) / alphas[t]).sqrt()), schedule.alphas_cumprod) == pytest.approx(
            t, abs=1e-3
        )
    assert timestep_at(1e9, schedule.alphas_cumprod) == 999
    assert timestep_at(1e-9, schedule.alphas_cumprod) == 0


def test_a_pair_of_other_channels_is_refused_with_both_numbers(networks_folder):
    main, guide = network(networks_folder), network(networks_folder, "guide")
    check_fit(main, guide)
    guide.unet.register_to_config(in_channels=4)
    with pytest.raises(InputError, match="channels of a sample is 48 in the main network and 4 in the guide"):
        check_fit(main, guide)
