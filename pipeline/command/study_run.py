"""A study run from its plan to its report: `dvc repro`, watched."""

import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psutil

from pipeline.command.bar import Progress, StudyBar
from pipeline.command.durations import in_words, remember
from pipeline.command.plan import Plan
from pipeline.layout import REPORT

LOG = Path(".dvc/tmp/guidedrift/run.log")
_STAGE = re.compile(r"^(?:Running stage|Stage) '(?P<stage>[a-z_]+)(?:@[^']*)?'")
# What a stage says that no one should have to look for in the log.
_LOUD = ("warning: ", "error: ")
_TAIL = 15
_DVC = [sys.executable, "-m", "dvc"]


@dataclass(frozen=True)
class Outcome:
    """How a run ended: DVC's exit code, its seconds, and how many shards were generated."""

    code: int
    seconds: float
    shards: int


def run(plan: Plan, last: str | None = None) -> Outcome:
    """Run what is not finished of the study in params.yaml, up to the stage `last` or to the end.

    On a terminal there is one bar and DVC's words go to LOG; elsewhere they are passed on as they are.
    """
    on_terminal = sys.stdout.isatty() and sys.stderr.isatty()
    LOG.parent.mkdir(parents=True, exist_ok=True)
    _prepare(plan)
    size = plan.study.generate.shard
    missing = sum(-(-arm.missing // size) for arm in plan.arms)
    progress = Progress({stage: value or 60.0 for stage, value in plan.seconds.items()}, missing, len(plan.arms))
    bar = StudyBar(progress) if on_terminal else None
    spent: dict[str, float] = {}
    tail: deque[str] = deque(maxlen=_TAIL)
    process = subprocess.Popen(
        [*_DVC, "repro", *([last] if last else [])],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT if bar else None,
        text=True,
        errors="replace",
        bufsize=1,
    )
    assert process.stdout is not None
    try:
        with LOG.open("w", buffering=1) as log:
            for line in _lines(process.stdout):
                if line is None:
                    if bar:
                        bar.update()
                    continue
                log.write(line)
                tail.append(line.rstrip())
                _note(line, progress, spent)
                if bar is None:
                    print(line, end="", flush=True)
                elif line.startswith(_LOUD):
                    bar.say(line.rstrip())
        code = process.wait()
    except KeyboardInterrupt:
        # The terminal has sent Ctrl-C to DVC and its stage as well; they end when what is under way is finished.
        process.wait()
        print("interrupted; what was finished is kept, the same command continues", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    except SystemExit:
        _terminate_stage(process.pid)
        process.wait()
        raise
    finally:
        if bar:
            bar.close()
    _leave(progress, spent)
    if code and bar:
        print("\n".join(tail), file=sys.stderr)
        print(f"all that was said: {LOG}", file=sys.stderr)
    elif not code:
        remember(spent, sum(arm.images for arm in plan.arms))
    return Outcome(code, time.time() - progress.started, progress.new_shards())


def last_words(plan: Plan, outcome: Outcome) -> str:
    """One line that says what was made and what to do next."""
    study = plan.study
    images = sum(arm.images for arm in plan.arms)
    new = f"{outcome.shards} shards generated" if outcome.shards else "nothing had to be generated"
    caution = f" {study.size_caution}" if study.size_caution else ""
    return (
        f"made: {REPORT} of study '{study.name}', {len(plan.arms)} arms with {images:,} images ({new}), in "
        f"{in_words(outcome.seconds)}.{caution} Next: guidedrift report"
    )


def _prepare(plan: Plan) -> None:
    """What `make` does before DVC: what a killed run left, and weights that a package brings as a pickle."""
    subprocess.run([sys.executable, "-m", "pipeline.integrity.recover"], check=True)
    for extractor in plan.study.features.extractors.values():
        weights = Path(extractor.weights)
        if extractor.model == "efficientnet_lite0" and not weights.is_file():
            subprocess.run([sys.executable, "-m", "eval.features.efficientnet", str(weights)], check=True)


def _terminate_stage(dvc: int) -> None:
    """Ask the stage that DVC waits for to end; DVC, which would leave it running, then ends as well."""
    with suppress(psutil.NoSuchProcess):
        for stage in psutil.Process(dvc).children():
            stage.terminate()


def _note(line: str, progress: Progress, spent: dict[str, float]) -> None:
    if found := _STAGE.match(line):
        if found["stage"] != progress.stage:
            _leave(progress, spent)
            spent["began"] = time.time()
        progress.enter(found["stage"])
        if line.startswith("Running"):
            spent[progress.stage] = 0.0


def _leave(progress: Progress, spent: dict[str, float]) -> None:
    # Only stages that ran say how long they take.
    began = spent.pop("began", None)
    if began is not None and progress.stage in spent:
        spent[progress.stage] = time.time() - began


def _lines(stream: IO[str]) -> Iterator[str | None]:
    """The lines of a stream as they come, with None after every second without one."""
    lines: queue.Queue[str | None] = queue.Queue()

    def read() -> None:
        for line in stream:
            lines.put(line)
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    while True:
        try:
            line = lines.get(timeout=1)
        except queue.Empty:
            yield None
            continue
        if line is None:
            return
        yield line
