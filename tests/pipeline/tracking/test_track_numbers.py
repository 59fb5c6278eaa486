"""The numbers in MLflow are those of the comparison, of people's labels and of the machine."""

import json
from pathlib import Path

import pytest
from mlflow import MlflowClient
from small_study import SHIFTS, URI, comparison, rates_of, write_rates
from tracked_runs import all_runs

from pipeline.study.study import Study
from pipeline.tracking.track import track


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
            fields = {"shift": "fd", "distance": "reference_fd", "variety": "recall"}
            shifts |= {
                f"{space}_shift_{fields.get(field, field)}": own[field]
                for space, own in against["spaces"].items()
                for field in (*fields, "drift", "spread_ratio")
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
    assert cfg[f"{source}_images"] == 20
    assert (cfg[f"{source}_body_normal"], cfg[f"{source}_body_normal_low"]) == (0.75, 0.5)
    assert [cfg[f"{source}_strength{bound}"] for bound in ("", "_low", "_high")] == [0.5, -0.25, 1]
    assert parent.data.metrics[f"{source}_strength/cfg"] == 0.5
    table = json.loads(Path(client.download_artifacts(parent.info.run_id, "labels/rates.json")).read_text())
    assert [dict(zip(table["columns"], row, strict=True)) for row in table["data"]] == [
        {
            "images of": "cfg",
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
