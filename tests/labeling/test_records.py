"""Label files: what is wrong with a line is said with its file and number."""

from datetime import UTC, datetime

import pytest

from labeling.records import Label, PairLabel, read_labels, read_pair_labels, write_labels
from pipeline.errors import InputError

NOW = datetime(2026, 1, 1, tzinfo=UTC)
GOOD = (
    '{"task_id": "a", "labeller": "p1", "verdict": "legit_human", "created_at": "2026-01-01T00:00:00Z", '
    '"simulated": false}'
)


def test_labels_come_back_as_written_in_a_stable_order(tmp_path):
    path = tmp_path / "tasks.jsonl"
    labels = [
        Label(task_id="b", labeller="p1", verdict="pattern", note="<b>x</b>\n", created_at=NOW, simulated=True),
        Label(
            task_id="a",
            labeller="p2",
            verdict="malformed_human",
            body_shape="other",
            malformed_parts=["hands", "count"],
            created_at=NOW,
            simulated=False,
        ),
    ]
    write_labels(path, labels)
    assert read_labels(path) == [labels[1], labels[0]]
    first = path.read_bytes()
    write_labels(path, labels[::-1])
    assert path.read_bytes() == first


def test_without_a_file_nobody_has_labelled(tmp_path):
    assert read_labels(tmp_path / "tasks.jsonl") == []
    assert read_pair_labels(tmp_path / "pairs.jsonl") == []


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            GOOD.replace("legit_human", "cat"),
            r"tasks.jsonl:2: task_id 'a': verdict is 'cat': Input should be 'legit_human'",
        ),
        (GOOD[:40], r"tasks.jsonl:2 is not JSON: "),
        (GOOD, r"tasks.jsonl:2: labeller 'p1' labelled task_id 'a' on line 1 already"),
        (GOOD.replace('"simulated"', '"simulatde"'), r"tasks.jsonl:2: task_id 'a': simulated is missing"),
        (GOOD.replace("Z", ""), r"tasks.jsonl:2: task_id 'a': created_at is '2026-01-01T00:00:00': .*timezone"),
        (
            GOOD[:-1] + ', "malformed_parts": ["face"]}',
            r"tasks.jsonl:2: task_id 'a': malformed_parts are for malformed_human only",
        ),
        (
            GOOD.replace("legit_human", "pattern")[:-1] + ', "body_shape": "normal"}',
            r":2: task_id 'a': body_shape 'normal' is for hum",
        ),
        ("[1]", r"tasks.jsonl:2: Input should be"),
        ("\xff", r"tasks.jsonl:2 is not JSON"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, message):
    path = tmp_path / "tasks.jsonl"
    path.write_bytes(f"{GOOD}\n{line}\n".encode("latin-1"))
    with pytest.raises(InputError, match=message) as raised:
        read_labels(path)
    assert "\n" not in str(raised.value)


def test_a_bad_choice_between_a_pair_is_named(tmp_path):
    path = tmp_path / "pairs.jsonl"
    label = PairLabel(task_id="a", labeller="p1", choice="tie", created_at=NOW, simulated=False)
    path.write_text(label.model_dump_json().replace("tie", "both"))
    with pytest.raises(
        InputError, match=r"pairs.jsonl:1: task_id 'a': choice is 'both': Input should be 'left', 'right' or 'tie'"
    ):
        read_pair_labels(path)
