"""Stage `sample`: which images people will see, in which order, under which ids.

Every choice is a keyed hash of the thing chosen, so it depends neither on the order of files nor on the number of
other images, and labels given before stay valid: a larger sample contains the smaller one, unless it is the first
that is large enough to draw from every prompt. The same pairs are drawn in every arm ("permanent random numbers":
Ohlsson, Coordination of samples, in Business Survey Methods, 1995), so that arms are compared on the same prompts and
seeds.
"""

import hashlib
import hmac
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from statistics import fmean

from labeling.records import SAMPLED_PAIRS, SAMPLED_TASKS, SampledPair, SampledTask, write_pairs, write_tasks
from labeling.sampling.sample_size import POWER, told_difference, told_preference, worth_with_scores
from pipeline.errors import InputError, run_stage
from pipeline.layout import SCORES, SETS
from pipeline.stage_arguments import stage_parser
from pipeline.storage.images import open_image
from pipeline.storage.shards import read_table, shard_paths
from pipeline.study.study import Labeling, Study, load_study

# Minutes of one person that the stage says the worth of.
OFFERED = (20, 120)


@dataclass(frozen=True)
class Candidate:
    """An image that may be sampled; `digest` is of its bytes, `p_malformed` in [0, 1] the automatic score, None in a
    study that does not ask for it."""

    image_id: str
    arm: str
    pair_id: int
    prompt: str
    canvas: str
    digest: str
    p_malformed: float | None


class Lot:
    """Draws by keyed hash: `number` for the order of a draw, `task_id` for ids that tell nothing of what they hide."""

    def __init__(self, seed: int):
        self._key = hashlib.sha256(f"guidedrift.labeling.{seed}".encode()).digest()

    def number(self, *of: object) -> float:
        """A number in [0, 1), the same for the same `of` and as good as independent for another."""
        return int(self._digest("number", *of)[:13], 16) / 16**13

    def task_id(self, *of: object) -> str:
        """16 hex digits."""
        return self._digest("task", *of)[:16]

    def _digest(self, *of: object) -> str:
        return hmac.new(self._key, repr(of).encode(), hashlib.sha256).hexdigest()


@dataclass(frozen=True)
class DrawnPair:
    """A pair of the random batch: `stratum` is empty where the prompts are not told apart."""

    pair_id: int
    stratum: str
    inclusion_probability: float


def draw_random(prompts: Mapping[int, str], labels: int, lot: Lot) -> list[DrawnPair]:
    """About `labels` of the pairs (pair_id to prompt), from every prompt in proportion to its pairs.

    Where `labels` does not reach two a prompt, the prompts together are one stratum: a stratum without a label would
    stay unseen, and one with a single label has no variance.
    """
    strata: dict[str, list[int]] = defaultdict(list)
    for pair, prompt in prompts.items():
        strata[prompt].append(pair)
    if labels < 2 * len(strata) or len(strata) == 1:
        strata = {"": list(prompts)}
    drawn = []
    for k, members in enumerate(strata.values()):
        taken = min(len(members), max(2, round(labels * len(members) / len(prompts))))
        stratum = f"prompt {k}" if len(strata) > 1 else ""
        first = sorted(members, key=lambda pair: lot.number("draw", pair))[:taken]
        drawn += [DrawnPair(pair, stratum, taken / len(members)) for pair in first]
    return drawn


def prompts_of_pairs(arms: Mapping[str, Sequence[Candidate]]) -> dict[int, str]:
    """The prompt of every pair; arms that are drawn with the empty prompt share it. Raises InputError."""
    first, *others = arms
    prompts = {candidate.pair_id: candidate.prompt for candidate in arms[first]}
    for arm in others:
        if {candidate.pair_id for candidate in arms[arm]} != set(prompts):
            raise InputError(f"arms '{arm}' and '{first}' do not share their pairs; run `dvc repro`")
        for candidate in arms[arm]:
            prompts[candidate.pair_id] = prompts[candidate.pair_id] or candidate.prompt
    return prompts


