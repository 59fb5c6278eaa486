"""The command `guidedrift`: help and plans at once, slips answered with the nearest name, the project of the folder."""

import json
import os
import shutil
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest
from repository_copy import ROOT
from small_study import comparison
from typer.testing import CliRunner

from pipeline.command import project
from pipeline.command.app import app, main
from pipeline.command.machine import checks
from pipeline.command.project import as_called, project_folder
from pipeline.command.request import Request, parse_scales
from pipeline.errors import InputError

COMMANDS = (
    "run",
    "plan",
    "report",
    "compare",
    "compare-folders",
    "interrogate",
    "list",
    "stages",
    "experiments",
    "check",
    "mlflow",
    "label",
    "publish",
    "learn-negative",
)
# As pip writes the script of an entry point.
SCRIPT = "import sys; from pipeline.command.app import main; sys.exit(main())"


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("GUIDEDRIFT_CALLED_FROM", str(ROOT))


def called(*arguments: str, folder: Path = ROOT, program: str = SCRIPT) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "120"}
    environment.pop("GUIDEDRIFT_CALLED_FROM", None)
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_installed_command_is_this_one() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    module, _, name = scripts["guidedrift"].partition(":")
    assert getattr(import_module(module), name) is main


@pytest.mark.parametrize("arguments", [["--help"], ["list", "studies"], ["plan"], ["run", "--help"], ["--version"]])
def test_what_only_tells_does_not_load_torch(arguments: list[str]) -> None:
    told = "import atexit, sys; atexit.register(lambda: print('torch' in sys.modules, file=sys.stderr)); " + SCRIPT
    done = called(*arguments, program=told)
    assert (done.returncode, done.stderr) == (0, "False\n")
    assert done.stdout


def test_help_names_every_command_and_what_to_type_first() -> None:
    shown = CliRunner().invoke(app, ["--help"]).stdout
    assert [name for name in COMMANDS if f"\n  {name} " not in shown] == []
    assert 'guidedrift run --negative "bad hands, blurry"  ' in shown


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["rnu"], "Did you mean 'run'?"),
        (["run", "--negativ", "x"], "(Possible options: --negative)"),
        (["plan", "--images", "3"], "should be greater than or equal to 10"),
    ],
)
@pytest.mark.usefixtures("here")
def test_a_slip_in_commands_and_options_is_answered(arguments: list[str], said: str) -> None:
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 2
    assert said in done.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["plan", "--study", "swep"], "did you mean sweep?"),
        (["plan", "--model", "tinyboru"], "did you mean tinybooru?"),
        (["plan", "arms.cgf.scale=3"], "did you mean cfg?"),
        (["plan", "sampler.scheduler=ddmi"], "did you mean ddim?"),
        (["list", "studys"], "did you mean studies?"),
        (["plan", "--scales", "1.5;3"], "--scales is '1.5;3'; write numbers with commas between them"),
        (["plan", "--scales", "0,3"], "--scales has 0; a scale is above 0"),
        (["plan", "--study", "presets", "--negative", "bad"], "no arm that takes the study's negative prompt"),
        (["plan", "--prompts", "/etc/hostname"], "/etc/hostname lies outside the project; copy it into prompts/"),
    ],
)
@pytest.mark.usefixtures("here")
def test_a_slip_in_values_and_keys_is_answered(arguments: list[str], said: str) -> None:
    done = CliRunner().invoke(app, arguments)
    assert isinstance(done.exception, InputError)
    assert said in str(done.exception)


@pytest.mark.usefixtures("here")
def test_a_plan_changes_nothing_and_says_what_a_run_takes() -> None:
    before = (ROOT / "params.yaml").stat()
    options = ["--study", "quick", "--negative", "bad hands: a, b = [c]", "--scales", "1.5,3", "sampler.steps=10"]
    done = CliRunner().invoke(app, ["plan", *options])
    assert done.exit_code == 0, done.output
    after = (ROOT / "params.yaml").stat()
    assert (before.st_mtime_ns, before.st_ino) == (after.st_mtime_ns, after.st_ino)
    assert "negative prompt: bad hands: a, b = [c]\n" in done.stdout
    assert "images: 192, of which 192 are to be generated" in done.stdout
    # Four evaluations a step without guidance and one from other seeds, two for CFG, three for the others, which probe
    # the empty text.
    assert f"network evaluations: about {24 * 10 * (4 + 1 + 2 * (2 + 3 + 3)):,}\n" in done.stdout
    assert "24 images per arm are too few to conclude anything" in done.output


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("guidedrift run --study sw", "sweep"),
        ("guidedrift plan --model tinybooru_f", "tinybooru_flow"),
        ("guidedrift exp", "experiments"),
    ],
)
def test_a_shell_completes_commands_and_values(words: str, found: str) -> None:
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "_GUIDEDRIFT_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - 1),
    }
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=ROOT / "docs", env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == [found], done.stderr


