"""The sample: random within strata at known probabilities, blind, and stable while the study grows."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eval.scorers.arm_scores import SCORE_FEATURES
from labeling.records import read_pairs, read_tasks, write_pairs, write_tasks
from labeling.sampling.sample import (
    Candidate,
    Lot,
    Size,
    draw_pairs,
    draw_random,
    draw_tasks,
    matches,
    sample,
    size_of,
)
from labeling.sampling.sample_size import told_difference, told_preference, worth_with_scores
from pipeline.errors import InputError
from pipeline.generation.shard_files import SET_FEATURES
from pipeline.storage.shards import encode_png, write_shard
from pipeline.study.study import Labeling, parse_study

SETTINGS = Labeling(
    ask="both",
    pairs_with="baseline",
    minutes=20,
    seconds_per_pair=6,
    seconds_per_image=8,
    expected_rate=0.2,
    repeats=0.1,
    overlap=0.2,
    labellers=2,
    triage=5,
    seed=0,
    transport="upload",
    preannotate=False,
)
ARMS = ("unguided", "cfg", "negative")


def candidates(arm, count=100, prompts=100):
    random = np.random.default_rng(sum(map(ord, arm)))
    return [
        Candidate(
            f"{arm}-{k:06d}", arm, k, f"prompt {k % prompts}", "64x64", f"pixels of {arm} {k}", float(random.uniform())
        )
        for k in range(count)
    ]


def population(**kwargs):
    return {arm: candidates(arm, **kwargs) for arm in ARMS}


def test_every_pair_is_drawn_with_the_probability_that_its_task_says():
    """Also where prompts have unequally many pairs, so that strata round to unequal probabilities."""
    prompts = {k: f"prompt {k % 7}" for k in range(60) if k % 7 or k < 30}
    drawn, said = Counter(), {}
    seeds = 4000
    for seed in range(seeds):
        for pair in draw_random(prompts, 20, Lot(seed)):
            drawn[pair.pair_id] += 1
            said[pair.pair_id] = pair.inclusion_probability
    assert set(said) == set(prompts)
    assert len(set(said.values())) > 1
    for pair, probability in said.items():
        error = (drawn[pair] / seeds - probability) / np.sqrt(probability * (1 - probability) / seeds)
        assert abs(error) < 4.5, pair


def test_every_prompt_is_seen_where_the_labels_allow_it():
    ten = {k: f"prompt {k % 10}" for k in range(100)}
    assert min(Counter(ten[pair.pair_id] for pair in draw_random(ten, 25, Lot(0))).values()) >= 2
    each_its_own = {k: f"prompt {k}" for k in range(100)}
    assert {pair.stratum for pair in draw_random(each_its_own, 25, Lot(0))} == {""}


def test_all_arms_show_the_same_pairs():
    tasks = [t for t in draw_tasks(population(), 20, SETTINGS) if t.batch == "random" and t.repeat_of is None]
    pairs = {arm: {task.pair_id for task in tasks if task.arm == arm} for arm in ARMS}
    assert len(pairs["cfg"]) == 20
    assert pairs["cfg"] == pairs["unguided"] == pairs["negative"]


def test_an_arm_with_the_empty_prompt_shares_the_strata_of_the_others():
    arms = population(count=60, prompts=5)
    arms["negative"] = [replace(image, prompt="") for image in arms["negative"]]
    tasks = [t for t in draw_tasks(arms, 20, SETTINGS) if t.batch == "random" and t.repeat_of is None]
    drawn = {arm: {(t.pair_id, t.stratum.removeprefix(arm)) for t in tasks if t.arm == arm} for arm in ARMS}
    assert drawn["negative"] == drawn["cfg"] == drawn["unguided"]
    assert len({stratum for _, stratum in drawn["negative"]}) == 5


def test_a_larger_sample_keeps_the_tasks_of_the_smaller_one():
    small, large = (
        {t.task_id for t in draw_tasks(population(), n, SETTINGS) if t.batch == "random" and t.repeat_of is None}
        for n in (20, 40)
    )
    assert small < large


def test_an_image_drawn_anew_is_another_task_and_the_rest_stay():
    before = draw_tasks(population(), 20, SETTINGS)
    arms = population()
    arms["cfg"] = [
        Candidate(p.image_id, p.arm, p.pair_id, p.prompt, p.canvas, "other pixels", 0.5) for p in arms["cfg"]
    ]
    after = draw_tasks(arms, 20, SETTINGS)
    random = [{t.task_id for t in tasks if t.batch == "random" and not t.repeat_of} for tasks in (before, after)]
    kept = {t.task_id for t in before if t.arm != "cfg" and t.batch == "random" and not t.repeat_of}
    assert random[0] & random[1] == kept


def test_neither_id_nor_position_tells_the_arm():
    """Ids of one arm are spread over all ids, and its positions over the queue, like a fair shuffle's."""
    tasks = [t for t in draw_tasks(population(count=400, prompts=400), 300, SETTINGS) if t.batch == "random"]
    assert all(set(t.task_id) <= set("0123456789abcdef") and len(t.task_id) == 16 for t in tasks)
    for rank in (lambda t: t.task_id, lambda t: t.position):
        order = [t.arm for t in sorted(tasks, key=rank)]
        for arm in ARMS:
            places = [k for k, name in enumerate(order) if name == arm]
            spread = len(order) / np.sqrt(12 * len(places))
            assert abs(np.mean(places) - (len(order) - 1) / 2) < 4 * spread


