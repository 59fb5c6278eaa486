"""What a Label Studio server answers, in the shapes that its versions write."""

import json
from types import SimpleNamespace

import pytest

from labeling.label_studio.answers import addresses, annotations_of, read_export, task_id_of
from labeling.label_studio.interface import choice
from labeling.label_studio.pull import Pulled, labels_of, latest
from pipeline.errors import InputError

KEY = "0" * 32
EMAILS = {1: "ann@example.org", 2: "bob@example.org"}


def exported(**changes):
    """A task of an export with one annotation: its fields, or those of the annotation."""
    annotation = {
        "id": 5,
        "completed_by": 1,
        "was_cancelled": False,
        "created_at": "2026-01-01T12:00:00Z",
        "updated_at": "2026-01-01T12:05:00Z",
        "result": [choice("verdict", "pattern")],
    }
    own = {key: changes.pop(key) for key in [*changes] if key in annotation or key == "prediction"}
    return {"id": 9, "data": {"task_id": "t"}, "annotations": [{**annotation, **own}], **changes}


def verdicts(*tasks):
    found = annotations_of(["t"], tasks)
    return [label.verdict for label in labels_of(Pulled(annotations=found, emails=EMAILS), KEY, "tasks")]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"completed_by": {"id": 1, "email": "ann@example.org", "first_name": "Ann"}},
        {"completed_by": "1"},
        {"completed_by": {"id": "1"}},
        {"id": "5"},
        {"was_cancelled": None},
        {"created_at": None},
        {"updated_at": None},
        {"prediction": {"result": [choice("verdict", "legit_human")]}},
        {"predictions": [{"id": 1, "result": [choice("verdict", "legit_human")]}], "drafts": [{"result": None}]},
        {"result": [choice("verdict", "pattern"), {**choice("verdict", "pattern"), "id": "another region"}]},
        {"total_annotations": "1", "cancelled_annotations": None},
        {"result": [{**choice("verdict"), "value": {"choices": {"0": "pattern"}}}]},
        {"result": [{**choice("verdict"), "value": {"choices": "pattern"}}]},
        {"result": [choice("verdict", "pattern"), {"type": "relation", "from_id": "a", "to_id": "b"}]},
        {"created_at": 1767268800, "updated_at": 1767268800000},
        {"comment_authors": [{"id": 1, "email": "ann@example.org"}], "file_upload": "a.png"},
    ],
)
def test_an_answer_of_another_shape_is_read(changes):
    assert verdicts(exported(**changes)) == ["pattern"]


@pytest.mark.parametrize(
    "changes", [{"annotations": None}, {"annotations": []}, {"annotations": None, "total_annotations": 0}]
)
def test_a_task_without_annotations_has_none(changes):
    assert verdicts(exported(**changes)) == []
    task = exported()
    del task["annotations"]
    assert verdicts(task) == []


def test_a_deleted_users_answer_is_nobodys():
    (given,) = annotations_of(["t"], [exported(completed_by=None)])["t"]
    assert given.completed_by is None
    assert latest([given]) == []


def test_users_without_an_address_are_not_taken_for_one_person():
    users = [SimpleNamespace(id=k, email=email) for k, email in (("1", "ann@example.org"), (2, None), (3, ""))]
    assert addresses(users) == {1: "ann@example.org"}


def test_a_skip_without_a_result_is_no_answer():
    assert verdicts(exported(was_cancelled=True, result=None)) == []


@pytest.mark.parametrize("data", [None, [], {}, {"task_id": None}, {"task_id": 7}, {"task_id": ["t"]}, "t"])
def test_a_task_that_somebody_else_put_there_is_left_alone(data):
    assert task_id_of(data) == ""
    assert verdicts(exported(data=data)) == []


