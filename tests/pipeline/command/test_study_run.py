"""A run of a real DVC on small stages: its words and codes, its record of seconds, and how it ends when told to."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml
from repository_copy import ROOT

PROGRAM = """
import signal
import sys
import time
from compositions import composed
from pipeline.command.plan import Plan
from pipeline.command.study_run import last_words, run
from pipeline.errors import run_stage
from pipeline.study.study import parse_study
# A shell that starts this in the background has it ignore the interrupt, and DVC after it.
signal.signal(signal.SIGINT, signal.default_int_handler)

def main():
    # EfficientNet's weights would be converted first.
    study = parse_study(composed("features=[clip,pyramid]", "generate.images=16"), "study")
    plan = Plan(study, (), {"generate": 1.0, "report": 5.0}, "", 0)
    outcome = run(plan, *sys.argv[1:])
    print(last_words(plan, outcome) if not outcome.code else f"code {outcome.code}")

run_stage(main)
"""


def started(folder: Path, *arguments: str, **stages: str) -> subprocess.Popen[str]:
    for command in (["git", "init", "-q"], [sys.executable, "-m", "dvc", "init", "-q"]):
        subprocess.run(command, cwd=folder, check=True)
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": {name: {"cmd": cmd} for name, cmd in stages.items()}}))
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "DVC_NO_ANALYTICS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_a_run_passes_on_what_is_said_and_keeps_what_stages_took(tmp_path: Path) -> None:
    out, error = started(tmp_path, report="echo warning: of a stage >&2; echo a word").communicate()
    assert "Running stage 'report':" in out
    assert "\na word\n" in out
    assert "warning: of a stage" in error
    assert "|" not in error, "there is no bar where nobody looks at it"
    last = out.splitlines()[-1]
    assert last.startswith(
        "made: reports/index.html of study 'default', 0 arms with 0 images (nothing had to be generated)"
    )
    assert "16 images per arm are too few to conclude anything" in last
    assert list(json.loads((tmp_path / ".dvc/tmp/guidedrift/seconds.json").read_text())) == ["report"]
    assert "a word\n" in (tmp_path / ".dvc/tmp/guidedrift/run.log").read_text()


def test_a_run_ends_with_the_stage_that_is_asked_for(tmp_path: Path) -> None:
    out, _ = started(tmp_path, "report", report="echo a word", track="echo another word").communicate()
    assert "\na word\n" in out
    assert "another word" not in out.replace("echo another word", "")


def test_a_stage_that_fails_ends_the_run_with_dvcs_code(tmp_path: Path) -> None:
    run = started(tmp_path, report="echo error: no arm x >&2; exit 2")
    out, error = run.communicate()
    assert (run.returncode, out.splitlines()[-1]) == (0, "code 255")
    assert "error: no arm x" in error
    assert not (tmp_path / ".dvc/tmp/guidedrift/seconds.json").exists()


def asleep(pid: int) -> list[psutil.Process]:
    """The processes below a run, once its stage sleeps: the shell says that it has begun before it becomes `sleep`."""
    for _ in range(300):
        below = psutil.Process(pid).children(recursive=True)
        if any(process.name() == "sleep" for process in below):
            return below
        time.sleep(0.1)
    raise AssertionError("the stage does not sleep")


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_run_that_is_stopped_leaves_no_stage_running(sent: signal.Signals, code: int, tmp_path: Path) -> None:
    run = started(tmp_path, report="echo begun; exec sleep 600")
    assert run.stdout is not None
    assert any(line == "begun\n" for line in run.stdout)
    below = asleep(run.pid)
    if sent == signal.SIGINT:
        os.killpg(run.pid, sent)  # as a terminal does
    else:
        run.send_signal(sent)
    _, error = run.communicate(timeout=120)
    assert run.returncode == code, error
    assert not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in below)
    assert "Traceback" not in error
