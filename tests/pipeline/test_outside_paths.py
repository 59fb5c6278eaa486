"""Nothing that comes from outside, in a configuration or in a file, decides where this project writes or reads."""

from pathlib import Path
from typing import Any

import pytest

from labeling.records import SampledPair, SampledTask, read_tasks, write_tasks
from pipeline.compose import compose
from pipeline.errors import InputError
from pipeline.publishing.publish import publication
from pipeline.settings import inside_project
from pipeline.study.model import known_source
from pipeline.study.study import Study, parse_study

OUTSIDE = [
    *(
        "/etc/passwd",
        "../x",
        "models/../../x",
        "..",
        "a/..",
        "..\\x",
        "a\\..\\x",
        "C:\\x",
        "C:x",
        "\\x",
        "//server/share",
    ),
    *("models/\0x", "models/\n", "models/\x1b[2J", "x" * 256, "é" * 128),
]


@pytest.mark.parametrize("path", OUTSIDE)
def test_a_path_that_leaves_the_project_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="must be a path"):
        inside_project(path)


@pytest.mark.parametrize("path", ["models/mine", "a b/é.safetensors", "x", "a..b/..c", "~/x", "x" * 255])
def test_a_path_inside_the_project_stays_as_it_is(path: str) -> None:
    assert inside_project(path) == path


@pytest.mark.parametrize(
    "key", ["model.main", "model.guide", "model.vae", "model.text_encoder", "model.config", "model.guide_config"]
)
@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "hub:../..", "hub:a/b@../../x", "x.ckpt", "a\\..\\..\\x"])
def test_no_key_of_the_model_leaves_the_project_or_the_hub_s_cache(params: dict[str, Any], key: str, path: str) -> None:
    section, name = key.split(".")
    params[section][name] = path
    with pytest.raises(InputError, match=rf"{key} is '.*': (must be|is a pickle)"):
        parse_study(params, "test")


@pytest.mark.parametrize("path", ["/x/y", "../x/y", "prompts/../../x", "images/../../x"])
@pytest.mark.parametrize(
    "change",
    [
        lambda path: {"prompts": {"source": "file", "path": path}},
        lambda path: {"prompts": {"source": "dataset", "path": path, "column": "text"}},
        lambda path: {"prompts": {"source": "suite", "suite": "drawbench", "path": path}},
        lambda path: {"reference": {"source": path}},
        lambda path: {"model": {"weaken": {"name": "lora", "file": f"{path}.safetensors"}}},
        lambda path: {"model": {"loras": [{"file": f"{path}.safetensors"}]}},
        lambda path: {"metrics": {"aesthetic_head": path}},
        lambda path: {"metrics": {"malformed_classifier": path}},
        lambda path: {"metrics": {"kind_prompts": path}},
        lambda path: {"metrics": {"lpips": path}},
        lambda path: {"metrics": {"scorers": {"pickscore": path}}},
        lambda path: {"features": {"extractors": {"clip": {"model": "open_clip", "weights": path}}}},
        lambda path: {"arms": {"cfg": {"image_to_image": {"from": path, "strength": 0.5}}}},
        lambda path: {"arms": {"cfg": {"inpaint": {"file": f"{path}.png"}}}},
        lambda path: {"arms": {"cfg": {"reference_images": {"files": [path]}}}},
        lambda path: {"model": {"ip_adapter": {"file": f"{path}.safetensors", "image_encoder": "models/x"}}},
        lambda path: {"model": {"ip_adapter": {"file": "models/x.safetensors", "image_encoder": path}}},
        lambda path: {"tracking": {"uri": f"sqlite:///{path}"}},
    ],
)
def test_no_other_key_that_names_a_file_leaves_the_project(params: dict[str, Any], change: Any, path: str) -> None:
    def merge(old: Any, new: Any) -> Any:
        return (
            {**old, **{key: merge(old.get(key, {}), value) for key, value in new.items()}}
            if isinstance(new, dict) and isinstance(old, dict) and "source" not in new
            else new
        )

    with pytest.raises(InputError, match=r"must (be a path inside the project|lie in (prompts|images)/)"):
        parse_study(merge(params, change(path)), "test")


