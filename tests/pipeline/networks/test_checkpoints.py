"""Checkpoints of every kind: found, refused with the reason, and drawn with through the stage's own function."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from compositions import composed
from diffusers import UNet2DConditionModel
from one_arm import generate
from repository_copy import ROOT
from safetensors.torch import load_file, save_file
from single_file import original_vae, save_single_file

from pipeline.errors import InputError
from pipeline.generation.arm_generator import ArmGenerator
from pipeline.guidance.algebra import Perturbation
from pipeline.layout import SETS
from pipeline.networks.checkpoints import check_fit, locate
from pipeline.networks.denoisers.unet import load_network
from pipeline.networks.perturbation import perturbed
from pipeline.networks.text.conditioning import Conditioning
from pipeline.networks.text.text_encoder import load_text_encoder
from pipeline.networks.weights.weight_files import network_digest
from pipeline.preflight import study_digests
from pipeline.storage.places import Places
from pipeline.storage.shards import decode_images, read_set, set_fingerprint
from pipeline.study.loading import Loading
from pipeline.study.study import parse_study

CPU = torch.device("cpu")
TEXTS = {"prompt": ["1person, blue hair"], "empty": [""]}
MODELS = sorted(path.stem for path in (ROOT / "conf/model").glob("*.yaml") if not path.stem.startswith("tinybooru"))
ARMS = {
    "cfg": {"method": "cfg", "scale": 4.0},
    "negative": {"method": "negative", "scale": 4.0, "negative_prompt": "lowres, (blurry:1.3)"},
    "autoguidance": {"method": "autoguidance", "scale": 1.5},
    "wide": {"method": "cfg", "scale": 4.0, "canvas": {"width": 48, "height": 24}},
    "ancestral": {"method": "cfg", "scale": 4.0, "sampler": {"scheduler": "euler_ancestral", "steps": 3}},
    "redrawn": {
        "method": "cfg",
        "scale": 4.0,
        "image_to_image": {
            "from": "negative",
            "source": {"method": "negative", "scale": 4.0, "negative_prompt": "lowres, (blurry:1.3)"},
            "strength": 0.7,
            "noise": 0.1,
        },
    },
}


@pytest.fixture
def checkpoint_params(params, pipelines_folder, monkeypatch):
    """Parameters of a small study with arms of all kinds, to be given a model; the folder of pipelines is current."""
    monkeypatch.chdir(pipelines_folder)
    params["arms"], params["baseline"] = ARMS, "cfg"
    params["generate"] = {"images": 10, "first_seed": 0, "shard": 5, "batch": 5}
    params["sampler"] = {"scheduler": "ddim", "steps": 3}
    return params


def study_of(params, kind, **model):
    params["model"] = {"name": kind, "main": kind, "guide": f"{kind}_guide", **model}
    return parse_study(params, "test")


def images(folder):
    return list(decode_images(read_set(folder)))


def copied(pipelines_folder, tmp_path, name):
    return Path(shutil.copytree(pipelines_folder / name, tmp_path / name))


@pytest.mark.parametrize("kind", ["sd", "sdxl"])
def test_every_arm_is_drawn_with_a_checkpoint(checkpoint_params, tmp_path, kind):
    study = study_of(checkpoint_params, kind)
    for arm in ("cfg", "negative", "autoguidance", "wide", "ancestral", "redrawn"):
        assert generate(study, arm, Places.under(tmp_path)) == (2, 2)
    drawn = {arm: images(tmp_path / SETS / arm) for arm in ARMS}
    assert {image.size for image in drawn["cfg"]} == {(32, 32)}
    assert {image.size for image in drawn["wide"]} == {(48, 24)}
    one_of_each = {arm: image[0].tobytes() for arm, image in drawn.items()}
    assert len(set(one_of_each.values())) == len(ARMS), "two arms drew the same image"


def test_a_shard_does_not_depend_on_what_was_drawn_before(checkpoint_params, tmp_path):
    study = study_of(checkpoint_params, "sd")
    for arm in ("ancestral", "redrawn"):
        generate(study, arm, Places.under(tmp_path))
        folder = tmp_path / SETS / arm
        before = set_fingerprint(folder)
        (folder / "part-00001.parquet").unlink()
        assert generate(study, arm, Places.under(tmp_path)) == (1, 2)
        assert set_fingerprint(folder) == before


def test_image_to_image_is_the_same_from_disk_and_drawn_anew(checkpoint_params, tmp_path):
    study = study_of(checkpoint_params, "sd")
    anew, disk = Places.under(tmp_path / "anew"), Places.under(tmp_path / "disk")
    generate(study, "redrawn", anew)
    generate(study, "negative", disk)
    generate(study, "redrawn", disk)
    assert set_fingerprint(anew.sets / "redrawn") == set_fingerprint(disk.sets / "redrawn")


def test_another_source_draws_image_to_image_again(checkpoint_params, tmp_path):
    generate(study_of(checkpoint_params, "sd"), "redrawn", Places.under(tmp_path))
    source = {**ARMS["negative"], "scale": 6.0}
    checkpoint_params["arms"] = {
        **ARMS,
        "negative": source,
        "redrawn": {**ARMS["redrawn"], "image_to_image": {**ARMS["redrawn"]["image_to_image"], "source": source}},
    }
    assert generate(study_of(checkpoint_params, "sd"), "redrawn", Places.under(tmp_path)) == (2, 2)


def test_image_to_image_starts_from_a_folder_of_shards(checkpoint_params, pipelines_folder, tmp_path):
    study = study_of(checkpoint_params, "sd")
    generate(study, "cfg", replace(Places.under(tmp_path), sets=pipelines_folder / "kept"))
    checkpoint_params["arms"] = {
        **ARMS,
        "redrawn": {"method": "cfg", "scale": 4.0, "image_to_image": {"from": "kept/cfg", "strength": 0.4}},
    }
    study = study_of(checkpoint_params, "sd")
    assert generate(study, "redrawn", Places.under(tmp_path)) == (2, 2)
    start, end = images(pipelines_folder / "kept/cfg"), images(tmp_path / SETS / "redrawn")
    other = start[1:] + start[:1]

    def distance(a, b):
        return sum(abs(x - y) for p, q in zip(a, b, strict=True) for x, y in zip(p.tobytes(), q.tobytes(), strict=True))

    assert distance(end, start) < distance(end, other), "each image comes from its own start"


def test_half_precision_and_slices_draw_nearly_the_same(checkpoint_params):
    plain = ArmGenerator(study_of(checkpoint_params, "sd"), "cfg", CPU).draw(TEXTS, [1]).images[0]
    loading = {"dtype": "bfloat16", "attention_slicing": True, "vae_slicing": True}
    half = ArmGenerator(study_of(checkpoint_params, "sd", loading=loading), "cfg", CPU).draw(TEXTS, [1]).images[0]
    difference = [abs(a - b) for a, b in zip(plain.tobytes(), half.tobytes(), strict=True)]
    assert 0 < sum(difference) / len(difference) < 4


def test_offloaded_weights_predict_the_same(checkpoint_params):
    draw = [
        ArmGenerator(study_of(checkpoint_params, "sdxl", loading={"offload": offload}), "cfg", CPU).draw(TEXTS, [1])
        for offload in (False, True)
    ]
    assert draw[0].images[0].tobytes() == draw[1].images[0].tobytes()


def test_an_offloaded_guide_is_weakened_as_another_is(checkpoint_params):
    weaken = {"name": "weight_noise", "strength": 0.3}
    plain, offloaded, whole = (
        ArmGenerator(study_of(checkpoint_params, "sd", **model), "autoguidance", CPU).draw(TEXTS, [1]).images[0]
        for model in ({"weaken": weaken}, {"weaken": weaken, "loading": {"offload": True}}, {})
    )
    assert plain.tobytes() == offloaded.tobytes() != whole.tobytes()


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiled_networks_draw_the_same(checkpoint_params, monkeypatch, backend):
    # Inductor, the default, takes minutes for a network as small as this one.
    own = UNet2DConditionModel.compile
    monkeypatch.setattr(UNet2DConditionModel, "compile", lambda unet, **how: own(unet, backend=backend, **how))
    texts = {"prompt": ["a person", "a cat"], "negative": ["bad anatomy"] * 2}
    plain, compiled = (
        ArmGenerator(study_of(checkpoint_params, "sd", loading=loading), "negative", CPU).draw(texts, [1, 2])
        for loading in ({}, {"compile": True})
    )
    for ours, theirs in zip(compiled.images, plain.images, strict=True):
        assert max(abs(a - b) for a, b in zip(ours.tobytes(), theirs.tobytes(), strict=True)) <= 1
    assert compiled.cost.flops == plain.cost.flops > 0


@pytest.mark.parametrize("kind", ["pag", "seg", "skip_layers"])
def test_compiled_networks_are_damaged_as_others_are(pipelines_folder, monkeypatch, kind):
    own = UNet2DConditionModel.compile
    monkeypatch.setattr(UNet2DConditionModel, "compile", lambda unet, **how: own(unet, backend="aot_eager", **how))
    torch.manual_seed(0)
    x, texts = torch.randn(2, 4, 10, 7), Conditioning({"tokens": torch.randn(2, 8, 32)})
    damage = Perturbation(kind, ("mid_block", "up_blocks"), 1.5 if kind == "seg" else None)
    outputs = []
    for loading in (Loading(), Loading(compile=True)):
        network = load_network(pipelines_folder / "sd", CPU, loading)
        for _ in range(2):  # there and back, and again
            plain = network.at_timestep(x, torch.tensor(500), texts)
            with perturbed(network.unet, damage, x.shape[-2:]):
                damaged = network.at_timestep(x, torch.tensor(500), texts)
        assert (damaged - plain).abs().max() > 1e-3
        outputs.append((plain, damaged))
    torch.testing.assert_close(outputs[1], outputs[0], atol=1e-4, rtol=1e-4)


def test_compiling_needs_a_compiler_and_weights_that_stay(checkpoint_params, monkeypatch):
    with pytest.raises(InputError, match="compile and offload exclude each other"):
        study_of(checkpoint_params, "sd", loading={"compile": True, "offload": True})
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(InputError, match=r"loading.compile needs a C\+\+ compiler, and there is no 'no-such"):
        ArmGenerator(study_of(checkpoint_params, "sd", loading={"compile": True}), "cfg", CPU)


def test_the_first_sdxl_autoencoder_stays_in_single_precision(pipelines_folder):
    network = load_network(pipelines_folder / "sdxl", CPU, Loading(dtype="float16"))
    assert network.unet.dtype == torch.float16
    assert network.latents is not None
    assert network.latents.vae.dtype == torch.float32


def test_another_text_encoder_changes_the_texts_alone(checkpoint_params):
    own = ArmGenerator(study_of(checkpoint_params, "sd"), "cfg", CPU)
    swapped = ArmGenerator(study_of(checkpoint_params, "sd", text_encoder="sd_guide"), "cfg", CPU)
    for a, b in zip(own.networks["main"].unet.parameters(), swapped.networks["main"].unet.parameters(), strict=True):
        assert torch.equal(a, b)
    assert own.draw(TEXTS, [1]).images[0].tobytes() != swapped.draw(TEXTS, [1]).images[0].tobytes()


def test_another_autoencoder_changes_the_images_and_not_the_trace(checkpoint_params):
    own = ArmGenerator(study_of(checkpoint_params, "sd"), "cfg", CPU).draw(TEXTS, [1])
    other = ArmGenerator(study_of(checkpoint_params, "sd", vae="sd_guide"), "cfg", CPU).draw(TEXTS, [1])
    assert own.traces == other.traces
    assert own.images[0].tobytes() != other.images[0].tobytes()


@pytest.mark.parametrize("kind", ["sd", "sd2", "sdxl"])
def test_a_single_file_draws_what_its_folder_draws(checkpoint_params, pipelines_folder, kind):
    save_single_file(pipelines_folder / kind, pipelines_folder / "one.safetensors")
    # Configurations and tokenizers alone: no weight can come from there.
    config = pipelines_folder / f"{kind}_config"
    shutil.copytree(pipelines_folder / kind, config, ignore=shutil.ignore_patterns("*.safetensors"))
    texts = {"prompt": ["1person, blue hair", "smile"], "negative": ["lowres, (blurry:1.3)"] * 2}
    folder = ArmGenerator(study_of(checkpoint_params, kind), "negative", CPU)
    study = study_of(checkpoint_params, kind, main="one.safetensors", config=config.name, guide=f"{kind}_guide")
    single = ArmGenerator(study, "negative", CPU)
    assert set(study_digests(study)) == {"main", "guide"}
    drawn, again = (g.draw(texts, [1, 2]) for g in (folder, single))
    # As text: without the empty prompt the effective scale is NaN, which equals nothing.
    assert repr(drawn.traces) == repr(again.traces)
    assert [image.tobytes() for image in drawn.images] == [image.tobytes() for image in again.images]


def test_an_autoencoder_of_its_own_file_is_read(checkpoint_params, pipelines_folder):
    save_file(original_vae(pipelines_folder / "sd_guide"), pipelines_folder / "vae.safetensors", {"format": "pt"})
    folder = ArmGenerator(study_of(checkpoint_params, "sd", vae="sd_guide"), "cfg", CPU)
    single = ArmGenerator(study_of(checkpoint_params, "sd", vae="vae.safetensors", config="sd"), "cfg", CPU)
    assert single.draw(TEXTS, [1]).images[0].tobytes() == folder.draw(TEXTS, [1]).images[0].tobytes()


def test_two_loads_of_one_folder_are_two_networks(pipelines_folder):
    first, second = (load_network(pipelines_folder / "sd", CPU) for _ in range(2))
    with torch.no_grad():
        next(first.unet.parameters()).add_(1)
    assert not torch.equal(next(first.unet.parameters()), next(second.unet.parameters()))


def test_images_survive_the_autoencoder_of_a_pixel_network(networks_folder):
    network = load_network(networks_folder / "main", CPU)
    image = torch.randint(0, 256, (2, 3, 64, 64), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    assert torch.equal(network.to_images(network.to_samples(image)), image)


def test_a_digest_follows_every_weight(pipelines_folder, tmp_path):
    folder = copied(pipelines_folder, tmp_path, "sdxl")
    before = network_digest(folder, with_text_encoder=True)
    assert before == network_digest(pipelines_folder / "sdxl", with_text_encoder=True)
    for part in ("unet", "vae", "text_encoder_2"):
        path = next((folder / part).glob("*.safetensors"))
        tensors = load_file(path)
        name = sorted(tensors)[0]
        save_file({**tensors, name: tensors[name] + 1}, path, {"format": "pt"})
        after = network_digest(folder, with_text_encoder=True)
        assert after != before, part
        before = after


def test_a_digest_follows_how_texts_are_cut_and_filled_up(pipelines_folder, tmp_path):
    folder = copied(pipelines_folder, tmp_path, "sdxl")
    before = network_digest(folder, with_text_encoder=True)
    for name in ("tokenizer/tokenizer_config.json", "tokenizer_2/tokenizer_config.json", "model_index.json"):
        path = folder / name
        path.write_text(path.read_text() + " ")
        after = network_digest(folder, with_text_encoder=True)
        assert after != before, name
        before = after


def test_the_digest_of_a_large_file_is_remembered_until_it_changes(pipelines_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.storage.digest_memory._LARGE", 1)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = copied(pipelines_folder, tmp_path, "sd_guide")
    first = network_digest(folder, with_text_encoder=False)
    assert network_digest(folder, with_text_encoder=False) == first
    # Another memory is another digest, so the files themselves are not read.
    memory = tmp_path / "cache/guidedrift/digests.json"
    memory.write_text(json.dumps(dict.fromkeys(json.loads(memory.read_text()), "0" * 64)))
    remembered = network_digest(folder, with_text_encoder=False)
    assert remembered != first
    path = folder / "unet/diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    name = sorted(tensors)[0]
    save_file({**tensors, name: tensors[name] + 1}, path, {"format": "pt"})
    assert network_digest(folder, with_text_encoder=False) not in (first, remembered)


def refused(params, kind, arm="autoguidance", **model):
    with pytest.raises(InputError) as raised:
        generate(study_of(params, kind, **model), arm, Places.under(Path("none")))
    assert not Path("none").exists()
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_a_folder_of_pickles_is_refused(checkpoint_params, pipelines_folder, tmp_path, monkeypatch):
    folder = copied(pipelines_folder, tmp_path, "sd")
    weights = folder / "vae/diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    monkeypatch.chdir(tmp_path)
    assert "vae holds diffusion_pytorch_model.bin, a pickle" in refused(checkpoint_params, "sd", "cfg")


@pytest.mark.parametrize("part", ["unet", "text_encoder", "tokenizer", "scheduler"])
def test_a_missing_part_is_named(checkpoint_params, pipelines_folder, tmp_path, monkeypatch, part):
    shutil.rmtree(copied(pipelines_folder, tmp_path, "sd") / part)
    monkeypatch.chdir(tmp_path)
    said = refused(checkpoint_params, "sd", "cfg")
    assert f"sd/{part}/" in said
    assert "missing" in said


def test_truncated_weights_are_named_before_anything_is_loaded(
    checkpoint_params, pipelines_folder, tmp_path, monkeypatch
):
    path = copied(pipelines_folder, tmp_path, "sd") / "text_encoder/model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pipeline.networks.denoisers.unet.load_network", lambda *_: pytest.fail("loaded"))
    assert "text_encoder/model.safetensors cannot be loaded" in refused(checkpoint_params, "sd", "cfg")


@pytest.mark.parametrize(
    ("name", "weight"),
    [
        ("unet/diffusion_pytorch_model", "conv_in.weight"),
        ("vae/diffusion_pytorch_model", "decoder.conv_in.weight"),
        ("text_encoder/model", "final_layer_norm.weight"),
    ],
)
def test_weights_that_lack_some_are_refused(checkpoint_params, pipelines_folder, tmp_path, monkeypatch, name, weight):
    path = copied(pipelines_folder, tmp_path, "sd") / f"{name}.safetensors"
    tensors = load_file(path)
    del tensors[weight]
    save_file(tensors, path, {"format": "pt"})
    monkeypatch.chdir(tmp_path)
    said = refused(checkpoint_params, "sd", "cfg")
    assert f"sd/{name.split('/')[0]} lacks 1 of the " in said
    assert f"{weight} is the first" in said


@pytest.mark.parametrize("prefix", ["model.diffusion_model.", "first_stage_model.", "cond_stage_model."])
def test_a_single_file_that_lacks_weights_is_refused(checkpoint_params, pipelines_folder, prefix):
    path = pipelines_folder / "partial.safetensors"
    save_single_file(pipelines_folder / "sd", path)
    tensors = load_file(path)
    dropped = max(name for name in tensors if name.startswith(prefix) and name.endswith("bias"))
    save_file({n: t for n, t in tensors.items() if n != dropped}, path, {"format": "pt"})
    assert "partial.safetensors lacks " in refused(checkpoint_params, "sd", "cfg", main=path.name, config="sd")


def test_a_guide_of_another_kind_is_refused_before_anything_is_loaded(checkpoint_params, monkeypatch):
    monkeypatch.setattr("pipeline.networks.denoisers.unet.load_network", lambda *_: pytest.fail("loaded"))
    said = refused(checkpoint_params, "sd", guide="sdxl")
    assert "the guide sdxl does not fit: width of the text embeddings is 32 in the main network and 80" in said


def test_a_checkpoint_that_is_no_folder_names_the_command(checkpoint_params):
    said = refused(checkpoint_params, "sd", "cfg", main="models/sd_v9")
    assert "model folder models/sd_v9 is missing" in said
    assert "hf download <owner>/<name>" in said


def test_a_single_file_that_cannot_be_drawn_with_is_named(checkpoint_params, pipelines_folder):
    path = pipelines_folder / "broken.safetensors"
    assert "weights broken.safetensors are missing" in refused(
        checkpoint_params, "sd", "cfg", main="broken.safetensors", config="sd"
    )
    save_single_file(pipelines_folder / "sd", path)
    said = refused(checkpoint_params, "sd", "cfg", main="broken.safetensors")
    assert "broken.safetensors is a single file, which has no configurations and no tokenizer; set model.config" in said
    assert "hf download" in said
    path.write_bytes(path.read_bytes()[:-100])
    said = refused(checkpoint_params, "sd", "cfg", main="broken.safetensors", config="sd")
    assert "broken.safetensors cannot be loaded" in said


@pytest.mark.parametrize("revision", ["", "@fp16"])
def test_a_repository_that_is_not_in_the_cache_names_the_command(checkpoint_params, tmp_path, monkeypatch, revision):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    said = refused(checkpoint_params, "sd", "cfg", main=f"hub:CompVis/stable-diffusion-v1-4{revision}")
    assert "hf download CompVis/stable-diffusion-v1-4" in said
    assert ("--revision fp16" in said) == bool(revision)


def test_a_repository_in_the_cache_is_found_at_its_revision(pipelines_folder, tmp_path, monkeypatch):
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "models--owner--tiny"
    shutil.copytree(pipelines_folder / "sd", repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    for source in ("hub:owner/tiny", "hub:owner/tiny@main", f"hub:owner/tiny@{commit}"):
        assert locate(source).path == repository / "snapshots" / commit
    with pytest.raises(InputError, match="owner/tiny at revision v2 is not in the Hugging Face cache"):
        locate("hub:owner/tiny@v2")


@pytest.mark.parametrize(
    ("arm", "message"),
    [
        ({"canvas": {"width": 33, "height": 32}}, "arms.cfg.canvas is 33x32; width and height must be multiples of 2"),
        (
            {"image_to_image": {"from": "unknown/folder", "strength": 0.5}},
            "unknown/folder holds no shards",
        ),
        (
            {"image_to_image": {"from": "sd", "strength": 0.5}},
            "arms.cfg.image_to_image.from 'sd' is neither an arm nor a folder of shards; arms: cfg, negative",
        ),
        (
            {"image_to_image": {"from": "negative", "strength": 0.5}},
            "source must repeat the arm it starts from; write source: ${arms.negative} in conf/",
        ),
        ({"sampler": {"scheduler": "dim", "steps": 3}}, "arms.cfg.sampler.scheduler is 'dim': is unknown; known"),
        ({"sampler": {"scheduler": "ddim", "steps": 3, "levels": "karras"}}, "scheduler ddim has no levels karras"),
    ],
)
def test_an_arm_that_does_not_fit_is_refused(checkpoint_params, arm, message, monkeypatch):
    monkeypatch.setattr("pipeline.networks.denoisers.unet.load_network", lambda *_: pytest.fail("loaded"))
    checkpoint_params["arms"] = {**ARMS, "cfg": {**ARMS["cfg"], **arm}}
    with pytest.raises(InputError) as raised:
        generate(study_of(checkpoint_params, "sd"), "cfg", Places.under(Path("none")))
    assert message in str(raised.value)


def test_a_pickle_or_a_bad_hub_name_is_a_configuration_error(checkpoint_params):
    for source, message in (
        ("models/anything.ckpt", "model.main is 'models/anything.ckpt': is a pickle, .* convert it to .safetensors"),
        ("hub:noowner", "must be hub:<owner>/<name>"),
        ("../models/sd", "must be a path inside the project"),
    ):
        with pytest.raises(InputError, match=message):
            study_of(checkpoint_params, "sd", main=source)


@pytest.mark.parametrize("model", MODELS)
def test_configurations_of_real_checkpoints_compose_and_say_what_to_fetch(model, tmp_path, monkeypatch):
    params = composed(f"model={model}")
    study = parse_study(params, model)
    assert study.model.name == model
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    # A single file has no repository that the configuration names.
    fetched = "put the file there" if study.model.main.endswith(".safetensors") else r"hf download \S+/"
    with pytest.raises(InputError, match=fetched):
        generate(study, "autoguidance", Places.under(tmp_path))


def test_configurations_of_one_kind_fit(pipelines_folder):
    check_fit(locate(str(pipelines_folder / "sd")), locate(str(pipelines_folder / "sd_guide")))
    assert load_text_encoder(locate(str(pipelines_folder / "sdxl")), CPU).zero_empty


def test_a_missing_guide_has_no_digest_and_stops_the_arm_that_uses_it(checkpoint_params):
    study = study_of(checkpoint_params, "sd", guide="nowhere", vae="sd_guide")
    digests = study_digests(study)
    assert digests["guide"] is None
    assert {"main", "vae"} < set(digests)
    assert "model folder nowhere is missing" in refused(checkpoint_params, "sd", guide="nowhere")


def test_the_digests_follow_a_folder_that_images_start_from(checkpoint_params, pipelines_folder, tmp_path):
    folder = pipelines_folder / "watched/cfg"

    def digests(start):
        redrawn = {"method": "cfg", "scale": 4.0, "image_to_image": {"from": start, "strength": 0.5}}
        changed = {**checkpoint_params, "arms": {**ARMS, "redrawn": redrawn}}
        return study_digests(study_of(changed, "sd"))

    assert digests("watched/cfg")["from watched/cfg"] is None
    generate(study_of(checkpoint_params, "sd"), "cfg", replace(Places.under(tmp_path), sets=folder.parent))
    before = digests("watched/cfg")
    assert before == digests("watched/cfg")
    assert set(before) - set(study_digests(study_of(checkpoint_params, "sd"))) == {"from watched/cfg"}
    # Other images under the same name.
    (folder / "part-00000.parquet").write_bytes((folder / "part-00001.parquet").read_bytes())
    after = digests("watched/cfg")
    assert {name for name in before if before[name] != after[name]} == {"from watched/cfg"}
    with pytest.raises(InputError, match=r"arms.redrawn.image_to_image.from data/sets/cfg is what arm cfg generates"):
        digests("data/sets/cfg")


def test_the_digests_follow_a_guides_lora(checkpoint_params, pipelines_folder):
    weaken = {"name": "lora", "file": "epoch.safetensors"}
    seen = []
    for value in (None, 0.0, 1.0):
        if value is not None:
            save_file({"weight": torch.full((2, 2), value)}, pipelines_folder / "epoch.safetensors", {"format": "pt"})
        seen.append(study_digests(study_of(checkpoint_params, "sd", weaken=weaken)))
    assert seen[0]["lora"] is None
    assert len({digests["lora"] for digests in seen}) == 3
    assert seen[1] | {"lora": None} == seen[0]