def test_a_check_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = list(checks())
    assert [one.fine for one in found] == [*[True] * (len(found) - 1), False]
    assert str(found[-1]).startswith("NO  params.yaml does not exist")
    shutil.copyfile(ROOT / "params.yaml", tmp_path / "params.yaml")
    there = [str(one) for one in checks()]
    assert "ok  params.yaml: study 'default', 10 arms" in there
    assert [one for one in there if one.startswith("NO  ")], "networks and weights lie elsewhere"


def test_outside_of_a_project_there_is_help_and_one_line_of_reason(tmp_path: Path) -> None:
    done = called("plan", folder=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: {tmp_path} lies in no guidedrift project; cd to your clone of the repository\n"
    assert called("run", "--help", folder=tmp_path).returncode == 0


def test_the_code_of_the_folder_runs_whoever_installed_the_command(tmp_path: Path) -> None:
    for name in ("dvc.yaml", "conf/config.yaml", "pipeline/__init__.py", "pipeline/command/__init__.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    (tmp_path / "pipeline/command/app.py").write_text(
        "def main():\n    import sys\n    print('own code', sys.argv[1:])\n"
    )
    (tmp_path / "pipeline/command/__main__.py").write_text("from pipeline.command.app import main\nmain()\n")
    (tmp_path / "docs").mkdir()
    assert project_folder(tmp_path / "docs") == tmp_path
    assert called("list", "studies", folder=tmp_path / "docs").stdout == "own code ['list', 'studies']\n"


def test_a_path_counts_from_where_the_command_was_called(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GUIDEDRIFT_CALLED_FROM", str(ROOT / "docs"))
    monkeypatch.chdir(ROOT)
    project.enter_project()
    assert as_called("../prompts/booru.txt") == "prompts/booru.txt"


@pytest.mark.usefixtures("here")
def test_options_are_overrides_of_conf() -> None:
    request = Request("sweep", None, (), "tinybooru", 600, "prompts/booru.txt", ("text=novelai",))
    assert request.as_overrides() == [
        'study="sweep"',
        'model="tinybooru"',
        "prompts=file",
        'prompts.path="prompts/booru.txt"',
        "generate.images=600",
        "reference.images=1200",
        "text=novelai",
    ]
    assert Request(images=100).as_overrides() == ["generate.images=100"], "the reference set is large enough"
    content, study = request.composed()
    assert (study.name, study.prompts.source, content["reference"]["images"]) == ("sweep", "file", 1200)
    assert parse_scales("1.5,3,1.5") == (1.5, 3.0)


@pytest.mark.usefixtures("here")
def test_stages_are_listed_with_what_they_write() -> None:
    shown = CliRunner().invoke(app, ["stages"]).stdout
    assert "  generate   every arm becomes an image set" in shown
    assert "-> metrics/<arm>.json" in shown
    assert max(len(line) for line in shown.splitlines()) <= 120


def test_numbers_of_what_is_there_are_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics/compare.json").write_text(json.dumps(comparison()))
    shown = CliRunner().invoke(app, ["report", "--numbers"])
    assert shown.exit_code == 0, shown.exception
    assert "shift from unguided, in " in shown.stdout


# A module ends as a program does that the signal stops; the command's library has a code of its own.
@pytest.mark.parametrize(("program", "code"), [("pipeline", 141), ("pipeline.command", 1)])
def test_a_reader_that_has_enough_ends_a_list_without_a_traceback(program: str, code: int) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    arguments = [sys.executable, "-m", program, *([] if program == "pipeline" else ["list"])]
    done = subprocess.run(arguments, cwd=ROOT, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (code, "")


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    command = ["make", "-n", "-o", ".venv/.ready", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        (
            "OVERRIDE=study=sweep",
            'OVERRIDE is not a variable of this Makefile, .*; did you mean OVERRIDES="study=sweep"?',
        ),
        ("arms.cfg.scale=9", 'a value of the study goes into OVERRIDES="arms.cfg.scale=9"'),
        ("study=sweep", 'a value of the study goes into OVERRIDES="study=sweep"'),
    ],
)
def test_make_refuses_a_variable_that_nobody_reads(argument: str, said: str) -> None:
    done = make("repro", argument)
    assert done.returncode == 2
    first, _, last = said.partition(".*")
    assert first in done.stderr
    assert last in done.stderr


def test_make_passes_what_it_knows() -> None:
    done = make("repro", "OVERRIDES=study=sweep negative='bad hands, blurry'", "PYTHON=python3")
    assert done.returncode == 0, done.stderr
    assert "-m pipeline.command run --yes -- study=sweep negative='bad hands, blurry'" in done.stdout


def test_git_does_not_see_the_page_that_dvc_writes_its_plots_to() -> None:
    ignored = ["git", "check-ignore", "-q", "dvc_plots/index.html"]
    assert subprocess.run(ignored, cwd=ROOT, check=False).returncode == 0
