"""MLflow holds each state of a study once and whole, whatever was interrupted before."""

import shutil
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from small_study import ARMS, URI, comparison, rates_of, write_comparison, write_rates
from tracked_runs import all_runs, table_of

from pipeline.errors import InputError
from pipeline.study.study import Study
from pipeline.tracking.snapshot import FINGERPRINT_TAG
from pipeline.tracking.track import track


def test_tracking_twice_leaves_one_parent_one_child_an_arm_and_single_metric_histories(
    study: Study, root: Path, client: MlflowClient
) -> None:
    first = track(study, root, URI)
    assert track(study, root, URI) == first
    (parent,), children = all_runs(client)
    assert parent.info.run_id == first
    assert sorted(child.data.tags["arm"] for child in children) == sorted(ARMS)
    assert {run.info.status for run in (parent, *children)} == {"FINISHED"}
    assert {child.data.tags["mlflow.parentRunId"] for child in children} == {first}
    assert len(client.get_metric_history(first, "fd/cfg")) == 1
    assert all(len(client.get_metric_history(child.info.run_id, "fd")) == 1 for child in children)


def test_changed_metrics_and_changed_images_are_new_states(study: Study, root: Path, client: MlflowClient) -> None:
    runs = {track(study, root, URI)}
    write_comparison(root, comparison(seed=1))
    runs.add(track(study, root, URI))
    shard = root / "data/sets/cfg/part-00001.parquet"
    shutil.copy(root / "data/sets/unguided/part-00001.parquet", shard)
    runs.add(track(study, root, URI))
    parents, children = all_runs(client)
    assert {parent.info.run_id for parent in parents} == runs
    assert (len(runs), len(children)) == (3, 3 * len(ARMS))


def test_labels_update_the_runs_of_their_state(study: Study, root: Path, client: MlflowClient) -> None:
    first = track(study, root, URI)
    for labels in (20, 30):
        write_rates(root, rates_of(simulated=False).model_copy(update={"labels": labels}))
        (root / "reports/index.html").write_text(f"with {labels} labels")
        assert track(study, root, URI) == first
    (parent,), children = all_runs(client)
    assert len(children) == len(ARMS)
    cfg = next(run for run in children if run.data.tags["arm"] == "cfg")
    history = client.get_metric_history(cfg.info.run_id, "human_malformed_human")
    assert [entry.step for entry in history] == [1, 2]
    assert len(client.get_metric_history(cfg.info.run_id, "fd")) == 1
    assert len(table_of(client, first, "labels/rates.json")) == 1, "the second pull's rows replace the first's"
    numbers = [row["number"] for row in table_of(client, cfg.info.run_id, "numbers.json")]
    assert len(numbers) == len(set(numbers))
    assert "human_malformed_human" in numbers
    assert Path(client.download_artifacts(first, "study/index.html")).read_text() == "with 30 labels"
    assert "by 30 labels" in parent.data.tags["mlflow.note.content"]
    (version,) = client.search_model_versions("name='guidedrift-small'")
    assert "by 30 labels" in version.description


def test_an_update_that_broke_off_is_repeated(study: Study, root: Path, client: MlflowClient) -> None:
    first = track(study, root, URI)
    write_rates(root, rates_of(simulated=False))
    (root / "mlartifacts").rename(root / "away")
    (root / "mlartifacts").write_text("a file where the folder should be")
    with pytest.raises(InputError, match="refuses"):
        track(study, root, URI)
    (root / "mlartifacts").unlink()
    (root / "away").rename(root / "mlartifacts")
    assert track(study, root, URI) == first
    cfg = next(run for run in all_runs(client)[1] if run.data.tags["arm"] == "cfg")
    assert "human_malformed_human" in {row["number"] for row in table_of(client, cfg.info.run_id, "numbers.json")}


def test_rates_that_are_no_more_are_not_shown_any_longer(study: Study, root: Path, client: MlflowClient) -> None:
    write_rates(root, rates_of(simulated=True))
    track(study, root, URI)
    write_rates(root, rates_of(simulated=False))
    track(study, root, URI)
    (parent,), children = all_runs(client)
    assert len(children) == len(ARMS)
    shown = {key for run in (parent, *children) for key in run.data.metrics}
    assert any(key.startswith("human_") for key in shown)
    assert not any(key.startswith("simulated_") for key in shown)


def test_runs_of_an_earlier_layout_stay(study: Study, root: Path, client: MlflowClient) -> None:
    earlier = track(study, root, URI)
    for run in (client.get_run(earlier), *all_runs(client)[1]):
        client.update_run(run.info.run_id, name=f"earlier {run.info.run_name}")
    client.set_tag(earlier, FINGERPRINT_TAG, "of layout 2")
    client.delete_tag(earlier, "guidedrift.labels")
    later = track(study, root, URI)
    parents, children = all_runs(client)
    assert {run.info.run_id for run in parents} == {earlier, later}
    assert len(children) == 2 * len(ARMS)
    assert client.get_run(later).info.run_name == "as before, in a newer layout (small)"


def test_a_state_is_called_by_what_changed(study: Study, root: Path, client: MlflowClient) -> None:
    def name(study: Study) -> str:
        return str(client.get_run(track(study, root, URI)).info.run_name)

    assert name(study) == "first state (small)"
    content = comparison()
    content["arms"][1]["scale"] = 4.0
    write_comparison(root, content)
    cfg = study.arms["cfg"].model_copy(update={"scale": 4.0})
    assert name(study.model_copy(update={"arms": {**study.arms, "cfg": cfg}})) == "cfg.scale 3.0 -> 4.0 (small)"
    write_comparison(root, comparison())
    shutil.copy(root / "data/sets/unguided/part-00001.parquet", root / "data/sets/cfg/part-00001.parquet")
    assert name(study) == "cfg.scale 4.0 -> 3.0 (small)"
    write_comparison(root, comparison(seed=1))
    assert name(study) == "other numbers (small)"
    shutil.copy(root / "data/sets/unguided/part-00000.parquet", root / "data/sets/cfg/part-00000.parquet")
    assert name(study) == "other images of cfg (small)"
    content = comparison(seed=1)
    content["provenance"]["code"] = "def"
    write_comparison(root, content)
    assert name(study) == "other code (small)"


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