@pytest.mark.parametrize(
    "uri",
    [
        *("sqlite:////tmp/runs.db", "sqlite:///../runs.db", "sqlite:///runs.db?mode=ro", "sqlite:///%2e%2e/runs.db"),
        *("file:///tmp/runs", "./mlruns", "/srv/runs", "s3://bucket/runs", "databricks", "", "sqlite://"),
    ],
)
def test_runs_go_to_a_database_of_the_project_or_a_server(params: dict[str, Any], uri: str) -> None:
    params["tracking"]["uri"] = uri
    with pytest.raises(InputError, match=r"tracking\.uri is"):
        parse_study(params, "test")


@pytest.mark.parametrize(
    "uri", ["sqlite:///mlflow.db", "sqlite:///runs/mlflow.db", "https://host/x", "postgresql://h/d"]
)
def test_servers_and_databases_that_mlflow_knows_are_taken(params: dict[str, Any], uri: str) -> None:
    params["tracking"]["uri"] = uri
    assert parse_study(params, "test").tracking.uri == uri


@pytest.mark.parametrize(
    "name", ["../x", "a/b", "/x", "A", "a b", "a;b", "$(x)", "a\n", "a\0", "", "é", "a" * 41, "reference", "compare"]
)
def test_arms_have_names_that_are_safe_as_files_and_in_a_shell(params: dict[str, Any], name: str) -> None:
    params["arms"][name] = params["arms"]["cfg"]
    with pytest.raises(InputError, match=r"arms\.|would overwrite"):
        parse_study(params, "test")


@pytest.mark.parametrize("name", ["../x", "/x", "a\n"])
def test_studies_and_extractors_have_such_names_too(params: dict[str, Any], name: str) -> None:
    with pytest.raises(InputError, match="name is"):
        parse_study({**params, "name": name}, "test")
    params["features"]["extractors"][name] = params["features"]["extractors"]["pyramid"]
    with pytest.raises(InputError, match=r"features\.extractors"):
        parse_study(params, "test")


TASK = SampledTask(
    task_id="0123456789abcdef",
    image_id="cfg-000000",
    arm="cfg",
    pair_id=0,
    canvas="8x8",
    stratum="cfg",
    inclusion_probability=1.0,
    batch="random",
    position=0,
)


@pytest.mark.parametrize(
    ("key", "value"), [("task_id", "../../x"), ("task_id", "/x"), ("task_id", "a\0"), ("arm", "../x")]
)
def test_a_sample_from_elsewhere_names_no_file_outside(tmp_path: Path, key: str, value: str) -> None:
    """Its ids become the names of images that are written, its arms folders that are read."""
    path = tmp_path / "tasks.parquet"
    write_tasks(path, [TASK.model_copy(update={key: value})])
    with pytest.raises(InputError, match=f"{key} is "):
        read_tasks(path)


def test_pairs_name_no_file_outside_either() -> None:
    sides = {"left_arm": "cfg", "right_arm": "../x", "left_image_id": "a", "right_image_id": "b"}
    with pytest.raises(ValueError, match="right_arm"):
        SampledPair(task_id="a", pair_id=0, prompt="", position=0, **sides)


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    """A conf/ of one study, and a file beside it that is none of its business."""
    (tmp_path / "conf/study").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/theirs.yaml").write_text("secret: 1\n")
    (tmp_path / "conf/config.yaml").write_text("defaults:\n  - study: default\n  - _self_\n")
    (tmp_path / "conf/study/default.yaml").write_text("# @package _global_\nname: mine\n")
    return tmp_path / "conf"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("study/default.yaml", "# @package _global_\ndefaults:\n  - /../elsewhere@stolen: theirs\n"),
        ("config.yaml", "defaults:\n  - study: default\n  - /../elsewhere/theirs\n  - _self_\n"),
        (
            "config.yaml",
            "defaults:\n  - study: default\n  - theirs\n  - _self_\nhydra:\n  searchpath: ['file://{elsewhere}']\n",
        ),
    ],
)
def test_a_study_is_composed_of_files_in_conf_alone(conf: Path, name: str, content: str) -> None:
    assert compose(conf, []) == {"name": "mine"}
    (conf / name).write_text(content.replace("{elsewhere}", str(conf.parent / "elsewhere")))
    with pytest.raises(InputError, match=r"which is not in conf/; move it there"):
        compose(conf, [])


