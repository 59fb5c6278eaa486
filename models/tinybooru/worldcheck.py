"""Is the embedded world good enough to do science on? `make worldcheck` draws images, judges them and counts hands.

Images are drawn from held-out prompts with the shipped weights and kept in data/worldcheck, so a stopped check
continues where it was. The figures go to worldcheck.json, each with its interval, its number of images and the bar it
is compared with; the same seeds under each guidance go to contact.png.
"""

import argparse
import json
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from PIL import Image
from tqdm import tqdm

from eval.distances.frechet import frechet_distance
from eval.distances.neighbour_deletions import deleted_recall_and_coverage
from eval.features.clip import load_clip
from eval.features.extraction import load_extractor
from eval.features.extractor import Extractor, embed_images
from eval.scorers.malformed import load_classifier
from eval.statistics.bootstrap import bounded, statistic_interval, wilson_interval
from eval.statistics.jackknife import deletion_groups
from models.tinybooru import hands_by_eye
from models.tinybooru.cards import CONTACT, HANDS, WORLDCHECK, shipped_sizes, write_cards
from models.tinybooru.held_out_sets import (
    UNGUIDED,
    draw_set,
    held_out,
    prompt_of,
    study_of,
    texts_of,
    wears_glasses,
)
from models.tinybooru.judge import QUESTIONS, Judgements, load_judge
from models.tinybooru.measure import LEVEL, MEASURED, RESAMPLES, ranking_quality
from pipeline.errors import InputError, run_stage
from pipeline.execution.allocator import keep_freed_memory
from pipeline.generation.arm_generator import ArmGenerator
from pipeline.results.interval import Interval
from pipeline.storage.files import write_atomically
from pipeline.storage.shards import decode_images, read_set
from pipeline.tinybooru.build import CANVAS, build
from pipeline.tinybooru.image import Plan, draw

HERE = Path(__file__).parent
SETS = Path("data/worldcheck")
NEGATIVE = "bad anatomy, worst quality"
# Below, nothing is left to mend; above, nothing to spoil.
WRONG_HANDS = (0.15, 0.6)


@dataclass(frozen=True)
class Drawn:
    """One set to draw: an arm (keys of conf/arm) and the prompts it gets."""

    prompts: str
    arm: dict[str, Any]


def _cfg(scale: float) -> dict[str, Any]:
    return {"method": "cfg", "scale": scale}


def _auto(scale: float) -> dict[str, Any]:
    return {"method": "autoguidance", "scale": scale}


NEGATIVE_SCALE = 2.0
RECALL_K, COVERAGE_K = 3, 5  # as in the default study
SETS_DRAWN = {
    "unguided": Drawn("good", UNGUIDED),
    "cfg_2": Drawn("good", _cfg(2.0)),
    "autoguidance_125": Drawn("good", _auto(1.25)),
    "autoguidance_15": Drawn("good", _auto(1.5)),
    "bad_anatomy": Drawn("bad anatomy", _cfg(3.0)),
    "no_quality_cfg": Drawn("no quality", _cfg(NEGATIVE_SCALE)),
    "no_quality_negative": Drawn(
        "no quality", {"method": "negative", "scale": NEGATIVE_SCALE, "negative_prompt": NEGATIVE}
    ),
    "waving": Drawn("waving", UNGUIDED),
    "waving_negative": Drawn(
        "waving", {"method": "negative", "scale": NEGATIVE_SCALE, "negative_preset": "field-note-novelai"}
    ),
    "waving_autoguidance": Drawn("waving", _auto(NEGATIVE_SCALE)),
    "waving_autoguidance_15": Drawn("waving", _auto(1.5)),
    "waving_cfg": Drawn("waving", _cfg(NEGATIVE_SCALE)),
    "extra_digit": Drawn("extra digit", _cfg(NEGATIVE_SCALE)),
    "empty": Drawn("empty", UNGUIDED),
    "empty_negative": Drawn("empty", {"method": "negative", "scale": 2.0, "negative_preset": "tinybooru"}),
}
GUIDED = ("cfg_2", "autoguidance_125", "autoguidance_15")
AUTOGUIDED = GUIDED[1:]
# Their finish is held against real images.
FINISHED = ("unguided", *GUIDED)


