"""The labelling interface, as Label Studio's SDK understands it."""

from labeling.interface import choices, load_interface


def test_the_interface_asks_what_the_field_notes_count():
    assert choices() == {
        "verdict": ("legit_human", "malformed_human", "object_or_scenery", "pattern"),
        "body_shape": ("normal", "other"),
        "malformed_part": ("face", "hands", "limbs", "count", "other"),
    }


def test_a_task_needs_nothing_but_a_picture():
    """Nothing else of a task is shown, so nothing else can tell the labeller which arm it is of."""
    assert [shown.value_name for shown in load_interface().objects] == ["image"]