def draw_tasks(arms: Mapping[str, Sequence[Candidate]], labels: int, settings: Labeling) -> list[SampledTask]:
    """The queue of all arms: the random batch with its repeats, shuffled, and behind it the triage batch."""
    lot = Lot(settings.seed)
    drawn = draw_random(prompts_of_pairs(arms), labels, lot)
    shown: dict[str, tuple[Candidate, str, float]] = {}
    for arm, candidates in arms.items():
        by_pair = {candidate.pair_id: candidate for candidate in candidates}
        for pair in drawn:
            candidate = by_pair[pair.pair_id]
            stratum = f"{arm}/{pair.stratum}" if pair.stratum else arm
            task = lot.task_id("random", arm, candidate.image_id, candidate.digest)
            shown[task] = candidate, stratum, pair.inclusion_probability
    queue = sorted(shown, key=lambda task: lot.number("queue", task))
    # Twice in the second half what stood in the first: later, but not at once, and a random part of the batch.
    half = math.ceil(len(queue) / 2)
    again = {
        lot.task_id("repeat", task): task
        for task in sorted(queue[:half], key=lambda task: lot.number("repeat", task))[
            : round(settings.repeats * len(queue))
        ]
    }
    shared = set(sorted(queue, key=lambda task: lot.number("overlap", task))[: round(settings.overlap * len(queue))])
    order = queue[:half] + sorted([*queue[half:], *again], key=lambda task: lot.number("queue", task))
    tasks = [
        _task(
            task,
            *shown[again.get(task, task)],
            "random",
            position,
            again.get(task),
            settings.labellers if task in shared else 1,
        )
        for position, task in enumerate(order)
    ]
    seen = {candidate.image_id for candidate, _, _ in shown.values()}
    doubtful = [
        candidate
        for candidates in arms.values()
        for _, _, candidate in sorted(
            (
                (abs(candidate.p_malformed - 0.5), candidate.pair_id, candidate)
                for candidate in candidates
                if candidate.image_id not in seen and candidate.p_malformed is not None
            ),
            key=lambda found: found[:2],
        )[: settings.triage]
    ]
    chosen = {lot.task_id("triage", c.arm, c.image_id, c.digest): c for c in doubtful}
    for position, task in enumerate(sorted(chosen, key=lambda task: lot.number("queue", task)), start=len(tasks)):
        tasks.append(_task(task, chosen[task], chosen[task].arm, 1.0, "triage", position, None, 1))
    return tasks


def judged_alike(study: Study) -> list[str]:
    """The arms that people can compare with the baseline: all that were told the prompt, if the baseline was.

    The prompt stands above every pair. An arm that generates from the empty prompt would be judged by what it was
    not asked for, and lose.
    """
    told = study.arm(study.baseline).prompt
    return [name for name, arm in study.compared.items() if arm.prompt == told]


def matches(arms: Iterable[str], baseline: str, pairs_with: str) -> list[tuple[str, str]]:
    """The two arms of every comparison, in the order of their names."""
    if pairs_with == "baseline":
        return [(min(arm, baseline), max(arm, baseline)) for arm in arms if arm != baseline]
    return list(combinations(sorted(arms), 2))


def draw_pairs(
    arms: Mapping[str, Sequence[Candidate]], played: Sequence[tuple[str, str]], count: int, seed: int
) -> list[SampledPair]:
    """For each of the matches `played`, `count` images of the same prompt and seed, sides and order drawn at random."""
    lot = Lot(seed)
    pairs: dict[str, tuple[Candidate, Candidate]] = {}
    for one, other in played:
        partners = {candidate.pair_id: candidate for candidate in arms[other]}
        for left in sorted(arms[one], key=lambda c: lot.number("pair", one, other, c.pair_id))[:count]:
            right = partners[left.pair_id]
            task = lot.task_id("pair", left.image_id, left.digest, right.image_id, right.digest)
            pairs[task] = (right, left) if lot.number("side", task) < 0.5 else (left, right)
    return [
        SampledPair(
            task_id=task,
            pair_id=pairs[task][0].pair_id,
            prompt=pairs[task][0].prompt,
            left_arm=pairs[task][0].arm,
            right_arm=pairs[task][1].arm,
            left_image_id=pairs[task][0].image_id,
            right_image_id=pairs[task][1].image_id,
            position=position,
        )
        for position, task in enumerate(sorted(pairs, key=lambda task: lot.number("queue", task)))
    ]


def candidates_of(arm: str, sets: Path, scores: Path) -> list[Candidate]:
    """The images of an arm. Raises InputError where the set or its scores are missing or of other images."""
    path = scores / f"{arm}.parquet"
    score = {row["image_id"]: row.get("p_malformed") for row in read_table(path).to_pylist()}
    candidates = []
    for shard in shard_paths(sets / arm):
        for row in read_table(shard, ["image_id", "pair_id", "prompt", "image"]).to_pylist():
            if row["image_id"] not in score:
                raise InputError(f"{path} has no row for '{row['image_id']}'; delete it and run `dvc repro`")
            try:
                width, height = open_image(row["image"]["bytes"]).size
            except OSError as error:
                raise InputError(
                    f"{shard} holds an unreadable image ({error}); delete it and run `dvc repro`"
                ) from None
            candidates.append(
                Candidate(
                    image_id=row["image_id"],
                    arm=arm,
                    pair_id=row["pair_id"],
                    prompt=row["prompt"],
                    canvas=f"{width}x{height}",
                    digest=hashlib.sha256(row["image"]["bytes"]).hexdigest(),
                    p_malformed=score[row["image_id"]],
                )
            )
    return candidates


@dataclass(frozen=True)
class Size:
    """How many `pairs` people see of each match and `images` of each arm; 0 where they are not asked."""

    pairs: int
    images: int


def size_of(settings: Labeling, minutes: float, matched: int, arms: int, most: int) -> Size:
    """What one person answers in `minutes`, of `most` images per arm at most and one at least."""
    seconds = 60 * minutes / (2 if settings.ask == "both" else 1)
    pairs = seconds / settings.seconds_per_pair / max(matched, 1)
    images = seconds / settings.seconds_per_image / (arms * (1 + settings.repeats))
    return Size(
        pairs=min(most, max(1, int(pairs))) if settings.ask != "images" and matched else 0,
        images=min(most, max(1, int(images))) if settings.ask != "pairs" else 0,
    )


