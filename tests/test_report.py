"""The report is one safe, self-contained page that a person can read, sort and look through, in a real browser."""

import json
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest
from datasets import Features, Image, Value
from PIL import Image as PillowImage
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, sync_playwright

from docs.results import FIGURES, photograph
from eval.notation import decimals, number, span
from eval.report.figures import direction_by_noise, direction_figure, precision_recall_figure, shift_figure
from eval.report.gallery import gallery
from eval.report.page import report
from eval.report.tables import SCORE_COLUMNS, table
from eval.verdicts import arm_verdicts, verdict
from pipeline.comparison import Comparison, Interval, load_comparison
from pipeline.compose import compose
from pipeline.errors import InputError
from pipeline.rates import (
    Agreement,
    Calibration,
    CalibrationBin,
    Difference,
    LabelledPictures,
    Rate,
    Rates,
    SelfAgreement,
    Strength,
)
from pipeline.shards import encode_png, write_shard
from pipeline.study import Study, parse_study

CHROMIUM = Path("/usr/bin/chromium")

ARMS = ("unguided", "cfg_3", "negative_long")
PAIRS = 6
STEPS = 5
HOSTILE = "1person, \"quoted\" & 'single', <script>alert(1)</script><img src=x onerror=alert(2)>"
PROMPTS = [
    HOSTILE,
    "1person, solo, style:adventurer, blue hair, long hair, glasses, purple background, " * 4,
    "object",
    "scenery",
    "pattern",
    "x" * 200,
]

SET_FEATURES = Features(
    {
        "image_id": Value("string"),
        "image": Image(),
        "arm": Value("string"),
        "pair_id": Value("int64"),
        "prompt": Value("string"),
        "negative_prompt": Value("string"),
        "seed": Value("int64"),
    }
)
SCORE_FEATURES = Features(
    {
        "image_id": Value("string"),
        "pair_id": Value("int64"),
        "clip_score": Value("float32"),
        "aesthetic": Value("float32"),
        "p_malformed": Value("float32"),
        "inside_reference": Value("bool"),
    }
)
TRACE_FEATURES = Features(
    {
        "image_id": Value("string"),
        "step": Value("int32"),
        "timestep": Value("float32"),
        "sigma": Value("float32"),
        "direction": Value("float32"),
    }
)


def interval(value: float, low: float, high: float) -> dict[str, Any]:
    return {"value": value, "low": low, "high": high, "n": 2000}


def scores(fd: float, precision: float, recall: float, aesthetic: float) -> dict[str, Any]:
    return {
        "fd": interval(fd, fd - 0.4, fd + 0.4),
        "precision": interval(precision, precision - 0.02, precision + 0.02),
        "recall": interval(recall, recall - 0.03, recall + 0.02),
        "density": interval(precision * 1.1, precision, precision * 1.2),
        "coverage": interval(recall * 0.9, recall * 0.8, recall),
        "clip_score": interval(0.27 + precision / 100, 0.26, 0.29),
        "aesthetic": interval(aesthetic, aesthetic - 0.1, aesthetic + 0.1),
        "malformed": interval(0.12 - precision / 20, 0.06, 0.12),
    }


def two_sample(p: float) -> dict[str, Any]:
    return {"mmd2": 0.01, "mmd_p": p, "auc": interval(0.8, 0.75, 0.85)}


def frontier(family: str, arm: str, precision: float, recall: float) -> dict[str, Any]:
    def point(name: str, scale: float, values: tuple[float, ...]) -> dict[str, Any]:
        names = ("precision", "recall", "fd", "clip_score", "aesthetic", "shift")
        spans = {key: interval(v, v - 0.01, v + 0.01) for key, v in zip(names, values, strict=True)}
        return {"arm": name, "scale": scale, **spans}

    return {
        "family": family,
        "points": [
            point("unguided", 1, (0.62, 0.71, 12.4, 0.27, 2.9, 0.0)),
            point(arm, 3, (precision, recall, 11, 0.28, 3.2, 2.0)),
        ],
        "area": interval(0.5, 0.4, 0.6),
        "matched": [
            {"axis": "shift", "level": 1.0, "values": {"fd": interval(11.5, 11, 12)}},
            {"axis": "clip_score", "level": 0.3, "values": {}},
        ],
    }


