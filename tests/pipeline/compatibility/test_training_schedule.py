"""A training noise schedule is taken only where its configuration states it."""

import math
from pathlib import Path

import diffusers
import pytest
import torch
from checked_networks import Networks, edit, scheduler
from one_arm import generate

from pipeline.compatibility.training_schedule import SCHEDULERS
from pipeline.errors import InputError
from pipeline.networks.denoisers.unet import load_network
from pipeline.storage.places import Places
from pipeline.study.study import parse_study

ONLY = "take a checkpoint with one of DDPMScheduler, DDIMScheduler, "
BETAS = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "num_train_timesteps": 1000}
OTHER_BETAS = {"beta_schedule": "linear", "beta_start": 0.001775, "beta_end": 0.01, "num_train_timesteps": 975}
FILE = "sd/scheduler/scheduler_config.json"


@pytest.fixture
def networks(params, pipelines_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    networks = Networks(params, pipelines_folder)
    networks.copy("sd")
    return networks


def write(content, folder="sd"):
    edit(scheduler(Path(folder)), lambda old: (old.clear(), old.update(content)))


# As diffusers writes them: Playground v2.5, CosXL, LCM, TCD, Flux, AuraFlow, the upscaler of Kandinsky, Cascade.
OTHERS = {
    "EDMDPMSolverMultistepScheduler": {"sigma_data": 0.5, "sigma_max": 80.0, "sigma_min": 0.002, "rho": 7.0},
    "EDMEulerScheduler": {"sigma_data": 1.0, "sigma_max": 120.0, "prediction_type": "v_prediction"},
    "LCMScheduler": {**BETAS, "original_inference_steps": 50, "timestep_scaling": 10.0},
    "TCDScheduler": {**BETAS, "original_inference_steps": 50},
    "FlowMatchEulerDiscreteScheduler": {"num_train_timesteps": 1000, "shift": 3.0},
    "FlowMatchHeunDiscreteScheduler": {"num_train_timesteps": 1000, "shift": 1.0},
    "UnCLIPScheduler": {"prediction_type": "sample", "num_train_timesteps": 1000},
    "DDPMWuerstchenScheduler": {"scaler": 1.0, "s": 0.008},
    "MyOwnScheduler": BETAS,
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_schedule_of_another_kind_is_refused_by_its_class(networks, name):
    write({"_class_name": name, **OTHERS[name]})
    assert networks.refused("sd").startswith(
        f"model.main: {FILE} describes {name}, which is not a supported noise schedule; {ONLY}"
    )


def test_a_guide_of_another_kind_of_schedule_is_refused_as_its_main_network_is(networks):
    networks.copy("sd_guide")
    write({"_class_name": "EDMEulerScheduler", "sigma_data": 0.5}, "sd_guide")
    said = networks.refused("sd", "sd_guide")
    assert said.startswith("model.guide: sd_guide/scheduler/scheduler_config.json describes EDMEulerScheduler, which")


@pytest.mark.parametrize("content", [{}, {"num_train_timesteps": 1000}, BETAS])
def test_a_schedule_without_a_class_is_refused(networks, content):
    write(content)
    assert networks.refused("sd").startswith(f"model.main: {FILE} does not name its class (_class_name); {ONLY}")


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("key", BETAS)
def test_no_default_of_a_library_stands_for_what_a_schedule_does_not_state(networks, name, key):
    write({"_class_name": name, **BETAS})
    networks.check("sd")
    write({"_class_name": name, **{other: value for other, value in BETAS.items() if other != key}})
    assert networks.refused("sd").startswith(f"model.main: {FILE} states no {key}, which must be ")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"beta_schedule": "exp"}, "sets beta_schedule to exp, which must be one of linear, scaled_linear, squared"),
        ({"beta_start": "0.1"}, "sets beta_start to 0.1, which must be a number between 0 and 1"),
        ({"beta_end": 1.2}, "sets beta_end to 1.2, which must be a number between 0 and 1"),
        ({"num_train_timesteps": 0}, "sets num_train_timesteps to 0, which must be a number of timesteps"),
        ({"trained_betas": [0.1, 0.2]}, "has trained_betas that are not 1000 numbers between 0 and 1"),
        ({"trained_betas": [2.0] * 1000}, "has trained_betas that are not 1000 numbers between 0 and 1"),
        ({"prediction_type": "flow_prediction"}, "sets prediction_type to flow_prediction, which does not go with"),
        ({"rescale_betas_zero_snr": "false"}, 'sets rescale_betas_zero_snr to "false"; write true or false'),
        ({"rescale_betas_zero_snr": 1}, "sets rescale_betas_zero_snr to 1; write true or false"),
        ({"predict_epsilon": False}, "sets predict_epsilon to false, which is no longer read; write prediction_type:"),
        ({"prediction_type": None}, "sets prediction_type to None, which does not go with a sched"),
        ({"timestep_type": "continuous"}, "sets timestep_type to continuous, so its noise levels do not follow from"),
        ({"use_flow_sigmas": True}, "sets use_flow_sigmas to True, so its noise levels do not follow from"),
        ({"sigma_max": 700.0}, "sets sigma_max to 700.0, so its noise levels do not follow from"),
    ],
)
def test_a_schedule_that_is_not_one_of_betas_is_refused_by_its_key(networks, changes, says):
    write({"_class_name": "EulerDiscreteScheduler", **BETAS, **changes})
    assert networks.refused("sd").startswith(f"model.main: {FILE} {says}")


