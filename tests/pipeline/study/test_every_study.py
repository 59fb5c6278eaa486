"""Every study of conf/study generates what its file names; those of the embedded UNet run on the flow network too."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from compositions import composed
from repository_copy import ROOT

from pipeline.compatibility.networks import check_networks
from pipeline.embeddings.from_words import write_embedding
from pipeline.errors import InputError
from pipeline.preflight import check_arms
from pipeline.study.solvers import solvers_along
from pipeline.study.study import parse_study

STUDIES = sorted(path.stem for path in (ROOT / "conf/study").glob("*.yaml"))
# What the flow network has not that a study asks for, and the study that asks for what it has (docs/checkpoints.md).
INSTEAD: dict[str, tuple[str, tuple[str, ...]]] = {
    "bad_versions": ("the network has no transformer block under 'mid_block'", ("study=bad_versions_flow",)),
    "methods": ("the network has no transformer block under 'down_blocks'", ("study=methods_flow",)),
    # No adapter reads images into a transformer here, so the UNet stays.
    "vibe": ("reference_images needs a UNet (sd, sdxl, pixel), and", ("study=vibe",)),
    "canvas": ("arms.large.canvas is 96x96; this model has positions for sides of up to 64", ("study=canvas_flow",)),
    "samplers": (
        "sampler.levels karras are those of the variance preserving path",
        (
            *("study=samplers", "model=tinybooru_flow"),
            *("~arms.karras", "~arms.exponential", "~arms.polyexponential"),
            *("~arms.ddim", "~arms.dpmsolver", "~arms.smea_like"),
        ),
    ),
}


def is_of_embedded_networks(name: str) -> bool:
    """Whether a study's file, or one that it extends, sets the embedded world up, and none takes another model."""
    content = yaml.safe_load((ROOT / f"conf/study/{name}.yaml").read_text())
    if any("/model" in key for entry in content["defaults"] if isinstance(entry, dict) for key in entry):
        return False
    for entry in content["defaults"]:
        if entry == {"/setup": "embedded"}:
            return True
        if isinstance(entry, str) and entry != "_self_" and is_of_embedded_networks(entry):
            return True
    return False


def own_arms(name):
    """The arms that a study's own file names, and those of the study that it extends as a whole."""
    content = yaml.safe_load((ROOT / f"conf/study/{name}.yaml").read_text())
    arms = {arm: settings or {} for arm, settings in content.get("arms", {}).items()}
    for entry in content["defaults"]:
        if isinstance(entry, str):
            for arm, settings in ({} if entry == "_self_" else own_arms(entry)).items():
                arms[arm] = {**settings, **arms.get(arm, {})}
            continue
        ((group, choice),) = entry.items()
        if group == "/arm":
            arms = {**{arm: {} for arm in choice}, **arms}
        elif group.startswith("/arm@arms."):
            arms.setdefault(group.removeprefix("/arm@arms."), {})
    return arms


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_draws_the_arms_and_probes_that_its_file_names(name):
    """Hydra merges: `override /arm: []` leaves the arms that a study adds under other names, and its changes."""
    study = parse_study(composed(f"study={name}"), name)
    own = own_arms(name)
    scaled = {f"{arm}_{scale:g}".replace(".", "_") for arm, scales in study.scales.items() for scale in scales}
    written = {arm: settings for arm, settings in study.arms.items() if settings.control is None and arm not in scaled}
    assert set(written) == set(own)
    for arm, settings in written.items():
        followed = [] if study.controls == "none" or f"{arm}@cfg" not in study.arms else ["empty", "main"]
        assert [probe for probe in settings.probes if probe not in followed] == own[arm].get("probes", [])


def of_flow(name: str) -> dict[str, Any]:
    """A study of the embedded UNet with `model=tinybooru_flow`, and with `sampler=euler` where its own needs a UNet."""
    content = composed(f"study={name}")
    own = yaml.safe_load((ROOT / "conf/model/tinybooru_flow.yaml").read_text())
    content["model"] |= own
    if content["sampler"]["scheduler"] not in solvers_along("rectified_flow"):
        content["sampler"]["scheduler"] = "euler"
    return content


def check(content: dict[str, Any]) -> None:
    """What is looked at before the first image of a study, here of few images. Raises InputError."""
    content["generate"] |= {"images": 16, "shard": 16, "batch": 16}
    study = parse_study(content, "test")
    check_networks(study, study.arms)
    check_arms(study)


def test_the_flow_network_takes_the_place_of_the_unet_in_a_study() -> None:
    assert of_flow("quick") == composed("study=quick", "model=tinybooru_flow", "sampler=euler")


# `embedding` asks for a file that has to be made first; it has a test below.
@pytest.mark.parametrize("name", [name for name in STUDIES if is_of_embedded_networks(name) and name != "embedding"])
def test_a_study_of_the_unet_runs_on_the_flow_network_or_has_one_in_its_place(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    assert composed(f"study={name}")["model"]["name"] == "tinybooru"
    if name not in INSTEAD:
        check(of_flow(name))
        return
    reason, instead = INSTEAD[name]
    with pytest.raises(InputError, match=f"^[^\n]*{re.escape(reason)}[^\n]*$"):
        check(of_flow(name))
    check(composed(*instead, "controls=none"))  # which are CFG


def test_an_embedding_is_asked_for_on_either_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "models").symlink_to(ROOT / "models")
    monkeypatch.chdir(tmp_path)
    for content in (of_flow("embedding"), composed("study=embedding")):
        with pytest.raises(InputError, match=r"^embedding:tinybooru_bad names no file; put embeddings/tiny[^\n]*$"):
            check(content)
    study = parse_study(of_flow("embedding"), "test")
    write_embedding(study, "tinybooru_bad", "worst quality, lowres")
    check(of_flow("embedding"))
