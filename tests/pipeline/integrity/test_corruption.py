"""Damaged artefacts: whoever reads one says so and which, `verify` names them all, and the next run makes them anew."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from datasets import Features, Value
from repository_copy import ROOT
from safetensors import safe_open

from eval import measure
from eval.comparison import compare
from labeling.rates import label_rates as estimates
from labeling.sampling import sample
from pipeline import generate
from pipeline.compose import compose
from pipeline.errors import InputError, run_stage
from pipeline.integrity import recover, verify
from pipeline.reference import build as reference
from pipeline.storage.json_file import read_json_text, seal_json
from pipeline.storage.shards import encode_table, read_table, shard_fingerprint, write_shard
from pipeline.storage.tensor_file import encode_tensors, read_tensors
from pipeline.study.study import load_study

COLUMNS = {"image_id": ["a", "b", "c"], "value": [0.5, 1.5, 2.5]}
FEATURES = Features({"image_id": Value("string"), "value": Value("float64")})
# A prompt may spell what the footer says.
HOSTILE = {**COLUMNS, "image_id": ["guidedrift.sha256\x18\x40" + "0" * 64, '\\"guidedrift.sha256\\": \\"', "PAR1"]}


def shard(columns: dict[str, list[object]]) -> bytes:
    return encode_table(columns, FEATURES, "mark")


def tensors(columns: dict[str, list[object]]) -> bytes:
    known = {"ids": columns["image_id"], "provenance": {"extractor": "clip"}}
    return encode_tensors({"images": torch.tensor(columns["value"])}, known)


def numbers(columns: dict[str, list[object]]) -> bytes:
    return seal_json(json.dumps({"study": "small", **columns}, indent=2))


def read_numbers(path: Path) -> dict[str, object]:
    """As the stages read: a key that nobody knows is damage."""
    try:
        content = json.loads(read_json_text(path))
    except ValueError as error:
        raise InputError(f"{path} is not JSON ({error}); delete it and run `dvc repro`") from None
    return content


KINDS = [(shard, read_table), (tensors, read_tensors), (numbers, read_numbers)]


@pytest.mark.parametrize(("content", "read"), KINDS)
def test_any_flipped_bit_and_any_lost_end_is_noticed(content, read, tmp_path):
    whole = content(COLUMNS)
    path = tmp_path / "artefact"
    path.write_bytes(whole)
    read(path)
    damaged = [whole[:length] for length in range(0, len(whole), 7)]
    for at in range(len(whole)):
        damaged.append(whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :])
    for bits in damaged:
        path.write_bytes(bits)
        with pytest.raises(InputError, match=r"artefact .*delete it and run `dvc repro`"):
            read(path)


@pytest.mark.parametrize("content", [content for content, _ in KINDS])
def test_equal_content_gives_equal_bytes(content):
    assert len({content(COLUMNS) for _ in range(8)}) == 1


def test_a_damaged_shard_is_not_finished(tmp_path):
    path = tmp_path / "part-00000.parquet"
    write_shard(path, COLUMNS, FEATURES, "mark")
    assert shard_fingerprint(path) == "mark"
    middle = path.stat().st_size // 2
    whole = path.read_bytes()
    path.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
    assert shard_fingerprint(path) is None


def test_content_that_spells_the_checksum_is_read(tmp_path):
    path = tmp_path / "artefact"
    path.write_bytes(shard(HOSTILE))
    assert read_table(path).to_pydict() == HOSTILE
    path.write_bytes(tensors(HOSTILE))
    assert read_tensors(path)[1]["ids"] == HOSTILE["image_id"]
    path.write_bytes(numbers(HOSTILE))
    assert read_numbers(path) == {"study": "small", **HOSTILE}


def test_other_readers_read_the_files_too(tmp_path):
    path = tmp_path / "artefact"
    path.write_bytes(shard(COLUMNS))
    assert pq.read_table(path).to_pydict() == COLUMNS
    path.write_bytes(tensors(COLUMNS))
    with safe_open(path, framework="pt") as file:
        assert file.get_tensor("images").tolist() == COLUMNS["value"]


def test_a_shard_of_an_earlier_version_is_stale_and_says_so(tmp_path):
    path = tmp_path / "part-00000.parquet"
    pq.write_table(pa.Table.from_pydict(COLUMNS).replace_schema_metadata({"guidedrift.fingerprint": "mark"}), path)
    assert shard_fingerprint(path) is None
    with pytest.raises(InputError, match="not a guidedrift shard, or one without a checksum of an earlier version"):
        read_table(Path(path))


ARMS = ("unguided", "cfg")


def show() -> None:
    """The stages metrics@<arm> of dvc.yaml."""
    for arm in ARMS:
        shutil.copyfile(f"data/headlines/{arm}.json", f"metrics/{arm}.json")


STAGES: list[tuple[Callable[[], None], list[str]]] = [
    (reference.main, []),
    (generate.main, []),
    (measure.main, []),
    (show, []),
    (compare.main, []),
    (sample.main, []),
    (estimates.main, []),
]
# One file of every kind that these stages write.
DAMAGED = (
    "data/concepts/part-00000.parquet",
    "data/reference/part-00000.parquet",
    "data/sets/cfg/part-00001.parquet",
    "data/trace/cfg/part-00001.parquet",
    "data/trajectory/cfg/part-00000.parquet",
    "data/cost/cfg.json",
    "data/features/cfg/clip.safetensors",
    "data/features/concepts/clip.safetensors",
    "data/headlines/cfg.json",
    "data/scores/cfg.parquet",
    "data/sample/tasks.parquet",
    "metrics/cfg.json",
    "metrics/detail/cfg.json",
    "metrics/compare.json",
    "metrics/labels.json",
    "plots/arms.csv",
)
# Drawing again takes other seconds than before, and compare.json quotes them.
TIMED = {"data/cost/cfg.json", "metrics/compare.json"}


def run(stage: Callable[[], None], *arguments: str) -> None:
    """A stage as DVC runs it, but in this process. Raises SystemExit where it refuses."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(sys, "argv", ["stage", *arguments])
        run_stage(stage)