# Of the prompts of good quality three in five are people and one in seven wears glasses, so figures of those get sets
# of their own: as many images behind them as behind the others.
SETS_OF_PEOPLE = {"people": "good people", "glasses": "glasses"}


def sets_of_people(best: str) -> dict[str, Drawn]:
    """The sets of people, unguided and with the best guidance."""
    return {
        f"{short}_{name}": Drawn(prompts, SETS_DRAWN[name].arm)
        for name in ("unguided", best)
        for short, prompts in SETS_OF_PEOPLE.items()
    }


def draw_sets(sets: dict[str, Drawn], images: int, folder: Path, device: torch.device, compiled: bool) -> None:
    """Draw every set that is not there yet, shard by shard."""
    study = study_of(
        {"unguided": UNGUIDED, **{name: drawn.arm for name, drawn in sets.items()}}, images, compiled=compiled
    )
    for name, drawn in sets.items():
        prompts = [prompt_of(drawn.prompts, plan) for plan in held_out(drawn.prompts, images)]
        draw_set(study, name, prompts, folder / name, device)


@dataclass(frozen=True)
class Looked:
    """A drawn set as the figures need it: the judge's verdicts, P(malformed) [N] and counted digits, vectors [N, D].

    `embeddings` are those of the world's own CLIP, `elsewhere` those of an extractor that was trained on photographs.
    """

    plans: list[Plan]
    judged: Judgements
    p_malformed: torch.Tensor
    digits: list[str]
    embeddings: torch.Tensor
    elsewhere: torch.Tensor


def look(sets: dict[str, Drawn], count: int, folder: Path, models: Path, device: torch.device) -> dict[str, Looked]:
    """Judge, classify and embed drawn sets."""
    judge = load_judge(models / "judge.safetensors", device)
    classifier = load_classifier(models / "malformed.safetensors", device)
    clip, elsewhere = load_clip(models / "clip", device), trained_elsewhere(device)
    found = {}
    for name, drawn in tqdm(sets.items(), desc="worldcheck judged", unit="set", disable=None):
        images = list(decode_images(read_set(folder / name, ["image"])))
        plans_of_set = held_out(drawn.prompts, count)
        found[name] = Looked(
            plans_of_set, judge(images), classifier(images), classifier.counts(images)["digits"],
            embed_images(clip, images), embed_images(elsewhere, images) if name in FINISHED else torch.empty(0),
        )  # fmt: skip
    return found


def trained_elsewhere(device: torch.device) -> Extractor:
    """The extractor of the default study's primary feature space. Raises InputError without its weights."""
    features = study_of({"unguided": UNGUIDED}, 10).features
    return load_extractor(features.extractors[features.spaces[0].extractor], device)


def figure(name: str, interval: Interval, bar: str = "reported", holds: bool | None = None) -> dict[str, Any]:
    """One figure of worldcheck.json; `holds` is None where it is only reported."""
    rounded = {key: round(float(getattr(interval, key)), 4) for key in ("value", "low", "high")}
    return {"name": name, **rounded, "n": interval.n, "bar": bar, "holds": holds}


def rate(right: torch.Tensor, asked: torch.Tensor | None = None) -> Interval:
    """A share of images, bool [N], among those `asked`, with Wilson's interval."""
    right = right if asked is None else right[asked]
    return wilson_interval(int(right.sum()), len(right), LEVEL)


def at_least(name: str, interval: Interval, bar: float) -> dict[str, Any]:
    """A figure that holds where its value reaches the bar."""
    return figure(name, interval, f">= {bar:g}", interval.value >= bar)


