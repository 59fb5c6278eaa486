"""Pre-annotations: what the judge thinks, shown to people of a study that asks for it."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labeling.label_studio.answers import task_id_of
from labeling.label_studio.images import load_task_images
from labeling.label_studio.interface import choice
from labeling.records import SampledTask

if TYPE_CHECKING:
    from label_studio_sdk.client import LabelStudio

    from labeling.label_studio.project import Project


def preannotate(client: "LabelStudio", project: "Project", tasks: Sequence[SampledTask], sets: Path) -> int:
    """Send the judge's verdicts on tasks that lack them, and show them to labellers; returns how many were sent."""
    from labeling.judge import judge, judge_version
    from labeling.label_studio.project import tasks_on_server

    version = judge_version()
    sampled = {task.task_id: task for task in tasks}
    # Predictions of one model pile up when they are sent twice.
    judged = {
        prediction.task
        for prediction in client.predictions.list(project=project.number)
        if prediction.model_version == version
    }
    lacking = {
        int(task.id): sampled[task_id_of(task.data)]
        for task in tasks_on_server(client, project, "id,data")
        if task_id_of(task.data) in sampled and int(task.id) not in judged
    }
    if lacking:
        verdicts = judge(load_task_images(list(lacking.values()), sets))
        request: Any = [
            {
                "task": number,
                "model_version": version,
                "score": given.p_malformed,
                "result": [choice("verdict", given.verdict)],
            }
            for number, given in zip(lacking, verdicts, strict=True)
        ]
        client.projects.import_predictions(project.number, request=request)
    client.projects.update(project.number, model_version=version, show_collab_predictions=True)
    return len(lacking)
