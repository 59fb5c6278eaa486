"""How long `python -m pipeline.integrity.verify` takes for 10,000 images, and whether it finds a single flipped bit.

`python -m benchmarks.verify` writes the default study with that many images to a temporary folder (blurred noise, as
large as those of the embedded world; vectors and numbers at random), records it with DVC, and verifies it as a user
would. Then one bit of one file at a time is flipped, without changing its size or time stamp.
"""

import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from benchmarks.record import entry, record
from benchmarks.report import DISTINCT, WIDTH, image
from eval.features.extraction import REFERENCE, SetFeatures, save_features
from eval.scorers.arm_scores import SCORE_FEATURES
from pipeline.cost.shard_cost import Cost, ShardCost
from pipeline.generation.shard_files import SET_FEATURES, TRACE_FEATURES
from pipeline.generation.shard_plan import DEVICES, Shard, arm_texts, plan_shards
from pipeline.generation.trajectory import FRAMES, TRAJECTORY_FEATURES, trajectory_fingerprint, watched_of
from pipeline.layout import COSTS, FEATURES, METRICS, REFERENCE_SET, SCORES, SETS, TRACES, TRAJECTORIES
from pipeline.results.comparison import COMPARISON
from pipeline.results.rates import RATES
from pipeline.storage.files import write_atomically
from pipeline.storage.json_file import read_json_text, seal_json
from pipeline.storage.shards import encode_png, set_fingerprint, write_shard
from pipeline.study.study import Study, load_study

ROOT = Path.cwd()
IMAGES, STEPS = 10_000, 20
SECONDS, ROUNDS, FLIPS = 20.0, 3, 10
PROGRAM = [sys.executable, "-m", "pipeline.integrity.verify"]