def test_several_regions_of_one_question_add_up_and_a_second_verdict_is_refused():
    parts = [
        choice("verdict", "malformed_human"),
        choice("malformed_parts", "face"),
        choice("malformed_parts", "hands"),
    ]
    found = annotations_of(["t"], [exported(result=parts)])
    (label,) = labels_of(Pulled(annotations=found, emails=EMAILS), KEY, "tasks")
    assert label.malformed_parts == ["face", "hands"]
    with pytest.raises(InputError, match=r"task_id 't' \(annotation 5\): verdict has 2 answers: legit_human, pattern"):
        verdicts(exported(result=[choice("verdict", "pattern"), choice("verdict", "legit_human")]))
    shapes = [choice("verdict", "legit_human"), choice("body_shape", "normal"), choice("body_shape", "other")]
    with pytest.raises(InputError, match="body_shape has 2 answers: normal, other"):
        verdicts(exported(result=shapes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"result": None}, "task_id 't' (annotation 5): verdict is not answered"),
        ({"result": "pattern"}, "task_id 't' (annotation 5): result is 'pattern': Input should be a valid list"),
        ({"result": ["pattern"]}, "task_id 't' (annotation 5): result.0 is 'pattern': Input should be a valid dict"),
        ({"result": [{"type": "relation"}]}, "task_id 't' (annotation 5): verdict is not answered"),
        ({"result": [{"type": "choices"}]}, "task_id 't' (annotation 5): question None is not in the interface"),
        ({"result": [{"from_name": ["verdict"]}]}, "question ['verdict'] is not in the interface"),
        ({"completed_by": {"email": "ann@example.org"}}, "completed_by is {'email': 'ann@example.org'}: Input should"),
        ({"completed_by": "ann"}, "task_id 't' (annotation 5): completed_by is 'ann': Input should be a valid int"),
        ({"created_at": None, "updated_at": None}, "task_id 't' (annotation 5): created_at is missing"),
        ({"updated_at": "2026-01-01T12:00:00"}, "updated_at is '2026-01-01T12:00:00': Input should have timezone info"),
        ({"id": None}, "task_id 't' (annotation number 1): id is missing"),
        ({"id": "a-b"}, "task_id 't' (annotation 'a-b'): id is 'a-b': Input should be a valid integer"),
        ({"annotations": "5,6"}, "task_id 't': annotations is '5,6', which is not a list"),
        ({"annotations": [5]}, "task_id 't' (annotation number 1): it is 5: Input should be a valid dictionary"),
        (
            {"annotations": None, "total_annotations": 2},
            "task_id 't': annotations is None, which is not a list (total_annotations is 2)",
        ),
        (
            {"annotations": None, "completions": [{"id": 5}]},
            "task_id 't': its answers are in completions, as before Label Studio 1.0",
        ),
    ],
)
def test_an_answer_that_cannot_be_read_is_one_line_with_task_and_annotation(changes, message):
    with pytest.raises(InputError) as raised:
        verdicts(exported(**changes))
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
    assert "pull again" in str(raised.value)


def test_many_faults_are_counted():
    with pytest.raises(InputError, match="; and 2 more; nothing was written"):
        verdicts(*[exported(completed_by="ann")] * 12)


def test_an_export_is_read():
    assert read_export(json.dumps([exported()]).encode(), "the export") == [exported()]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"<!doctype html><title>Sign in</title>",
            "the export is not JSON: '<!doctype html><title>Sign in</title>'; is",
        ),
        (b"\xff", "the export is not JSON"),
        (b"[" * 100_000, "the export is not JSON"),
        (b'{"detail": "later"}', "the export is not a list of tasks; export it in the format JSON"),
        (b"[5]", "the export is not a list of tasks"),
        (
            b'[{"id": 1, "annotation_id": 5, "verdict": "pattern"}]',
            "the export is in the format JSON_MIN; export it in",
        ),
        (b"null", "the export is not a list of tasks"),
    ],
)
def test_an_answer_that_is_no_export_is_one_line(content, message):
    with pytest.raises(InputError) as raised:
        read_export(content, "the export")
    assert message in str(raised.value)
