"""Stage `measure`: the features, per-image scores and set metrics of every arm of the study, in one process.

What is measured is kept by arm: an arm whose images, settings and measuring code are the same is not measured again.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from tqdm import tqdm

from eval.features.extraction import CONCEPT_SET, REFERENCE, clear_features, refresh, study_features
from eval.scorers.arm_scores import Scorers, arm_inputs, holds_scores, score_arm, write_scores
from pipeline.errors import InputError, run_stage
from pipeline.execution.allocator import keep_freed_memory
from pipeline.execution.executor import run_tasks, with_workers
from pipeline.execution.termination import Termination
from pipeline.layout import ASIDE, CONCEPTS, FEATURES, HEADLINES, METRICS, SCORES
from pipeline.results.metrics import shown_in
from pipeline.stage_arguments import stage_parser
from pipeline.storage.set_aside import set_aside
from pipeline.study.executor import LocalExecutor
from pipeline.study.study import Study, load_study

# A worker takes about seven seconds to start, in which another one scores an arm of 200 small images.
_ARMS_PER_WORKER = 4


def measure(study: Study, arms: Sequence[str], termination: Termination | None = None) -> list[str]:
    """Bring features and scores of some arms up to date; returns the arms that were scored. Raises InputError."""
    termination = termination or Termination()
    # Sums are split among threads, and rounded so: as many on every machine.
    torch.set_num_threads(study.generate.threads)
    keep_freed_memory()
    # Scores compare an arm with the baseline's prompts and with the reference set.
    sets = list(dict.fromkeys([REFERENCE, study.baseline, *arms]))
    if any(CONCEPTS.glob("*.parquet")):
        sets.append(CONCEPT_SET)
    for name in sets:
        clear_features(study, name)
    refresh(study_features(study, sets), study.executor)
    inputs = {arm: arm_inputs(study, arm) for arm in arms}
    stale = [arm for arm in arms if not holds_scores(arm, inputs[arm])]
    # Whoever generates on many machines scores on this one, where the features are.
    local = study.executor if isinstance(study.executor, LocalExecutor) else LocalExecutor(kind="local")
    executor = with_workers(local, len(stale) // _ARMS_PER_WORKER, study.generate.threads, 0)
    job = partial(score_job, study, inputs)
    done = []
    with tqdm(total=len(stale), desc="measure", unit="arm", disable=None) as bar:
        for arm, said in run_tasks(executor, job, stale, termination):
            done.append(arm)
            bar.update()
            tqdm.write(said)
    return done


def score_job(study: Study, inputs: dict[str, str], device: torch.device) -> Callable[[str], tuple[str, str]]:
    """A job (pipeline/execution/jobs.py): scores arms, each of which it writes; returns its name and what to say."""
    torch.set_num_threads(study.generate.threads)
    scorers = Scorers(study, device)

    def score(arm: str) -> tuple[str, str]:
        try:
            short = write_scores(arm, score_arm(study, arm, scorers), inputs[arm])
        except ValueError as error:  # what metrics raise for sets that they cannot measure
            raise InputError(f"arm '{arm}' cannot be scored: {error}") from None
        shown = ", ".join(f"{row.label} {short[row.name]}" for row in shown_in("headlines") if row.name in short)
        return arm, f"measure {arm}: {shown} (N = {short['n']})"

    return score


def main() -> None:
    parser = stage_parser("eval.measure", __doc__)
    parser.add_argument("--arm", help="an arm of params.yaml (default: all)")
    arguments = parser.parse_args()
    study = load_study()
    if arguments.arm is not None:
        study.arm(arguments.arm)
        arms = [arguments.arm]
    else:
        arms = list(study.arms)
        real = [REFERENCE, *([CONCEPT_SET] if any(CONCEPTS.glob("*.parquet")) else [])]
        set_aside(FEATURES, [*real, *arms], ASIDE)
        set_aside(SCORES, [f"{arm}.parquet" for arm in arms], ASIDE)
        for place in (METRICS / "detail", HEADLINES):
            set_aside(place, [f"{arm}.json" for arm in arms], ASIDE)
    with Termination() as termination:
        done = measure(study, arms, termination)
        termination.leave(f"a whole arm ({len(done)} measured in this run)")
    kept = len(arms) - len(done)
    print(f"measure: {len(arms)} arms in {SCORES}/ and {METRICS}/detail/ ({len(done)} measured, {kept} kept)")


if __name__ == "__main__":
    run_stage(main)
