"""`dvc repro` on a small study in a repository of its own: the real stages, the real DVC, the shipped networks."""

import json
import re

import pyarrow.parquet as pq
import pytest
import yaml
from clone import ASKING, Clone, stages_run

from pipeline.prompting.presets import NEGATIVE_PRESETS


def would_run(clone: Clone) -> set[str]:
    """The stages that `dvc repro` would run now."""
    return stages_run(clone.shell("dvc repro --dry"))


def changed(clone: Clone) -> set[str]:
    """The stages that are not as `dvc.lock` has them; unlike a dry run this works where files are missing."""
    return set(json.loads(clone.shell("dvc status --json")))


@pytest.fixture(scope="module")
def project(followed: Clone) -> Clone:
    """The clone in which the guide has been followed, its study as it ended there being what is drawn by default."""
    config, study = followed.folder / "conf/config.yaml", followed.folder / "conf/study/mine.yaml"
    config.write_text(config.read_text().replace("study: default", "study: mine"))
    own = re.sub(r"(  my_negative:.*?scale: )3", r"\g<1>2", study.read_text(), flags=re.DOTALL)
    study.write_text(own)
    followed.shell("make repro")
    # Experiments are compared with the commit that they start from.
    followed.commit()
    return followed


def test_everything_is_made(project: Clone) -> None:
    for name in (
        "data/sets/unguided/part-00001.parquet",
        "data/trace/cfg/part-00000.parquet",
        "data/features/reference/clip.safetensors",
        "data/scores/cfg.parquet",
        "metrics/cfg.json",
        "metrics/compare.json",
        "plots/arms.csv",
        "data/dataset/README.md",
        "reports/index.html",
        "mlflow.db",
    ):
        assert (project.folder / name).is_file(), name
    compare = json.loads((project.folder / "metrics/compare.json").read_text())
    assert [arm["arm"] for arm in compare["arms"]] == ["unguided", "cfg", "my_negative", "autoguidance"]
    assert compare["arms"][0]["against_baseline"] is None
    assert compare["arms"][1]["scores"]["fd"]["n"] == 16
    assert compare["provenance"]["extractor_digest"]


def test_a_repro_of_what_is_there_does_nothing(project: Clone) -> None:
    said = project.said["make repro"][0]
    assert stages_run(said) == set()
    for stage in ASKING:
        assert f"{stage}: " in said
    assert said.count("no Label Studio is running") == len(ASKING - {"preflight"})


def test_metrics_and_plots_show(project: Clone) -> None:
    shown = json.loads(project.shell("dvc metrics show --json"))
    values = shown[""]["data"]["metrics/cfg.json"]["data"]
    assert set(values) == {"fd", "precision", "recall", "coverage", "clip_score", "aesthetic", "malformed", "n"}
    detail = json.loads((project.folder / "metrics/detail/cfg.json").read_text())
    assert {"density", "kid", "cmmd", "vendi"} <= set(detail["scores"])
    table = project.shell("dvc metrics show")
    assert max(len(line) for line in table.splitlines()) <= 120
    project.shell("dvc plots show -o plots-page")
    page = (project.folder / "plots-page/index.html").read_text()
    assert page.count("vegaEmbed(") == 5
    assert "<DVC_METRIC" not in page


def test_another_metric_setting_regenerates_no_image(project: Clone) -> None:
    project.shell('make params OVERRIDES="metrics.resamples=120"')
    stages = would_run(project)
    assert {"measure", "compare"} <= stages
    assert not {s for s in stages if s.startswith(("generate", "reference"))}
    project.shell("make params")
    assert would_run(project) == set()


def test_without_experiments_there_is_a_line_that_says_so(project: Clone) -> None:
    assert project.shell("make experiments") == (
        "no experiments of this commit yet; `.venv/bin/dvc exp run -S arms.cfg.scale=4` makes one\n"
    )


def test_the_page_of_dvcs_plots_is_nothing_for_git(project: Clone) -> None:
    project.shell("dvc plots show")
    assert (project.folder / "dvc_plots/index.html").is_file()
    assert "dvc_plots" not in project.shell("git status --short")


def test_an_experiment_with_another_scale_draws_that_arm_alone(project: Clone) -> None:
    kept = project.folder / "data/sets/unguided"
    before, stamps = project.contents("data/sets/cfg"), {p: p.stat().st_mtime_ns for p in kept.iterdir()}
    said = project.shell(".venv/bin/dvc exp run -S arms.cfg.scale=4", bare=True)
    made = {"generate", "measure", "metrics@cfg"}
    assert stages_run(said) == {*made, "sample", "rates", "compare", "dataset", "report", "track"}
    assert "cfg: 2 of 2 shards, because of arms.cfg.scale" in said
    assert "(2 of 8 shards generated, 6 kept)" in said
    assert "(1 measured, 3 kept)" in said
    assert {p: p.stat().st_mtime_ns for p in kept.iterdir()} == stamps
    after = project.contents("data/sets/cfg")
    assert after.keys() == before.keys()
    assert after != before
    arms = json.loads((project.folder / "metrics/compare.json").read_text())["arms"]
    assert [arm["scale"] for arm in arms] == [1.0, 4.0, 2.0, 1.5]


def test_experiments_show_where_they_differ(project: Clone) -> None:
    """After the experiment above: its scale, and numbers of the arm that it changed."""
    shown = project.shell("make experiments")
    assert "arms.cfg.scale" in shown
    assert "metrics/cfg.json:fd" in shown
    assert "metrics/unguided.json" not in shown
    assert "data/sets" not in shown