def alignment() -> dict[str, Any]:
    names = ("empty", "negative", "guide")

    def steps(value: float) -> list[dict[str, Any]]:
        return [{"sigma": sigma, "value": interval(value, value - 0.1, value + 0.1)} for sigma in (150.0, 4.0, 0.0)]

    return {
        "arm": "unguided",
        "pairs": [
            {"references": pair, "steps": steps(0.2 * k), "cosine": interval(0.2 * k, 0.2 * k - 0.1, 0.2 * k + 0.1)}
            for k, pair in enumerate(combinations(names, 2))
        ],
        "actions": [
            {"reference": name, "steps": steps(0.3), "norm": interval(0.3, 0.2, 0.4), "half": interval(0.4, 0.3, 0.5)}
            for name in names
        ],
        "guide_over_empty": interval(0.4, 0.3, 0.5),
        "answer": "The answer <i>in words</i>.",
    }


def comparison() -> dict[str, Any]:
    """What eval.compare writes: cfg_3 contracts and raises quality, negative_long leaves most undecided."""
    decided = {
        "fd": interval(6.2, 5.9, 6.6),
        "drift": interval(4.0, 3.7, 4.3),
        "contraction": interval(2.2, 2.0, 2.4),
        "spread_ratio": interval(0.81, 0.79, 0.83),
        "mean_share": 0.645,
        "clip_score": interval(0.021, 0.017, 0.025),
        "aesthetic": interval(0.62, 0.55, 0.69),
        "malformed": interval(-0.031, -0.04, -0.022),
    }
    undecided = {
        "fd": interval(1.3, 1.1, 1.5),
        "drift": interval(0.9, 0.7, 1.1),
        "contraction": interval(0.4, 0.3, 0.5),
        "spread_ratio": interval(1.01, 0.98, 1.04),
        "mean_share": 0.69,
        "clip_score": interval(-0.001, -0.004, 0.002),
        "aesthetic": interval(0.02, -0.05, 0.09),
        "malformed": interval(0.004, -0.003, 0.011),
    }
    for against, p in ((decided, 0.001), (undecided, 0.4)):
        against |= {
            "dispersion": 1.0,
            "reference_fd": interval(-2.3, -2.6, -2.0) if p < 0.05 else interval(-0.3, -0.9, 0.3),
            "two_sample": two_sample(p),
            "composition": {
                "total_variation": interval(0.1, 0.05, 0.15),
                "jensen_shannon": interval(0.01, 0, 0.02),
                "p": p,
            },
            "directions": [{"ratio": 0.5, "score": "aesthetic", "correlation": 0.7}],
            "within_prompt": None,
            "adjusted_p": dict.fromkeys(("shift", "spread", "distance", "quality", "malformed", "prompt"), p),
        }
    long_negative = "worst quality, bad anatomy, lowres, jpeg artifacts, </script><b>bold</b>"
    arms = [
        ("unguided", "unguided", 1.0, "", "No guidance.", scores(12.4, 0.62, 0.71, 2.9), None),
        ("cfg_3", "cfg", 3.0, "", "Classifier-free guidance.", scores(10.1, 0.81, 0.52, 3.5), decided),
        ("negative_long", "negative", 3.0, long_negative, "A <long> one.", scores(12.1, 0.7, 0.66, 2.92), undecided),
    ]
    return {
        "study": "smoke",
        "baseline": "unguided",
        "level": 0.95,
        "arms": [
            {
                "arm": arm,
                "method": method,
                "scale": scale,
                "prompt": "positive",
                "negative_prompt": negative,
                "description": description,
                "n": 2000,
                "family": method,
                "cost": {
                    "nfe_per_image": 20 if method == "unguided" else 40,
                    "flops_per_image": 10e9 if method == "unguided" else 20e9,
                    "probe_nfe_per_image": 60 if method == "unguided" else 0,
                    "probe_flops_per_image": 24e9 if method == "unguided" else 0,
                    "seconds_per_image": 0.5,
                    "anlas_per_image": 2,
                    "device": "cpu, 2 threads",
                },
                "kinds": {"legit_human": 0.6, "pattern": 0.4},
                "scores": own,
                "against_reference": {
                    "drift": interval(1.0, 0.9, 1.1),
                    "contraction": interval(2.0, 1.9, 2.1),
                    "spread_ratio": interval(0.9, 0.8, 1.0),
                    "two_sample": two_sample(0.01),
                },
                "against_baseline": against,
            }
            for arm, method, scale, negative, description, own, against in arms
        ],
        "floor": {"fd": interval(1.4, 1.3, 1.6)},
        "reference_n": 4000,
        "frontiers": [frontier("cfg", "cfg_3", 0.81, 0.52), frontier("negative", "negative_long", 0.7, 0.66)],
        "alignment": [alignment()],
        "verdicts": [
            {"arm": arm, "verdicts": [{"topic": "Shift", "verdict": word, "numbers": "p 0.1 <b>", "decided": decided}]}
            for arm, word, decided in (("cfg_3", "shifts", True), ("negative_long", "undecided", False))
        ],
        "provenance": {
            "extractor": "clip",
            "extractor_digest": "0123456789abcdef",
            "resize": "none",
            "main": "aaaaaaaaaaaaaaaa",
            "guide": "bbbbbbbbbbbbbbbb",
            "reference": "cccccccccccccccc",
            "code": "dddddddddddddddd",
            "libraries": {"torch": "2.14.1", "open_clip_torch": "3.2.0"},
            "params": "ffffffffffffffff",
        },
    }


