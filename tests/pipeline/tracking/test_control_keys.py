"""Control arms are called <arm>@cfg, and MLflow's keys take no @."""

from mlflow.utils.validation import _validate_metric_name, _validate_param_name
from small_study import comparison, rates_of

from pipeline.results.comparison import Comparison
from pipeline.tracking.numbers import headline_metrics, in_a_key, label_headlines


def test_the_keys_of_a_control_are_keys_that_mlflow_takes() -> None:
    content = comparison()
    for arm in content["arms"]:
        if arm["arm"] == "negative":
            arm["arm"] = "cfg@cfg"
    keys = [*headline_metrics(Comparison(**content)), *label_headlines(rates_of(simulated=False))]
    assert any(key.endswith("/cfg-cfg") for key in keys)
    for key in keys:
        _validate_metric_name(key)
    _validate_param_name(in_a_key("arms.cfg@cfg.method"))
