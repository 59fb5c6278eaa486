"""What does guidance do to a diffusion model's images? From the question to its answer.

\b
guidedrift run --study quick                     everything once, in minutes
guidedrift run --negative "bad hands, blurry"    what does my negative prompt do?
guidedrift run --negative "bad hands" --scales 1.5,3 --model sd_v1_5
guidedrift plan --study sweep                    what would it take?
guidedrift compare-folders A B --reference R     images made elsewhere, without a network
guidedrift interrogate photo.png                 which tags does it show?
guidedrift report                                the answer
"""

import os
import subprocess
import sys
import webbrowser
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Annotated

import typer

from pipeline.command.project import enter_project
from pipeline.errors import InputError, run_stage
from pipeline.layout import CONF, REPORT

# Modules that a command needs are imported there: `--help` must not wait for what composes a study.
app = typer.Typer(
    name="guidedrift",
    help=__doc__,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _choices(group: str, incomplete: str) -> list[str]:
    return [path.stem for path in sorted((CONF / group).glob("*.yaml")) if path.stem.startswith(incomplete)]


def _studies(incomplete: str) -> list[str]:
    return _choices("study", incomplete)


def _models(incomplete: str) -> list[str]:
    return _choices("model", incomplete)


Study = Annotated[
    str | None,
    typer.Option(help="A study of conf/study (`guidedrift list studies`); default: default.", autocompletion=_studies),
]
Negative = Annotated[
    str | None,
    typer.Option(
        metavar="TEXT", help="The negative prompt of all arms that share one, as it is, whatever stands in it."
    ),
]
Scales = Annotated[
    str | None,
    typer.Option(metavar="1.5,3", help="Guidance scales: every guided arm stands at each. 1 means no guidance."),
]
Model = Annotated[
    str | None, typer.Option(help="A model of conf/model (`guidedrift list models`).", autocompletion=_models)
]
Images = Annotated[int | None, typer.Option(min=10, metavar="N", help="Images per arm.")]
Prompts = Annotated[str | None, typer.Option(metavar="FILE", help="A text file in prompts/, one prompt per line.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEY=VALUE", help="Any other value of conf/, for instance sampler.steps=30 or text=novelai."
    ),
]


def _show_version(asked: bool) -> None:
    if asked:
        print(f"guidedrift {installed_version('guidedrift')}")
        raise typer.Exit


@app.callback()
def start(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Take the options that stand before a command."""


@app.command()
def run(
    study: Study = None,
    negative: Negative = None,
    scales: Scales = None,
    model: Model = None,
    images: Images = None,
    prompts: Prompts = None,
    overrides: Overrides = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Run without asking.")] = False,
) -> None:
    """Run a study: generate, measure, compare, report and track. What is finished is kept."""
    from pipeline.command.plan import plan_of, shown
    from pipeline.command.request import Request, parse_scales
    from pipeline.command.study_run import last_words
    from pipeline.command.study_run import run as run_study
    from pipeline.compose import warnings, write_params

    request = Request(study, negative, parse_scales(scales), model, images, prompts, tuple(overrides or ()))
    content, asked = request.composed()
    for warning in warnings(asked):
        print(f"warning: {warning}", file=sys.stderr)
    plan = plan_of(asked)
    print(shown(plan), flush=True)
    on_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    if on_terminal and not yes and plan.missing and not typer.confirm("\nRun it?", default=True):
        raise typer.Exit
    write_params(content)
    outcome = run_study(plan)
    if outcome.code:
        print("what was finished is kept; the same command continues", file=sys.stderr)
        raise typer.Exit(outcome.code)
    print(last_words(plan, outcome))


@app.command()
def plan(
    study: Study = None,
    negative: Negative = None,
    scales: Scales = None,
    model: Model = None,
    images: Images = None,
    prompts: Prompts = None,
    overrides: Overrides = None,
) -> None:
    """Show what a run would take: arms, images, evaluations, disk, time, and what is finished. Changes nothing."""
    from pipeline.command.plan import plan_of, shown
    from pipeline.command.request import Request, parse_scales
    from pipeline.compose import warnings

    request = Request(study, negative, parse_scales(scales), model, images, prompts, tuple(overrides or ()))
    _, asked = request.composed()
    for warning in warnings(asked):
        print(f"warning: {warning}", file=sys.stderr)
    print(shown(plan_of(asked)))


@app.command()
def report(
    numbers: Annotated[
        bool, typer.Option("--numbers", help="Print the headline numbers instead of opening it.")
    ] = False,
) -> None:
    """Open the report of the study that ran last, or print its numbers."""
    if numbers:
        from pipeline.command.side_by_side import load_results, table

        found = load_results(".")
        print(table([(found.study, found)]))
        return
    if not REPORT.is_file():
        raise InputError(f"{REPORT} does not exist; `guidedrift run` makes it")
    print(REPORT.resolve())
    if sys.stdout.isatty():
        webbrowser.open(REPORT.resolve().as_uri())


@app.command()
def compare(
    left: Annotated[
        str, typer.Argument(help="A study that ran here (NAME or NAME@VERSION), a study's folder, or a compare.json.")
    ],
    right: Annotated[str, typer.Argument(help="Another one; default: this project as it is.")] = ".",
) -> None:
    """Show the numbers of two studies side by side, with intervals."""
    from pipeline.command.side_by_side import differences, load_results, table

    both = [(what, load_results(what)) for what in (left, right)]
    for difference in differences(both[0][1], both[1][1]):
        print(f"warning: the numbers may not be comparable; they differ in {difference}", file=sys.stderr)
    titles = [f"{found.study} ({what})" for what, found in both]
    print(table([(title, found) for title, (_, found) in zip(titles, both, strict=True)]))


@app.command("compare-folders")
def compare_folders(
    a: Annotated[str, typer.Argument(metavar="A", help="A folder of images that someone generated: the baseline.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Another one, which is compared with it.")],
    reference: Annotated[str, typer.Option(metavar="R", help="A folder of real images, twice as many as each.")],
    images: Annotated[int | None, typer.Option(min=10, metavar="N", help="At most so many of each folder.")] = None,
    overrides: Overrides = None,
) -> None:
    """Compare two folders of images with each other and with real ones: the whole report, and nothing is generated."""
    from pipeline.command.folders import prepared
    from pipeline.command.plan import plan_of, shown
    from pipeline.command.study_run import last_words
    from pipeline.command.study_run import run as run_study
    from pipeline.compose import warnings, write_params

    folders = prepared(a, b, reference, images)
    content, asked = folders.request(tuple(overrides or ())).composed()
    for said in (*folders.said, *(f"warning: {warning}" for warning in warnings(asked))):
        print(said, file=sys.stderr)
    plan = plan_of(asked)
    print(shown(plan), flush=True)
    write_params(content)
    outcome = run_study(plan)
    if outcome.code:
        print("what was finished is kept; the same command continues", file=sys.stderr)
        raise typer.Exit(outcome.code)
    print(last_words(plan, outcome))


@app.command()
def interrogate(
    images: Annotated[
        str, typer.Argument(metavar="IMAGES", help="An image, a folder of images, an arm of the study, or `reference`.")
    ],
    words: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE", help="Read these words, one per line, instead of the reference captions' tags."),
    ] = None,
    features: Annotated[
        str | None, typer.Option(metavar="NAME", help="An extractor of conf/features; default: the study's CLIP.")
    ] = None,
    chance: Annotated[float, typer.Option(min=0, max=1, help="The least chance of a tag in a caption.")] = 0.5,
    captions: Annotated[bool, typer.Option("--captions", help="Write captions beside the images, as .txt.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Write them where captions are already, too.")] = False,
) -> None:
    """Read prompts off images: the tags that each shows, with chances."""
    from pipeline.command.project import found_by_caller

    options = [f"--words={found_by_caller(one)}" for one in words or ()]
    options += [f"--features={features}"] if features else []
    options += [option for option, on in (("--captions", captions), ("--overwrite", overwrite)) if on]
    _become("eval.interrogation", *options, f"--chance={chance}", "--", found_by_caller(images))


@app.command("list")
def list_choices(
    names: Annotated[list[str] | None, typer.Argument(metavar="LIST", help="Which lists; default: most.")] = None,
) -> None:
    """List what a study can be made of: studies, arms, models, presets, samplers, metrics."""
    from pipeline.catalogue import listed

    print(listed(names or []))


@app.command()
def stages() -> None:
    """Show the stages of a study, what each is for and what it writes."""
    from pipeline.command.stages import shown_stages

    print(shown_stages())


@app.command()
def experiments() -> None:
    """Show the params and numbers in which DVC's experiments differ."""
    from pipeline.command.stages import show_experiments

    raise typer.Exit(show_experiments())


@app.command()
def check() -> None:
    """Look at the machine, the study's files and every shard of it: is all there, and is it what was written?"""
    from pipeline.command.machine import checks

    found = list(checks())
    for one in found:
        print(one)
    code = 0 if all(one.fine for one in found) else 1
    if Path("data/sets").is_dir():
        code = subprocess.run([sys.executable, "-m", "pipeline.integrity.verify"], check=False).returncode or code
    raise typer.Exit(code)


@app.command()
def mlflow(port: Annotated[int, typer.Option(help="The port on loopback.")] = 5000) -> None:
    """Start MLflow's pages over the runs."""
    _become("pipeline.tracking.server", "--port", str(port))


@app.command()
def label(
    port: Annotated[
        int | None, typer.Option(help="The port on loopback; default: the last one, else a free one.")
    ] = None,
    demo: Annotated[
        bool, typer.Option("--demo", help="SIMULATED labels by the embedded judge, to try the loop.")
    ] = False,
) -> None:
    """Start Label Studio to label images, or simulate labels."""
    if demo:
        _become("labeling.label_studio.demo")
    _become("labeling.label_studio.server", *(() if port is None else ("--port", str(port))))


@app.command()
def publish(
    repo: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="The repository on the Hugging Face Hub.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what would be sent, and send nothing.")] = False,
    public: Annotated[
        bool, typer.Option("--public", help="A public repository; it is private unless asked for.")
    ] = False,
    models: Annotated[bool, typer.Option("--models", help="The embedded networks instead of the dataset.")] = False,
) -> None:
    """Send the study as a dataset to the Hugging Face Hub."""
    os.environ["HF_HUB_OFFLINE"] = "0"
    settings = [f"repo_id={repo}", f"private={str(not public).lower()}", f"what={'models' if models else 'dataset'}"]
    _become("pipeline.publishing.publish", *settings, *(["--dry-run"] if dry_run else []))


def _become(module: str, *arguments: str) -> None:
    """Go on as another module, which reads the keyboard and ends with its own exit code."""
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", module, *arguments])  # noqa: S606 (no shell is wanted)


def _run() -> None:
    words = set(sys.argv[1:])
    # Help, version and completion are there everywhere.
    everywhere = words <= {"--version"} or words & {"--help", "-h", "--install-completion", "--show-completion"}
    if not everywhere or "_GUIDEDRIFT_COMPLETE" in os.environ:
        enter_project()
    app(prog_name="guidedrift")


def main() -> None:
    """Run the command line; exit codes are those of every module (pipeline/errors.py)."""
    run_stage(_run)