def study() -> Study:
    return parse_study(
        {
            **compose(Path(__file__).parent.parent / "conf", []),
            "name": "smoke",
            "sampler": {"scheduler": "ddim", "steps": STEPS},
            "reference": {"pictures": 16, "world_seed": 0},
            "generate": {"pictures": 8, "first_seed": 100, "shard": 8, "batch": 4},
            "arms": {
                "unguided": {"method": "unguided", "scale": 1},
                "cfg_3": {"method": "cfg", "scale": 3},
                "negative_long": {"method": "negative", "scale": 3, "negative_prompt": "lowres"},
            },
        },
        "the test's study",
    )


def labelled() -> Rates:
    """What 20 simulated labels an arm said, the last arm's pictures without any."""

    def rate(value: float) -> Rate:
        classical = Interval(value=value, low=max(0, value - 0.1), high=min(1, value + 0.2), n=20)
        return Rate(classical=classical, powered=classical.model_copy(update={"high": min(1, value + 0.1)}))

    shares = {"pattern": rate(0.05), "object_or_scenery": rate(0.1), "malformed_human": rate(0.35)}
    shares["legit_human"] = rate(0.5)
    arms = [
        LabelledPictures(
            name=arm,
            canvas="64x64",
            pictures=20,
            simulated=arm != "unguided",
            verdicts=shares,
            body_normal=Interval(value=0.75, low=0.5, high=0.9, n=8),
        )
        for arm in ARMS[:2]
    ]
    some = Interval(value=0.5, low=0.25, high=0.75, n=12)
    return Rates(
        baseline="unguided",
        level=0.95,
        labels=40,
        pair_labels=12,
        labellers=2,
        simulated_labels=20,
        left_out=3,
        arms=arms,
        canvases=arms[:1],
        differences=[
            Difference(
                arm=ARMS[1],
                pairs=20,
                simulated=True,
                verdicts={
                    verdict: Rate(classical=Interval(value=-0.1, low=-0.3, high=0.1, n=20), powered=None)
                    for verdict in shares
                },
            )
        ],
        agreement=Agreement(alpha=some, simulated=True),
        self_agreement=[SelfAgreement(labeller="<b>p1</b>", same=some, simulated=False)],
        calibration=Calibration(
            pictures=40,
            brier=some,
            auc=some,
            bins=[CalibrationBin(low=0.4, high=0.5, score=0.45, rate=some)],
            simulated=True,
        ),
        strengths=[Strength(arm=arm, strength=some, simulated=arm != "unguided") for arm in ARMS[:2]],
    )


