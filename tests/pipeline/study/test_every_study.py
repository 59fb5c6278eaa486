"""Every study of conf/study: it generates what its file names."""

import pytest
import yaml
from compositions import composed
from repository_copy import ROOT

from pipeline.study.study import parse_study


def own_arms(name):
    """The arms that a study's own file names, and those of the study that it extends as a whole."""
    content = yaml.safe_load((ROOT / f"conf/study/{name}.yaml").read_text())
    arms = {arm: settings or {} for arm, settings in content.get("arms", {}).items()}
    for entry in content["defaults"]:
        if isinstance(entry, str):
            arms = {**({} if entry == "_self_" else own_arms(entry)), **arms}
            continue
        ((group, choice),) = entry.items()
        if group == "/arm":
            arms = {**{arm: {} for arm in choice}, **arms}
        elif group.startswith("/arm@arms."):
            arms.setdefault(group.removeprefix("/arm@arms."), {})
    return arms


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "conf/study").glob("*.yaml")))
def test_a_study_draws_the_arms_and_probes_that_its_file_names(name):
    """Hydra merges: `override /arm: []` leaves the arms that a study adds under names of its own, and its changes."""
    study = parse_study(composed(f"study={name}"), name)
    own = own_arms(name)
    scaled = {f"{arm}_{scale:g}".replace(".", "_") for arm, scales in study.scales.items() for scale in scales}
    written = {arm: settings for arm, settings in study.arms.items() if settings.control is None and arm not in scaled}
    assert set(written) == set(own)
    for arm, settings in written.items():
        followed = [] if study.controls == "none" or f"{arm}@cfg" not in study.arms else ["empty", "main"]
        assert [probe for probe in settings.probes if probe not in followed] == own[arm].get("probes", [])
