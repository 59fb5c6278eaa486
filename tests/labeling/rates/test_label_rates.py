"""From labels to rates: equal to hand-computed numbers, unbiased by triage, marked where simulated."""

from datetime import UTC, datetime

import numpy as np
import pytest
from compositions import composed
from datasets import Features, Value
from hypothesis import given, settings
from hypothesis import strategies as st

from labeling.rates import ppi
from labeling.rates.label_rates import ArmScores, estimate, load_scores
from labeling.records import Label, PairLabel, SampledPair, SampledTask
from pipeline.errors import InputError
from pipeline.results.rates import load_rates
from pipeline.storage.shards import write_shard
from pipeline.study.study import Study, parse_study

NOW = datetime(2026, 1, 1, tzinfo=UTC)
IMAGES = 40
VERDICTS = ("legit_human", "malformed_human", "object_or_scenery", "pattern")
SCORES = ("kind_legit_human", "p_malformed", "kind_object_or_scenery", "kind_pattern")


@pytest.fixture
def study(params) -> Study:
    params["arms"] = {name: params["arms"][name] for name in ("unguided", "cfg", "negative")}
    return parse_study(params, "test")


def task(arm: str, pair: int, **changes: object) -> SampledTask:
    return SampledTask.model_validate(
        {
            "task_id": f"{arm}-{pair}",
            "image_id": f"{arm}-{pair:06d}",
            "arm": arm,
            "pair_id": pair,
            "canvas": "64x64",
            "stratum": arm,
            "inclusion_probability": 0.5,
            "batch": "random",
            "position": pair,
            **changes,
        }
    )


def label(task_id: str, verdict: str, labeller: str = "p1", **changes: object) -> Label:
    return Label.model_validate(
        {
            "task_id": task_id,
            "labeller": labeller,
            "verdict": verdict,
            "created_at": NOW,
            "simulated": False,
            **changes,
        }
    )


def scores(seed: int = 0, kinds: bool = False) -> dict[str, ArmScores]:
    random = np.random.default_rng(seed)
    names = ["p_malformed", *(("kind_legit_human", "kind_pattern") if kinds else ())]
    rows = {k: k for k in range(IMAGES)}
    return {
        arm: ArmScores({name: random.uniform(size=IMAGES) for name in names}, rows)
        for arm in ("unguided", "cfg", "negative")
    }


def twenty(arm: str, malformed: int, **changes: object) -> tuple[list[SampledTask], list[Label]]:
    """20 labelled images of an arm, the first `malformed` of them malformed people."""
    tasks = [task(arm, pair, **changes) for pair in range(20)]
    verdicts = ["malformed_human"] * malformed + ["legit_human"] * (20 - malformed)
    return tasks, [label(t.task_id, v) for t, v in zip(tasks, verdicts, strict=True)]


def test_the_rate_of_a_plain_sample_is_wilsons(study):
    tasks, labels = twenty("cfg", 4)
    arm = estimate(study, tasks, labels, [], [], scores()).of_arm("cfg")
    found = arm.verdicts["malformed_human"].classical
    # Wilson at 4 of 20, z = 1.959964: centre (0.2 + z²/40) / (1 + z²/20), worked out by hand.
    assert found.value == pytest.approx(0.2)
    assert (found.low, found.high) == pytest.approx((0.080657, 0.416017), abs=1e-6)
    assert arm.verdicts["legit_human"].classical.value == pytest.approx(0.8)
    assert arm.verdicts["pattern"].classical.value == 0
    assert (arm.images, arm.canvas, arm.simulated) == (20, "64x64", False)


def test_several_peoples_labels_of_an_image_count_once(study):
    tasks, labels = twenty("cfg", 4)
    labels += [label("cfg-0", "legit_human", "p2"), label("cfg-1", "malformed_human", "p2")]
    arm = estimate(study, tasks, labels, [], [], scores()).of_arm("cfg")
    # Image 0 is half malformed: 3.5 of 20.
    assert arm.verdicts["malformed_human"].classical.value == pytest.approx(3.5 / 20)
    assert arm.images == 20


def test_rarely_drawn_images_count_more(study):
    tasks = [task("cfg", 0, inclusion_probability=0.1), task("cfg", 1), task("cfg", 2)]
    labels = [label("cfg-0", "pattern"), label("cfg-1", "legit_human"), label("cfg-2", "legit_human")]
    rate = estimate(study, tasks, labels, [], [], scores()).of_arm("cfg").verdicts["pattern"].classical
    assert rate.value == pytest.approx(10 / (10 + 2 + 2))


def test_triage_and_repeats_change_no_rate(study):
    tasks, labels = twenty("cfg", 4)
    plain = estimate(study, tasks, labels, [], [], scores())
    more = [
        *(task("cfg", pair, batch="triage", inclusion_probability=1.0) for pair in range(20, 30)),
        task("cfg", 0, task_id="again", repeat_of="cfg-0", position=50),
    ]
    given = [label(t.task_id, "malformed_human") for t in more]
    both = estimate(study, tasks + more, labels + given, [], [], scores())
    assert both.arms == plain.arms
    assert both.calibration == plain.calibration
    assert [(s.labeller, s.same.value, s.same.n) for s in both.self_agreement] == [("p1", 1.0, 1)]