def run_all() -> None:
    for stage, arguments in STAGES:
        run(stage, *arguments)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small study of the shipped networks, made by the stages and recorded by DVC."""
    folder = tmp_path_factory.mktemp("made")
    params: dict[str, Any] = json.loads(json.dumps(compose(ROOT / "conf", [])))
    params["arms"] = {arm: params["arms"][arm] for arm in ARMS}
    params["headlines"] = {arm: arm for arm in ARMS}
    for key in ("probes", "negative_preset"):
        params["arms"]["unguided"].pop(key)
    params["features"]["primary"] = "clip"
    params["features"]["extractors"] = {"clip": params["features"]["extractors"]["clip"]}
    params["metrics"]["resamples"] = 100
    params["sampler"]["steps"] = 3
    params["reference"]["images"] = 24
    params["generate"] = {"images": 12, "first_seed": 0, "shard": 8, "batch": 4, "watched": 2}
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    (folder / "models").symlink_to(ROOT / "models")
    # The outputs of the real stages; what they depend on is not looked at here.
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    kept: dict[str, Any] = {}
    for name in ("reference", "generate", "measure", "metrics", "compare", "sample", "rates"):
        stage = stages[name]
        own = {key: value for key, value in stage.get("do", stage).items() if key not in ("deps", "params")}
        kept[name] = {"foreach": stage["foreach"], "do": own} if "do" in stage else own
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": kept}, sort_keys=False))
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(folder)
        run_all()
        for command in (["init", "--no-scm", "-q"], ["commit", "-f", "-q"]):
            subprocess.run([sys.executable, "-m", "dvc", *command], check=True)
    return folder


@pytest.fixture(scope="module")
def other(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study that differs in the scale of one arm alone."""
    folder = tmp_path_factory.mktemp("other") / "study"
    shutil.copytree(made, folder, symlinks=True)
    params = yaml.safe_load((folder / "params.yaml").read_text())
    params["arms"]["cfg"]["scale"] = 5.0
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(folder)
        run_all()
    return folder