def test_repeats_come_later_and_show_the_same_image():
    tasks = {t.task_id: t for t in draw_tasks(population(), 40, SETTINGS)}
    repeats = [t for t in tasks.values() if t.repeat_of]
    assert len(repeats) == 12
    for again in repeats:
        first = tasks[again.repeat_of]
        assert (first.image_id, first.repeat_of) == (again.image_id, None)
        assert again.position > first.position
    assert sorted(t.position for t in tasks.values()) == list(range(len(tasks)))
    assert sum(t.overlap == 2 for t in tasks.values() if not t.repeat_of and t.batch == "random") == 24


def test_triage_takes_the_least_certain_images_and_none_of_the_random_batch():
    arms = population()
    tasks = draw_tasks(arms, 40, SETTINGS)
    drawn = {t.image_id for t in tasks if t.batch == "random"}
    for arm in ARMS:
        chosen = {t.image_id for t in tasks if t.batch == "triage" and t.arm == arm}
        rest = {p.image_id: abs(p.p_malformed - 0.5) for p in arms[arm] if p.image_id not in drawn}
        assert chosen == set(sorted(rest, key=rest.get)[: SETTINGS.triage])
    assert max(t.position for t in tasks if t.batch == "random") < min(t.position for t in tasks if t.batch == "triage")


def test_pairs_share_prompt_and_seed_and_their_sides_are_shuffled():
    pairs = draw_pairs(population(), matches(ARMS, "unguided", "every"), 50, seed=0)
    assert len(pairs) == 150
    assert len({pair.task_id for pair in pairs}) == 150
    for pair in pairs:
        assert {pair.left_image_id, pair.right_image_id} == {
            f"{pair.left_arm}-{pair.pair_id:06d}",
            f"{pair.right_arm}-{pair.pair_id:06d}",
        }
    left = Counter(pair.left_arm for pair in pairs if {pair.left_arm, pair.right_arm} == {"cfg", "negative"})
    assert 10 < left["cfg"] < 40


def test_every_arm_is_shown_beside_the_baseline_unless_asked_otherwise():
    assert matches(ARMS, "unguided", "baseline") == [("cfg", "unguided"), ("negative", "unguided")]
    pairs = draw_pairs(population(), matches(ARMS, "unguided", "baseline"), 30, seed=0)
    shown = Counter(frozenset({pair.left_arm, pair.right_arm}) for pair in pairs)
    assert shown == {frozenset({"cfg", "unguided"}): 30, frozenset({"negative", "unguided"}): 30}
    more = draw_pairs(population(), matches(ARMS, "unguided", "every"), 40, seed=0)
    assert {pair.task_id for pair in pairs} < {pair.task_id for pair in more}


@pytest.mark.parametrize(("ask", "pairs", "images"), [("pairs", 100, 0), ("images", 0, 45), ("both", 50, 22)])
def test_the_size_is_what_one_person_answers_in_the_time(ask, pairs, images):
    size = size_of(SETTINGS.model_copy(update={"ask": ask}), 20, matched=2, arms=3, most=192)
    assert (size.pairs, size.images) == (pairs, images)
    assert size.pairs * 2 * 6 + size.images * 3 * 1.1 * 8 <= 20 * 60


def test_nobody_is_asked_about_more_images_than_an_arm_has_or_about_none():
    assert size_of(SETTINGS, 6000, 2, 3, most=192) == Size(192, 192)
    assert size_of(SETTINGS, 0.01, 2, 3, most=192) == Size(1, 1)
    assert size_of(SETTINGS, 20, 0, 1, most=192).pairs == 0, "a study of one arm has nothing to compare"


@pytest.mark.parametrize("pairs", [30, 180])
def test_a_preference_that_can_be_told_is_told_four_times_in_five(pairs):
    share = told_preference(pairs, 0.95)
    won = np.random.default_rng(0).binomial(pairs, share, 20_000)
    assert np.mean(np.abs(won / pairs - 0.5) > 1.96 * 0.5 / np.sqrt(pairs)) == pytest.approx(0.8, abs=0.06)


@pytest.mark.parametrize("labels", [40, 200])
def test_a_difference_that_can_be_told_is_told_four_times_in_five(labels):
    random, rate = np.random.default_rng(0), 0.2
    one = random.binomial(labels, rate, 20_000) / labels
    other = random.binomial(labels, rate + told_difference(labels, rate, 0.95), 20_000) / labels
    mean = (one + other) / 2
    told = np.abs(other - one) > 1.96 * np.sqrt(2 * mean * (1 - mean) / labels)
    assert np.mean(told) == pytest.approx(0.8, abs=0.03)


