"""What the benchmarks share: the least of interleaved runs, benchmarks/results.json, and its table in the docs.

`python -m benchmarks.record` rewrites the table of docs/benchmarks.md.
"""

import json
import platform
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch

from pipeline.storage.files import write_atomically

RESULTS = Path("benchmarks/results.json")
DOCUMENT = Path("docs/benchmarks.md")
# Everything between the two lines is the table.
BEGIN, END = "<!-- results -->", "<!-- end of results -->"

Result = dict[str, object]
# What computes, and the peers.
_LIBRARIES = ("torch", "diffusers", "numpy", "scipy", "torchmetrics", "torch-fidelity", "prdc", "vendi-score")


def least(times: int, *runs: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> list[float]:
    """The least seconds of each run, interleaved, so that a slow minute of the machine falls on all of them.

    `clock` is wall time unless given; `time.process_time` leaves out what other processes take of a shared CPU.
    """
    best = [float("inf")] * len(runs)
    for _ in range(times):
        for at, run in enumerate(runs):
            start = clock()
            run()
            best[at] = min(best[at], clock() - start)
    return best


def entry(
    name: str, value: float, bar: float | None, holds: bool | None, peer: str, device: str | None = None
) -> Result:
    """One result; `bar` and `holds` are None for a figure that has to reach nothing."""
    machine = device or f"{processor()}, {torch.get_num_threads()} thread(s), shared with other work"
    return {
        "name": name,
        "value": float(f"{value:.4g}"),
        "bar": None if bar is None else float(f"{bar:.4g}"),
        "holds": holds,
        "peer": peer,
        "machine": machine,
        "date": datetime.now(UTC).date().isoformat(),
        "versions": versions(),
    }


def versions() -> str:
    """The versions of Python, of what computes, and of the peers."""
    return ", ".join([f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in _LIBRARIES)])


def processor() -> str:
    """What this machine's processor calls itself."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:  # not Linux
        lines = []
    names = (line.partition(":")[2] for line in lines if line.startswith("model name"))
    return " ".join(next(names, platform.processor() or platform.machine()).split())


def record(found: Sequence[Result]) -> None:
    """Put results into the file in place of those of the same names, and into the table."""
    known: list[Result] = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else []
    names = {result["name"] for result in found}
    results = [*(result for result in known if result["name"] not in names), *found]
    results.sort(key=lambda result: str(result["name"]))
    write_atomically(RESULTS, (json.dumps(results, indent=2) + "\n").encode())
    document = DOCUMENT.read_text("utf-8")
    before, rest = document.split(BEGIN)
    after = rest.split(END)[1]
    write_atomically(DOCUMENT, f"{before}{BEGIN}\n\n{table(results)}\n{END}{after}".encode())
    for result in found:
        print(result)


def table(results: Sequence[Result]) -> str:
    """The results as a table of Markdown, and under it what they were measured with."""
    lines = ["| result | value | bar | holds | against | machine | date |", "|---|---|---|---|---|---|---|"]
    for result in results:
        bar = "" if result["bar"] is None else result["bar"]
        holds = "" if result["holds"] is None else "yes" if result["holds"] else "**no**"
        cells = (f"`{result['name']}`", result["value"], bar, holds)
        lines.append("| " + " | ".join(map(str, (*cells, result["peer"], result["machine"], result["date"]))) + " |")
    for used in dict.fromkeys(str(result["versions"]) for result in results):
        names = [f"`{result['name']}`" for result in results if result["versions"] == used]
        lines += ["", f"{'All' if len(names) == len(results) else ', '.join(names)} measured with {used}."]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    record([])
