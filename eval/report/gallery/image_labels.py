"""What people said of single images, for the gallery."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from labeling.records import Label, SampledTask
from pipeline.publishing.dataset import majority
from pipeline.results.rates import Verdict


@dataclass(frozen=True)
class ImageLabel:
    """The verdicts that people gave an image; `majority` is None where none leads, `simulated` where any is."""

    majority: str | None
    verdicts: list[Verdict]
    simulated: bool


def image_labels(tasks: Sequence[SampledTask], labels: Sequence[Label]) -> dict[str, ImageLabel]:
    """{image id: what people said}. Labels of tasks that are not in the sample belong to other pixels: left out."""
    shown = {task.task_id: task for task in tasks}
    given: dict[str, list[Label]] = defaultdict(list)
    for label in labels:
        if label.task_id in shown:
            given[shown[label.task_id].image_id].append(label)
    return {
        image_id: ImageLabel(
            majority=majority(
                [{"verdict": label.verdict, "repeat": shown[label.task_id].repeat_of is not None} for label in own]
            ),
            verdicts=[label.verdict for label in own],
            simulated=any(label.simulated for label in own),
        )
        for image_id, own in given.items()
    }