def test_another_scale_is_the_same_as_its_experiment(project: Clone) -> None:
    # The experiment above has drawn the arm, scored it and compared.
    assert stages_run(project.shell('make repro OVERRIDES="arms.cfg.scale=4"')) == set()


def test_an_experiment_with_a_wrong_value_is_refused_by_the_study(project: Clone) -> None:
    before = (project.folder / "params.yaml").read_bytes()
    said = project.shell(".venv/bin/dvc exp run -S arms.cfg.scale=-1", ok=False, bare=True)
    assert "arms.cfg.scale is -1" in said
    assert "params.yaml is again what it was before the experiment" in said
    assert (project.folder / "params.yaml").read_bytes() == before


def test_dvc_finds_the_environment_where_none_is_activated(project: Clone) -> None:
    for command in (".venv/bin/dvc repro generate", ".venv/bin/dvc repro"):
        said = project.shell(command, bare=True)
        assert stages_run(said) == set()
        assert "preflight: 5 arms fit their networks" in said
    assert "pull: labels stay as they are: no Label Studio" in project.shell(".venv/bin/dvc repro push pull", bare=True)


def test_an_unknown_variable_of_make_runs_nothing(project: Clone) -> None:
    before = (project.folder / "params.yaml").read_bytes()
    for words, way in (
        ("OVERRIDE=study=presets", 'did you mean OVERRIDES="study=presets"?'),
        ("arms.cfg.scale=9", 'a value of the study goes into OVERRIDES="arms.cfg.scale=9"'),
    ):
        said = project.shell(f"make repro {words}", ok=False)
        assert way in said
        assert "Running stage" not in said
    assert (project.folder / "params.yaml").read_bytes() == before


def test_values_with_spaces_reach_the_study_through_make_and_the_environment(project: Clone) -> None:
    project.shell("""make params OVERRIDES="negative='bad hands, (blurry:1.2)' arms.my_negative.scale=2\"""")
    assert yaml.safe_load((project.folder / "params.yaml").read_text())["negative"] == "bad hands, (blurry:1.2)"
    said = project.shell('make params OVERRIDES="negative=bad hands"', ok=False)
    assert """inside OVERRIDES="..." write negative='bad hands'""" in said
    in_environment = """GUIDEDRIFT_OVERRIDES="negative='very bad'" python -m pipeline.compose"""
    project.shell(in_environment)
    assert yaml.safe_load((project.folder / "params.yaml").read_text())["negative"] == "very bad"
    project.shell("make params")


def edit(project: Clone, name: str, text: str) -> None:
    path = project.folder / name
    path.write_text(path.read_text() + text)


def test_a_comment_in_the_sampler_makes_nothing_again(project: Clone) -> None:
    path = project.folder / "pipeline/sampling/sampler.py"
    path.write_text(path.read_text().replace('"""', '"""Said in other words. ', 1))
    edit(project, "pipeline/sampling/sampler.py", "# A comment.\n")
    said = project.shell("make repro OVERRIDES=arms.cfg.scale=4")
    assert stages_run(said) == set()
    assert "code that changed" not in said


def test_a_changed_line_of_the_evaluation_measures_again_and_generates_nothing(project: Clone) -> None:
    edit(project, "eval/distances/vendi.py", "_UNUSED = 1\n")
    said = project.shell("dvc repro metrics@cfg")
    assert stages_run(said) == {"measure"}
    assert "code that changed since the last run: eval/distances/vendi.py" in said
    assert "(4 measured, 0 kept)" in said


def test_a_changed_line_of_the_sampler_generates_every_image_again_and_says_why(project: Clone) -> None:
    before = project.contents("data/sets")
    edit(project, "pipeline/sampling/sampler.py", "_UNUSED = 1\n")
    said = project.shell("dvc repro generate")
    assert stages_run(said) == {"generate"}
    assert "code that changed since the last run: pipeline/sampling/sampler.py" in said
    assert "cfg: 2 of 2 shards, because of code.pipeline/sampling/sampler.py" in said
    assert "(10 of 10 shards generated, 0 kept)" in said
    after = project.contents("data/sets")
    assert after.keys() == before.keys()
    assert not set(after.values()) & set(before.values()), "they carry the new code's fingerprint"


# The other changes of the README, each of one arm as far as it can be seen: `make repro` is `make params`, `dvc repro`.


def test_another_sampler_changes_images_and_numbers(project: Clone) -> None:
    folder, metrics = "data/sets/unguided", project.folder / "data/headlines/unguided.json"
    before, number = project.contents(folder), json.loads(metrics.read_text())["fd"]
    project.shell('make params OVERRIDES="sampler=dpmsolver++"')
    assert "generate" in changed(project)
    project.shell("python -m pipeline.generate --arm unguided && python -m eval.measure --arm unguided")
    assert project.contents(folder) != before
    assert json.loads(metrics.read_text())["fd"] != number


def test_another_syntax_reads_the_same_prompts_otherwise(project: Clone) -> None:
    folder = project.folder / "data/sets/cfg"
    before = pq.read_table(folder)
    project.shell('make params OVERRIDES="arms.cfg.scale=4 text=novelai"')
    project.shell("python -m pipeline.generate --arm cfg")
    after = pq.read_table(folder)
    assert after["prompt"] == before["prompt"]
    assert after["image"] != before["image"]


def test_another_study_draws_its_presets(project: Clone) -> None:
    project.shell('make params OVERRIDES="study=presets"')
    assert "generate" in changed(project)
    said = project.shell("dvc repro generate")
    assert stages_run(said) == {"generate"}
    texts = pq.read_table(project.folder / "data/sets/negative_heavy")["negative_prompt"].to_pylist()
    assert set(texts) == {NEGATIVE_PRESETS["tinybooru-heavy"].text}