@pytest.fixture
def project(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the study, as working directory."""
    folder = tmp_path / "study"
    shutil.copytree(made, folder, symlinks=True)
    monkeypatch.chdir(folder)
    return folder


def flip(at: float) -> Callable[[Path], None]:
    """A damage: one bit at the share `at` of a file, which keeps its size and time stamp."""

    def damage(path: Path) -> None:
        content, state = path.read_bytes(), path.stat()
        k = int(at * (len(content) - 1))
        path.write_bytes(content[:k] + bytes([content[k] ^ 4]) + content[k + 1 :])
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))

    return damage


DAMAGES: dict[str, Callable[[Path], None]] = {
    "header": flip(0.0),
    "a third": flip(1 / 3),
    "footer": flip(0.98),
    "last byte": flip(1.0),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-100]) and None,
    "emptied": lambda path: path.write_bytes(b"") and None,
}


def found() -> dict[str, bool]:
    """What `verify` finds: whether it is damaged, by file."""
    count, findings = verify.verify(load_study())
    assert count > 20
    return {str(finding.path): finding.damaged for finding in findings}


def test_an_undamaged_study_is_whole(project: Path) -> None:
    assert found() == {}


@pytest.mark.parametrize("damage", DAMAGES)
def test_verify_names_every_damaged_file_and_no_other(project: Path, damage: str) -> None:
    for name in DAMAGED:
        DAMAGES[damage](project / name)
    assert found() == dict.fromkeys(DAMAGED, True)


def test_what_is_damaged_is_deleted_and_made_anew(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = {name: (project / name).read_bytes() for name in DAMAGED}
    for name in DAMAGED:
        flip(0.5)(project / name)
    with pytest.raises(SystemExit) as ended:
        run(verify.main, "--repair")
    assert ended.value.code == 1
    assert f"{len(DAMAGED)} damaged files deleted" in capsys.readouterr().out
    assert not [name for name in DAMAGED if (project / name).exists()]
    run_all()
    assert {name for name in DAMAGED if (project / name).read_bytes() != whole[name]} <= TIMED
    assert not any(found().values())


def test_files_of_another_study_are_named_and_made_anew(project: Path, other: Path) -> None:
    names = [name for name in DAMAGED if (other / name).read_bytes() != (project / name).read_bytes()]
    assert len(names) > 8
    whole = {name: (project / name).read_bytes() for name in names}
    for name in names:
        shutil.copyfile(other / name, project / name)
    assert set(found()) >= set(names)
    run_all()
    assert {name for name in names if (project / name).read_bytes() != whole[name]} <= TIMED
    assert set(found()) <= TIMED


def test_a_copy_in_the_cache_that_is_damaged_too_is_deleted(project: Path) -> None:
    name = "data/sets/cfg/part-00001.parquet"
    whole = (project / name).read_bytes()
    (copy,) = [path for path in (project / ".dvc/cache").rglob("*") if path.is_file() and path.read_bytes() == whole]
    flip(0.5)(project / name)
    copy.chmod(0o644)
    flip(0.5)(copy)
    _, findings = verify.verify(load_study())
    verify.repair(findings)
    assert not copy.exists()


@pytest.mark.parametrize(
    ("name", "stage", "arguments"),
    [
        ("data/reference/part-00000.parquet", measure.main, []),
        ("data/concepts/part-00000.parquet", measure.main, []),
        ("data/features/concepts/clip.safetensors", compare.main, []),
        ("data/sets/cfg/part-00001.parquet", measure.main, []),
        ("data/sets/cfg/part-00001.parquet", measure.main, ["--arm", "cfg"]),
        ("data/features/reference/clip.safetensors", compare.main, []),
        ("data/scores/cfg.parquet", compare.main, []),
        ("data/scores/cfg.parquet", sample.main, []),
        ("data/trace/cfg/part-00001.parquet", compare.main, []),
        ("data/cost/cfg.json", compare.main, []),
        ("metrics/detail/cfg.json", compare.main, []),
    ],
)
def test_a_stage_refuses_what_is_damaged_and_names_it(
    project: Path, name: str, stage: Callable[[], None], arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    flip(0.5)(project / name)
    with pytest.raises(SystemExit) as refused:
        run(stage, *arguments)
    assert refused.value.code == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith(f"error: {name} ")
    assert "delete it and run `dvc repro`" in said


@pytest.mark.parametrize(("name", "end"), [("dvc.lock", "md5: "), (".dvc/tmp/rwlock", '"pid": ')])
def test_a_lock_file_that_dvc_left_half_written_is_deleted(project: Path, name: str, end: str) -> None:
    path = project / name
    if name != "dvc.lock":
        path.write_text(json.dumps({"read": {}, "write": {"data": {"pid": 1, "cmd": "dvc repro"}}}))
    assert recover.recover() == []
    content = path.read_text()
    path.write_text(content[: content.rindex(end) + 2])
    assert recover.recover() == [Path(name)]
    assert not path.exists()