def as_prompted(looked: Looked) -> dict[str, Interval]:
    """Shares of images that show what their prompt says, of those whose prompt says it; only what any prompt says."""
    plans_, judged = looked.plans, looked.judged
    said: dict[str, list[str | None]] = {
        "kind": [plan.kind for plan in plans_],
        "style": [plan.style for plan in plans_],
        "hair": [_named(plan, " hair", QUESTIONS["hair"]) for plan in plans_],
        "background": [_named(plan, " background", QUESTIONS["background"]) for plan in plans_],
    }
    shares: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}  # right and asked, bool [N] each
    for question, wanted in said.items():
        given = getattr(judged, question)
        right = torch.tensor([g == w for g, w in zip(given, wanted, strict=True)])
        shares[question] = right, torch.tensor([want is not None for want in wanted])
    worn = torch.tensor([wears_glasses(plan) for plan in plans_])
    shares["glasses"] = judged.glasses, worn
    shares["no glasses"] = ~judged.glasses, torch.tensor([plan.kind == "person" for plan in plans_]) & ~worn
    return {question: rate(right, asked) for question, (right, asked) in shares.items() if asked.any()}


def best_guided(looked: dict[str, Looked]) -> str:
    """The guided set that shows most of what its prompts say."""
    return max(GUIDED, key=lambda name: sum(interval.value for interval in as_prompted(looked[name]).values()))


def as_prompted_of(arm: str, looked: dict[str, Looked]) -> dict[str, Interval]:
    """Shares of an arm: what only people have from its sets of people, the rest from its set of all kinds."""
    people, glasses = (as_prompted(looked[f"{short}_{arm}"]) for short in SETS_OF_PEOPLE)
    of_people = {question: people[question] for question in ("hair", "no glasses")}
    return {**as_prompted(looked[arm]), **of_people, "glasses": glasses["glasses"]}


def _named(plan: Plan, suffix: str, names: tuple[str, ...]) -> str | None:
    return next((name for name in names if f"{name}{suffix}" in plan.tags), None)


def legit(looked: Looked) -> Interval:
    """Share of prompted people that are judged people and not malformed."""
    person = torch.tensor([plan.kind == "person" for plan in looked.plans])
    seen = torch.tensor([kind == "person" for kind in looked.judged.kind])
    return rate(seen & ~looked.judged.malformed, person)


def composition(looked: Looked) -> dict[str, Interval]:
    """Share of each kind."""
    return {kind: rate(torch.tensor([given == kind for given in looked.judged.kind])) for kind in QUESTIONS["kind"]}


def fd_to(reference: torch.Tensor, embeddings: torch.Tensor) -> Interval:
    """Fréchet distance of a set from a reference, with its interval over the set's images."""
    return statistic_interval(
        lambda index: frechet_distance(embeddings[index], reference), len(embeddings), RESAMPLES, LEVEL, 0
    )


def ratio_of_fds(ours: torch.Tensor, others: torch.Tensor, reference: torch.Tensor) -> Interval:
    """Ratio of two sets' Fréchet distances from a reference, with its interval over pairs of images."""
    return statistic_interval(
        lambda index: frechet_distance(ours[index], reference) / frechet_distance(others[index], reference),
        len(ours), RESAMPLES, LEVEL, 0,
    )  # fmt: skip


def recall_of(embeddings: torch.Tensor, reference: torch.Tensor) -> Interval:
    """Recall of a set [N, D], with its interval over the set's images (docs/statistics.md)."""
    groups = deletion_groups(torch.arange(len(embeddings)), 0)
    found, _ = deleted_recall_and_coverage(embeddings, reference, RECALL_K, COVERAGE_K, groups)
    return replace(bounded(found.interval(LEVEL), 0, 1), n=len(embeddings))


def wrong_hands(looked: Looked) -> Interval:
    """Share of waving people whose digits are not five, or cannot be counted."""
    return rate(torch.tensor([digits != "5" for digits in looked.digits]))


