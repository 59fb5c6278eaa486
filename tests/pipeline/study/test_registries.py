"""Extractors and scorers: known by their records, which import none of them."""

import subprocess
import sys
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
from compositions import composed
from repository_copy import ROOT

from pipeline.catalogue import configurations
from pipeline.errors import InputError
from pipeline.study.extractors import EXTRACTORS
from pipeline.study.loadable import THE_FILE_ITSELF, Loadable, one_of
from pipeline.study.scorers import PREFERENCES, SCORERS, SINGLE_FILES
from pipeline.study.study import Metrics, parse_study

RECORDS = {**EXTRACTORS, **SCORERS}


@pytest.mark.parametrize("ask", ["parse", "list", "preflight"])
def test_they_are_known_without_the_libraries_that_run_them(ask: str) -> None:
    done = {
        "parse": "from compositions import composed\nfrom pipeline.study.study import parse_study\n"
        "parse_study(composed(), 'conf')",
        "list": "from pipeline.catalogue import shown\nshown(['extractor_kinds', 'scorer_kinds'])",
        "preflight": "from compositions import composed\nfrom eval.preflight import needed_files\n"
        "from pipeline.study.study import parse_study\nneeded_files(parse_study(composed(), 'conf'))",
    }[ask]
    # Preflight reads networks' configurations, for which it needs torch, and no extractor.
    heavy = ["torch", "open_clip", "timm", "transformers", "torchvision", "eval.features.clip", "eval.scorers.lpips"]
    program = f"import sys\n{done}\nprint([name for name in {heavy[ask == 'preflight' :]!r} if name in sys.modules])"
    path = {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "PATH": ""}
    found = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=path, capture_output=True, text=True)
    assert (found.stdout, found.stderr) == ("[]\n", "")


@pytest.mark.parametrize("name", RECORDS)
def test_every_loader_is_there_and_takes_a_place_first(name: str) -> None:
    loader = RECORDS[name].load()
    assert next(iter(signature(loader).parameters.values())).annotation is Path
    assert RECORDS[name].line


@pytest.mark.parametrize("name", [*EXTRACTORS, *PREFERENCES])
def test_extractors_and_preferences_are_loaded_alike(name: str) -> None:
    assert len(signature(RECORDS[name].load()).parameters) == 3


def test_conf_has_every_one_of_them() -> None:
    asked = [f"features=[clip,{','.join(sorted(set(configurations('features', ROOT / 'conf')) - {'clip'}))}]"]
    content = composed(*asked, f"scorers=[{','.join(configurations('scorers', ROOT / 'conf'))}]")
    study = parse_study(content, "conf")
    assert {one.model for one in study.features.extractors.values()} == set(EXTRACTORS)
    assert set(study.metrics.scorers) == set(PREFERENCES)
    assert all(getattr(study.metrics, name) for name in SINGLE_FILES)
    assert set(SINGLE_FILES) <= set(Metrics.model_fields)


def test_files_and_commands_follow_the_place() -> None:
    folder = Loadable("m:f", "", ("a", "b"), "get {hub} {place} {parent}")
    assert folder.paths("x/y") == (Path("x/y/a"), Path("x/y/b"))
    assert folder.faults("x/y", "who/what")[Path("x/y/a")] == "x/y/a is missing; get it with `get who/what x/y x`"
    assert folder.command("models/tinybooru/y") == "make train"
    assert folder.command("x/y") == "get <owner>/<name> x/y x"
    assert Loadable("m:f", "", THE_FILE_ITSELF).paths("x/y") == (Path("x/y"),)
    assert Loadable("m:f", "").faults("") == {}


def test_a_name_that_is_not_known_is_answered_with_those_that_are() -> None:
    with pytest.raises(ValueError, match=r"^Input should be 'a', 'b' or 'c'$"):
        one_of(["a", "b", "c"])("d")
    content: dict[str, Any] = composed()
    content["metrics"]["scorers"] = {"hps": "x"}
    with pytest.raises(InputError, match=r"hps is 'hps': Input should be 'hpsv2_1', 'imagereward' or 'pickscore'$"):
        parse_study(content, "test")


@pytest.mark.parametrize("name", ["aesthetic_head", "malformed_classifier", "kind_prompts"])
def test_what_generated_images_are_scored_with_has_a_place(name: str) -> None:
    content: dict[str, Any] = composed()
    content["metrics"][name] = ""
    with pytest.raises(InputError, match=rf"metrics\.{name} is missing, which arms that are generated need"):
        parse_study(content, "test")