class Inputs:
    """A project folder with everything that the report reads; two shards a set, in scrambled pair order."""

    def __init__(self, root: Path):
        self.comparison = root / "metrics/compare.json"
        self.sets, self.scores, self.traces = root / "data/sets", root / "data/scores", root / "data/trace"
        self.rates = root / "metrics/labels.json"
        self.comparison.parent.mkdir(parents=True)
        self.rates.write_text(labelled().model_dump_json())
        self.comparison.write_text(json.dumps(comparison()))
        random = np.random.default_rng(0)
        for arm in ARMS:
            for part, pairs in enumerate([[3, 0, 1], [5, 2, 4]]):
                self._write_part(arm, part, pairs, random)
            ids = [f"{arm}-{k:06d}" for k in range(PAIRS)]
            columns = {
                "image_id": ids,
                "pair_id": list(range(PAIRS)),
                "clip_score": random.uniform(0.2, 0.35, PAIRS).tolist(),
                "aesthetic": random.uniform(0, 5, PAIRS).tolist(),
                "p_malformed": random.uniform(0, 1, PAIRS).tolist(),
                "inside_reference": [True] * PAIRS,
            }
            write_shard(self.scores / f"{arm}.parquet", columns, SCORE_FEATURES, "mark")

    def _write_part(self, arm: str, part: int, pairs: list[int], random: np.random.Generator) -> None:
        ids = [f"{arm}-{k:06d}" for k in pairs]
        noise = random.integers(0, 256, (len(pairs), 64, 64, 3), dtype=np.uint8)
        columns: dict[str, list[Any]] = {
            "image_id": ids,
            "image": [{"bytes": encode_png(PillowImage.fromarray(pixels)), "path": None} for pixels in noise],
            "arm": [arm] * len(pairs),
            "pair_id": pairs,
            "prompt": [PROMPTS[k] for k in pairs],
            "negative_prompt": ["lowres" if arm == "negative_long" else ""] * len(pairs),
            "seed": [100 + k for k in pairs],
        }
        write_shard(self.sets / arm / f"part-{part:05d}.parquet", columns, SET_FEATURES, "mark")
        sigmas = [150.0, 20.0, 4.0, 0.8, 0.0]
        trace = {
            "image_id": [image_id for image_id in ids for _ in range(STEPS)],
            "step": [step for _ in ids for step in range(STEPS)],
            "timestep": [1000.0 - 200 * step for _ in ids for step in range(STEPS)],
            "sigma": sigmas * len(ids),
            "direction": [0.1 * (step + k) for k in pairs for step in range(STEPS)],
            "references": [["empty"]] * STEPS * len(ids),
            "relative_norms": [[0.5]] * STEPS * len(ids),
            "cosines": [[]] * STEPS * len(ids),
        }
        write_shard(self.traces / arm / f"part-{part:05d}.parquet", trace, TRACE_FEATURES, "mark")

    def report(self) -> str:
        return report(study(), self.comparison, self.sets, self.scores, self.traces, self.rates)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    return Inputs(tmp_path_factory.mktemp("project"))


@pytest.fixture
def own_inputs(tmp_path: Path) -> Inputs:
    return Inputs(tmp_path)


@pytest.fixture(scope="module")
def page_file(inputs: Inputs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("reports") / "index.html"
    path.write_text(inputs.report(), "utf-8")
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not CHROMIUM.exists():
        pytest.fail(f"{CHROMIUM} is missing; `apt-get install --no-install-recommends chromium` installs it")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


class Visit:
    """The page in the browser, and whatever it said, asked for or fetched on the way."""

    def __init__(self, browser: Browser, path: Path, colour_scheme: str = "light"):
        self.page: Page = browser.new_page(
            viewport={"width": 1360, "height": 900},
            color_scheme="dark" if colour_scheme == "dark" else "light",
        )
        self.messages: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", self._said)
        self.page.on("pageerror", lambda error: self.messages.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.messages.append(f"alert {dialog.message}"), dialog.dismiss()))
        self.page.on("request", self._asked)
        self.page.goto(path.as_uri())

    def _said(self, message: ConsoleMessage) -> None:
        self.messages.append(f"{message.type}: {message.text}")

    def _asked(self, request: Request) -> None:
        if not request.url.startswith("data:"):
            self.requests.append(request.url)


@pytest.fixture
def visit(browser: Browser, page_file: Path) -> Iterator[Visit]:
    visit = Visit(browser, page_file)
    yield visit
    visit.page.close()
    assert visit.messages == [], "the page is silent, whatever was done with it"
    assert visit.requests == [page_file.as_uri()], "the page fetches nothing but itself"


def column(page: Page, table_id: str, k: int) -> list[str]:
    return page.locator(f"#{table_id} tbody tr").evaluate_all(
        "(rows, k) => rows.map(row => row.cells[k].dataset.value)", k
    )