def hand_figures(looked: dict[str, Looked]) -> list[dict[str, Any]]:
    """What the hands of waving people are like; there must be something to fix and something to spoil."""
    plain = wrong_hands(looked["waving"])
    low, high = WRONG_HANDS
    more = rate(torch.tensor([digits in ("6", "7") for digits in looked["extra_digit"].digits]))
    return [
        figure("waving people: wrong or uncountable hands, unguided", plain, f"{low:g} to {high:g}",
               low <= plain.value <= high),
        *(figure(f"waving people: wrong or uncountable hands, {words}", wrong_hands(looked[name]))
          for name, words in (("waving_cfg", "CFG at 2"), ("waving_negative", "general negative prompt at 2"),
                              ("waving_autoguidance_15", "autoguidance at 1.5"),
                              ("waving_autoguidance", "autoguidance at 2"))),
        at_least("people prompted with extra digit: more than five digits", more, 0.6),
    ]  # fmt: skip


def figures(
    looked: dict[str, Looked], reference: torch.Tensor, elsewhere: torch.Tensor, real: dict[str, Any]
) -> list[dict[str, Any]]:
    """Every figure of the check.

    `reference` and `elsewhere` [2N, D] are vectors of real images of good quality, as `Looked` has them; their halves
    are each as large as a set.
    `real` is measured.json: what the scorers and the judge reach on real held-out images.
    """
    first, second = reference.chunk(2)
    found = [
        *(at_least(f"judge, real images: {q}", Interval(*real["judge"][q]), bar)
          for q, bar in (("kind", 0.99), ("malformed", 0.97))),
        *(figure(f"judge, real images: {q}", Interval(*real["judge"][q]))
          for q in ("style", "hair", "background", "glasses")),
    ]  # fmt: skip
    best = best_guided(looked)
    bars = {"kind": 0.97, "style": 0.9, "hair": 0.85, "background": 0.9, "glasses": 0.8}
    for question, interval in as_prompted_of(best, looked).items():
        name = f"{question} as prompted, {best}"
        found.append(at_least(name, interval, bars[question]) if question in bars else figure(name, interval))
    found += [
        figure(f"{q} as prompted, unguided", interval) for q, interval in as_prompted_of("unguided", looked).items()
    ]

    guided, plain = (legit(looked[f"people_{name}"]) for name in (best, "unguided"))
    found.append(
        figure(f"people with good quality tags judged legit, {best}", guided, ">= 0.9 and clearly above unguided",
               guided.value >= 0.9 and guided.low > plain.high)
    )  # fmt: skip
    found.append(figure("people with good quality tags judged legit, unguided", plain))
    malformed = {name: looked[name].judged.malformed for name in SETS_DRAWN}
    found.append(at_least("people prompted with bad anatomy judged malformed", rate(malformed["bad_anatomy"]), 0.8))
    with_empty, with_negative = rate(malformed["no_quality_cfg"]), rate(malformed["no_quality_negative"])
    found.append(
        figure(f"no quality tags: malformed with the negative prompt at {NEGATIVE_SCALE:g}", with_negative,
               "<= half of the empty prompt's, which is not 0",
               with_empty.value > 0 and with_negative.value <= with_empty.value / 2)
    )  # fmt: skip
    found.append(figure(f"no quality tags: malformed with the empty prompt at {NEGATIVE_SCALE:g}", with_empty))

    embeddings = {name: looked[name].embeddings for name in ("unguided", *GUIDED)}
    fds = {name: fd_to(first, e) for name, e in embeddings.items()}
    found += [figure(f"FD to real images, {name}", interval) for name, interval in fds.items()]
    autoguided = min(AUTOGUIDED, key=lambda name: fds[name].value)
    ratio = ratio_of_fds(embeddings[autoguided], embeddings["unguided"], first)
    found.append(figure(f"FD of {autoguided} against unguided", ratio, "<= 0.6", ratio.value <= 0.6))
    recalls = {name: recall_of(embeddings[name], first) for name in ("unguided", autoguided)}
    loss = recalls[autoguided].value - recalls["unguided"].value
    found.append(figure(f"recall, {autoguided}", recalls[autoguided], ">= unguided - 0.02", loss >= -0.02))
    found.append(figure("recall, unguided", recalls["unguided"]))
    floor = fd_to(first, second)
    found.append(figure("FD between two real halves", floor))
    closest = min(fds, key=lambda name: fds[name].value)
    # Over the arm's images and those of the second half alike.
    against = ratio_of_fds(embeddings[closest], second, first)
    found.append(figure(f"FD of the best arm ({closest}) against the real halves", against))
    found += [finish(looked, elsewhere), *hand_figures(looked)]

    for name, words in (("empty", "unguided"), ("empty_negative", "pure negative prompt")):
        found += [figure(f"empty prompt, {words}: {kind}", share) for kind, share in composition(looked[name]).items()]
    found.append(
        at_least("malformed classifier against the judge on generated people, ROC AUC", malformed_auc(looked), 0.9)
    )
    for name, key, bar in (
        ("malformed classifier on real images, ROC AUC", "malformed_auc", 0.98),
        ("aesthetic head: masterpiece against worst quality, ROC AUC", "aesthetic_auc_masterpiece_worst", 0.98),
        ("CLIP: own caption first of 100", "clip_first_of_100", 0.6),
    ):
        found.append(at_least(name, Interval(*real[key]), bar))
    return found


