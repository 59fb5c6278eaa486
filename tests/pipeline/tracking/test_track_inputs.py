"""Inputs of `track` that are missing, damaged or of another study are named, and nothing is logged."""

from pathlib import Path

import pytest
from mlflow import MlflowClient
from small_study import URI, comparison, write_comparison
from tracked_runs import all_runs

from pipeline.errors import InputError
from pipeline.layout import TRACKED
from pipeline.study.study import Study
from pipeline.tracking import track as track_module
from pipeline.tracking.track import track


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