def test_tables_and_gallery_have_a_row_and_a_column_for_everything(visit: Visit) -> None:
    page = visit.page
    assert page.locator("#arms-table tbody tr").count() == len(ARMS)
    assert page.locator("#arms-table thead th").count() == 4 + 8
    assert page.locator("#arms-table tbody tr").first.locator("th, td").count() == 4 + 8
    assert page.locator("#shift-table tbody tr").count() == len(ARMS) - 1
    assert page.locator("#shift-table thead th").count() == 4 + 7
    assert page.locator(".gallery thead th").all_inner_texts() == ["Seed and prompt", *ARMS]
    assert page.locator(".gallery tbody tr").count() == PAIRS
    assert page.locator(".gallery tbody img").count() == PAIRS * len(ARMS)
    assert page.locator(".findings > li").count() == len(ARMS) - 1


def test_plots_show_every_arm_with_error_bars(visit: Visit) -> None:
    page = visit.page
    for plot, arms in (("precision-recall", 3), ("shift", 2), ("direction", 2)):
        assert page.locator(f"#plot-{plot} .legendtext").count() == arms
    assert page.locator("#plot-precision-recall .xerror").count() == 3
    assert page.locator("#plot-shift .yerror").count() == 2


def test_numbers_come_with_their_interval_and_n(visit: Visit) -> None:
    row = visit.page.locator("#arms-table tbody tr", has_text="cfg_3").inner_text()
    assert "0.810" in row
    assert "0.790\N{EN DASH}0.830" in row
    assert "2000" in row


def test_best_value_of_a_column_is_marked(visit: Visit) -> None:
    best = visit.page.locator("#arms-table td.best")
    assert best.count() == len(SCORE_COLUMNS)
    assert (
        visit.page.locator("#arms-table tbody tr", has_text="cfg_3").locator("td").nth(3).get_attribute("class")
        == "best"
    )
    assert "best" in best.first.inner_text()


def test_table_sorts_by_click(visit: Visit) -> None:
    page = visit.page
    header = page.locator("#arms-table thead th").nth(4)
    assert header.get_attribute("aria-sort") == "none"
    header.locator("button").click()
    assert header.get_attribute("aria-sort") == "ascending"
    assert column(page, "arms-table", 4) == ["10.1", "12.1", "12.4"]
    header.locator("button").click()
    assert header.get_attribute("aria-sort") == "descending"
    assert column(page, "arms-table", 4) == ["12.4", "12.1", "10.1"]
    page.locator("#arms-table thead button").first.click()
    assert header.get_attribute("aria-sort") == "none"
    assert column(page, "arms-table", 0) == ["cfg_3", "negative_long", "unguided"]


@pytest.mark.parametrize("key", ["Enter", "Space"])
def test_table_sorts_by_keyboard(visit: Visit, key: str) -> None:
    page = visit.page
    page.locator("#arms-table thead button").nth(3).focus()
    page.keyboard.press("Tab")
    page.keyboard.press(key)
    assert page.locator("#arms-table thead th").nth(4).get_attribute("aria-sort") == "ascending"
    assert column(page, "arms-table", 4) == ["10.1", "12.1", "12.4"]


@pytest.mark.parametrize("how", ["click", "Enter"])
def test_picture_opens_large_and_escape_closes(visit: Visit, how: str) -> None:
    page = visit.page
    dialog, thumbnail = page.locator("dialog"), page.locator(".gallery tbody button").nth(1)
    assert not dialog.is_visible()
    if how == "click":
        thumbnail.click()
    else:
        thumbnail.focus()
        page.keyboard.press("Enter")
    assert dialog.is_visible()
    assert HOSTILE in dialog.locator("p").inner_text()
    assert dialog.locator("img").get_attribute("src") == thumbnail.locator("img").get_attribute("src")
    assert dialog.locator("img").bounding_box()["width"] > 256  # type: ignore[index]
    page.keyboard.press("Escape")
    assert not dialog.is_visible()
    assert thumbnail.evaluate("button => button === document.activeElement"), "focus returns to the picture"


def test_hostile_prompt_is_text_and_nothing_else(visit: Visit) -> None:
    page = visit.page
    assert HOSTILE in page.locator(".gallery tbody th").first.inner_text()
    image = page.locator(".gallery tbody img").first
    assert HOSTILE in (image.get_attribute("alt") or "")
    title = image.get_attribute("title") or ""
    assert HOSTILE in title
    assert "seed 100" in title
    assert "CLIP score 0." in title
    assert "P(malformed) 0." in title
    assert page.locator("img[onerror]").count() == 0
    assert "</script><b>bold</b>" in (page.locator("#arms-table details").text_content() or "")