@pytest.mark.parametrize(
    "content",
    [
        # As SD v1-4 and v1-5 have it: of before networks could predict anything else.
        {"_class_name": "PNDMScheduler", **BETAS, "skip_prk_steps": True, "trained_betas": None},
        {"_class_name": "DDPMScheduler", "beta_schedule": "squaredcos_cap_v2", "num_train_timesteps": 1000},
        {"_class_name": "DDIMScheduler", "trained_betas": [0.001] * 100, "num_train_timesteps": 100},
        {"_class_name": "EulerDiscreteScheduler", **BETAS, "timestep_type": "discrete", "sigma_max": None},
        {"_class_name": "UniPCMultistepScheduler", **BETAS, "use_flow_sigmas": False, "flow_shift": 1.0},
        # As diffusers writes it, although JSON has no infinity.
        {"_class_name": "DPMSolverMultistepScheduler", **BETAS, "lambda_min_clipped": -math.inf, "variance_type": None},
        {"_class_name": "EulerAncestralDiscreteScheduler", **OTHER_BETAS, "timestep_spacing": "linspace"},
        {"_class_name": "DDPMScheduler", **BETAS, "predict_epsilon": True},
    ],
)
def test_a_stated_schedule_is_the_one_that_is_sampled(networks, content):
    write(content)
    networks.check("sd")
    schedule = load_network(Path("sd"), torch.device("cpu")).schedule
    assert schedule.config.prediction_type == "epsilon"
    betas = content.get("trained_betas") or getattr(diffusers, content["_class_name"]).from_config(content).betas
    torch.testing.assert_close(schedule.betas, torch.as_tensor(betas), rtol=1e-6, atol=1e-9)


def test_a_schedule_that_ends_without_signal_is_read_from_its_configuration(networks):
    write({"_class_name": "EulerDiscreteScheduler", **BETAS, "prediction_type": "v_prediction"})
    ends = load_network(Path("sd"), torch.device("cpu")).schedule.alphas_cumprod[-1]
    edit(scheduler(Path("sd")), rescale_betas_zero_snr=True, timestep_spacing="leading")
    networks.check("sd", arms={"cfg": {"method": "cfg", "scale": 4.0}})
    assert ends > 0 == load_network(Path("sd"), torch.device("cpu")).schedule.alphas_cumprod[-1]


def test_all_known_classes_compute_the_same_betas():
    expected = diffusers.DDPMScheduler(**BETAS).betas
    for name in SCHEDULERS:
        torch.testing.assert_close(getattr(diffusers, name)(**BETAS).betas, expected)


def test_generate_refuses_it_by_itself(networks, tmp_path):
    write({"_class_name": "EDMDPMSolverMultistepScheduler", **OTHERS["EDMDPMSolverMultistepScheduler"]})
    networks.params["model"] = {"name": "small", "main": "sd", "guide": "sd"}
    with pytest.raises(InputError, match="describes EDMDPMSolverMultistepScheduler"):
        generate(parse_study(networks.params, "test"), "cfg", Places.under(tmp_path / "made"))
    assert not (tmp_path / "made").exists()
