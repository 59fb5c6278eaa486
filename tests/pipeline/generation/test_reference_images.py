"""Arms with reference images, through the stage's own function: what they read, what determines them, refusals."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ip_adapters import save_adapter, save_encoder, save_images, unet_of
from safetensors.torch import load_file, save_file

from pipeline.compatibility.networks import check_networks
from pipeline.errors import InputError
from pipeline.generation.arm_generator import ArmGenerator
from pipeline.generation.loaded_model import LoadedModel
from pipeline.generation.shard_plan import arm_texts, batch_texts, plan_arm
from pipeline.preflight import check_arms, study_digests
from pipeline.study.study import Study, parse_study

CPU = torch.device("cpu")
IMAGES = {"files": ["vibe"], "strength": 1.0}
ADAPTER = {"file": "adapter.safetensors", "image_encoder": "image_encoder"}
Content = dict[str, Any]


class Vibe:
    """A study whose arm `vibe` reads two images; its folder is the working directory."""

    def __init__(self, params: Content, folder: Path, kind: str):
        self.params, self.folder = params, folder
        params["arms"] = {"cfg": {"method": "cfg", "scale": 3.0}, "vibe": {"method": "cfg", "scale": 3.0}}
        params["arms"]["vibe"]["reference_images"] = dict(IMAGES)
        params["baseline"] = "cfg"
        params["model"] = {"name": "random", "main": kind, "guide": "guide", "ip_adapter": dict(ADAPTER)}
        params["generate"] |= {"images": 10, "shard": 10, "batch": 5}
        self.arm: Content = params["arms"]["vibe"]
        self.images: Content = self.arm["reference_images"]
        self.adapter: Content = params["model"]["ip_adapter"]

    def study(self) -> Study:
        return parse_study(self.params, "test")

    def checked(self) -> None:
        """What preflight looks at."""
        study = self.study()
        study_digests(study)
        check_arms(study)
        check_networks(study, study.arms)

    def fingerprint(self, arm: str = "vibe") -> str:
        study = self.study()
        return plan_arm(study, arm, arm_texts(study, arm), "cpu").shards[0].fingerprint

    def pixels(self, arm: str = "vibe", model: LoadedModel | None = None) -> np.ndarray:
        """Two images of an arm, [2, H, W, 3]."""
        study = self.study()
        texts = batch_texts(arm_texts(study, arm), range(2))
        drawn = ArmGenerator(study, arm, CPU, model).draw(texts, [0, 1]).images
        return np.stack([np.asarray(image) for image in drawn]).astype(int)


@pytest.fixture
def vibe(params: Content, networks_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Vibe:
    folder = tmp_path / "project"
    for name in ("main", "guide"):
        shutil.copytree(networks_folder / name, folder / name)
    monkeypatch.chdir(folder)
    save_adapter(folder / ADAPTER["file"], unet_of(folder / "main"))
    save_encoder(folder / ADAPTER["image_encoder"])
    save_images(folder / "vibe")
    return Vibe(params, folder, "main")


def test_an_arm_reads_its_images_and_the_others_are_as_without_an_adapter(vibe: Vibe) -> None:
    vibe.checked()
    model = LoadedModel(vibe.study(), CPU)
    with_images = vibe.pixels(model=model)
    beside = vibe.pixels("cfg", model)  # by the network that has just read images
    assert (with_images != beside).mean() > 0.5
    del vibe.params["model"]["ip_adapter"], vibe.arm["reference_images"]
    assert (vibe.pixels("cfg") == beside).all()
    assert (vibe.pixels() == beside).all(), "but for its images it is the same arm"


def test_strength_zero_is_the_arm_without_images(vibe: Vibe) -> None:
    vibe.images["strength"] = 0.0
    assert np.abs(vibe.pixels() - vibe.pixels("cfg")).max() <= 1


def test_the_prompt_reads_the_images_damaged_or_not_and_other_texts_empty_ones(vibe: Vibe) -> None:
    generator = ArmGenerator(vibe.study(), "vibe", CPU)
    told = {text: generator._images_beside(text, 2)["image_tokens"] for text in ("prompt", "empty", "negative")}
    assert told["prompt"].shape == (2, 2, 4, unet_of(vibe.folder / "main").config.cross_attention_dim)
    assert torch.equal(told["empty"], told["negative"])
    assert not torch.equal(told["prompt"], told["empty"])


@pytest.mark.parametrize("method", ["pag", "autoguidance"])
def test_guidance_by_other_references_goes_with_images(vibe: Vibe, method: str) -> None:
    vibe.params["arms"] = {"vibe": {"method": method, "scale": 2.0, "reference_images": IMAGES}}
    vibe.params["baseline"] = "vibe"
    first = vibe.pixels()
    vibe.params["arms"]["vibe"]["reference_images"] = {**IMAGES, "strength": 0.25}
    assert (vibe.pixels() != first).mean() > 0.5


def test_a_guide_reads_the_images_where_it_is_asked_to(vibe: Vibe) -> None:
    shutil.rmtree("guide")
    shutil.copytree("main", "guide")
    vibe.arm |= {"method": "autoguidance", "scale": 2.0}
    apart = vibe.pixels()
    vibe.adapter["in_guide"] = True
    check_networks(vibe.study(), vibe.study().arms)
    together = vibe.pixels()
    assert (apart != together).mean() > 0.5
    vibe.arm |= {"method": "unguided", "scale": 1.0}
    assert np.abs(vibe.pixels() - together).max() <= 1, "a guide that is the main network in every way guides nothing"


def test_images_adapter_and_encoder_determine_the_arm_and_no_other(vibe: Vibe) -> None:
    before, beside = vibe.fingerprint(), vibe.fingerprint("cfg")
    Path("vibe/a.png").rename("vibe/0.png")
    assert vibe.fingerprint() == before, "a name is not what an image shows"
    digests = study_digests(vibe.study())
    assert {"image vibe/0.png", "image vibe/b.png", "ip_adapter file"} <= set(digests)

    def changed(change: Callable[[], object]) -> None:
        earlier = vibe.fingerprint()
        change()
        assert vibe.fingerprint() != earlier
        assert vibe.fingerprint("cfg") == beside

    changed(lambda: vibe.images.update(strength=0.5))
    changed(lambda: vibe.images.update(layers=["mid_block"]))
    changed(lambda: shutil.copy("vibe/0.png", "vibe/c.jpg"))
    tensors = load_file(ADAPTER["file"])
    changed(lambda: save_file({name: 2 * t for name, t in tensors.items()}, ADAPTER["file"]))
    config = Path(ADAPTER["image_encoder"]) / "config.json"
    changed(lambda: config.write_text(json.dumps(json.loads(config.read_text()) | {"patch_size": 4})))


def other_width(vibe: Vibe) -> None:
    tensors = load_file(ADAPTER["file"])
    text = tensors["image_proj.norm.weight"].shape[0]
    rows = {name: torch.cat([t, t]) if name.startswith("image_proj") else t for name, t in tensors.items()}
    save_file({n: torch.cat([t, t], 1) if n.startswith("ip_") else t for n, t in rows.items()}, ADAPTER["file"])
    assert text * 2 == rows["image_proj.norm.weight"].shape[0]


def fewer_layers(vibe: Vibe) -> None:
    kept = {name: t for name, t in load_file(ADAPTER["file"]).items() if not name.startswith("ip_adapter.1.")}
    save_file(kept, ADAPTER["file"])


def other_channels(vibe: Vibe) -> None:
    tensors = load_file(ADAPTER["file"])
    name = "ip_adapter.1.to_k_ip.weight"
    save_file({**tensors, name: torch.cat([tensors[name]] * 2)}, ADAPTER["file"])


def face(vibe: Vibe) -> None:
    tensors = load_file(ADAPTER["file"])
    tensors["image_proj.proj.0.weight"] = tensors.pop("image_proj.proj.weight")
    save_file(tensors, ADAPTER["file"])


def encoder_of(**values: Any) -> Callable[[Vibe], None]:
    def change(vibe: Vibe) -> None:
        config = Path(ADAPTER["image_encoder"]) / "config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | values))

    return change


def embedding(vibe: Vibe) -> None:
    save_file({"emb_params": torch.zeros(2, 8)}, ADAPTER["file"])


def empty_folder(vibe: Vibe) -> None:
    Path("vibe/a.png").unlink()
    Path("vibe/b.png").unlink()


REFUSALS: dict[str, tuple[Callable[[Vibe], object], str]] = {
    "no adapter": (lambda v: v.params["model"].pop("ip_adapter"), "reference_images needs model.ip_adapter"),
    "adapter missing": (lambda v: Path(ADAPTER["file"]).unlink(), "ip_adapter.file adapter.safetensors is missing"),
    "adapter a pickle": (lambda v: v.adapter.update(file="adapter.bin"), "must be a .safetensors file"),
    "adapter cut": (lambda v: Path(ADAPTER["file"]).write_bytes(b"\0" * 20), "cannot be read"),
    "adapter an embedding": (embedding, "is not an IP-Adapter: it holds emb_params"),
    "adapter of faces": (face, "is an IP-Adapter FaceID"),
    "adapter of another width": (other_width, "makes tokens of width"),
    "adapter of another family": (fewer_layers, "layers of cross-attention, and main has"),
    "adapter of other channels": (other_channels, "use an adapter that was trained with this network"),
    "encoder missing": (lambda v: shutil.rmtree(ADAPTER["image_encoder"]), "image_encoder has no config.json"),
    "encoder of another width": (encoder_of(projection_dim=8), "gives 8; name the encoder"),
    "encoder of texts": (encoder_of(architectures=["CLIPTextModel"]), "is a CLIPTextModel"),
    "folder missing": (lambda v: v.images.update(files=["vibes"]), "reference_images.files vibes does not exist"),
    "folder empty": (empty_folder, "reference_images.files vibe holds no images"),
    "image unreadable": (lambda v: Path("vibe/a.png").write_bytes(b"no image"), "vibe: a.png is not a readable image"),
    "image of another format": (lambda v: v.images.update(files=[ADAPTER["file"]]), "in a format that is not read"),
    "image twice": (lambda v: v.images.update(files=["vibe", "vibe/a.png"]), "names vibe/a.png twice"),
    "no files": (lambda v: v.images.update(files=[]), "reference_images.files"),
    "strength above 2": (lambda v: v.images.update(strength=2.5), "reference_images.strength is 2.5"),
    "strength below 0": (lambda v: v.images.update(strength=-0.1), "reference_images.strength is -0.1"),
    "layers unknown": (lambda v: v.images.update(layers=["up"]), "reference_images.layers: the network has no"),
    "attention as well": (
        lambda v: v.arm.update(attention={"name": "nag", "scale": 3.0, "text": "empty"}),
        "attention nag and reference_images both change",
    ),
    "guide of another width": (
        lambda v: (v.adapter.update(in_guide=True), v.arm.update(method="autoguidance")),
        "the guide guide",
    ),
}  # fmt: skip


@pytest.mark.parametrize("why", REFUSALS)
def test_what_does_not_fit_is_refused_in_one_line_before_anything_is_generated(vibe: Vibe, why: str) -> None:
    change, message = REFUSALS[why]
    change(vibe)
    with pytest.raises(InputError) as raised:
        vibe.checked()
    said = str(raised.value)
    assert message in said
    assert "\n" not in said


def test_a_family_along_rectified_flow_is_refused_by_name(
    params: Content, flows_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(flows_folder / "sd3", tmp_path / "sd3")
    monkeypatch.chdir(tmp_path)
    vibe = Vibe(params, tmp_path, "sd3")
    params["sampler"] = {"scheduler": "euler", "steps": 3}
    save_images(tmp_path / "vibe")
    with pytest.raises(InputError, match=r"arms.vibe.reference_images needs a UNet .* is a transformer \(sd3\)"):
        check_networks(vibe.study(), vibe.study().arms)
