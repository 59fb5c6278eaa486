"""Runs the studies of the claims and writes docs/answers.md: `make answers`, hours; what is finished is kept.

Studies whose numbers are kept (docs/answers/measured/), of these networks, are left out; `--only` names some of the
others. The study in params.yaml is put back at the end. Studies of networks whose weights are not there are named.
"""

import argparse
import sys
from collections.abc import Iterable, Mapping

from docs.answers.claims import load_claims
from docs.answers.measured import MEASURED, is_current, load_measured, measured
from docs.answers.numbers import Number
from docs.answers.page import write_page
from docs.answers.studies import composed
from pipeline.command.durations import in_words
from pipeline.command.plan import Plan, plan_of
from pipeline.command.study_run import run
from pipeline.compose import compose, write_params
from pipeline.errors import InputError, run_stage
from pipeline.finished_study import FinishedStudy
from pipeline.layout import CONF, PARAMS
from pipeline.storage.files import write_atomically
from pipeline.study.study import Study

COMMAND = "python -m docs.answers.run"


def pending(wanted: Mapping[str, Mapping[str, Number]]) -> tuple[list[str], list[str]]:
    """The studies that have to run, and those that cannot, since the weights of their networks are not there."""
    ready, lacking = [], []
    for name, numbers in wanted.items():
        if name == "default":
            continue  # docs/results/default.json is kept by python -m docs.kept_results
        study = composed(name)
        check_arms(study, numbers.values())
        kept = load_measured(name, numbers)
        try:
            if not is_current(kept, study, numbers):
                plan_of(study)
                ready.append(name)
        except InputError:
            lacking.append(name)
    return ready, lacking


def check_arms(study: Study, numbers: Iterable[Number]) -> None:
    """Raise InputError for a number of an arm that the study does not have: better now than after hours."""
    for number in numbers:
        if unknown := sorted(set(number.about) - set(study.arms)):
            known = ", ".join(study.arms)
            raise InputError(f"'{number.key}' reads arm '{unknown[0]}' of study '{study.name}', whose arms are {known}")


def cost(plans: Mapping[str, Plan]) -> str:
    """What the studies take, a line each and their sum."""
    lines, total = [], 0.0
    for name, plan in plans.items():
        seconds = plan.total_seconds or 0.0
        total += seconds
        images = sum(arm.images for arm in plan.arms)
        lines.append(f"  {name:<20} {len(plan.arms):>2} arms, {images:>5,} images, about {in_words(seconds)}")
    return "\n".join([*lines, f"{len(plans)} studies, about {in_words(total)}"])


def keep(name: str, numbers: Mapping[str, Number]) -> None:
    """Keep the numbers of the study that has just run. Raises InputError where params.yaml holds another one."""
    finished = FinishedStudy.load()
    if finished.settings.name != name:
        raise InputError(f"{PARAMS} holds study '{finished.settings.name}', not '{name}'")
    MEASURED.mkdir(parents=True, exist_ok=True)
    path = MEASURED / f"{name}.json"
    write_atomically(path, measured(finished, numbers).to_json())
    print(f"{path}: {len(numbers)} numbers")


def main() -> None:
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("--only", nargs="+", metavar="STUDY", help="these studies alone")
    parser.add_argument("--cost", action="store_true", help="say what it takes, and run nothing")
    arguments = parser.parse_args()
    wanted = load_claims().wanted
    if unknown := sorted(set(arguments.only or ()) - set(wanted)):
        raise InputError(f"--only {unknown[0]} is not a study of the claims; known: {', '.join(sorted(wanted))}")
    ready, lacking = pending({name: wanted[name] for name in arguments.only or wanted})
    print(cost({name: plan_of(composed(name)) for name in ready}), flush=True)
    for name in lacking:
        print(f"  {name:<20} left out: the weights of model {composed(name).model.name} are not there")
    if arguments.cost:
        return
    before = PARAMS.read_bytes()
    try:
        for name in ready:
            write_params(compose(CONF, [f"study={name}"]))
            outcome = run(plan_of(composed(name)), "compare")
            if outcome.code:
                print("what was finished is kept; the same command continues", file=sys.stderr)
                sys.exit(outcome.code)
            keep(name, wanted[name])
    finally:
        write_atomically(PARAMS, before)
    write_page()


if __name__ == "__main__":
    run_stage(main)