def test_good_scores_are_worth_labels_and_useless_ones_none():
    assert worth_with_scores(100, 2000, 0.0) == 100
    # With 100 labels and r = 0.8 among 2,000 images: Var = 0.36 (1/100 - 1/2000) + 1/2000 of Var(Y).
    assert worth_with_scores(100, 2000, 0.8) == round(1 / (0.36 * (1 / 100 - 1 / 2000) + 1 / 2000))
    assert worth_with_scores(16, 16, 0.9) == 16


def _write(root: Path, arm: str, count: int) -> None:
    ids = [f"{arm}-{k:06d}" for k in range(count)]
    images = [encode_png(Image.new("RGB", (4, 4), (k, len(arm), 0))) for k in range(count)]
    columns = {
        "image_id": ids,
        "image": [{"bytes": png, "path": None} for png in images],
        "arm": [arm] * count,
        "pair_id": list(range(count)),
        "prompt": [f"prompt {k}" for k in range(count)],
        "negative_prompt": [""] * count,
        "seed": list(range(count)),
    }
    write_shard(root / "sets" / arm / "part-00000.parquet", columns, SET_FEATURES, "mark")
    scores = {name: [0.25] * count for name in SCORE_FEATURES if name not in ("image_id", "pair_id")}
    scores |= {"image_id": ids, "pair_id": list(range(count)), "inside_reference": [True] * count}
    write_shard(root / "scores" / f"{arm}.parquet", scores, SCORE_FEATURES, "mark")


@pytest.mark.parametrize("ask", ["pairs", "images", "both"])
def test_the_sample_of_a_study_comes_back_from_its_files(tmp_path, params, ask):
    params["labeling"]["ask"] = ask
    study = parse_study(params, "test")
    for arm in study.arms:
        _write(tmp_path, arm, 16)
    tasks, pairs, sizes = sample(study, tmp_path / "sets", tmp_path / "scores")
    assert (bool(tasks), bool(pairs)) == (ask != "pairs", ask != "images")
    write_tasks(tmp_path / "tasks.parquet", tasks)
    write_pairs(tmp_path / "pairs.parquet", pairs)
    assert read_tasks(tmp_path / "tasks.parquet") == tasks
    assert read_pairs(tmp_path / "pairs.parquet") == pairs
    assert read_pairs(tmp_path / "none.parquet") == []
    assert (tasks, pairs, sizes) == sample(study, tmp_path / "sets", tmp_path / "scores")
    assert [line.partition(":")[0] for line in sizes] == [
        "20 minutes (labeling.minutes=20), this sample",
        "2 hours (labeling.minutes=120)",
    ]
    assert ("% from an even one" in sizes[0]) == (ask != "images")
    assert ("points more malformed people from 20%" in sizes[0]) == (ask != "pairs")


def test_people_are_not_shown_the_baseline_from_other_seeds(tmp_path, params):
    params["labeling"] |= {"ask": "both", "pairs_with": "every"}
    params["arms"]["reseeded"] = params["arms"]["unguided"] | {"first_seed": 1000}
    study = parse_study(params, "test")
    for arm in study.arms:
        _write(tmp_path, arm, 16)
    tasks, pairs, _ = sample(study, tmp_path / "sets", tmp_path / "scores")
    shown = {task.arm for task in tasks} | {arm for pair in pairs for arm in (pair.left_arm, pair.right_arm)}
    assert shown == set(study.arms) - {"reseeded"}


def test_scores_of_other_images_are_refused(tmp_path, params):
    study = parse_study(params, "test")
    for arm in study.arms:
        _write(tmp_path, arm, 16)
    _write(tmp_path / "fewer", "cfg", 12)
    (tmp_path / "fewer/scores/cfg.parquet").replace(tmp_path / "scores/cfg.parquet")
    with pytest.raises(InputError, match=r"cfg.parquet has no row for 'cfg-000012'"):
        sample(study, tmp_path / "sets", tmp_path / "scores")


@pytest.mark.parametrize("pairs_with", ["baseline", "every"])
def test_an_arm_that_was_not_told_the_prompt_is_not_judged_by_it(tmp_path, params, pairs_with):
    params["labeling"] |= {"ask": "both", "pairs_with": pairs_with}
    params["arms"]["blind"] = {"method": "negative", "scale": 2.0, "prompt": "empty", "negative_prompt": "blurry"}
    study = parse_study(params, "test")
    for arm in study.arms:
        _write(tmp_path, arm, 16)
    tasks, pairs, sizes = sample(study, tmp_path / "sets", tmp_path / "scores")
    beside = {arm for pair in pairs for arm in (pair.left_arm, pair.right_arm)}
    assert beside == {name for name, arm in study.arms.items() if arm.prompt != "empty"}
    assert "blind" in {task.arm for task in tasks}
    assert f" each of {len({frozenset((p.left_arm, p.right_arm)) for p in pairs})} comparisons" in sizes[0]
