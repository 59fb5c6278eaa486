"""What a Label Studio server answers, in whatever shape its versions write it: the one parser of tasks and annotations.

A user is a number, a text of digits or an object; flags and results can be null; a task without annotations can lack
the list. Anything else is an error of one line that names the task and the annotation.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from pipeline.errors import InputError, printable

_SHOWN_FAULTS = 10
_SHOWN = 80


def _user(value: object) -> object:
    # Servers that expand users write {"id": 3, "email": ...}.
    return value["id"] if isinstance(value, dict) and "id" in value else value


def _flag(value: object) -> object:
    return False if value is None else value


def _parts(value: object) -> object:
    return [] if value is None else value


class Annotation(BaseModel):
    """The part of Label Studio's annotation that counts here; predictions and drafts beside it do not."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    id: int
    # None where the user was deleted.
    completed_by: Annotated[int | None, BeforeValidator(_user)] = None
    was_cancelled: Annotated[bool, BeforeValidator(_flag)] = False
    created_at: AwareDatetime
    updated_at: AwareDatetime
    result: Annotated[list[dict[str, object]], BeforeValidator(_parts)] = Field(default_factory=list)

    @model_validator(mode="before")
    @classmethod
    def _one_time_stands_for_both(cls, content: Any) -> Any:
        if not isinstance(content, dict):
            return content
        created, updated = content.get("created_at"), content.get("updated_at")
        return {**content, "created_at": created or updated, "updated_at": updated or created}


def task_id_of(data: object) -> str:
    """Our id in a task's data; empty for a task that someone else put there."""
    task_id = data.get("task_id") if isinstance(data, Mapping) else None
    return task_id if isinstance(task_id, str) else ""


def addresses(users: Iterable[Any]) -> dict[int, str]:
    """The email address of every user by number. Users without one are left out: they would share a pseudonym."""
    return {int(user.id): str(user.email) for user in users if user.email}


def read_export(content: bytes | bytearray, place: str) -> list[dict[str, Any]]:
    """The tasks of an export in Label Studio's JSON format. Raises InputError naming the `place` for anything else."""
    try:
        tasks = json.loads(content)
    # A thousand brackets are a RecursionError.
    except (ValueError, RecursionError):
        start = printable(bytes(content[:_SHOWN]).decode("utf-8", "replace"))
        raise InputError(f"{place} is not JSON: {start!r}; is the address that of Label Studio itself?") from None
    if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
        raise InputError(f"{place} is not a list of tasks; export it in the format JSON")
    if any("annotation_id" in task and "data" not in task for task in tasks):
        # Without `data` every task would be someone else's.
        raise InputError(f"{place} is in the format JSON_MIN; export it in the format JSON")
    return tasks


def annotations_of(known: Iterable[str], exported: Iterable[Mapping[str, Any]]) -> dict[str, list[Annotation]]:
    """The annotations of the tasks that are `known`, by our task id.

    Two machines that push at once can bring a task to the server twice; what people said of either copy counts. Raises
    InputError naming the tasks and annotations that cannot be read.
    """
    found: dict[str, list[Annotation]] = {task_id: [] for task_id in known}
    faults = []
    for task in exported:
        task_id = task_id_of(task.get("data"))
        if task_id not in found:
            continue
        given = task.get("annotations")
        if given is None and task.get("completions"):
            faults.append(f"task_id '{task_id}': its answers are in completions, as before Label Studio 1.0")
            continue
        if given is None and not task.get("total_annotations"):
            given = []
        if not isinstance(given, list):
            # Taken for none, they would take back what was pulled before.
            faults.append(
                f"task_id '{task_id}': annotations is {_shown(given)}, which is not a list"
                + (f" (total_annotations is {_shown(task['total_annotations'])})" if given is None else "")
            )
            continue
        for position, one in enumerate(given, start=1):
            try:
                found[task_id].append(Annotation.model_validate(one))
            except ValidationError as error:
                number = one.get("id") if isinstance(one, dict) else None
                which = f"annotation {_shown(number)}" if number is not None else f"annotation number {position}"
                faults.append(f"task_id '{task_id}' ({which}): {_first_fault(error)}")
    if faults:
        raise InputError(
            f"{listed(faults)}; nothing was written: correct or delete them in Label Studio and pull again"
        )
    return found


def listed(faults: list[str]) -> str:
    """Faults in one line: the first ten, and how many more there are."""
    more = f"; and {len(faults) - _SHOWN_FAULTS} more" if len(faults) > _SHOWN_FAULTS else ""
    return "; ".join(faults[:_SHOWN_FAULTS]) + more


def _first_fault(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    key = printable(".".join(map(str, first["loc"])))[:_SHOWN] or "it"
    if first["type"] == "missing" or first["input"] is None:
        return f"{key} is missing"
    return f"{key} is {_shown(first['input'])}: {first['msg']}"


def _shown(value: object) -> str:
    return printable(repr(value))[:_SHOWN]