def test_pictures_are_pixelated_loaded_and_96_pixels_wide(visit: Visit) -> None:
    image = visit.page.locator(".gallery tbody img").last
    image.scroll_into_view_if_needed()
    visit.page.wait_for_function("() => [...document.querySelectorAll('.gallery img')].at(-1).naturalWidth === 64")
    assert image.evaluate("i => getComputedStyle(i).imageRendering") == "pixelated"
    assert image.evaluate("i => [i.width, i.height]") == [96, 96]
    assert image.get_attribute("loading") == "lazy"


@pytest.mark.parametrize("width", [360, 1360])
def test_page_itself_never_scrolls_sideways(visit: Visit, width: int) -> None:
    visit.page.set_viewport_size({"width": width, "height": 800})
    visit.page.wait_for_function("() => document.documentElement.scrollWidth <= document.documentElement.clientWidth")


def test_dark_theme_has_light_text_in_page_and_plots(browser: Browser, page_file: Path) -> None:
    visit = Visit(browser, page_file, "dark")
    try:
        for place in ("body", "#plot-shift .xtick text"):
            locator = visit.page.locator(place).first
            colour = locator.evaluate(
                "e => { const s = getComputedStyle(e); return e.tagName == 'text' ? s.fill : s.color }"
            )
            channels = [int(part) for part in colour.removeprefix("rgb(").removesuffix(")").split(",")]
            assert min(channels) > 150, f"{place} is {colour}"
    finally:
        visit.page.close()
    assert visit.messages == []


def test_page_is_below_15_megabytes_and_repeats_to_the_byte(inputs: Inputs, page_file: Path) -> None:
    assert page_file.stat().st_size < 15_000_000
    assert inputs.report() == page_file.read_text("utf-8")


def test_rates_of_labels_stand_with_their_intervals_and_simulated_ones_say_so(visit: Visit) -> None:
    cells = visit.page.locator("#labels-table tbody tr").first.locator("th, td").all_inner_texts()
    assert [text.split("\n")[0] for text in cells[:4]] == ["unguided", "64x64", "20", "5.0"]
    assert cells[5].split("\n") == ["35.0", "25.0 to 55.0", "with scores 35.0 (25.0 to 45.0)"]
    assert cells[-1] == "75.0 % (50.0 to 90.0)"
    names = visit.page.locator("#labels-table tbody th").all_inner_texts()
    assert names == ["unguided", "cfg_3 simulated"]
    assert visit.page.locator("#labels p.simulated").inner_text().startswith("20 of the 52 labels are simulated")
    assert "\N{MINUS SIGN}10.0" in visit.page.locator("#label-differences-table tbody").inner_text()
    section = visit.page.locator("#labels").inner_text()
    assert "<b>p1</b> with themselves" in section
    assert "Krippendorff\N{RIGHT SINGLE QUOTATION MARK}s alpha (simulated)" in section
    assert "cfg_3 (simulated)" in section
    assert "3 labels in the repository are left out" in section
    assert visit.page.locator("#plot-calibration .scatterlayer .trace").count() == 2


def test_without_labels_the_section_says_what_to_run(own_inputs: Inputs) -> None:
    empty = labelled().model_copy(
        update={
            "labels": 0,
            "pair_labels": 0,
            "labellers": 0,
            "simulated_labels": 0,
            "arms": [],
            "canvases": [],
            "differences": [],
            "self_agreement": [],
            "strengths": [],
            "agreement": None,
            "calibration": None,
        }
    )
    own_inputs.rates.write_text(empty.model_dump_json())
    page = own_inputs.report()
    assert "Nobody has labelled pictures of this study yet" in page
    assert "make label-studio" in page
    assert 'id="labels-table"' not in page