def malformed_auc(looked: dict[str, Looked]) -> Interval:
    """ROC AUC of the shipped malformed classifier against the judge's verdicts on generated people."""
    people = [x for name, x in looked.items() if name not in ("empty", "empty_negative")]
    seen = torch.cat([torch.tensor([kind == "person" for kind in x.judged.kind]) for x in people])
    verdicts = torch.cat([x.judged.malformed for x in people])[seen]
    chances = torch.cat([x.p_malformed for x in people])[seen]
    return ranking_quality(verdicts, chances)


def finish(looked: dict[str, Looked], reference: torch.Tensor) -> dict[str, Any]:
    """The best arm's distance to real images in the space trained elsewhere, in floors."""
    first, second = reference.chunk(2)
    distances = {name: frechet_distance(looked[name].elsewhere, first) for name in FINISHED}
    best = min(distances, key=lambda name: distances[name])
    against = ratio_of_fds(looked[best].elsewhere, second, first)
    name = f"FD of the best arm ({best}) against the real halves, space trained elsewhere"
    return figure(name, against, "<= 4", against.value <= 4)


TIMED_STEPS, TIMED_BATCHES = 25, 5


def images_per_second(device: torch.device, compiled: bool) -> Interval:
    """Images a second of TIMED_STEPS steps of two evaluations each: the median batch, the slowest and the fastest."""
    study = study_of({"unguided": UNGUIDED, "cfg": _cfg(3.0)}, 64, steps=TIMED_STEPS, compiled=compiled)
    batch = study.generate.batch
    prompts = [prompt_of("good", plan) for plan in held_out("good", batch)]
    texts, generator = texts_of(study.arm("cfg"), prompts), ArmGenerator(study, "cfg", device)
    rates = []
    for k in range(1 + TIMED_BATCHES):
        started = time.perf_counter()
        generator.draw(texts, list(range(k * batch, (k + 1) * batch)))
        rates.append(batch / (time.perf_counter() - started))
    rates = rates[1:]  # the first one sets the networks' memory up
    return Interval(median(rates), min(rates), max(rates), TIMED_BATCHES * batch)


def of_the_machine(device: torch.device, compiled: bool) -> list[dict[str, Any]]:
    """What the networks weigh, and how fast they draw here."""
    sizes = shipped_sizes(HERE)
    megabytes = sum(sizes.values())
    where = f"{os.cpu_count()} cores" if device.type == "cpu" else torch.cuda.get_device_name(device)
    speed = f"images per second, {TIMED_STEPS} steps of two evaluations, {where}"
    found = [
        figure("shipped weights, MB", Interval(megabytes, megabytes, megabytes, len(sizes)), "<= 60", megabytes <= 60),
        at_least(speed, images_per_second(device, compiled=False), 4),
    ]
    return [*found, at_least(f"{speed}, compiled", images_per_second(device, compiled=True), 4)] if compiled else found


