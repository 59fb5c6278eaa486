"""What MLflow's pages show of a study: params, tags, image sets, views, images and files."""

import json
from pathlib import Path

import numpy as np
import pytest
from free_port import free_port
from mlflow import MlflowClient
from mlflow.data import get_source
from PIL import Image
from playwright.sync_api import Browser
from small_study import ARMS, HOSTILE, PARAMS, URI, comparison, image, write_comparison
from tracked_runs import all_runs, artifacts

from docs.mlflow_image import arms, compared, opened, served
from pipeline.results.colours import arm_colours
from pipeline.results.comparison import COMPARISON, load_comparison
from pipeline.storage.contact_sheet import GAP
from pipeline.storage.shards import set_fingerprint
from pipeline.study.study import Study, parse_study
from pipeline.tracking.snapshot import FINGERPRINT_TAG
from pipeline.tracking.track import track


def test_params_and_tags_say_what_an_arm_is(study: Study, root: Path, client: MlflowClient) -> None:
    parent = client.get_run(track(study, root, URI))
    negative = next(child.data for child in all_runs(client)[1] if child.data.tags["arm"] == "negative")
    expected = {
        "method": "negative",
        "scale": "3.0",
        "text.prompt": "positive",
        "text.negative": HOSTILE,
        "sampler.scheduler": "ddim",
        "sampler.steps": "4",
        "images": "16",
        "model": "random",
    }
    assert expected.items() <= negative.params.items()
    assert (negative.tags["arm"], negative.tags["method"]) == ("negative", "negative")
    assert parent.data.params["arms.cfg.scale"] == "3.0"
    assert parent.data.params["provenance.libraries.torch"] == "2.14.1"
    assert len(parent.data.tags[FINGERPRINT_TAG]) == 16


def test_the_pages_colour_a_run_as_the_report_does(study: Study, root: Path, client: MlflowClient) -> None:
    track(study, root, URI)
    found = load_comparison(root / COMPARISON, study)
    shown = {run.data.tags["arm"]: run.data.tags["mlflow.runColor"] for run in all_runs(client)[1]}
    assert shown == arm_colours(found.arms, found.baseline)
    assert len(set(shown.values())) == len(shown)


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
    unguided = next(child.data for child in all_runs(client)[1] if child.data.tags["arm"] == "unguided")
    assert unguided.params["text.negative"] == ""
    assert "Negative prompt" not in unguided.tags["mlflow.note.content"]
    assert "| unguided | `" not in parent.data.tags["mlflow.note.content"]


def test_runs_name_the_image_sets_they_rest_on(study: Study, root: Path, client: MlflowClient) -> None:
    parent = client.get_run(track(study, root, URI))
    cfg = next(child for child in all_runs(client)[1] if child.data.tags["arm"] == "cfg")
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


def test_mlflow_opens_on_the_arms_and_plots_their_comparison(
    study: Study, root: Path, client: MlflowClient, monkeypatch: pytest.MonkeyPatch, browser: Browser
) -> None:
    # Only MLflow's own pages know whether they can read the view and its address.
    track(study, root, URI)
    monkeypatch.chdir(root)
    monkeypatch.setattr("docs.mlflow_image.PORT", free_port())
    experiment, runs = arms()
    with served() as address:
        page = opened(browser, address)
        page.get_by_text("unguided", exact=True).first.wait_for()
        names = page.locator(".ag-row a[href*='/runs/']").all_inner_texts()
        page.wait_for_timeout(1000)  # columns move to their places once the rows are there
        heads = page.locator(".ag-header-cell")
        columns = sorted((head.bounding_box()["x"], head.inner_text().strip()) for head in heads.all())
        plot = compared(browser, address.split("/#")[0], experiment, runs)
    distances = {run.info.run_name: run.data.metrics["fd"] for run in all_runs(client)[1]}
    assert set(names) == {"unguided", "cfg x3", "negative x3"}
    assert names == sorted(names, key=lambda name: distances[name])
    shown = [column for _, column in columns if column]
    assert shown[:7] == ["Run Name", "Created", "method", "scale", "fd", "precision", "recall"]
    assert len(plot.getcolors(plot.width * plot.height)) > 10, "a plot has lines of many colours"


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
        "numbers.json",
    }
    for child in all_runs(client)[1]:
        assert artifacts(client, child.info.run_id) == {
            "gallery/samples.png",
            f"scores/{child.data.tags['arm']}.parquet",
            "numbers.json",
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
    expected = [[np.asarray(image(arm, seed))[0, 0] for arm in range(3)] for seed in range(12)]
    assert np.array_equal(centres, np.array(expected))


def test_untrusted_prompts_do_not_become_markup(study: Study, root: Path, client: MlflowClient) -> None:
    note = client.get_run(track(study, root, URI)).data.tags["mlflow.note.content"]
    row = next(line for line in note.splitlines() if line.startswith("| negative | `"))
    assert row.count("|") == 3
    assert row.count("`") == 2
    assert row.index("`") < row.index("![x]") < row.rindex("`")
