"""How large the report is, and how long a browser takes to open it: the default study's, and 20 arms x 5,000 images.

`python -m benchmarks.report` measures reports/index.html and a synthetic study in a temporary folder (its images are
blurred noise, as large as those of the embedded world), and records bytes and seconds in docs/benchmarks.md.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Features, Value
from PIL import Image as PillowImage
from playwright.sync_api import Browser, CDPSession, sync_playwright

from benchmarks.record import Result, entry, record
from eval.features.extraction import SetFeatures, save_features
from eval.report.page import report
from labeling.records import SAMPLED_TASKS, write_tasks
from pipeline.generation.shard_files import SET_FEATURES
from pipeline.layout import FEATURES, METRICS, REPORT, SCORES, SETS, TRACES
from pipeline.results.comparison import COMPARISON
from pipeline.results.rates import RATES, VERDICTS
from pipeline.storage.json_file import read_json_text
from pipeline.storage.shards import encode_png, write_shard
from pipeline.study.study import Study, load_study

ARMS, IMAGES, SHARD = 20, 5000, 1000
SIDE, WIDTH = 64, 512
# Distinct images; what the report does with one does not depend on whether it has seen another like it.
DISTINCT = 512
VISITS = 5
SECONDS, MEGABYTES, DEFAULT_MEGABYTES = 3.0, 60.0, 10.0

SCORE_FEATURES = Features(
    {
        "image_id": Value("string"),
        "pair_id": Value("int64"),
        **{name: Value("float64") for name in ("clip_score", "aesthetic", "p_malformed", "realism")},
        **{f"kind_{verdict}": Value("float64") for verdict in VERDICTS},
    }
)
TRACE_FEATURES = Features({"step": Value("int32"), "sigma": Value("float32"), "direction": Value("float32")})


def large_comparison(committed: dict[str, Any], arms: int) -> dict[str, Any]:
    """The committed comparison with its guided arms repeated under new names until there are `arms`."""
    baseline, *guided = sorted(committed["arms"], key=lambda arm: arm["arm"] != committed["baseline"])
    said = {one["arm"]: one for one in committed["verdicts"]}
    # What is said arm by arm of the committed names is left out; a frontier goes through the first of each name.
    content = {**committed, "arms": [baseline], "verdicts": [], "shown": [], "adherence": [], "chosen": []}
    content["frontiers"] = [
        {**one, "points": [{**point, "arm": _first(point["arm"], baseline)} for point in one["points"]]}
        for one in committed["frontiers"]
    ]
    for k in range(arms - 1):
        one = guided[k % len(guided)]
        name = f"{one['arm']}_{k // len(guided) + 1}"
        content["arms"].append({**one, "arm": name})
        content["verdicts"].append({**said[one["arm"]], "arm": name})
    if content["named"] is not None:
        names = [one["arm"] for one in content["arms"][1:]]
        removed = [
            {**row, "arms": {name: row["arms"][name.rpartition("_")[0]] for name in names}}
            for row in content["named"]["removed"]
        ]
        content["named"] = {**content["named"], "removed": removed}
    return content


def _first(name: str, baseline: dict[str, Any]) -> str:
    return name if name == baseline["arm"] else f"{name}_1"


def write_study(root: Path, study: Study, arms: int = ARMS, images: int = IMAGES) -> Study:
    """Everything that the report reads, under `root`, for a study of so many arms and images an arm."""
    content = large_comparison(json.loads(read_json_text(COMPARISON)), arms)
    names = [arm["arm"] for arm in content["arms"]]
    known = study.arms[study.baseline]
    large = study.model_copy(update={"arms": dict.fromkeys(names, known)})
    (root / METRICS / "detail").mkdir(parents=True)
    (root / COMPARISON).write_text(json.dumps(content))
    (root / RATES).write_bytes(RATES.read_bytes())
    detail = METRICS / "detail" / f"{study.baseline}.json"
    (root / detail).write_bytes(detail.read_bytes())
    write_tasks(root / SAMPLED_TASKS, [])
    random = np.random.default_rng(0)
    cells = [{"bytes": encode_png(image(random)), "path": None} for _ in range(DISTINCT)]
    for name in names:
        _write_arm(root, name, images, random, cells, study.features.spaces[0].extractor)
    return large


def image(random: np.random.Generator) -> PillowImage.Image:
    """Blurred noise with some grain, [64, 64, 3]."""
    rough = PillowImage.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8))
    smooth = np.asarray(rough.resize((SIDE, SIDE), PillowImage.Resampling.BICUBIC), dtype=np.float64)
    return PillowImage.fromarray((smooth + random.normal(0, 6, smooth.shape)).clip(0, 255).astype(np.uint8))


def _write_arm(
    root: Path, name: str, images: int, random: np.random.Generator, cells: Sequence[dict[str, Any]], primary: str
) -> None:
    ids = [f"{name}-{k:06d}" for k in range(images)]
    for start in range(0, images, SHARD):
        pairs = list(range(start, min(start + SHARD, images)))
        columns: dict[str, list[Any]] = {
            "image_id": [ids[k] for k in pairs],
            "image": [cells[(k * 7 + len(name)) % len(cells)] for k in pairs],
            "arm": [name] * len(pairs),
            "pair_id": pairs,
            "prompt": [f"1person, solo, number {k}, blue hair, long hair, glasses, purple background" for k in pairs],
            "negative_prompt": ["lowres, worst quality"] * len(pairs),
            "seed": pairs,
        }
        write_shard(root / SETS / name / f"part-{start // SHARD:05d}.parquet", columns, SET_FEATURES, "mark")
    scores = {column: random.uniform(0, 5, images).tolist() for column in list(SCORE_FEATURES)[2:]}
    columns = {"image_id": ids, "pair_id": list(range(images)), **scores}
    write_shard(root / SCORES / f"{name}.parquet", columns, SCORE_FEATURES, "mark")
    vectors = torch.from_numpy(random.normal(size=(images, WIDTH)).astype(np.float32))
    save_features(root / FEATURES / name / f"{primary}.safetensors", SetFeatures(ids, vectors, vectors[:, :0], {}))
    steps = list(range(20))
    trace = {"step": steps, "sigma": [150 * 0.7**k for k in steps], "direction": random.uniform(0, 1, 20).tolist()}
    write_shard(root / TRACES / name / "part-00000.parquet", trace, TRACE_FEATURES, "mark")


def opening(browser: Browser, page_file: Path) -> tuple[float, float]:
    """Seconds from navigation until the page is loaded and its gallery has rows, and the CPU seconds of all of
    Chromium's processes in that time."""
    session = browser.new_browser_cdp_session()
    page = browser.new_page(viewport={"width": 1360, "height": 900})
    before, start = _cpu_seconds(session), time.perf_counter()
    page.goto(page_file.resolve().as_uri())
    page.locator("#gallery-table tbody img").first.wait_for(state="attached")
    seconds, spent = time.perf_counter() - start, _cpu_seconds(session) - before
    page.close()
    return seconds, spent


