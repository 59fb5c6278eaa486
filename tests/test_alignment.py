"""Cosines and norms of guidance directions from a trace."""

from itertools import combinations

import numpy as np
import pyarrow as pa
import pytest

from eval.alignment import Trajectories, actions, alignments, closer_to, trajectories

ASK = (200, 0.95, 0)
NAMES = ["empty", "negative", "guide"]


def trace(pictures: int = 12, steps: int = 4, names: list[str] | None = None, seed: int = 0) -> pa.Table:
    """Directions of known cosines: negative and guide share half of themselves, empty is unrelated."""
    generator = np.random.default_rng(seed)
    rows = []
    for picture in range(pictures):
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
                    "image_id": f"{picture:03}",
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


def test_a_trace_becomes_pictures_by_steps_whatever_its_order() -> None:
    one = found(trace())
    assert (one.references, one.norms.shape, one.cosines.shape) == (tuple(NAMES), (12, 4, 3), (12, 4, 3))
    assert one.sigma.tolist() == pytest.approx([10, 5, 10 / 3, 2.5])
    again = found(trace().sort_by([("sigma", "ascending")]))
    np.testing.assert_array_equal(one.cosines, again.cosines)


def test_the_cosine_of_two_references_has_no_order() -> None:
    one = found(trace())
    np.testing.assert_array_equal(one.cosine("guide", "negative"), one.cosine("negative", "guide"))


def test_directions_that_share_half_have_a_cosine_of_half_and_unrelated_ones_none() -> None:
    by_pair = {one.references: one for one in alignments(found(trace()), *ASK)}
    assert by_pair["negative", "guide"].cosine.value == pytest.approx(0.5, abs=0.03)
    assert by_pair["empty", "guide"].cosine.value == pytest.approx(0, abs=0.03)
    pair = by_pair["negative", "guide"]
    assert pair.cosine.value == pytest.approx(np.mean([step.value for _, step in pair.steps]))
    assert [sigma for sigma, _ in pair.steps] == pytest.approx([10, 5, 10 / 3, 2.5])
    assert pair.cosine.n == 12


def test_the_negative_prompt_is_closer_to_what_it_shares() -> None:
    one = found(trace())
    there, back = closer_to(one, "negative", "guide", "empty", *ASK), closer_to(one, "negative", "empty", "guide", *ASK)
    assert there.low > 0.4
    assert back.value == -there.value
    undecided = closer_to(one, "empty", "guide", "negative", *ASK)
    assert undecided.low < 0 < undecided.high


def test_norms_say_how_strongly_and_half_says_when() -> None:
    by_name = {one.reference: one for one in actions(found(trace()), *ASK)}
    assert by_name["guide"].norm.value == pytest.approx(2 * by_name["negative"].norm.value, rel=0.05)
    # Alike at every step: half is reached in the middle, up to a step.
    assert 0.5 <= by_name["empty"].half.value <= 0.75
    early = Trajectories(
        ("a", "b"), np.ones(4), np.array([[[8, 1], [1, 1], [1, 1], [1, 8.0]]] * 3), np.zeros((3, 4, 1))
    )
    half = {one.reference: one.half.value for one in actions(early, *ASK)}
    assert half == {"a": 0.25, "b": 1.0}


def test_a_reference_that_a_schedule_leaves_out_is_left_out() -> None:
    rows = trace().to_pylist()
    for row in rows:
        if row["step"] == 0:
            row |= {"references": NAMES[:2], "relative_norms": row["relative_norms"][:2], "cosines": row["cosines"][:1]}
    one = found(pa.Table.from_pylist(rows))
    assert one.references == ("empty", "negative")
    assert trajectories(trace(names=["guide"])) is None


def test_a_picture_that_lacks_a_step_is_counted() -> None:
    with pytest.raises(ValueError, match="a trace of 12 pictures and 4 steps needs 48 rows, not 47"):
        trajectories(trace().slice(1))
