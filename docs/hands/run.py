"""Runs study=hands at every stage of training that this machine has the networks of: `python -m docs.hands.run`, hours.

The shipped networks are the last stage of their training; `make train` leaves the others, which are not in git.
What is kept (docs/hands/measured/) is left out, so an interrupted run continues; `--only unet-0` takes the stages whose
names begin so. The study in params.yaml is put back at the end. `python -m docs.hands` writes the page.
"""

import argparse
import sys
from contextlib import suppress

from docs.hands.kept import MEASURED, kept, load_all, path_of
from docs.hands.stages import Stage, available, prepare
from pipeline.command.durations import in_words
from pipeline.command.plan import plan_of
from pipeline.command.study_run import run
from pipeline.compose import compose, write_params
from pipeline.errors import InputError, run_stage
from pipeline.finished_study import FinishedStudy
from pipeline.layout import CONF, PARAMS
from pipeline.preflight import study_digests
from pipeline.storage.files import write_atomically
from pipeline.study.study import Study, parse_study

COMMAND = "python -m docs.hands.run"


def overrides_of(stage: Stage, more: list[str]) -> list[str]:
    """What study=hands is composed with at a stage."""
    return ["study=hands", *stage.overrides, *more]


def pending(stages: list[Stage], more: list[str]) -> list[Stage]:
    """The stages of which nothing is kept, or only numbers of other networks or of another number of images."""
    there = {one.stage: (one.networks, one.images) for one in load_all()}
    found = []
    for stage in stages:
        prepare(stage)
        study = _study(stage, more)
        if there.get(stage) != (study_digests(study), study.generate.images):
            found.append(stage)
    return found


def _study(stage: Stage, more: list[str]) -> Study:
    return parse_study(compose(CONF, overrides_of(stage, more)), f"study=hands at {stage.name}")


def keep(stage: Stage) -> None:
    """Keep the numbers of the run that has just ended. Raises InputError where params.yaml holds another study."""
    finished = FinishedStudy.load()
    wanted, found = dict(part.split("=", 1) for part in stage.overrides)["model.main"], finished.settings.model.main
    if finished.settings.name != "hands" or found != wanted:
        raise InputError(f"{PARAMS} holds study '{finished.settings.name}' of {found}, not 'hands' of {wanted}")
    MEASURED.mkdir(parents=True, exist_ok=True)
    write_atomically(path_of(stage), kept(stage, finished.settings, finished.comparison).to_json())
    print(f"{path_of(stage)}: {len(finished.comparison.arms)} arms", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="more of the study, as generate.images=64")
    parser.add_argument("--only", nargs="+", metavar="STAGE", help="stages whose names begin so")
    parser.add_argument("--cost", action="store_true", help="say what it takes, and run nothing")
    arguments = parser.parse_args()
    chosen = [one for one in available() if not arguments.only or one.name.startswith(tuple(arguments.only))]
    if not chosen:
        names = ", ".join(stage.name for stage in available())
        raise InputError(
            f"--only {' '.join(arguments.only)} matches no stage; on this machine: {names}; `make train` makes others"
        )
    stages = pending(chosen, arguments.overrides)
    plans = {stage: plan_of(_study(stage, arguments.overrides)) for stage in stages}
    for stage, plan in plans.items():
        print(f"  {stage.name:<24} about {in_words(plan.total_seconds or 0)}")
    total = sum(plan.total_seconds or 0 for plan in plans.values())
    print(f"{len(plans)} stages, about {in_words(total)}; {len(chosen) - len(plans)} are finished", flush=True)
    if arguments.cost:
        return
    before = PARAMS.read_bytes()
    try:
        for stage in stages:
            write_params(compose(CONF, overrides_of(stage, arguments.overrides)))
            outcome = run(plan_of(_study(stage, arguments.overrides)), "compare")
            if outcome.code:
                print("what was finished is kept; the same command continues", file=sys.stderr)
                sys.exit(outcome.code)
            keep(stage)
    finally:
        with suppress(OSError):
            write_atomically(PARAMS, before)
    print("next: python -m docs.hands")


if __name__ == "__main__":
    run_stage(main)
