"""Which per-image scores a study has: those whose networks it names, and those that need none."""

from pipeline.results.metrics import Metric, of_level
from pipeline.study.study import Study


def image_scores(study: Study) -> list[Metric]:
    """The rows of level image that the images of a study are scored by, in the order of the table."""
    metrics = study.metrics
    lacking = {
        "clip_score": study.features.clip is None,
        "aesthetic": not metrics.aesthetic_head,
        "malformed": not metrics.malformed_classifier,
        "lpips": not metrics.lpips,
    }

    def is_there(row: Metric) -> bool:
        if row.name.startswith("kind_"):
            return bool(metrics.kind_prompts)
        if row.optional and row.name not in lacking:
            return row.name in metrics.scorers
        return not lacking.get(row.name, False)

    return [row for row in of_level("image") if is_there(row)]