CONTACT_COLUMNS = 16
CONTACT_ROWS = {
    "unguided": UNGUIDED,
    "cfg_2": _cfg(2.0),
    "negative": {"method": "negative", "scale": 1.5, "negative_preset": "tinybooru"},
    "autoguidance_15": _auto(1.5),
}


def contact_sheet(real: list[Image.Image], rows: list[list[Image.Image]]) -> Image.Image:
    """Images of one row side by side, `real` on top; every row shows the same prompts and seeds."""
    width, height = real[0].size
    sheet = Image.new("RGB", (width * len(real), height * (1 + len(rows))))
    for y, row in enumerate([real, *rows]):
        for x, image in enumerate(row):
            sheet.paste(image, (x * width, y * height))
    return sheet


def contact_rows(device: torch.device) -> Image.Image:
    """The first held-out prompts of good quality: as the world draws them, and under each of CONTACT_ROWS."""
    plans_ = held_out("good", CONTACT_COLUMNS)
    study, prompts = study_of(CONTACT_ROWS, CONTACT_COLUMNS), [prompt_of("good", plan) for plan in plans_]
    for name in CONTACT_ROWS:
        draw_set(study, name, prompts, SETS / "contact" / name, device)
    rows = [list(decode_images(read_set(SETS / "contact" / name, ["image"]))) for name in CONTACT_ROWS]
    return contact_sheet([draw(plan, CANVAS) for plan in plans_], rows)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m models.tinybooru.worldcheck", description=__doc__)
    parser.add_argument("--images", type=int, default=2048, help="images per set (default: 2048)")
    parser.add_argument("--output", type=Path, default=HERE / WORLDCHECK, help="where the figures go")
    parser.add_argument("--no-compile", action="store_true", help="leave out torch.compile (slower, no wait)")
    images, output = (arguments := parser.parse_args()).images, arguments.output
    compiled = not arguments.no_compile
    real_path = HERE / MEASURED
    if not real_path.exists() or "judge" not in (real := json.loads(real_path.read_text("utf-8"))):
        raise InputError(f"{real_path} holds no figures of the judge; `make train` makes them")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    keep_freed_memory()
    machine = of_the_machine(device, compiled)
    draw_sets(SETS_DRAWN, images, SETS, device, compiled)
    looked = look(SETS_DRAWN, images, SETS, HERE, device)
    people = sets_of_people(best_guided(looked))
    draw_sets(people, images, SETS, device, compiled)
    looked |= look(people, images, SETS, HERE, device)
    build(
        SETS / "real",
        "reference",
        2 * images,
        study_of({"unguided": UNGUIDED}, images).reference.world_seed,
        good_only=True,
    )
    reference, elsewhere = (
        embed_images(extractor, decode_images(read_set(SETS / "real", ["image"])))
        for extractor in (load_clip(HERE / "clip", device), trained_elsewhere(device))
    )
    found = [*figures(looked, reference, elsewhere, real), *machine]
    hands = hands_by_eye.tables(
        {name: looked[name].digits for name in hands_by_eye.counted_by_eye()},
        {name: list(decode_images(read_set(SETS / name, ["image"]))) for name in hands_by_eye.counted_by_eye()},
    )
    write_atomically(output.with_name(HANDS), (json.dumps(hands, indent=1) + "\n").encode())
    write_atomically(output, (json.dumps(found, indent=1) + "\n").encode())
    contact_rows(device).save(output.with_name(CONTACT), optimize=True)
    write_cards(HERE)
    missed = [str(entry["name"]) for entry in found if entry["holds"] is False]
    print(
        f"worldcheck: {len(found)} figures in {output}; "
        + (f"out of reach: {', '.join(missed)}" if missed else "all bars hold")
    )


if __name__ == "__main__":
    run_stage(main)