def told_by(size: Size, study: Study, scores: Sequence[float], most: int) -> str:
    """What a size can tell, in words. `scores` are P(malformed) of all images."""
    told = []
    if size.pairs:
        told.append(f"a preference of {told_preference(size.pairs, study.metrics.level):.0%} from an even one")
    if size.images:
        rate = study.labeling.expected_rate
        more = 100 * told_difference(size.images, rate, study.metrics.level)
        worth = worth_with_scores(size.images, most, _correlation(scores))
        calibrated = f" (like {worth} labels if P(malformed) is calibrated)" if worth > size.images else ""
        told.append(f"{more:.0f} points more malformed people from {rate:.0%}{calibrated}")
    return " and ".join(told)


def size_lines(study: Study, candidates: Mapping[str, Sequence[Candidate]]) -> list[str]:
    """What the study's size and those on offer take and tell, a line each."""
    settings = study.labeling
    played = matches(judged_alike(study), study.baseline, settings.pairs_with)
    most = min(len(own) for own in candidates.values())
    known = [candidate.p_malformed for own in candidates.values() for candidate in own]
    scores = [score for score in known if score is not None]
    lines = []
    for minutes in sorted({*OFFERED, settings.minutes}):
        size = size_of(settings, minutes, len(played), len(candidates), most)
        shown = [f"{size.pairs} pairs for each of {len(played)} comparisons"] if size.pairs else []
        shown += [f"{size.images} images of each of {len(candidates)} arms"] if size.images else []
        chosen = ", this sample" if minutes == settings.minutes else ""
        tells = told_by(size, study, scores, most) or "nothing"
        lines.append(f"{_duration(minutes)}{chosen}: {' and '.join(shown)}, tells {tells}")
    return lines


def _duration(minutes: float) -> str:
    said = f"{minutes:g} minutes" if minutes < 120 else f"{minutes / 60:g} hours"
    return f"{said} (labeling.minutes={minutes:g})"


def _correlation(scores: Sequence[float]) -> float:
    if not scores:
        return 0.0
    # Of a calibrated score Cov(Y, f) = Var(f), so r² = Var(f) / Var(Y).
    mean = fmean(scores)
    spread = fmean((score - mean) ** 2 for score in scores)
    return math.sqrt(spread / (mean * (1 - mean))) if 0 < mean < 1 else 0.0


def sample(study: Study, sets: Path, scores: Path) -> tuple[list[SampledTask], list[SampledPair], list[str]]:
    """The tasks and pairs of a study, and lines on what their number tells. Raises InputError."""
    arms = {arm: candidates_of(arm, sets, scores) for arm in study.compared}
    settings = study.labeling
    played = matches(judged_alike(study), study.baseline, settings.pairs_with)
    most = min(len(candidates) for candidates in arms.values())
    size = size_of(settings, settings.minutes, len(played), len(arms), most)
    prompts_of_pairs(arms)  # whoever is shown beside another shares its pairs
    tasks = draw_tasks(arms, size.images, settings) if size.images else []
    pairs = draw_pairs(arms, played, size.pairs, settings.seed)
    return tasks, pairs, size_lines(study, arms)


def _task(
    task: str,
    candidate: Candidate,
    stratum: str,
    probability: float,
    batch: str,
    position: int,
    repeat_of: str | None,
    overlap: int,
) -> SampledTask:
    return SampledTask(
        task_id=task,
        image_id=candidate.image_id,
        arm=candidate.arm,
        pair_id=candidate.pair_id,
        canvas=candidate.canvas,
        stratum=stratum,
        inclusion_probability=probability,
        batch=batch,  # type: ignore[arg-type]
        repeat_of=repeat_of,
        overlap=overlap,
        position=position,
    )


def main() -> None:
    stage_parser("labeling.sampling.sample", __doc__).parse_args()
    study = load_study()
    tasks, pairs, sizes = sample(study, SETS, SCORES)
    write_tasks(SAMPLED_TASKS, tasks)
    if pairs:
        write_pairs(SAMPLED_PAIRS, pairs)
    else:
        SAMPLED_PAIRS.unlink(missing_ok=True)
    triage = sum(task.batch == "triage" for task in tasks)
    repeats = sum(task.repeat_of is not None for task in tasks)
    of_tasks = f" ({repeats} repeats, {triage} for triage)" if tasks else ""
    print(f"sample: {len(pairs)} pairs and {len(tasks)} single images{of_tasks} in {SAMPLED_TASKS.parent}/")
    for line in sizes:
        print(f"  {line}")
    power = f"Told in {POWER:.0%} of studies, at {study.metrics.level:.0%} confidence, each comparison by itself."
    print(f"  {power} `labeling.ask=images` asks for verdicts, `labeling.ask=both` for both.")


if __name__ == "__main__":
    run_stage(main)
