"""Cosines and norms of guidance directions from a trace."""

from itertools import combinations

import numpy as np
import pyarrow as pa
import pytest
import torch

from eval.comparison.alignment import Means, Trajectories, actions, alignments, closer_to, trajectories
from eval.comparison.verdicts import alignment_answer
from pipeline.results.comparison import Alignment
from pipeline.results.interval import Interval

MEAN = Means(200, 0.95, 0)
NAMES = ["empty", "negative", "guide"]


def trace(images: int = 12, steps: int = 4, names: list[str] | None = None, seed: int = 0) -> pa.Table:
    """Directions of known cosines: negative and guide share half of themselves, empty is unrelated."""
    generator = np.random.default_rng(seed)
    rows = []
    for image in range(images):
        for step in range(steps):
            shared = generator.normal(size=400)
            directions = {
                "empty": generator.normal(size=400),
                "negative": shared + generator.normal(size=400),
                # Twice as long, and on from the second step alone where the schedule is asked for.
                "guide": 2 * (shared + generator.normal(size=400)),
            }
            own = names or NAMES
            units = {name: directions[name] / np.linalg.norm(directions[name]) for name in own}
            rows.append(
                {
                    "image_id": f"{image:03}",
                    "step": step,
                    "sigma": 10.0 / (step + 1),
                    "references": own,
                    "relative_norms": [float(np.linalg.norm(directions[name])) for name in own],
                    "cosines": [float(units[a] @ units[b]) for a, b in combinations(own, 2)],
                }
            )
    generator.shuffle(rows)
    return pa.Table.from_pylist(rows)


def found(table: pa.Table) -> Trajectories:
    one = trajectories(table)
    assert one is not None
    return one


def test_a_trace_becomes_images_by_steps_whatever_its_order() -> None:
    one = found(trace())
    assert (one.references, one.norms.shape, one.cosines.shape) == (tuple(NAMES), (12, 4, 3), (12, 4, 3))
    assert one.sigma.tolist() == pytest.approx([10, 5, 10 / 3, 2.5])
    again = found(trace().sort_by([("sigma", "ascending")]))
    np.testing.assert_array_equal(one.cosines, again.cosines)


def test_the_cosine_of_two_references_has_no_order() -> None:
    one = found(trace())
    np.testing.assert_array_equal(one.cosine("guide", "negative"), one.cosine("negative", "guide"))


def test_directions_that_share_half_have_a_cosine_of_half_and_unrelated_ones_none() -> None:
    by_pair = {one.references: one for one in alignments(found(trace()), MEAN)}
    assert by_pair["negative", "guide"].cosine.value == pytest.approx(0.5, abs=0.03)
    assert by_pair["empty", "guide"].cosine.value == pytest.approx(0, abs=0.03)
    pair = by_pair["negative", "guide"]
    assert pair.cosine.value == pytest.approx(np.mean([step.value for _, step in pair.steps]))
    assert [sigma for sigma, _ in pair.steps] == pytest.approx([10, 5, 10 / 3, 2.5])
    assert pair.cosine.n == 12


def test_the_negative_prompt_is_closer_to_what_it_shares() -> None:
    one = found(trace())
    there, back = closer_to(one, "negative", "guide", "empty", MEAN), closer_to(one, "negative", "empty", "guide", MEAN)
    assert there.low > 0.4
    assert back.value == -there.value
    undecided = closer_to(one, "empty", "guide", "negative", MEAN)
    assert undecided.low < 0 < undecided.high


def test_norms_say_how_strongly_and_half_says_when() -> None:
    by_name = {one.reference: one for one in actions(found(trace()), MEAN)}
    assert by_name["guide"].norm.value == pytest.approx(2 * by_name["negative"].norm.value, rel=0.05)
    # Alike at every step: half is reached in the middle, up to a step.
    assert 0.5 <= by_name["empty"].half.value <= 0.75
    norms = np.array([[[8, 1], [1, 1], [1, 1], [1, 8.0]]] * 3)
    early = Trajectories(("a", "b"), (), (), np.arange(3), 0, np.ones(4), norms, np.zeros((3, 4, 1)))
    half = {one.reference: one.half.value for one in actions(early, MEAN)}
    assert half == {"a": 0.25, "b": 1.0}


def test_a_reference_that_a_schedule_leaves_out_is_left_out() -> None:
    rows = trace().to_pylist()
    for row in rows:
        if row["step"] == 0:
            row |= {"references": NAMES[:2], "relative_norms": row["relative_norms"][:2], "cosines": row["cosines"][:1]}
    one = found(pa.Table.from_pylist(rows))
    assert (one.references, one.incomplete) == (("empty", "negative"), ("guide",))
    assert trajectories(trace(names=["guide"])) is None
    assert found(trace()).incomplete == ()


def test_references_may_change_their_order_from_step_to_step() -> None:
    # A schedule puts the references in use before those that are only probed.
    rows = trace().to_pylist()
    for row in rows:
        if row["step"] == 1:
            empty, negative, guide = row["relative_norms"]
            with_negative, with_guide, between = row["cosines"]
            row |= {
                "references": ["guide", "empty", "negative"],
                "relative_norms": [guide, empty, negative],
                "cosines": [with_guide, between, with_negative],
            }
    one, there = found(pa.Table.from_pylist(rows)), found(trace())
    assert set(one.references) == set(there.references)
    for a, b in combinations(NAMES, 2):
        np.testing.assert_array_equal(one.cosine(a, b), there.cosine(a, b))


