"""Figures that people copied into pages are those of the files that commands write."""

import json
import re
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

import pytest
from repository_copy import ROOT

TINYBOORU = ROOT / "models/tinybooru"


def text_of(page: str) -> str:
    return " ".join((ROOT / page).read_text("utf-8").split())


@pytest.fixture(scope="module")
def checked() -> dict[str, dict[str, Any]]:
    """The figures of `make worldcheck` by name."""
    return {row["name"]: row for row in json.loads((TINYBOORU / "worldcheck.json").read_text("utf-8"))}


def rounded(value: float, digits: int) -> str:
    # As people round what they read; a float's own rounding goes by its last bit.
    return str(Decimal(str(value)).quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP))


def percent(row: dict[str, Any], digits: int = 0, span: bool = False) -> str:
    value, low, high = (rounded(float(Decimal(str(row[key])) * 100), digits) for key in ("value", "low", "high"))
    return f"{value} %" + (f" ({low} to {high})" if span else "")


def plain(row: dict[str, Any], digits: int = 2) -> str:
    return f"{rounded(row['value'], digits)} ({rounded(row['low'], 2)} to {rounded(row['high'], 2)})"


def test_the_readme_says_what_the_world_check_found(checked: dict[str, dict[str, Any]]) -> None:
    page = text_of("README.md")
    assert min(checked[f"{what} as prompted, cfg_2"]["value"] for what in ("kind", "style", "hair")) > 0.99
    assert f"glasses in {percent(checked['glasses as prompted, cfg_2'])};" in page
    malformed = checked["people prompted with bad anatomy judged malformed"]
    assert f"people prompted with `bad anatomy` are malformed in {percent(malformed)}" in page
    assert f"Autoguidance has {plain(checked['FD of autoguidance_15 against unguided'])} of the unguided" in page
    assert "Of 2,048 images per set" in page
    assert {checked[f"{what} as prompted, cfg_2"]["n"] for what in ("kind", "glasses")} == {2048}


def test_the_networks_page_says_what_the_world_check_found(checked: dict[str, dict[str, Any]]) -> None:
    page = text_of("models/tinybooru/README.md")
    prompted = [checked[f"{what} as prompted, cfg_2"] for what in ("kind", "style", "hair", "background")]
    cfg, unguided = (checked[f"glasses as prompted, {arm}"] for arm in ("cfg_2", "unguided"))
    own, other = (checked[f"FD to real images, {arm}"]["value"] for arm in ("autoguidance_15", "unguided"))
    kinds = [
        [
            f"{100 * checked[f'empty prompt, {arm}: {kind}']['value']:.0f}"
            for kind in ("person", "object", "scenery", "pattern")
        ]
        for arm in ("unguided", "pure negative prompt")
    ]
    malformed = checked["people prompted with bad anatomy judged malformed"]
    by_empty = checked["no quality tags: malformed with the empty prompt at 2"]
    shares = ", ".join(percent(one, 1).removesuffix(" %").removesuffix(".0") for one in prompted)
    for said in (
        f"as prompted, CFG at 2 | {shares} % |",
        f"| {percent(cfg, span=True)}; unguided {percent(unguided, span=True)} |",
        f"judged malformed, CFG at 3 | {percent(malformed, span=True)} |",
        f"{percent(by_empty, 2, span=True)} and 0 (0 to 0.19) |",
        f"| {plain(checked['FD of autoguidance_15 against unguided'])}: {own:.3f} against {other:.3f} |",
        f"| {plain(checked['the same without the 512 pairs that the guide was chosen with'])} | reported |",
        f"| {plain(checked['recall, autoguidance_15'], 3)} and {plain(checked['recall, unguided'], 3)} |",
        f"ROC AUC | {checked['malformed classifier against the judge on generated people, ROC AUC']['value']:.3f} |",
        f"among 100 | {percent(checked['CLIP: own caption first of 100'])} |",
        f"| shipped weights | {checked['shipped weights, MB']['value']:.1f} MB |",
        f"generates {kinds[0][0]} % people, {kinds[0][1]} % objects, {kinds[0][2]} % scenery, {kinds[0][3]} % patterns",
        f"at 2 it is {kinds[1][0]}, {kinds[1][1]}, {kinds[1][2]} and {kinds[1][3]} %",
    ):
        assert said in page


def test_the_choice_of_the_guide_says_what_was_measured() -> None:
    # Rows with a star are of weights that are gone.
    rows = json.loads((TINYBOORU / "guides.json").read_text("utf-8"))["rows"]
    measured = {f"{row['fd']:.2f} ({row['low']:.2f} to {row['high']:.2f})" for row in rows}
    page = (TINYBOORU / "README.md").read_text("utf-8").split("## Which guide")[1].split("\n## ")[0]
    lines = [line for line in page.splitlines() if line.startswith("|") and "(" in line and " * |" not in line]
    said = [found for line in lines for found in re.findall(r"\d\.\d\d \(\d\.\d\d to \d\.\d\d\)", line)]
    assert len(said) >= 6
    assert set(said) <= measured


def test_the_decision_on_the_primary_space_says_what_the_spaces_answer() -> None:
    spaces = json.loads((TINYBOORU / "feature_spaces.json").read_text("utf-8"))["spaces"]
    rows = {
        "every image of normal quality": "all normal quality",
        "every image of worst quality": "all worst quality",
        "saturation x1.3": "saturation x1.3",
        "half the styles dropped": "half the styles",
        "malformed people for legit ones": "malformed people",
        "JPEG of quality 15": "JPEG 15",
    }
    page = (ROOT / "docs/decisions.md").read_text("utf-8")
    for said, change in rows.items():
        answers = [next(one["fd"] for one in space["responses"] if one["change"] == change) for space in spaces]
        cells = " | ".join(f"{answer:.0f}" if answer >= 9.95 else f"{answer:.1f}" for answer in answers)
        assert f"| {said} | {cells} |" in page