def _cpu_seconds(session: CDPSession) -> float:
    return float(sum(process["cpuTime"] for process in session.send("SystemInfo.getProcessInfo")["processInfo"]))


def results(name: str, page_file: Path, browser: Browser, megabytes: float) -> list[Result]:
    """Size, and the least seconds and CPU seconds of several visits: what others take of the machine only adds."""
    size = page_file.stat().st_size / 1e6
    seconds, spent = zip(*(opening(browser, page_file) for _ in range(VISITS)), strict=True)
    peer = f"Chromium, least of {VISITS} visits"
    return [
        entry(f"report_{name}_megabytes", size, megabytes, size < megabytes, "bytes of the page / 1e6"),
        entry(
            f"report_{name}_seconds", min(seconds), SECONDS, min(seconds) < SECONDS, f"{peer} (most {max(seconds):.3g})"
        ),
        entry(f"report_{name}_cpu_seconds", min(spent), SECONDS, min(spent) < SECONDS, f"{peer}, all of its processes"),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__)
    parser.add_argument("--keep", type=Path, help="where the large page is kept, to look at")
    keep: Path | None = parser.parse_args().keep
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        root = Path(folder)
        large = write_study(root, load_study())
        page_file = keep or root / "index.html"
        page_file.write_text(report(large, root), "utf-8")
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"]
        )
        record(
            [
                *results("default", REPORT, browser, DEFAULT_MEGABYTES),
                *results(f"{ARMS}x{IMAGES}", page_file, browser, MEGABYTES),
            ]
        )
        browser.close()


if __name__ == "__main__":
    main()