def test_verdicts_decide_only_below_the_adjusted_p_value() -> None:
    compared = Comparison(**comparison())
    told = {
        one.arm: {answer.topic: answer for answer in one.verdicts}
        for one in arm_verdicts(compared.arms, compared.baseline, compared.floor, compared.level)
    }
    assert {topic: answer.verdict for topic, answer in told["cfg_3"].items()} == {
        "Shift": "shifts the distribution",
        "Spread": "contracts",
        "Distance": "closer to the reference set",
        "Quality": "raises the aesthetic score",
        "Malformed": "fewer malformed pictures",
        "Prompt": "follows the prompt more",
        "Cost": "2 times the evaluations",
    }
    undecided = [answer.verdict for topic, answer in told["negative_long"].items() if topic != "Cost"]
    assert set(undecided) == {"undecided"}
    assert "0.810 (0.790\N{EN DASH}0.830)" in told["cfg_3"]["Spread"].numbers
    assert "\N{MINUS SIGN}0.0310 (\N{MINUS SIGN}0.0400 to \N{MINUS SIGN}0.0220)" in told["cfg_3"]["Malformed"].numbers


@pytest.mark.parametrize(
    ("value", "p", "expected"),
    [(0.1, 0.01, "more"), (-0.1, 0.01, "less"), (0.1, 0.05, "undecided"), (0.1, 0.9, "undecided"), (0, 0, "undecided")],
)
def test_the_side_of_the_value_and_the_p_value_make_the_word(value: float, p: float, expected: str) -> None:
    interval = Interval(value=value, low=value - 1, high=value + 1, n=9)
    assert verdict(interval, p, 0.05, 0, above="more", below="less") == expected


def test_verdicts_frontiers_alignment_and_composition_are_on_the_page(visit: Visit) -> None:
    page = visit.page
    anchors = page.locator("main > section").evaluate_all("sections => sections.map(section => section.id)")
    assert anchors[:3] == ["findings", "alignment", "frontiers"]
    assert {"distribution-shift", "composition"} < set(anchors)
    assert "p 0.1 <b>" in page.locator("#findings").inner_text()
    assert "The answer <i>in words</i>." in page.locator("#alignment").inner_text()
    for plot, lines in {
        "frontier-precision": 2,
        "frontier-fd": 2,
        "frontier-quality": 2,
        "alignment": 3,
        "action": 3,
    }.items():
        assert page.locator(f"#plot-{plot} .legendtext").count() == lines
    rows = page.locator("#matched-table tbody tr")
    assert rows.count() == 4
    assert "out of range" in rows.last.inner_text()
    assert page.locator("#composition-table tbody tr").count() == len(ARMS)
    assert "too few prompts repeat" in page.locator("#shift-detail-table").inner_text()


def test_numbers_keep_their_sign_and_three_digits() -> None:
    assert number(0.8123, decimals([0.8123])) == "0.812"
    assert number(123.4, decimals([123.4])) == "123"
    assert number(-0.03, 2, signed=True) == "\N{MINUS SIGN}0.03"
    assert number(0.03, 2, signed=True) == "+0.03"
    assert number(-0.0001, 2, signed=True) == "0.00"
    assert span(Interval(value=0.8, low=0.75, high=0.85, n=9), 2) == "0.75\N{EN DASH}0.85"
    assert span(Interval(value=0.0, low=-0.1, high=0.1, n=9), 1, signed=True) == "\N{MINUS SIGN}0.1 to +0.1"


def test_equal_values_have_no_best() -> None:
    arms = Comparison(**comparison()).arms[:1] * 2
    assert not any(
        cell.best for _, cells in table([(arm, arm.scores) for arm in arms], SCORE_COLUMNS) for cell in cells
    )


def test_figures_are_valid_plotly_and_never_by_colour_alone(inputs: Inputs) -> None:
    compared = Comparison(**comparison())
    directions = direction_by_noise(inputs.traces, ["cfg_3", "negative_long"])
    for figure in (precision_recall_figure(compared), shift_figure(compared), direction_figure(compared, directions)):
        drawn = go.Figure(figure)
        symbols = [trace.marker.symbol for trace in drawn.data]
        assert len(set(symbols)) == len(symbols)


def test_a_sweep_of_scales_is_joined_in_their_order() -> None:
    content = comparison()
    for arm, scale in zip(content["arms"][1:], (5.0, 2.0), strict=True):
        arm.update(family="cfg", scale=scale)
    line = precision_recall_figure(Comparison(**content))["data"][0]
    assert line["mode"] == "lines"
    assert line["x"] == [0.66, 0.52]


