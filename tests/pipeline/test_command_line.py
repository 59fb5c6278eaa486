"""The command line: lists, help, and exit codes that a shell can tell apart."""

import re
import signal
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import yaml
from repository_copy import ROOT

from pipeline.catalogue import LISTS, SLOW, configurations, modules

STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
COMMANDS = [stage.get("do", stage)["cmd"].split() for stage in STAGES.values()]
STAGE_MODULES = sorted({command[2] for command in COMMANDS if command[:2] == ["sh", "pipeline/stage.sh"]})


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)


def test_help_lists_every_choice_of_conf_with_what_it_is() -> None:
    text = run("pipeline", "--help").stdout
    for group in ("study", "arm", "model", "features", "scorers", "prompts", "text"):
        for path in (ROOT / "conf" / group).glob("*.yaml"):
            assert re.search(rf"^  {re.escape(path.stem)} +\S", text, re.MULTILINE), path
    assert max(len(line) for line in text.splitlines()) <= 120


@pytest.mark.parametrize("name", LISTS)
def test_every_entry_of_every_list_says_what_it_is(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    entries = LISTS[name][1]()
    assert entries
    assert [entry for entry, text in entries.items() if not text] == []


def test_guiders_are_those_that_an_arm_may_name() -> None:
    assert SLOW == ("guiders",)
    used = yaml.safe_load((ROOT / "conf/arm/cfg_zero_star.yaml").read_text())["post"]["guider"]
    assert used in LISTS["guiders"][1]()


def test_a_description_is_an_arms_own_or_the_first_sentence_of_the_comment(tmp_path: Path) -> None:
    folder = tmp_path / "arm"
    folder.mkdir()
    (folder / "one.yaml").write_text("# @package arms.one\n# A comment.\ndescription: away from it\n")
    (folder / "two.yaml").write_text("# @package _global_\n# Does it hold? More of it\n# follows.\nname: two\n")
    assert configurations("arm", tmp_path) == {"one": "away from it", "two": "Does it hold?"}


def test_every_stage_is_a_module_that_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert {f"python -m {module}" for module in STAGE_MODULES} <= set(modules())


@pytest.mark.parametrize("module", STAGE_MODULES)
def test_the_help_of_a_stage_says_what_it_reads_and_writes(
    module: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("sys.argv", [module, "--help"])
    name = f"{module}.__main__" if (ROOT / module.replace(".", "/")).is_dir() else module
    with pytest.raises(SystemExit) as end:
        import_module(name).main()
    shown = capsys.readouterr()
    assert (end.value.code, shown.err) == (0, "")
    assert "\nreads: params.yaml" in shown.out
    assert "\nwrites: " in shown.out
    assert "$" not in shown.out.partition("reads: ")[2]


def test_a_list_that_is_not_there_is_one_line_with_those_that_are() -> None:
    done = run("pipeline", "arm")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: list 'arm' is unknown; did you mean arms? known lists: {', '.join(LISTS)}\n"


WAITING = """
import signal, sys, time
# What a shell starts in the background ignores Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)
from pipeline.errors import InputError, run_stage
def stage():
    try:
        print("started", flush=True)
        time.sleep(60)
    finally:
        print("tidied up", flush=True)
run_stage(stage)
"""


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_stage_as_shells_count_after_it_has_tidied_up(sent: signal.Signals, code: int) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", WAITING], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    process.send_signal(sent)
    out, error = process.communicate(timeout=30)
    assert process.returncode == code
    assert out == "tidied up\n"
    assert "Traceback" not in error


def test_bad_input_is_2_and_one_line() -> None:
    program = "from pipeline.errors import InputError, run_stage\n"
    program += "def stage(): raise InputError('no arm x; known arms: y')\nrun_stage(stage)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "error: no arm x; known arms: y\n")
