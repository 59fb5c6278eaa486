"""Generation: paired seeds, shards that survive a kill, and bad input that touches nothing."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from one_arm import generate
from repository_copy import ROOT

from pipeline.errors import InputError, run_stage
from pipeline.generate import main
from pipeline.generation.trajectory import FRAMES
from pipeline.layout import COSTS, SETS, TRACES, TRAJECTORIES
from pipeline.storage.places import Places
from pipeline.storage.shards import decode_images, read_set, read_table, set_fingerprint, shard_fingerprint
from pipeline.study.arm import Arm
from pipeline.study.study import parse_study

CPU = torch.device("cpu")


def run_generate(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pipeline.generate", *arguments],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def fail_generate(monkeypatch, capsys, arm):
    """What the stage says when it refuses; the stage itself, without the seconds of a new interpreter."""
    monkeypatch.setattr(sys, "argv", ["generate", "--arm", arm])
    with pytest.raises(SystemExit) as raised:
        run_stage(main)
    assert raised.value.code == 2
    return capsys.readouterr().err.strip()


def test_arms_share_prompts_and_seeds(study, tmp_path):
    for arm in ("unguided", "negative", "pure_negative"):
        generate(study, arm, Places.under(tmp_path))
    sets = {arm: read_set(tmp_path / SETS / arm) for arm in ("unguided", "negative", "pure_negative")}
    for column in ("seed", "pair_id"):
        assert sets["unguided"][column] == sets["negative"][column] == sets["pure_negative"][column]
    assert sets["unguided"]["prompt"] == sets["negative"]["prompt"]
    assert set(sets["pure_negative"]["prompt"].to_pylist()) == {""}
    assert set(sets["negative"]["negative_prompt"].to_pylist()) == {study.arms["negative"].negative}
    assert len(set(sets["unguided"]["prompt"].to_pylist())) == study.generate.images


def test_the_baseline_from_other_seeds_has_its_prompts_and_the_images_of_these_seeds(study, tmp_path):
    content = study.model_dump(mode="json", by_alias=True, exclude_unset=True)
    content["arms"] = {"unguided": content["arms"]["unguided"]}
    both = parse_study(
        {**content, "arms": {**content["arms"], "reseeded": {**content["arms"]["unguided"], "first_seed": 500}}}, "both"
    )
    for arm in both.arms:
        generate(both, arm, Places.under(tmp_path / "both"))
    base, own = (read_set(tmp_path / "both" / SETS / arm) for arm in both.arms)
    images = both.generate.images
    assert own["prompt"] == base["prompt"]
    assert own["seed"].to_pylist() == own["pair_id"].to_pylist() == list(range(500, 500 + images))
    assert base["seed"].to_pylist() == base["pair_id"].to_pylist() == list(range(images))
    elsewhere = parse_study({**content, "generate": {**content["generate"], "first_seed": 500}}, "elsewhere")
    generate(elsewhere, "unguided", Places.under(tmp_path / "elsewhere"))
    there = read_set(tmp_path / "elsewhere" / SETS / "unguided")
    assert own["image"] == there["image"]
    assert own["image"] != base["image"]
    assert there["pair_id"].to_pylist() == list(range(images)), "pairs are counted from the study's first seed"
    moved = parse_study(
        {**both.model_dump(by_alias=True, exclude_unset=True), "generate": {**content["generate"], "first_seed": 100}},
        "moved",
    )
    generate(moved, "reseeded", Places.under(tmp_path / "both"))
    assert read_set(tmp_path / "both" / SETS / "reseeded")["pair_id"].to_pylist() == list(moved.pairs_of("reseeded"))


def test_sets_load_with_datasets(study, tmp_path):
    from datasets import load_dataset

    generate(study, "cfg", Places.under(tmp_path))
    files = str(tmp_path / SETS / "cfg" / "*.parquet")
    loaded = load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded[0]["image"].size == (64, 64)
    assert len(loaded) == study.generate.images


def test_the_trace_follows_every_image_and_step(study, tmp_path):
    generate(study, "cfg", Places.under(tmp_path))
    trace = read_set(tmp_path / TRACES / "cfg")
    assert len(trace) == study.generate.images * study.sampler.steps
    assert min(trace["direction"].to_pylist()) > 0
    assert (
        trace["image_id"].to_pylist()[:: study.sampler.steps]
        == read_set(tmp_path / SETS / "cfg")["image_id"].to_pylist()
    )


def test_a_second_run_draws_nothing_and_keeps_the_bytes(study, tmp_path):
    assert generate(study, "cfg", Places.under(tmp_path)) == (2, 2)
    before = set_fingerprint(tmp_path / SETS / "cfg")
    assert generate(study, "cfg", Places.under(tmp_path)) == (0, 2)
    assert set_fingerprint(tmp_path / SETS / "cfg") == before


def watching(study, images):
    return study.model_copy(update={"generate": study.generate.model_copy(update={"watched": images})})


def test_the_way_of_watched_images_ends_at_the_image(study, tmp_path):
    """At the last step the guided x0 is what the deterministic sampler arrives at."""
    generate(watching(study, 3), "cfg", Places.under(tmp_path))
    ways = read_set(tmp_path / TRAJECTORIES / "cfg")
    images = read_set(tmp_path / SETS / "cfg")
    ids = images["image_id"].to_pylist()[:3]
    steps = min(FRAMES, study.sampler.steps)
    assert ways["image_id"].to_pylist() == [image_id for image_id in ids for _ in range(steps)]
    sigmas = np.array(ways["sigma"].to_pylist()).reshape(3, steps)
    assert (np.diff(sigmas) < 0).all(), "from the noisiest step on"
    frames = list(decode_images(ways))
    for k, image in enumerate(decode_images(images.slice(0, 3))):
        last = np.asarray(frames[(k + 1) * steps - 1], dtype=int)
        assert np.abs(last - np.asarray(image, dtype=int)).max() <= 1
    assert np.abs(np.asarray(frames[0], int) - np.asarray(frames[steps - 1], int)).max() > 1


def test_watching_changes_no_image_and_is_made_up_for(study, tmp_path):
    places = Places.under(tmp_path)
    generate(study, "cfg", places)
    assert list(places.of("cfg").trajectories.iterdir()) == []
    before = set_fingerprint(tmp_path / SETS / "cfg")
    first = study.generate.shard
    assert generate(watching(study, first + 1), "cfg", places) == (2, 2)
    assert set_fingerprint(tmp_path / SETS / "cfg") == before
    assert len(set(read_set(tmp_path / TRAJECTORIES / "cfg")["image_id"].to_pylist())) == first + 1
    assert generate(watching(study, first), "cfg", places) == (0, 2), "the first shard's are all there"
    assert [path.name for path in places.of("cfg").trajectories.iterdir()] == ["part-00000.parquet"]


def test_another_scale_replaces_every_shard(study, tmp_path):
    generate(study, "cfg", Places.under(tmp_path))
    before = set_fingerprint(tmp_path / SETS / "cfg")
    other = study.model_copy(update={"arms": {**study.arms, "cfg": Arm(method="cfg", scale=5)}})
    assert generate(other, "cfg", Places.under(tmp_path)) == (2, 2)
    assert set_fingerprint(tmp_path / SETS / "cfg") != before


def test_a_description_changes_no_image(study, tmp_path):
    generate(study, "cfg", Places.under(tmp_path))
    reworded = study.arms["cfg"].model_copy(update={"description": "other words"})
    other = study.model_copy(update={"arms": {**study.arms, "cfg": reworded}})
    assert generate(other, "cfg", Places.under(tmp_path)) == (0, 2)


def test_a_truncated_shard_is_drawn_again_to_the_same_bytes(study, tmp_path):
    generate(study, "cfg", Places.under(tmp_path))
    path = tmp_path / SETS / "cfg" / "part-00001.parquet"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"part-00001.parquet is not a readable parquet shard"):
        read_table(path)
    assert generate(study, "cfg", Places.under(tmp_path)) == (1, 2)
    assert path.read_bytes() == whole


def test_what_a_killed_process_left_half_written_is_deleted(study, tmp_path):
    generate(study, "cfg", Places.under(tmp_path))
    left = [tmp_path / folder / "cfg" / ".part-00000.parquet.123.tmp" for folder in (SETS, TRACES)]
    for path in left:
        path.write_bytes(b"half")
    assert generate(study, "cfg", Places.under(tmp_path)) == (0, 2)
    assert not any(path.exists() for path in left)


def test_shards_beyond_the_study_are_deleted(study, tmp_path):
    generate(study, "cfg", Places.under(tmp_path))
    fewer = study.model_copy(update={"generate": study.generate.model_copy(update={"images": 8})})
    assert generate(fewer, "cfg", Places.under(tmp_path)) == (0, 1)
    assert (
        len(read_set(tmp_path / SETS / "cfg"))
        == len(set(read_set(tmp_path / TRACES / "cfg")["image_id"].to_pylist()))
        == 8
    )


def test_a_foreign_parquet_file_is_refused(tmp_path):
    import pyarrow as pa

    pq.write_table(pa.table({"image": [1]}), tmp_path / "part-00000.parquet")
    with pytest.raises(InputError, match="not a guidedrift shard"):
        read_set(tmp_path)


def test_a_kill_loses_no_finished_shard_and_changes_no_byte(networks_project, params):
    params["sampler"]["steps"] = 12
    params["generate"]["images"] = 64
    params["reference"]["images"] = 128
    (networks_project / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    shards = networks_project / "data/sets/cfg"
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline.generate", "--arm", "cfg"],
        cwd=networks_project,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while not (shards / "part-00001.parquet").exists():
        assert process.poll() is None, "generate ended before it could be killed"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    finished = {p.name: p.stat().st_mtime_ns for p in shards.glob("part-*.parquet") if shard_fingerprint(p)}
    assert 2 <= len(finished) < 8

    done = run_generate(networks_project, "--arm", "cfg")
    assert done.returncode == 0, done.stderr
    assert f"({8 - len(finished)} of 8 shards generated, {len(finished)} kept)" in done.stdout
    for name, stamp in finished.items():
        assert (shards / name).stat().st_mtime_ns == stamp, f"{name} was drawn twice"
    assert not list(shards.glob(".*")), "a temporary file was left"
    disturbed = {p.name: p.read_bytes() for p in (*shards.iterdir(), *(networks_project / "data/trace/cfg").iterdir())}

    shutil.rmtree(networks_project / "data")
    assert run_generate(networks_project, "--arm", "cfg").returncode == 0
    undisturbed = {
        p.name: p.read_bytes() for p in (*shards.iterdir(), *(networks_project / "data/trace/cfg").iterdir())
    }
    assert disturbed == undisturbed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: shutil.rmtree(p / "networks/main/unet"), "diffusion_pytorch_model.safetensors are missing"),
        (
            lambda p: (p / "networks/main/unet/diffusion_pytorch_model.safetensors").rename(
                p / "networks/main/unet/diffusion_pytorch_model.bin"
            ),
            "a pickle, which can run code",
        ),
        (
            lambda p: (p / "networks/main/unet/diffusion_pytorch_model.safetensors").write_bytes(b"\x08" + b"\0" * 20),
            "cannot be loaded",
        ),
        (lambda p: (p / "params.yaml").unlink(), "params.yaml does not exist"),
        (lambda p: (p / "params.yaml").write_text("arms: ["), "params.yaml is not YAML"),
    ],
    ids=["missing", "pickled", "damaged", "no params", "broken params"],
)
def test_bad_files_give_one_line_and_touch_nothing(networks_project, change, message, monkeypatch, capsys):
    change(networks_project)
    said = fail_generate(monkeypatch, capsys, "cfg")
    assert message in said
    assert said.splitlines()[-1].startswith("error: ")
    assert not list(networks_project.rglob("*.parquet"))


def test_an_unknown_arm_is_named_with_the_known_ones(networks_project, params, monkeypatch, capsys):
    known = ", ".join(params["arms"])
    assert fail_generate(monkeypatch, capsys, "negativ") == f"error: arm 'negativ' is unknown; known arms: {known}"
    assert not (networks_project / "data").exists()


def test_a_guide_that_does_not_fit_is_refused_with_the_reason(study, params, tmp_path):
    from models.tinybooru.networks.families import FamilyRecipe, build_network, build_scheduler

    recipe = FamilyRecipe("unet", "other", (16, 16), patch=4, learning_rate=1e-3)
    build_network(recipe, text_width=64).save_pretrained("other/unet")
    build_scheduler().save_pretrained("other/scheduler")
    params["model"]["guide"] = "other"
    other = parse_study(params, "test")
    with pytest.raises(InputError, match="width of the text embeddings is 32 in the main network and 64 in the guide"):
        generate(other, "autoguidance", Places.under(tmp_path))
    assert not (tmp_path / SETS).exists()


def test_the_cost_counts_evaluations_and_survives_an_interruption(study, params, tmp_path):
    """Unguided is one evaluation a step, guidance two; seconds of finished shards are kept."""
    places = Places.under(tmp_path)

    def cost(arm):
        return json.loads((tmp_path / COSTS / f"{arm}.json").read_text())

    for arm in ("unguided", "autoguidance"):
        generate(study, arm, places)
    steps, images = study.sampler.steps, study.generate.images
    assert (cost("unguided")["nfe_per_image"], cost("autoguidance")["nfe_per_image"]) == (steps, 2 * steps)
    main = cost("unguided")["flops_per_image"]
    assert main < cost("autoguidance")["flops_per_image"] < 2 * main, "the guide is smaller than the main network"
    assert cost("unguided")["images"] == images
    assert cost("unguided")["seconds_per_image"] > 0

    params["arms"]["unguided"] |= {"probes": ["guide"]}
    params["model"] = {"name": "random", "main": "main", "guide": "guide"}
    generate(parse_study(params, "test"), "unguided", Places.under(tmp_path / "probed"))
    probed = json.loads((tmp_path / "probed" / COSTS / "unguided.json").read_text())
    assert (probed["nfe_per_image"], probed["flops_per_image"]) == (steps, main), "probes count apart"
    assert probed["probe_nfe_per_image"] == steps
    assert main + probed["probe_flops_per_image"] == cost("autoguidance")["flops_per_image"]

    whole = cost("unguided")
    (tmp_path / SETS / "unguided" / "part-00001.parquet").unlink()
    generate(study, "unguided", places)
    again = cost("unguided")
    assert again["shards"]["part-00000.parquet"] == whole["shards"]["part-00000.parquet"], "kept, not measured anew"
    assert again["shards"]["part-00001.parquet"]["seconds"] != whole["shards"]["part-00001.parquet"]["seconds"]

    before = set_fingerprint(tmp_path / SETS / "unguided")
    (tmp_path / COSTS / "unguided.json").unlink()
    assert generate(study, "unguided", places) == (0, 2)
    assert cost("unguided")["nfe_per_image"] == steps, "measured on a batch where the record is lost"
    assert set_fingerprint(tmp_path / SETS / "unguided") == before


def test_probes_stand_in_the_trace_for_every_image_and_step(study, params, tmp_path):
    params["arms"]["unguided"] |= {"probes": ["negative", "empty", "guide"], "negative_prompt": "bad anatomy"}
    params["model"] = {"name": "random", "main": "main", "guide": "guide"}
    probed = parse_study(params, "test")
    generate(study, "unguided", Places.under(tmp_path / "plain"))
    generate(probed, "unguided", Places.under(tmp_path))
    trace = read_set(tmp_path / TRACES / "unguided").to_pylist()
    assert len(trace) == study.generate.images * study.sampler.steps
    for row in trace:
        assert row["references"] == ["negative", "empty", "guide"]
        assert len(row["relative_norms"]) == len(row["cosines"]) == 3
        assert row["direction"] == 0, "nothing of it is used"
    plain, ours = read_set(tmp_path / "plain" / SETS / "unguided"), read_set(tmp_path / SETS / "unguided")
    assert set(ours["negative_prompt"].to_pylist()) == {""}, "a probed prompt has not made the image"
    for a, b in zip(decode_images(plain), decode_images(ours), strict=True):
        assert np.abs(np.asarray(a, int) - np.asarray(b, int)).max() <= 1


def test_finished_images_are_recognised_and_verified_without_diffusers():
    # Its import takes longer than all else such a run does.
    modules = "pipeline.generate, pipeline.integrity.verify, pipeline.integrity.artefact_checks"
    code = f"import {modules}, sys; print(*sorted({{'diffusers', 'transformers'}} & set(sys.modules)))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == ""