def test_a_difference_is_over_shared_pairs(study):
    ours, theirs = twenty("cfg", 8), twenty("unguided", 4)
    rates = estimate(study, ours[0] + theirs[0], ours[1] + theirs[1], [], [], scores())
    (difference,) = rates.differences
    found = difference.verdicts["malformed_human"].classical
    assert (difference.arm, difference.pairs, found.value) == ("cfg", 20, pytest.approx(0.2))
    # Bonett and Price: 4 pairs of 20 in one direction, 0 in the other, so (5 - 1) / 22 and variance by hand.
    half = 1.959964 * np.sqrt((5 / 22 + 1 / 22 - (4 / 22) ** 2) / 22)
    assert (found.low, found.high) == pytest.approx((4 / 22 - half, 4 / 22 + half), abs=1e-6)


def test_scores_of_the_verdict_make_a_second_interval(study):
    tasks, labels = twenty("cfg", 4)
    arm = estimate(study, tasks, labels, [], [], scores(kinds=True)).of_arm("cfg")
    assert arm.verdicts["pattern"].powered is not None
    assert arm.verdicts["legit_human"].powered is not None
    assert arm.verdicts["object_or_scenery"].powered is None


def test_every_image_has_its_own_score_of_its_verdict(study, tmp_path):
    random = np.random.default_rng(0)
    verdicts = {
        "unguided": np.array([VERDICTS[k // 2 % 4] for k in range(IMAGES)]),
        "cfg": np.array([VERDICTS[k % 4] for k in range(IMAGES)]),
    }
    tasks = [task(arm, pair) for arm in verdicts for pair in range(20)]
    labels = [label(t.task_id, verdicts[t.arm][t.pair_id]) for t in tasks]
    told, mixed = {}, {}
    for arm, own in verdicts.items():
        told[arm] = {verdict: 0.5 * (own == verdict) + random.uniform(0, 0.5, IMAGES) for verdict in VERDICTS}
        order = random.permutation(IMAGES)
        columns = {score: told[arm][verdict][order] for verdict, score in zip(VERDICTS, SCORES, strict=True)}
        features = Features({"pair_id": Value("int64"), **dict.fromkeys(SCORES, Value("float64"))})
        write_shard(tmp_path / f"{arm}.parquet", {"pair_id": order, **columns}, features, "mark")
        mixed[arm] = load_scores(tmp_path, arm)
    rates = estimate(study, tasks, labels, [], [], mixed)
    for verdict in VERDICTS:
        (base, of_base), (ours, of_ours) = (
            ((own == verdict)[:20] * 1.0, told[arm][verdict]) for arm, own in verdicts.items()
        )
        for found, powered, seen, score in (
            (rates.of_arm("cfg"), ppi.rate, ours, of_ours),
            (rates.of_arm("unguided"), ppi.rate, base, of_base),
            (rates.differences[0], ppi.difference, ours - base, of_ours - of_base),
            (rates.canvases[0], ppi.rate, (ours + base) / 2, (of_ours + of_base) / 2),
        ):
            expected = powered(seen, [0.5] * 20, 0.95, IMAGES, score[:20], score)
            assert expected.scores_used > 0.5
            one = found.verdicts[verdict].powered
            assert (one.value, one.low, one.high) == pytest.approx((expected.value, expected.low, expected.high))


def test_a_canvas_is_the_mean_of_its_arms_pair_by_pair(study):
    ours, theirs = twenty("cfg", 8), twenty("unguided", 4)
    other = twenty("negative", 20, canvas="64x96")
    rates = estimate(study, ours[0] + theirs[0] + other[0], ours[1] + theirs[1] + other[1], [], [], scores())
    assert [(c.name, c.images) for c in rates.canvases] == [("64x64", 20), ("64x96", 20)]
    square, tall = (canvas.verdicts["malformed_human"].classical for canvas in rates.canvases)
    assert (square.value, tall.value) == (pytest.approx(0.3), 1.0)


def test_body_shapes_are_of_people(study):
    tasks, _ = twenty("cfg", 0)
    labels = [label(f"cfg-{k}", "legit_human", body_shape="normal" if k < 6 else "other") for k in range(8)]
    labels += [label(f"cfg-{k}", "pattern") for k in range(8, 20)]
    arm = estimate(study, tasks, labels, [], [], scores()).of_arm("cfg")
    assert (arm.body_normal.value, arm.body_normal.n) == (pytest.approx(0.75), 8)


def simulated(labels):
    return [one.model_copy(update={"simulated": True, "labeller": "simulated-1"}) for one in labels]


def test_what_rests_on_simulated_labels_says_so(study):
    ours, theirs = twenty("cfg", 8), twenty("unguided", 4)
    rates = estimate(study, ours[0] + theirs[0], simulated(ours[1] + theirs[1]), [], [], scores())
    assert {arm.name: arm.simulated for arm in rates.arms} == {"unguided": True, "cfg": True}
    assert rates.simulated_labels == 40
    assert all(part.simulated for part in (*rates.differences, *rates.canvases, rates.calibration))


def test_simulated_labels_are_left_out_as_soon_as_a_person_has_labelled(study):
    ours, theirs = twenty("cfg", 8), twenty("unguided", 4)
    tasks = ours[0] + theirs[0]
    mixed = estimate(study, tasks, ours[1] + simulated(ours[1] + theirs[1]), [], [], scores())
    assert (mixed.labels, mixed.simulated_labels, mixed.left_out) == (20, 0, 40)
    assert mixed.model_copy(update={"left_out": 0}) == estimate(study, tasks, ours[1], [], [], scores())


def test_choices_between_pairs_become_strengths(study):
    pairs = [
        SampledPair(
            task_id=f"t{k}",
            pair_id=k,
            prompt="a",
            left_arm="cfg" if k % 2 else "unguided",
            right_arm="unguided" if k % 2 else "cfg",
            left_image_id="x",
            right_image_id="y",
            position=k,
        )
        for k in range(12)
    ]
    choices = ["left" if k % 2 else "right" for k in range(8)] + ["tie", "tie", "left", "right"]
    labels = [
        PairLabel(task_id=f"t{k}", labeller="p1", choice=choice, created_at=NOW, simulated=False)
        for k, choice in enumerate(choices)
    ]
    cfg, unguided = (
        next(s.strength for s in estimate(study, [], [], pairs, labels, scores()).strengths if s.arm == arm)
        for arm in ("cfg", "unguided")
    )
    # cfg won 8, two ties, and lost both of the last two; with the prior's half tie its share is 9.25 of 12.5.
    assert cfg.value - unguided.value == pytest.approx(np.log(9.25 / 3.25))
    assert cfg.low > 0 > unguided.high
    assert cfg.n == 12


def test_without_labels_everything_is_empty_and_survives_its_file(study, tmp_path):
    rates = estimate(study, [task("cfg", 0)], [], [], [], scores())
    assert (rates.labels, rates.arms, rates.differences, rates.agreement, rates.calibration) == (0, [], [], None, None)
    path = tmp_path / "labels.json"
    path.write_text(rates.model_dump_json())
    assert load_rates(path) == rates
    path.write_text('{"labels": 3}')
    with pytest.raises(InputError, match=r"labels.json: baseline: Field required; `dvc repro rates`"):
        load_rates(path)


def test_labels_of_other_tasks_are_counted_and_left_out(study):
    tasks, labels = twenty("cfg", 7)
    stranger = label("drawn before", "malformed_human")
    choice = PairLabel(task_id="drawn before", labeller="p1", choice="left", created_at=NOW, simulated=True)
    rates = estimate(study, tasks, [*labels, stranger], [], [choice], scores())
    assert rates.left_out == 2
    assert rates.model_copy(update={"left_out": 0}) == estimate(study, tasks, labels, [], [], scores())


def test_a_task_without_scores_is_named(study):
    with pytest.raises(InputError, match=r"the sample holds 'cfg-000099', which has no scores"):
        estimate(study, [task("cfg", 99)], [], [], [], scores())


@settings(max_examples=8)
@given(verdicts=st.lists(st.sampled_from(VERDICTS), min_size=30, max_size=30), order=st.randoms())
def test_order_of_labels_and_names_of_arms_change_nothing(verdicts, order):
    arms = ("unguided", "cfg", "negative")
    tasks = [task(arm, pair) for arm in arms for pair in range(10)]
    labels = [label(t.task_id, verdict) for t, verdict in zip(tasks, verdicts, strict=True)]
    labels += [label(t.task_id, "pattern", "p2") for t in tasks[:12]]
    small = _study()
    plain = estimate(small, tasks, labels, [], [], scores())
    shuffled_tasks, shuffled_labels = list(tasks), list(labels)
    order.shuffle(shuffled_tasks)
    order.shuffle(shuffled_labels)
    assert estimate(small, shuffled_tasks, shuffled_labels, [], [], scores()) == plain

    # cfg and negative change their names: every number goes with the images.
    other = {"unguided": "unguided", "cfg": "negative", "negative": "cfg"}
    renamed = [t.model_copy(update={"arm": other[t.arm]}) for t in tasks]
    swapped = estimate(small, renamed, labels, [], [], {other[arm]: own for arm, own in scores().items()})
    for arm in arms:
        assert swapped.of_arm(other[arm]).verdicts == plain.of_arm(arm).verdicts
    by_name = {d.arm: d.verdicts for d in swapped.differences}
    assert by_name == {other[d.arm]: d.verdicts for d in plain.differences}


def _study() -> Study:
    content = composed()
    content["arms"] = {name: content["arms"][name] for name in ("unguided", "cfg", "negative")}
    content["metrics"]["resamples"] = 100
    return parse_study(content, "test")
