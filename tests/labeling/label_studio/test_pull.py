"""Which annotations become which labels."""

from datetime import UTC, datetime, timedelta

import pytest

from labeling.label_studio.answers import Annotation, annotations_of
from labeling.label_studio.interface import choice
from labeling.label_studio.pull import Pulled, is_simulated, labels_of, latest, merged, pseudonym
from labeling.records import Label
from pipeline.errors import InputError

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
KEY = "0" * 32
EMAILS = {1: "Ann@example.org", 2: "bob@example.org", 3: "judge@simulated.invalid"}


def annotation(number, who, *result, minute=0, skipped=False):
    return Annotation(
        id=number,
        completed_by=who,
        was_cancelled=skipped,
        created_at=NOON,
        updated_at=NOON + timedelta(minutes=minute),
        result=list(result),
    )


def label(task, who, verdict="pattern"):
    return Label(task_id=task, labeller=who, verdict=verdict, created_at=NOON, simulated=False)


def test_the_last_word_of_each_labeller_counts_and_a_skip_takes_it_back():
    given = [
        annotation(1, 1, choice("verdict", "pattern"), minute=5),
        annotation(2, 1, choice("verdict", "legit_human"), minute=3),
        annotation(3, 2, choice("verdict", "pattern")),
        annotation(4, 2, skipped=True, minute=1),
    ]
    assert [a.id for a in latest(given)] == [1]


def test_what_people_said_of_either_copy_of_a_task_counts():
    def exported(task_id, *annotations):
        return {"data": {"task_id": task_id}, "annotations": [one.model_dump(mode="json") for one in annotations]}

    ann, bob = (annotation(k, k, choice("verdict", "pattern")) for k in (1, 2))
    found = annotations_of(["t", "u"], [exported("t", ann), exported("t", bob), exported("other", ann)])
    assert {task: [one.completed_by for one in given] for task, given in found.items()} == {"t": [1, 2], "u": []}
    again = annotation(3, 1, choice("verdict", "legit_human"), minute=1)
    (first, _) = labels_of(
        Pulled(annotations=annotations_of(["t"], [exported("t", again, bob), exported("t", ann)]), emails=EMAILS),
        KEY, "tasks",
    )  # fmt: skip
    assert first.verdict == "legit_human", "the later of one person's two answers"


def test_what_a_deleted_user_said_is_counted_and_the_label_pulled_before_stays():
    gone = annotation(1, None, choice("verdict", "pattern"))
    pulled = Pulled(annotations={"t": [gone, annotation(2, 2, choice("verdict", "pattern"))]}, emails={2: EMAILS[2]})
    assert pulled.ownerless == 1
    new = labels_of(pulled, KEY, "tasks")
    assert [one.labeller for one in new] == [pseudonym(EMAILS[2], KEY)]
    before = label("t", pseudonym(EMAILS[1], KEY))
    assert merged([before], new, pulled.annotations, {pseudonym(EMAILS[2], KEY)})[0] == before


def test_what_a_user_said_whom_the_server_does_not_list_is_counted_alike():
    pulled = Pulled(annotations={"t": [annotation(1, 7, choice("verdict", "pattern"))]}, emails=EMAILS)
    assert (pulled.ownerless, labels_of(pulled, KEY, "tasks")) == (1, [])


def test_a_label_given_in_another_project_of_the_server_is_not_taken_back():
    ann, bob = (pseudonym(EMAILS[k], KEY) for k in (1, 2))
    pulled = Pulled(
        annotations={"t": [annotation(1, 2, choice("verdict", "pattern"))]},
        emails=EMAILS,
        elsewhere={"t": [annotation(k, k, choice("verdict", "legit_human")) for k in (1, 2)]},
    )
    old = [label("t", ann, "legit_human"), label("t", bob, "legit_human")]
    new = labels_of(pulled, KEY, "tasks")
    kept = merged(old, new, pulled.annotations, {ann, bob}, pulled.said_elsewhere(KEY))
    assert kept == [old[0], *new], "here bob said something else"
    withdrawn = pulled.model_copy(update={"elsewhere": {"t": []}})
    assert merged(old, new, pulled.annotations, {ann, bob}, withdrawn.said_elsewhere(KEY)) == new


def test_answers_to_questions_that_the_verdict_hides_are_left_out():
    given = [choice("verdict", "pattern"), choice("body_shape", "other"), choice("malformed_parts", "face")]
    (got,) = labels_of(Pulled(annotations={"t": [annotation(1, 1, *given)]}, emails=EMAILS), KEY, "tasks")
    assert (got.verdict, got.body_shape, got.malformed_parts) == ("pattern", None, [])


def test_faults_are_named_by_task_and_all_at_once():
    annotations = {
        "good": [annotation(1, 1, choice("verdict", "pattern"))],
        "unknown": [annotation(2, 1, choice("verdict", "cat"))],
        "empty": [annotation(3, 1)],
        "both": [annotation(4, 1, choice("verdict", "pattern", "legit_human"))],
    }
    with pytest.raises(InputError, match="3 annotations are not of this interface, nothing was written") as error:
        labels_of(Pulled(annotations=annotations, emails=EMAILS), KEY, "tasks")
    assert "task_id 'unknown' (annotation 2): verdict 'cat'" in str(error.value)
    assert "task_id 'empty' (annotation 3): verdict is not answered" in str(error.value)
    assert "task_id 'both' (annotation 4): verdict has 2 answers" in str(error.value)
    assert "good" not in str(error.value)


def test_a_pseudonym_is_the_same_for_one_person_and_tells_nothing_without_the_key():
    assert pseudonym("Ann@example.org", KEY) == pseudonym(" ann@example.org", KEY)
    assert pseudonym("ann@example.org", KEY) != pseudonym("ann@example.org", "1" * 32)
    assert pseudonym("ann@example.org", KEY) != pseudonym("bob@example.org", KEY)


def test_what_no_person_labelled_says_so_in_its_name_and_record():
    annotations = {"t": [annotation(k, k, choice("verdict", "pattern")) for k in EMAILS]}
    labels = labels_of(Pulled(annotations=annotations, emails=EMAILS), KEY, "tasks")
    assert [one.simulated for one in labels] == [False, False, True]
    assert [one.labeller.startswith("simulated-") for one in labels] == [False, False, True]
    assert not is_simulated("judge@simulated.invalid.example.org")


def test_labels_that_the_server_cannot_know_stay():
    old = [label("here", "ann"), label("here", "another server's"), label("drawn anew", "ann")]
    new = [label("here", "bob", "legit_human")]
    assert merged(old, new, tasks={"here"}, labellers={"ann", "bob"}) == [*old[1:], *new]
