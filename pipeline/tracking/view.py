"""A view of MLflow's list of runs that shows a study's arms with their numbers, the nearest to real images first.

MLflow keeps shared views as tags of an experiment; `?viewStateShareKey=<study>` opens one. By itself the list shows
parents alone, without a number. A MLflow that knows no such views ignores the tag.
"""

import json

from mlflow import MlflowClient

from pipeline.results.metrics import metric, shown_in
from pipeline.tracking.store import PARENT

_TAG = "mlflow.sharedViewState."
# The nearest to real images come first.
_NEAREST = metric("fd")
# Method and scale before the numbers: left alone, MLflow puts metrics first, in the order of the alphabet, and the
# params behind them, out of sight. Widths in pixels.
_PARAMS = {"params.`method`": 130, "params.`scale`": 70}
_NUMBERS = {f"metrics.`{row.name}`": 105 for row in shown_in("runs")}
# Date and duration, which MLflow shows of every run, are those of logging it, so they come last.
_WIDTHS = {"attributes.`Run Name`": 190, **_PARAMS, **_NUMBERS, "runDateAndNestInfo": 150, "duration": 90}


def share_view(client: MlflowClient, experiment: str, study: str, parent: str) -> None:
    """Let the view called `study` show the arms of the run `parent`."""
    view = {
        "searchFilter": f"tags.`{PARENT}` = '{parent}'",
        "orderByKey": f"metrics.`{_NEAREST.name}`",
        "orderByAsc": _NEAREST.better == "lower",
        "selectedColumns": [*_PARAMS, *_NUMBERS],
        "columnOrder": list(_WIDTHS),
        "columnWidths": _WIDTHS,
    }
    client.set_experiment_tag(experiment, f"{_TAG}{study}", json.dumps(view))


def view_address(server: str, experiment: str, study: str) -> str:
    """The page of that view; `workflowType` because MLflow 3 opens on its pages for language models."""
    return f"{server}/#/experiments/{experiment}/runs?viewStateShareKey={study}&workflowType=machine_learning"
