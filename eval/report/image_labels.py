"""What people said of single pictures, for the gallery."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from labeling.records import Label, SampledTask
from pipeline.publishing.dataset import majority
from pipeline.results.rates import Verdict


@dataclass(frozen=True)
class PictureLabel:
    """The verdicts that people gave a picture; `majority` is None where none leads, `simulated` where any is."""

    majority: str | None
    verdicts: list[Verdict]
    simulated: bool


def picture_labels(tasks: Sequence[SampledTask], labels: Sequence[Label]) -> dict[str, PictureLabel]:
    """{image id: what people said}. Labels of tasks that are not in the sample belong to other pixels: left out."""
    shown = {task.task_id: task for task in tasks}
    given: dict[str, list[Label]] = defaultdict(list)
    for label in labels:
        if label.task_id in shown:
            given[shown[label.task_id].image_id].append(label)
    return {
        image_id: PictureLabel(
            majority=majority(
                [{"verdict": label.verdict, "repeat": shown[label.task_id].repeat_of is not None} for label in own]
            ),
            verdicts=[label.verdict for label in own],
            simulated=any(label.simulated for label in own),
        )
        for image_id, own in given.items()
    }
