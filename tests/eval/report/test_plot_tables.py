"""The tables behind `dvc plots` hold the numbers of the comparison and of the traces."""

import json
from collections.abc import Iterator

import pytest
from report_numbers import ARMS, comparison
from report_study import SIGMAS, Inputs, study
from repository_copy import ROOT

from eval.comparison.compare import read_traces
from eval.comparison.plot_tables import COLUMNS, csv_bytes, direction_sizes, plot_tables
from pipeline.results.colours import BASELINE, shade
from pipeline.results.comparison import Comparison

# Of the three arms: grey, blue, vermilion.
COLOURS = (BASELINE, shade(0), shade(1))


def test_arms_have_their_scores_and_guided_ones_what_lies_between_them_and_the_baseline() -> None:
    content = comparison()
    tables = plot_tables(Comparison(**content))
    assert tables["arms"] == [
        {"arm": arm["arm"], "family": arm["method"], "colour": colour, "scale": arm["scale"]}
        | {name: round(one["value"], 5) for name, one in arm["scores"].items()}
        for arm, colour in zip(content["arms"], COLOURS, strict=True)
    ]
    assert [row["arm"] for row in tables["shift"]] == list(ARMS[1:])
    against = content["arms"][1]["against_baseline"]
    numbers = {name: one["value"] for name, one in against.items() if isinstance(one, dict) and "value" in one}
    numbers |= {
        "auc": against["two_sample"]["auc"]["value"],
        "kinds": against["composition"]["total_variation"]["value"],
        "tags": against["tags"]["total_variation"]["value"],
        "pickscore": against["preferences"]["pickscore"]["value"],
    }
    assert tables["shift"][0] == {
        "arm": "cfg_3",
        "family": "cfg",
        "colour": COLOURS[1],
        "scale": 3,
        "within_prompt": "",
        **numbers,
    }


def test_frontiers_have_a_row_a_point_and_cosines_a_row_a_step() -> None:
    content = comparison()
    tables = plot_tables(Comparison(**content))
    names = ("precision", "recall", "fd", "clip_score", "aesthetic", "shift")
    assert tables["frontier"] == [
        {"family": frontier["family"], "arm": point["arm"], "colour": colour, "scale": point["scale"]}
        | {name: point[name]["value"] for name in names}
        for frontier, own in zip(content["frontiers"], COLOURS[1:], strict=True)
        for point, colour in zip(frontier["points"], (COLOURS[0], own), strict=True)
    ]
    assert [(row["arm"], row["step"], row["sigma"]) for row in tables["alignment"]] == [
        (f"unguided: {pair}", step, sigma)
        for pair in ("empty and negative", "empty and guide", "negative and guide")
        for step, sigma in enumerate((150, 4, 0))
    ]
    steps = [step["value"] for pair in content["alignment"][0]["pairs"] for step in pair["steps"]]
    for row, step in zip(tables["alignment"], steps, strict=True):
        shown = (row["cosine"], row["low"], row["high"])
        assert shown == pytest.approx((step["value"], step["low"], step["high"]), abs=1e-5)


def test_guided_arms_have_the_mean_size_of_their_direction_at_every_step(
    inputs: Inputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(inputs.root)
    # Of image k at step s it is (s + k) / 10.
    sizes = {"direction": [0.25, 0.35, 0.45, 0.55, 0.65], "sigma": list(SIGMAS)}
    rows = direction_sizes(study(), read_traces(study()), dict(zip(ARMS, COLOURS, strict=True)))
    assert {row["arm"]: row["colour"] for row in rows} == dict(zip(ARMS[1:], COLOURS[1:], strict=True))
    assert [(row["arm"], row["step"]) for row in rows] == [(arm, step) for arm in ARMS[1:] for step in range(5)]
    for name, values in sizes.items():
        assert [row[name] for row in rows] == pytest.approx(values * 2, abs=1e-5)


@pytest.mark.parametrize("template", ["arms_line", "arms_scatter", "family_path"])
def test_the_templates_take_the_colours_of_the_rows_as_they_are(template: str) -> None:
    content = json.loads((ROOT / f".dvc/plots/{template}.json").read_text("utf-8"))

    def encodings(part: object) -> Iterator[object]:
        if isinstance(part, dict):
            yield from ([part["color"]] if isinstance(part.get("color"), dict) else [])
            part = list(part.values())
        for inner in part if isinstance(part, list) else []:
            yield from encodings(inner)

    found = list(encodings(content))
    assert found
    assert all(one == {"field": "colour", "type": "nominal", "scale": None} for one in found)


def test_a_table_without_rows_has_the_columns_that_are_plotted() -> None:
    assert csv_bytes([{"arm": "cfg", "drift": 1.5}], []) == b"arm,drift\ncfg,1.5\n"
    assert csv_bytes([], ["arm", "drift"]) == b"arm,drift\n"
    for name, rows in plot_tables(Comparison(**comparison())).items():
        assert set(COLUMNS[name]) <= set(rows[0]), name