def test_a_choice_on_the_command_line_stays_in_conf(conf: Path) -> None:
    with pytest.raises(InputError, match=r"not in conf/|has no study"):
        compose(conf, ["study=../../elsewhere/theirs"])


def test_a_link_in_what_is_published_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "data/dataset"
    folder.mkdir(parents=True)
    (folder / "README.md").write_text("---\nlicense: mit\n---\n")
    (tmp_path / "private").write_text("not for the world")
    assert set(publication("dataset", tmp_path).files) == {"README.md"}
    (folder / "innocent.md").symlink_to(tmp_path / "private")
    with pytest.raises(InputError, match=r"innocent\.md is a symbolic link"):
        publication("dataset", tmp_path)


def test_weights_may_lie_elsewhere_where_their_owner_links_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a configuration names is in the project; a link in the project is put there by whoever owns it."""
    from pipeline.networks.checkpoints import locate

    (tmp_path / "disk/checkpoint").mkdir(parents=True)
    (tmp_path / "project/models").mkdir(parents=True)
    (tmp_path / "project/models/mine").symlink_to(tmp_path / "disk/checkpoint")
    monkeypatch.chdir(tmp_path / "project")
    assert locate(known_source("models/mine")).path.is_dir()


def strings_of(schema: Any) -> set[str]:
    """The keys of a schema under which any text is taken."""
    return {
        f"{owner.get('title')}.{key}"
        for owner in [schema, *schema.get("$defs", {}).values()]
        for key, kind in owner.get("properties", {}).items()
        if takes_any_text(kind)
    }


def takes_any_text(kind: Any) -> bool:
    """Whether a value is any text, or a list or mapping that may hold some."""
    if isinstance(kind, bool):
        return kind  # of a mapping: with values of any kind, or with no more keys
    inner = [*kind.get("anyOf", []), *kind.get("prefixItems", []), *kind.get("patternProperties", {}).values()]
    inner += [kind[key] for key in ("items", "additionalProperties") if key in kind]
    is_free = kind.get("type") == "string" and not {"enum", "const", "pattern"} & set(kind)
    return is_free or any(takes_any_text(option) for option in inner)


def test_every_key_of_free_text_is_known_to_this_test() -> None:
    """A new one that names a place belongs in the tests above; docs/security.md has the list."""
    texts = {
        *(
            "Arm.description",
            "Arm.negative_prompt",
            "Arm.negative_preset",
            "Arm.quality_preset",
            "DatasetPrompts.column",
        ),
        *(
            "Extractor.hub",
            "Extractor.model",
            "Model.licence",
            "Model.licence_link",
            "Sampler.scheduler",
            "Guider.guider",
        ),
        *("GridPrompts.axes", "Perturb.layers", "DropLayers.layers", "ImageToImage.source"),
        *("Guider.arguments", "NamedText.text", "NamedText.preset", "Negative.text", "Negative.preset"),
        *("Damage.layers", "ReferenceImages.layers", "NAG.layers", "VSF.layers", "NASA.layers"),
        *("Arm.prompt_column", "Prefix.text", "Suffix.text", "First.tag", "Drop.tag", "Weigh.tag", "Weigh.part"),
        *("Replace.tag", "Replace.text", "Contradict.tag", "Contradict.text"),
        *("Reference.showing", "TinybooruPrompts.showing"),
        *("SuitePrompts.suite", "SuitePrompts.category", "SuitePrompts.column", "Inpaint.column"),
    }
    places = {
        *(
            "Model.main",
            "Model.guide",
            "Model.config",
            "Model.guide_config",
            "Model.vae",
            "Model.text_encoder",
            "Lora.file",
            "MainLora.file",
            "FilePrompts.path",
        ),
        *("DatasetPrompts.path", "Extractor.weights", "Metrics.aesthetic_head", "Metrics.malformed_classifier"),
        *("Metrics.kind_prompts", "Metrics.scorers", "Metrics.lpips", "Reference.source"),
        *("ImageToImage.from", "Tracking.uri", "RayExecutor.address", "RayExecutor.storage"),
        *("FromFolder.folder", "FromFolder.scores", "SuitePrompts.path", "Inpaint.file"),
        *("ReferenceImages.files", "IPAdapter.file", "IPAdapter.image_encoder"),
    }
    assert strings_of(Study.model_json_schema(by_alias=True)) == texts | places
