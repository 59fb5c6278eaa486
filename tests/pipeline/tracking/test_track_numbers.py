"""The numbers in MLflow are those of the comparison, of people's labels and of the machine."""

from pathlib import Path

import pytest
from mlflow import MlflowClient
from small_study import SHIFTS, URI, comparison, rates_of, write_rates
from tracked_runs import all_runs, table_of

from pipeline.study.study import Study
from pipeline.tracking.track import track


def test_the_numbers_are_those_of_the_comparison(study: Study, root: Path, client: MlflowClient) -> None:
    parent = client.get_run(track(study, root, URI))
    content = comparison()
    by_name = {child.data.tags["arm"]: child.data for child in all_runs(client)[1]}
    runs = {child.data.tags["arm"]: child.info.run_id for child in all_runs(client)[1]}
    headlines = {"fd_floor": content["floor"]["fd"]["value"]}
    for entry in content["arms"]:
        expected: dict[str, float] = {}
        bounds: dict[str, list[float | None]] = {}
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
                bounds[name] = [measured["low"], measured["high"], measured["n"]]
            else:
                expected[name] = measured
                bounds[name] = [None, None, None]
        logged = by_name[entry["arm"]].metrics
        assert {name: value for name, value in logged.items() if not name.startswith("system/")} == expected
        table = table_of(client, runs[entry["arm"]], "numbers.json")
        assert {row["number"]: row["value"] for row in table} == pytest.approx(expected)
        assert {row["number"]: [row["low"], row["high"], row["n"]] for row in table} == {
            name: pytest.approx(own) if own[0] is not None else own for name, own in bounds.items()
        }
        for name in ("fd", "precision", "recall", "clip_score", "aesthetic", "malformed"):
            headlines[f"{name}/{entry['arm']}"] = entry["scores"][name]["value"]
    assert parent.data.metrics == headlines
    whole = table_of(client, parent.info.run_id, "numbers.json")
    assert list(dict.fromkeys(row["run"] for row in whole)) == ["unguided", "cfg x3", "negative x3"]


@pytest.mark.parametrize("simulated", [False, True])
def test_rates_by_labels_are_metrics_and_simulated_ones_are_named_so(
    study: Study, root: Path, client: MlflowClient, simulated: bool
) -> None:
    write_rates(root, rates_of(simulated))
    parent = client.get_run(track(study, root, URI))
    source = "simulated" if simulated else "human"
    assert parent.data.metrics[f"{source}_malformed_human/cfg"] == pytest.approx(0.36)
    child = next(run for run in all_runs(client)[1] if run.data.tags["arm"] == "cfg")
    cfg = child.data.metrics
    found = {key: value for key, value in cfg.items() if "malformed_human" in key and "kind" not in key}
    assert found == pytest.approx({f"{source}_malformed_human": 0.36})
    bounds = {row["number"]: (row["low"], row["high"]) for row in table_of(client, child.info.run_id, "numbers.json")}
    assert bounds[f"{source}_malformed_human"] == pytest.approx((0.33, 0.38))
    assert bounds[f"{source}_body_normal"] == (0.5, 0.9)
    assert bounds[f"{source}_strength"] == (-0.25, 1)
    assert cfg[f"{source}_images"] == 20
    assert (cfg[f"{source}_body_normal"], cfg[f"{source}_strength"]) == (0.75, 0.5)
    assert parent.data.metrics[f"{source}_strength/cfg"] == 0.5
    assert table_of(client, parent.info.run_id, "labels/rates.json") == [
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
    cfg = next(child for child in all_runs(client)[1] if child.data.tags["arm"] == "cfg")
    first, second = client.get_metric_history(cfg.info.run_id, "system/seconds_per_image")
    assert [(first.step, first.value), (second.step, second.value)] == [(0, 1.0), (1, 1.5)]
    # The second shard took 12 seconds, and so far apart they stand.
    assert second.timestamp - first.timestamp == pytest.approx(12_000, abs=1)
    assert cfg.data.metrics["system/process_cpu_percent"] == 50
    assert cfg.data.metrics["system/process_peak_memory_mib"] == 1024
