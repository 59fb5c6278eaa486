"""MLflow holds each state of a study once, whole, and with the numbers of metrics/compare.json."""

import contextlib
import json
import shutil
import socket
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.data import get_source
from mlflow.entities import Run
from PIL import Image
from small_study import (
    ARMS,
    HOSTILE,
    PARAMS,
    SHIFTS,
    URI,
    comparison,
    picture,
    rates_of,
    write_comparison,
    write_rates,
    write_study,
)

from pipeline import track as track_module
from pipeline.errors import InputError
from pipeline.gallery import GAP
from pipeline.layout import TRACKED
from pipeline.shards import set_fingerprint
from pipeline.study import Study, parse_study
from pipeline.track import track
from pipeline.tracking import server
from pipeline.tracking.snapshot import FINGERPRINT_TAG
from pipeline.tracking.store import masked


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sqlite store with MLflow's tables, which take seconds to make."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def root(tmp_path: Path, empty_store: Path) -> Path:
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    write_study(tmp_path)
    return tmp_path


@pytest.fixture
def study() -> Study:
    return parse_study(PARAMS, "test")


@pytest.fixture
def client(root: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{root}/mlflow.db")


def all_runs(client: MlflowClient) -> tuple[list[Run], list[Run]]:
    """(parents, children) that are not deleted."""
    experiment = client.get_experiment_by_name("guidedrift")
    assert experiment is not None
    runs = list(client.search_runs([experiment.experiment_id]))
    children = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
    return [run for run in runs if run not in children], children


def artifacts(client: MlflowClient, run_id: str) -> set[str]:
    paths: set[str] = set()
    folders: list[str | None] = [None]
    while folders:
        for item in client.list_artifacts(run_id, folders.pop()):
            if item.is_dir:
                folders.append(item.path)
            else:
                paths.add(item.path)
    return paths


def test_tracking_twice_leaves_one_parent_one_child_an_arm_and_single_metric_histories(
    study: Study, root: Path, client: MlflowClient
) -> None:
    first = track(study, root, URI)
    assert track(study, root, URI) == first
    (parent,), children = all_runs(client)
    assert parent.info.run_id == first
    assert sorted(child.info.run_name for child in children) == sorted(ARMS)
    assert {run.info.status for run in (parent, *children)} == {"FINISHED"}
    assert {child.data.tags["mlflow.parentRunId"] for child in children} == {first}
    assert len(client.get_metric_history(first, "fd/cfg")) == 1
    assert all(len(client.get_metric_history(child.info.run_id, "fd")) == 1 for child in children)


def test_changed_metrics_and_changed_pictures_are_new_states(study: Study, root: Path, client: MlflowClient) -> None:
    runs = {track(study, root, URI)}
    write_comparison(root, comparison(seed=1))
    runs.add(track(study, root, URI))
    shard = root / "data/sets/cfg/part-00001.parquet"
    shutil.copy(root / "data/sets/unguided/part-00001.parquet", shard)
    runs.add(track(study, root, URI))
    parents, children = all_runs(client)
    assert {parent.info.run_id for parent in parents} == runs
    assert (len(runs), len(children)) == (3, 3 * len(ARMS))


def test_the_numbers_are_those_of_the_comparison(study: Study, root: Path, client: MlflowClient) -> None:
    parent = client.get_run(track(study, root, URI))
    content = comparison()
    by_name = {child.info.run_name: child.data for child in all_runs(client)[1]}
    headlines = {"fd_floor": content["floor"]["fd"]["value"]}
    for entry in content["arms"]:
        expected: dict[str, float] = {}
        against = entry["against_baseline"]
        shifts = {} if against is None else {f"shift_{name}": against[name] for name in (*SHIFTS, "mean_share")}
        if against is not None:
            shifts |= {
                "shift_auc": against["two_sample"]["auc"],
                "shift_kinds": against["composition"]["total_variation"],
            }
        for name, measured in {**entry["scores"], **shifts}.items():
            if isinstance(measured, dict):
                expected[name] = measured["value"]
                expected[f"{name}_low"], expected[f"{name}_high"] = measured["low"], measured["high"]
            else:
                expected[name] = measured
        logged = by_name[entry["arm"]].metrics
        assert {name: value for name, value in logged.items() if not name.startswith("system/")} == expected
        for name in ("fd", "precision", "recall", "clip_score", "aesthetic", "malformed"):
            headlines[f"{name}/{entry['arm']}"] = entry["scores"][name]["value"]
    assert parent.data.metrics == headlines


@pytest.mark.parametrize("simulated", [False, True])
def test_rates_by_labels_are_metrics_and_simulated_ones_are_named_so(
    study: Study, root: Path, client: MlflowClient, simulated: bool
) -> None:
    before = track(study, root, URI)
    write_rates(root, rates_of(simulated))
    parent = client.get_run(track(study, root, URI))
    assert parent.info.run_id != before
    source = "simulated" if simulated else "human"
    assert parent.data.metrics[f"{source}_malformed_human/cfg"] == pytest.approx(0.36)
    cfg = next(
        run.data.metrics
        for run in all_runs(client)[1]
        if run.info.run_name == "cfg" and run.data.tags["mlflow.parentRunId"] == parent.info.run_id
    )
    found = {key: value for key, value in cfg.items() if "malformed_human" in key and "kind" not in key}
    assert found == pytest.approx(
        {
            f"{source}_malformed_human": 0.36,
            f"{source}_malformed_human_low": 0.33,
            f"{source}_malformed_human_high": 0.38,
        }
    )
    assert cfg[f"{source}_pictures"] == 20
    assert (cfg[f"{source}_body_normal"], cfg[f"{source}_body_normal_low"]) == (0.75, 0.5)
    assert [cfg[f"{source}_strength{bound}"] for bound in ("", "_low", "_high")] == [0.5, -0.25, 1]
    assert parent.data.metrics[f"{source}_strength/cfg"] == 0.5
    table = json.loads(Path(client.download_artifacts(parent.info.run_id, "labels/rates.json")).read_text())
    assert [dict(zip(table["columns"], row, strict=True)) for row in table["data"]] == [
        {
            "pictures of": "cfg",
            "labels": source,
            "dimension": "64x64",
            "sample size": 20,
            "pattern": "6.0% (3.0% to 8.0%)",
            "object_or_scenery": "11.0% (8.0% to 13.0%)",
            "malformed_human": "36.0% (33.0% to 38.0%)",
            "legit_human": "51.0% (48.0% to 53.0%)",
            "body shape normal": "75.0% (50.0% to 90.0%)",
        }
    ]
    note = parent.data.tags["mlflow.note.content"]
    assert ("20 of the 20 labels are **simulated**" in note) == simulated


def test_params_and_tags_say_what_an_arm_is(study: Study, root: Path, client: MlflowClient) -> None:
    parent = client.get_run(track(study, root, URI))
    negative = next(child.data for child in all_runs(client)[1] if child.info.run_name == "negative")
    expected = {
        "method": "negative",
        "scale": "3.0",
        "text.prompt": "positive",
        "text.negative": HOSTILE,
        "sampler.scheduler": "ddim",
        "sampler.steps": "4",
        "pictures": "16",
        "model": "random",
    }
    assert expected.items() <= negative.params.items()
    assert (negative.tags["arm"], negative.tags["method"]) == ("negative", "negative")
    assert parent.data.params["arms.cfg.scale"] == "3.0"
    assert parent.data.params["provenance.libraries.torch"] == "2.14.1"
    assert len(parent.data.tags[FINGERPRINT_TAG]) == 16


def test_the_compare_page_begins_with_method_scale_and_distance(study: Study, root: Path, client: MlflowClient) -> None:
    # MLflow's plot takes the first three params by name that differ, and the first metric that all runs have.
    track(study, root, URI)
    children = all_runs(client)[1]
    params = [child.data.params for child in children]
    differing = [key for key in sorted(params[0]) if len({own[key] for own in params}) > 1]
    assert differing[:2] == ["method", "scale"]
    assert all(next(iter(child.data.metrics)) == "fd" for child in children)


def test_a_negative_prompt_that_is_only_probed_is_not_shown_as_used(root: Path, client: MlflowClient) -> None:
    probing = {**PARAMS["arms"]["unguided"], "probes": ["negative"], "negative_prompt": "bad"}
    study = parse_study({**PARAMS, "arms": {**PARAMS["arms"], "unguided": probing}}, "test")
    parent = client.get_run(track(study, root, URI))
    unguided = next(child.data for child in all_runs(client)[1] if child.info.run_name == "unguided")
    assert unguided.params["text.negative"] == ""
    assert "Negative prompt" not in unguided.tags["mlflow.note.content"]
    assert "| unguided | `" not in parent.data.tags["mlflow.note.content"]


def test_runs_name_the_image_sets_they_rest_on(study: Study, root: Path, client: MlflowClient) -> None:
    parent = client.get_run(track(study, root, URI))
    cfg = next(child for child in all_runs(client)[1] if child.info.run_name == "cfg")
    found = {
        (entry.dataset.name, entry.dataset.digest, entry.tags[0].value, json.loads(entry.dataset.profile)["num_rows"])
        for entry in cfg.inputs.dataset_inputs
    }
    assert found == {
        ("small/cfg", set_fingerprint(root / "data/sets/cfg"), "drawn", 16),
        ("small/reference", set_fingerprint(root / "data/reference"), "real", 32),
    }
    names = {entry.dataset.name for entry in parent.inputs.dataset_inputs}
    assert names == {f"small/{name}" for name in (*ARMS, "reference")}
    drawn = next(entry.dataset for entry in cfg.inputs.dataset_inputs if entry.dataset.name == "small/cfg")
    assert get_source(drawn).uri == "data/sets/cfg"


def test_what_drawing_took_of_the_machine_is_logged_shard_by_shard(
    study: Study, root: Path, client: MlflowClient
) -> None:
    track(study, root, URI)
    cfg = next(child for child in all_runs(client)[1] if child.info.run_name == "cfg")
    first, second = client.get_metric_history(cfg.info.run_id, "system/seconds_per_image")
    assert [(first.step, first.value), (second.step, second.value)] == [(0, 1.0), (1, 1.5)]
    # The second shard took 12 seconds, and so far apart they stand.
    assert second.timestamp - first.timestamp == pytest.approx(12_000, abs=1)
    assert cfg.data.metrics["system/process_cpu_percent"] == 50
    assert cfg.data.metrics["system/process_peak_memory_mib"] == 1024


def test_a_state_is_one_version_in_the_registry(
    study: Study, root: Path, client: MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = track(study, root, URI)
    track(study, root, URI)
    write_comparison(root, comparison(seed=1))
    second = track(study, root, URI)
    versions = client.search_model_versions("name='guidedrift-small'")
    assert {int(version.version): version.run_id for version in versions} == {1: first, 2: second}
    assert client.get_model_version_by_alias("guidedrift-small", "current").run_id == second
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):
        monkeypatch.setenv(name, f"sqlite:///{root}/mlflow.db")
    folder = Path(download_artifacts("models:/guidedrift-small@current", dst_path=str(tmp_path / "got")))
    for name, original in (("compare.json", "metrics/compare.json"), ("params.yaml", "params.yaml")):
        assert (folder / name).read_bytes() == (root / original).read_bytes()
    # The first state again: its run and its version are there already.
    write_comparison(root, comparison())
    assert track(study, root, URI) == first
    assert len(client.search_model_versions("name='guidedrift-small'")) == 2
    assert client.get_model_version_by_alias("guidedrift-small", "current").run_id == first


def test_the_version_of_a_run_that_broke_off_is_replaced(study: Study, root: Path, client: MlflowClient) -> None:
    client.update_run(track(study, root, URI), "RUNNING")
    again = track(study, root, URI)
    (version,) = client.search_model_versions("name='guidedrift-small'")
    assert version.run_id == again


def test_the_shared_view_lists_the_arms_of_this_state(study: Study, root: Path, client: MlflowClient) -> None:
    track(study, root, URI)
    write_comparison(root, comparison(seed=1))
    parent = track(study, root, URI)
    experiment = client.get_experiment_by_name("guidedrift")
    assert experiment is not None
    view = json.loads(experiment.tags["mlflow.sharedViewState.small"])
    order = f"{view['orderByKey']} {'ASC' if view['orderByAsc'] else 'DESC'}"
    runs = client.search_runs([experiment.experiment_id], view["searchFilter"], order_by=[order])
    assert {run.data.tags["mlflow.parentRunId"] for run in runs} == {parent}
    assert len(runs) == len(ARMS)
    distances = [run.data.metrics["fd"] for run in runs]
    assert distances == sorted(distances)
    for column in view["selectedColumns"]:
        kind, key = column.rstrip("`").split(".`")
        assert all(key in getattr(run.data, kind) for run in runs)


def test_make_mlflow_names_the_server_that_has_the_runs(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(root)
    monkeypatch.setattr("sys.argv", ["server"])
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://anna:s3cret@mlflow.example.org")
    server.main()
    assert capsys.readouterr().out == "the runs are at https://***@mlflow.example.org; look there\n"


def test_values_beyond_mlflows_limits_are_cut(root: Path, client: MlflowClient) -> None:
    # Longer than a study may hold today, so it is set behind the validation.
    study = parse_study(PARAMS, "test")
    long = study.arms["negative"].model_copy(update={"negative_prompt": "lowres, " * 1000})
    study = study.model_copy(update={"arms": {**study.arms, "negative": long}})
    parent = client.get_run(track(study, root, URI))
    assert len(parent.data.params["arms.negative.negative_prompt"]) == 6000


def test_artifacts_are_at_the_database_and_complete(study: Study, root: Path, client: MlflowClient) -> None:
    parent = track(study, root, URI)
    assert artifacts(client, parent) == {
        "study/params.yaml",
        "study/compare.json",
        "study/labels.json",
        "study/index.html",
        "gallery/same_seed.png",
    }
    for child in all_runs(client)[1]:
        assert artifacts(client, child.info.run_id) == {
            "gallery/samples.png",
            f"scores/{child.info.run_name}.parquet",
        }
        assert child.info.artifact_uri.startswith((root / "mlartifacts").as_uri())


def test_the_same_seed_sheet_has_a_column_an_arm_and_twelve_seeds(
    study: Study, root: Path, client: MlflowClient, tmp_path: Path
) -> None:
    path = client.download_artifacts(track(study, root, URI), "gallery/same_seed.png", str(tmp_path))
    sheet = np.asarray(Image.open(path).convert("RGB"))
    cell = 2 * 64 + GAP
    assert sheet.shape[1] == 3 * cell + GAP
    centres = sheet[-12 * cell + 64 :: cell, 64::cell]
    expected = [[np.asarray(picture(arm, seed))[0, 0] for arm in range(3)] for seed in range(12)]
    assert np.array_equal(centres, np.array(expected))


def test_untrusted_prompts_do_not_become_markup(study: Study, root: Path, client: MlflowClient) -> None:
    note = client.get_run(track(study, root, URI)).data.tags["mlflow.note.content"]
    row = next(line for line in note.splitlines() if line.startswith("| negative | `"))
    assert row.count("|") == 3
    assert row.count("`") == 2
    assert row.index("`") < row.index("![x]") < row.rindex("`")


def test_what_an_interrupted_run_left_is_replaced(study: Study, root: Path, client: MlflowClient) -> None:
    leftover = track(study, root, URI)
    for child in all_runs(client)[1]:
        client.update_run(child.info.run_id, "RUNNING")
    client.update_run(leftover, "RUNNING")
    parent = track(study, root, URI)
    parents, children = all_runs(client)
    assert [run.info.run_id for run in parents] == [parent] != [leftover]
    assert len(children) == len(ARMS)
    assert len(client.get_metric_history(parent, "fd/cfg")) == 1


def test_a_run_that_breaks_off_is_failed_and_the_next_one_replaces_it(
    study: Study, root: Path, client: MlflowClient
) -> None:
    blocked = root / "mlartifacts"
    blocked.write_text("a file where the folder should be")
    with pytest.raises(InputError, match=r"MLflow at sqlite:///mlflow\.db refuses: .*mlartifacts"):
        track(study, root, URI)
    (parent,), children = all_runs(client)
    assert {run.info.status for run in (parent, *children)} == {"FAILED"}
    blocked.unlink()
    again = track(study, root, URI)
    assert [run.info.run_id for run in all_runs(client)[0]] == [again]


def test_a_server_that_hangs_up_is_asked_three_times_at_most(study: Study, root: Path) -> None:
    asked = 0
    with socket.create_server(("127.0.0.1", 0)) as server:

        def hang_up() -> None:
            nonlocal asked
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    asked += 1
                    connection.close()

        thread = Thread(target=hang_up, daemon=True)
        thread.start()
        with pytest.raises(InputError, match="does not answer"):
            track(study, root, f"http://127.0.0.1:{server.getsockname()[1]}")
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
    assert 1 <= asked <= 3


def test_a_server_that_is_down_is_one_line_without_secrets(
    study: Study, root: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InputError) as error:
        track(study, root, "http://anna:s3cr@t@127.0.0.1:9")
    assert "MLflow at http://***@127.0.0.1:9 does not answer" in str(error.value)
    assert "MLFLOW_TRACKING_URI" in str(error.value)
    shown = str(error.value) + "".join(capfd.readouterr())
    assert not any(secret in shown for secret in ("anna", "s3cr", "\n"))


class _Refusing(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_error(403, "no entry")

    do_POST = do_GET

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def refusing_server() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), _Refusing)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_server_that_refuses_is_one_line_with_its_reason(study: Study, root: Path, refusing_server: str) -> None:
    with pytest.raises(InputError) as error:
        track(study, root, f"http://anna:s3cret@{refusing_server}")
    assert f"MLflow at http://***@{refusing_server} refuses: " in str(error.value)
    assert "403" in str(error.value)
    assert not any(secret in str(error.value) for secret in ("anna", "s3cret", "\n"))


@pytest.mark.parametrize("uri", ["./mlruns", "nonsense://x", "postgresql://anna:s3cret@127.0.0.1:9/mlflow"])
def test_an_address_that_mlflow_cannot_use_is_an_input_error(study: Study, root: Path, uri: str) -> None:
    with pytest.raises(InputError, match="MLflow at") as error:
        track(study, root, uri)
    assert "s3cret" not in str(error.value)


def test_a_damaged_database_is_named(study: Study, root: Path) -> None:
    (root / "mlflow.db").write_text("no database " * 100)
    with pytest.raises(InputError, match=r"mlflow\.db is no sqlite database"):
        track(study, root, URI)


def test_a_deleted_experiment_is_not_filled_again(study: Study, root: Path, client: MlflowClient) -> None:
    track(study, root, URI)
    experiment = client.get_experiment_by_name("guidedrift")
    assert experiment is not None
    client.delete_experiment(experiment.experiment_id)
    with pytest.raises(InputError, match="'guidedrift' was deleted"):
        track(study, root, URI)


def test_a_moved_project_is_told_where_its_artifacts_were(study: Study, root: Path, tmp_path: Path) -> None:
    track(study, root, URI)
    moved = tmp_path / "moved"
    moved.mkdir()
    for item in [item for item in root.iterdir() if item != moved]:
        item.rename(moved / item.name)
    with pytest.raises(InputError, match="no folder any more"):
        track(study, moved, URI)


@pytest.mark.parametrize(
    "missing",
    ["metrics/compare.json", "metrics/labels.json", "reports/index.html", "params.yaml", "data/scores/cfg.parquet"],
)
def test_a_missing_input_is_named_before_anything_is_logged(
    study: Study, root: Path, client: MlflowClient, missing: str
) -> None:
    (root / missing).unlink()
    with pytest.raises(InputError, match=missing):
        track(study, root, URI)
    assert client.get_experiment_by_name("guidedrift") is None
    assert not client.search_registered_models()


def test_a_stage_that_refuses_leaves_no_sign_of_having_tracked(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    monkeypatch.setattr("sys.argv", ["track"])
    (root / "metrics/compare.json").write_text("{}")
    with pytest.raises(InputError, match=r"compare\.json"):
        track_module.main()
    assert not (root / TRACKED).exists()


def test_damaged_and_foreign_inputs_are_named_and_leave_no_run(study: Study, root: Path, client: MlflowClient) -> None:
    content = comparison()
    write_comparison(root, {**content, "arms": content["arms"][:2]})
    with pytest.raises(InputError, match="has arms cfg, unguided, the study has cfg, negative, unguided"):
        track(study, root, URI)
    content["arms"][0]["scores"]["fd"]["value"] = float("nan")
    write_comparison(root, content)
    with pytest.raises(InputError, match=r"compare\.json: arms\.0\.scores\.fd\.value"):
        track(study, root, URI)
    write_comparison(root, comparison())
    shard = root / "data/sets/negative/part-00000.parquet"
    shard.write_bytes(shard.read_bytes()[:200])
    with pytest.raises(InputError, match=r"negative/part-00000\.parquet is not a readable"):
        track(study, root, URI)
    assert all_runs(client) == ([], [])


def test_the_environment_overrides_the_studys_address(
    root: Path, client: MlflowClient, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(root)
    monkeypatch.setattr("sys.argv", ["track"])
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///elsewhere.db")
    shutil.copy(root / "mlflow.db", root / "elsewhere.db")
    track_module.main()
    assert client.get_experiment_by_name("guidedrift") is None
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    track_module.main()
    assert len(all_runs(client)[0]) == 1
    output = capfd.readouterr()
    assert output.err == ""
    first, second = output.out.splitlines()
    assert "sqlite:///elsewhere.db" in first
    assert "3 arms" in second
    assert "`make mlflow`" in second


def test_credentials_are_masked_wherever_they_stand() -> None:
    assert masked("https://anna:a/b?c@host/x") == "https://***@host/x"
    assert masked("postgresql://host/db?password=s3cret") == "postgresql://host/db?***"
    assert masked("sqlite:///mlflow.db") == "sqlite:///mlflow.db"