def test_direction_is_averaged_over_pictures_without_the_step_at_zero_noise(inputs: Inputs) -> None:
    steps = direction_by_noise(inputs.traces, ["cfg_3"])["cfg_3"]
    assert [sigma for sigma, _ in steps] == pytest.approx([150, 20, 4, 0.8])
    assert [size for _, size in steps] == pytest.approx([0.25, 0.35, 0.45, 0.55])


def test_gallery_takes_the_first_pairs_in_order_and_stays_within_its_bytes(inputs: Inputs) -> None:
    compared = Comparison(**comparison())
    rows = gallery(compared, inputs.sets, inputs.scores, pairs=4)
    assert [(row.pair_id, row.seed, row.prompt) for row in rows] == [(k, 100 + k, PROMPTS[k]) for k in range(4)]
    assert [picture.arm for picture in rows[0].pictures] == list(ARMS)
    one = sum(len(picture.source) for picture in rows[0].pictures)
    assert len(gallery(compared, inputs.sets, inputs.scores, limit=int(2.5 * one))) == 2
    assert len(gallery(compared, inputs.sets, inputs.scores, limit=1)) == 1


@pytest.mark.parametrize(
    "missing",
    [
        "metrics/compare.json",
        "data/sets/cfg_3",
        "data/scores/cfg_3.parquet",
        "data/trace/cfg_3",
    ],
)
def test_missing_input_is_named_with_the_command(own_inputs: Inputs, tmp_path: Path, missing: str) -> None:
    path = tmp_path / missing
    for file in [*path.glob("*")] if path.is_dir() else [path]:
        file.unlink()
    with pytest.raises(InputError, match="dvc repro") as error:
        own_inputs.report()
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"study": "other"}, "study other, the study has smoke"),
        ({"arms": comparison()["arms"][:2]}, "arms cfg_3, unguided, the study has"),
        ({"baseline": "cfg_3"}, "against_baseline must be null"),
        ({"reference_n": None}, "reference_n"),
        ({"floor": {"fd": interval(float("nan"), 0, 0)}}, "floor.fd.value"),
        ({"arms": [{**comparison()["arms"][0], "arm": "../../etc"}]}, "arms.0.arm"),
    ],
)
def test_comparison_of_another_study_or_shape_is_refused(tmp_path: Path, change: Any, expected: str) -> None:
    path = tmp_path / "compare.json"
    path.write_text(json.dumps({**comparison(), **change}))
    with pytest.raises(InputError, match="dvc repro") as error:
        load_comparison(path, study())
    assert expected in str(error.value)
    assert str(path) in str(error.value)


def test_unreadable_comparison_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "compare.json"
    path.write_text("{")
    with pytest.raises(InputError, match="dvc repro"):
        load_comparison(path, study())


def test_picture_without_score_or_bytes_is_refused(own_inputs: Inputs) -> None:
    compared = Comparison(**comparison())
    columns: dict[str, list[Any]] = {name: [] for name in SCORE_FEATURES}
    write_shard(own_inputs.scores / "cfg_3.parquet", columns, SCORE_FEATURES, "mark")
    with pytest.raises(InputError, match="has no row for 'cfg_3-"):
        gallery(compared, own_inputs.sets, own_inputs.scores)
    row = {
        "image_id": ["unguided-000000"],
        "image": [{"bytes": b"no picture", "path": None}],
        "arm": ["unguided"],
        "pair_id": [0],
        "prompt": [""],
        "negative_prompt": [""],
        "seed": [100],
    }
    write_shard(own_inputs.sets / "unguided/part-00000.parquet", row, SET_FEATURES, "mark")
    with pytest.raises(InputError, match="unreadable picture"):
        gallery(compared, own_inputs.sets, own_inputs.scores)


def test_the_figures_are_kept_as_pictures(browser, page_file, tmp_path):
    photograph(browser, page_file, tmp_path / "results")
    for name in FIGURES:
        with PillowImage.open(tmp_path / "results" / f"{name}.png") as picture:
            colours = picture.convert("RGB").getcolors(picture.width * picture.height)
        assert len(colours) > 20, f"{name} shows something"
    page_file.with_name("empty.html").write_text("<p>nothing</p>")
    with pytest.raises(InputError, match="has no figure 'alignment'"):
        photograph(browser, page_file.with_name("empty.html"), tmp_path / "results")