def test_a_reference_that_predicts_what_the_main_network_does_has_no_direction() -> None:
    rows = trace().to_pylist()
    for row in rows:
        row["relative_norms"] = [1e-7, *row["relative_norms"][1:]]
        row["cosines"] = [0.0, 0.0, row["cosines"][2]]
    one = found(pa.Table.from_pylist(rows))
    assert (one.references, one.coinciding) == (("negative", "guide"), ("empty",))
    np.testing.assert_array_equal(one.cosine("negative", "guide"), found(trace()).cosine("negative", "guide"))
    assert one.norms.shape == (12, 4, 2)
    for row in rows:
        row["relative_norms"] = [1e-7, 1e-7, row["relative_norms"][2]]
    assert trajectories(pa.Table.from_pylist(rows)) is None


def test_images_for_which_a_reference_has_no_direction_do_not_draw_the_cosine_to_zero() -> None:
    rows = trace().to_pylist()
    for row in rows:
        if row["image_id"] in ("000", "007"):  # asked for nothing, so the empty prompt is their own
            row["relative_norms"] = [1e-7, *row["relative_norms"][1:]]
            row["cosines"] = [0.0, 0.0, row["cosines"][2]]
    one, there = found(pa.Table.from_pylist(rows)), found(trace())
    assert (one.references, one.coinciding, one.without_direction) == (tuple(NAMES), (), 2)
    assert one.images.tolist() == [k for k in range(12) if k not in (0, 7)]
    for a, b in combinations(NAMES, 2):
        np.testing.assert_array_equal(one.cosine(a, b), there.cosine(a, b)[one.images])
    np.testing.assert_array_equal(one.norms, there.norms[one.images])
    for row in rows:
        if row["image_id"] != "003":
            row["relative_norms"] = [1e-7, *row["relative_norms"][1:]]
    assert trajectories(pa.Table.from_pylist(rows)) is None


def test_images_of_one_prompt_are_resampled_together() -> None:
    rows = trace(images=4).to_pylist()
    copies = [{**row, "image_id": f"{row['image_id']}-{copy}"} for row in rows for copy in range(8)]
    one = found(pa.Table.from_pylist(copies))
    widths = []
    for clusters in (None, torch.arange(4).repeat_interleave(8)):
        (cosine,) = (
            pair.cosine
            for pair in alignments(one, Means(200, 0.95, 0, clusters))
            if set(pair.references) == {"negative", "guide"}
        )
        widths.append(cosine.high - cosine.low)
    assert widths[1] > 1.7 * widths[0], "32 images that are 4, eight times each, say no more than those 4"


def test_an_image_that_lacks_a_step_is_counted() -> None:
    with pytest.raises(ValueError, match="a trace of 12 images and 4 steps needs 48 rows, not 47"):
        trajectories(trace().slice(1))


def record(to_guide: Interval, to_empty: Interval, difference: Interval | None, coinciding: list[str]) -> Alignment:
    sure = Interval(0.5, 0.4, 0.6, 12)
    action = {"steps": [], "norm": sure, "half": sure}
    pairs = {("negative", "guide"): to_guide, ("negative", "empty"): to_empty}
    content = {
        "arm": "unguided",
        "pairs": [{"references": pair, "steps": [], "cosine": cosine} for pair, cosine in pairs.items()],
        "actions": [{"reference": name, **action} for name in NAMES if name not in coinciding],
        "coinciding": coinciding,
        "guide_over_empty": difference,
        "answer": "",
    }
    return Alignment.model_validate(content)


def around(value: float, half: float) -> Interval:
    return Interval(value, value - half, value + half, 12)


@pytest.mark.parametrize(
    ("to_guide", "difference", "said"),
    [
        (around(0.95, 0.02), around(0.3, 0.1), "is closer to the weaker network's than to the empty prompt's"),
        (around(0.95, 0.02), around(0.3, 0.1), "It is nearly the same direction: a cosine of +0.95 leaves 10 %"),
        (around(0.5, 0.02), around(-0.3, 0.1), "is closer to the empty prompt's than to the weaker network's"),
        (around(0.5, 0.02), around(-0.3, 0.1), "It is not the same direction: a cosine of +0.50 leaves 75 %"),
        (around(0.5, 0.42), around(0.0, 0.1), "Whether it is the same direction is undecided: a cosine of +0.50"),
        (
            around(0.5, 0.42),
            around(0.0, 0.1),
            "may be closer to the weaker network's or to the empty prompt's (undecided)",
        ),
    ],
)
def test_the_answer_says_what_the_intervals_hold(to_guide: Interval, difference: Interval, said: str) -> None:
    answer = alignment_answer(record(to_guide, around(0.6, 0.1), difference, []))
    assert said in answer
    assert "It is undecided whether the negative prompt acts earlier or later than the weaker network" in answer


def test_the_answer_leaves_out_what_has_no_direction_and_says_so() -> None:
    answer = alignment_answer(record(around(0.5, 0.02), around(0.0, 0.0), None, ["empty"]))
    assert "closer" not in answer
    assert "for empty is its own prediction" in answer


def test_the_answer_names_what_it_leaves_out() -> None:
    one = record(around(0.5, 0.02), around(0.0, 0.0), None, [])
    answer = alignment_answer(one.model_copy(update={"incomplete": ["negative"], "without_direction": 3}))
    assert "Evaluated at some steps only, and so left out: negative." in answer
    assert "Left out, too: 3 images" in answer
    assert "eft out" not in alignment_answer(one)