def write_project(folder: Path) -> Study:
    """A DVC repository in `folder`, which becomes the working directory, with the default study's outputs."""
    params = yaml.safe_load(Path("params.yaml").read_text("utf-8"))
    params["generate"] |= {"images": -(-IMAGES // len(params["arms"])), "shard": 256}
    # As many as the study has to have; that the folder holds fewer is DVC's to say.
    params["reference"]["images"] = 2 * params["generate"]["images"]
    stages = yaml.safe_load(Path("dvc.yaml").read_text("utf-8"))["stages"]
    kept: dict[str, Any] = {}
    for name in ("generate", "features_reference", "features", "score", "reference"):
        stage = stages[name]
        own = {key: value for key, value in stage.get("do", stage).items() if key in ("cmd", "outs", "metrics")}
        kept[name] = {"foreach": stage["foreach"], "do": own} if "do" in stage else own
    kept["compare"] = {"cmd": "true", "outs": [str(COMPARISON), str(RATES)]}
    compared, rates = read_json_text(COMPARISON), RATES.read_bytes()
    shutil.copytree(REFERENCE_SET, folder / REFERENCE_SET)
    (folder / "models").symlink_to(ROOT / "models")
    os.chdir(folder)
    Path("params.yaml").write_text(yaml.safe_dump(params, sort_keys=False), "utf-8")
    Path("dvc.yaml").write_text(yaml.safe_dump({"stages": kept}, sort_keys=False), "utf-8")
    study = load_study()
    chance = np.random.default_rng(0)
    cells: list[dict[str, Any]] = [{"bytes": encode_png(image(chance)), "path": None} for _ in range(DISTINCT)]
    for arm in study.arms:
        _write_arm(study, arm, chance, cells)
    for extractor in study.features.extractors:
        reference = SetFeatures(
            ["x"], torch.zeros(1, WIDTH), torch.zeros(1, 0), {"set": set_fingerprint(REFERENCE_SET)}
        )
        save_features(FEATURES / REFERENCE / f"{extractor}.safetensors", reference)
    write_atomically(COMPARISON, seal_json(compared.decode()))
    write_atomically(RATES, rates)
    for command in (["init", "--no-scm", "-q"], ["commit", "-f", "-q"]):
        subprocess.run([sys.executable, "-m", "dvc", *command], check=True)
    return study


def _write_arm(study: Study, arm: str, chance: np.random.Generator, cells: list[dict[str, Any]]) -> None:
    texts = arm_texts(study, arm)
    shards = plan_shards(study, arm, texts, DEVICES[0])
    ids = [f"{arm}-{k:06d}" for k in range(study.generate.images)]
    cost = Cost(COSTS / f"{arm}.json", {shard.name: shard.fingerprint for shard in shards}, 0)
    for shard in shards:
        _write_shards(study, arm, shard, ids[shard.start : shard.stop], texts["prompt"], chance, cells)
        cost.add(shard.name, ShardCost(shard.fingerprint, shard.stop - shard.start, 1, 1, 0, 0, 1.0, "cpu", 1.0, 1))
    drawn = set_fingerprint(SETS / arm)
    for extractor in study.features.extractors:
        vectors = torch.from_numpy(chance.normal(size=(len(ids), WIDTH)).astype(np.float32))
        save_features(
            FEATURES / arm / f"{extractor}.safetensors", SetFeatures(ids, vectors, vectors.flip(0), {"set": drawn})
        )
    numbers: dict[str, list[Any]] = {name: chance.uniform(size=len(ids)).tolist() for name in SCORE_FEATURES}
    numbers |= {"image_id": ids, "pair_id": list(range(len(ids))), "inside_reference": [True] * len(ids)}
    write_shard(SCORES / f"{arm}.parquet", numbers, SCORE_FEATURES, drawn)
    write_atomically(METRICS / "detail" / f"{arm}.json", seal_json(json.dumps({"provenance": {"set": drawn}})))
    write_atomically(METRICS / f"{arm}.json", b"{}\n")


def _write_shards(
    study: Study,
    arm: str,
    shard: Shard,
    ids: list[str],
    prompts: list[str],
    chance: np.random.Generator,
    cells: list[dict[str, Any]],
) -> None:
    pairs = list(range(shard.start, shard.stop))
    columns: dict[str, list[Any]] = {
        "image_id": ids,
        "image": [cells[k % len(cells)] for k in pairs],
        "arm": [arm] * len(ids),
        "pair_id": pairs,
        "prompt": prompts[shard.start : shard.stop],
        "negative_prompt": [""] * len(ids),
        "seed": pairs,
    }
    write_shard(SETS / arm / shard.name, columns, SET_FEATURES, shard.fingerprint)
    rows = len(ids) * STEPS
    trace: dict[str, list[Any]] = {
        "image_id": [image_id for image_id in ids for _ in range(STEPS)],
        "step": list(range(STEPS)) * len(ids),
        **{name: chance.uniform(size=rows).tolist() for name in ("timestep", "sigma", "direction")},
        "references": [["empty"]] * rows,
        "relative_norms": chance.uniform(size=(rows, 1)).tolist(),
        "cosines": [[]] * rows,
        "effective_scale": [float("nan")] * rows,
        "elsewhere": [float("nan")] * rows,
    }
    write_shard(TRACES / arm / shard.name, trace, TRACE_FEATURES, shard.fingerprint)
    if watched := watched_of(range(shard.start, shard.stop), study.generate.watched):
        seen = [image_id for image_id in ids[:watched] for _ in range(FRAMES)]
        ways: dict[str, list[Any]] = {
            "image_id": seen,
            "step": list(range(FRAMES)) * watched,
            "sigma": [1.0] * len(seen),
            "image": [cells[k] for k in range(len(seen))],
        }
        mark = trajectory_fingerprint(shard, study.generate.watched)
        write_shard(TRAJECTORIES / arm / shard.name, ways, TRAJECTORY_FEATURES, mark)


def verified() -> tuple[float, float, str]:
    """Seconds and CPU seconds of the program from its start to its end, and what it said."""
    start, before = time.perf_counter(), _children_seconds()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(PROGRAM, env=environment, capture_output=True, text=True, check=False)
    said = f"{done.returncode}: {done.stdout}{done.stderr}"
    return time.perf_counter() - start, _children_seconds() - before, said


def _children_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def flip_one(chance: random.Random) -> tuple[Path, bytes]:
    """Flip a random bit of a random file below data/, and keep its time stamp; returns it and what it held."""
    path = chance.choice(sorted(path for path in Path("data").rglob("*") if path.is_file()))
    whole, state = path.read_bytes(), path.stat()
    content = bytearray(whole)
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    path.write_bytes(content)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    return path, whole


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        study = write_project(Path(folder))
        count = study.generate.images * len(study.arms)
        size = sum(path.stat().st_size for path in Path("data").rglob("*") if path.is_file()) / 1e6
        rounds = [verified() for _ in range(ROUNDS)]
        assert all(said.startswith("0: ") for *_, said in rounds), rounds[0][-1]
        chance, found = random.Random(0), 0
        for _ in range(FLIPS):
            path, whole = flip_one(chance)
            *_, said = verified()
            found += said.startswith(f"1: {path} ") and ", 1 damaged or missing, 0 not up to date" in said
            path.write_bytes(whole)
        os.chdir(ROOT)
    seconds, spent = min(one[0] for one in rounds), min(one[1] for one in rounds)
    peer = f"{count} images, {size:.0f} MB, from start to end, least of {ROUNDS}"
    flips = f"{FLIPS} bits in random files below data/, one at a time"
    record(
        [
            entry("verify_10000_seconds", seconds, SECONDS, seconds < SECONDS, peer),
            entry("verify_10000_cpu_seconds", spent, None, None, f"{peer}"),
            entry("verify_flipped_bits_found", found, FLIPS, found == FLIPS, flips),
        ]
    )


if __name__ == "__main__":
    main()
