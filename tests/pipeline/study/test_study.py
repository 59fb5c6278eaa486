"""The study: conf/ and params.yaml agree, and every wrong value is named before anything is loaded."""

import re
import shlex
import shutil

import pytest
import yaml
from compositions import composed
from dvc.config import Config
from dvc.repo import Repo
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from repository_copy import ROOT

from eval.distances.two_sample_classifier import FOLDS
from pipeline.compose import check_number_of_prompts, compose
from pipeline.errors import InputError
from pipeline.generation.arm_guidance import guidance_of
from pipeline.guidance.algebra import MAIN
from pipeline.overrides import from_environment, quoted, readable
from pipeline.study.arm import Arm
from pipeline.study.controls import check_headlines
from pipeline.study.negative import with_negative
from pipeline.study.plain_yaml import check_names
from pipeline.study.study import load_study, parse_study


def change(params, dotted, value):
    *path, last = dotted.split(".")
    for key in path:
        params = params[key]
    params[last] = value


def test_a_study_that_says_only_how_much_is_drawn_has_all_that_dvc_asks_for_by_name(tmp_path):
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    names = [name for name in read_params(ROOT / "dvc.yaml") if "." in name and not name.startswith("arms.")]
    assert "generate.threads" in names
    own = "defaults: [{/setup: embedded}, {/arm: [unguided, cfg]}, _self_]\nname: own\nbaseline: unguided\n"
    (tmp_path / "conf/study/own.yaml").write_text("# @package _global_\n" + own)
    content = compose(tmp_path / "conf", ["study=own"])
    for name in names:
        section, key = name.split(".")
        assert key in content[section], name


def read_params(path):
    """What the stages of a dvc.yaml depend on in params.yaml."""
    stages = yaml.safe_load(path.read_text())["stages"].values()
    return {name for stage in stages for name in stage.get("do", stage).get("params", []) if isinstance(name, str)}


def test_the_committed_params_are_what_conf_composes():
    committed = yaml.safe_load((ROOT / "params.yaml").read_text())
    assert committed == composed()
    assert list(committed["arms"]) == list(composed()["arms"])


def test_an_experiment_changes_the_params_as_composing_does(tmp_path):
    """`dvc exp run -S` changes params.yaml itself, in which arms are written out."""
    from dvc.utils.hydra import apply_overrides

    assert not Config(str(ROOT / ".dvc"))["hydra"]["enabled"]
    shutil.copyfile(ROOT / "params.yaml", tmp_path / "params.yaml")
    apply_overrides(str(tmp_path / "params.yaml"), ["arms.cfg.scale=4"])
    assert yaml.safe_load((tmp_path / "params.yaml").read_text()) == compose(ROOT / "conf", ["arms.cfg.scale=4"])


def test_no_key_is_one_that_the_run_cache_ignores():
    """DVC leaves keys named exactly size or nfiles out of its run cache's keys (treeverse/dvc 10296)."""

    def keys(node):
        if isinstance(node, dict):
            for key, value in node.items():
                yield key
                yield from keys(value)

    assert not {"size", "nfiles"} & set(keys(yaml.safe_load((ROOT / "params.yaml").read_text())))


@pytest.mark.parametrize(
    ("dotted", "value", "message"),
    [
        (
            "arms.cfg.method",
            "cgf",
            r"arms.cfg.method is 'cgf': .*'unguided', 'cfg', 'negative', 'autoguidance', 'independent', .* or 'mix'",
        ),
        ("arms.cfg.scale", -0.5, r"arms.cfg.scale is -0.5: .*greater than 0"),
        ("arms.cfg.scale", 0, r"arms.cfg.scale is 0: .*greater than 0"),
        ("arms.cfg.scale", 101, r"arms.cfg.scale is 101: .*less than or equal to 100"),
        ("arms.cfg.scale", float("nan"), r"arms.cfg.scale is nan"),
        ("arms.cfg.sclae", 2, r"arms.cfg.sclae is not a known key; did you mean scale\?"),
        ("arms.unguided.scale", 2, r"arms.unguided: method unguided has scale 1 by definition, not 2"),
        (
            "arms.negative.negative_preset",
            "heavy",
            r"arms.negative.negative_preset is 'heavy': is unknown; known presets: tin",
        ),
        ("arms.negative.negative_prompt", "bad", r"arms.negative: method negative needs exactly one of"),
        ("arms.cfg.negative_prompt", "bad", r"arms.cfg: method cfg takes none of negative_prompt"),
        (
            "sampler.scheduler",
            "ddpm",
            r"sampler.scheduler is 'ddpm': is unknown; known schedulers: ddim, euler, euler_anc",
        ),
        (
            "sampler.levels",
            "karras",
            r"sampler: scheduler ddim has no levels karras; it takes native; schedulers with k",
        ),
        ("sampler.levels", "cosine", r"sampler.levels is 'cosine': .*'native', 'karras', 'exponential' or 'polyexp"),
        ("sampler.rho", 7, r"sampler: rho is the exponent of levels polyexponential"),
        ("sampler.steps", 0, r"sampler.steps is 0"),
        ("model.main", "/etc/models", r"model.main is '/etc/models': must be a path inside the project"),
        ("model.main", "../models", r"model.main is '../models': must be a path inside the project"),
        ("generate.shard", 10, r"generate: shard \(10\) must be a multiple of batch \(4\)"),
        ("reference.images", 31, r"reference.images is 31; two disjoint halves"),
        ("baseline", "plain", r"baseline 'plain' is not one of the arms"),
        ("extra", 1, r"extra is not a known key"),
        ("generate.pictures", 5, r"generate.pictures is now generate.images$"),
        ("reference.source", "pictures/mine", r"the folder pictures/ is now images/; move it and write images/mine$"),
        ("tracking.experiment", "team/guidance", r"tracking.experiment is 'team/guidance'"),
        ("tracking.experiment", "Ann's", r"tracking.experiment is \"Ann's\""),
        ("sampler.steps", 61, r"61 trailing steps cannot be laid out exactly"),
        ("arms.cfg.schedule", {"name": "interval", "lo": 3, "hi": 3}, r"lo \(3\) must be below hi \(3\)"),
        ("arms.cfg.schedule", {"name": "window", "start": 0.5, "stop": 0.2}, r"start \(0.5\) must be below stop"),
        ("arms.cfg.schedule", {"name": "sine"}, r"'sine' .*'constant', 'interval', 'window', 'linear', 'cosine', 'ste"),
        ("arms.cfg.schedule", {"name": "dynamic"}, r"schedule dynamic is for a negative prompt, not empty"),
        (
            "arms.negative.schedule",
            {"name": "dynamic"},
            r"arms.negative.schedule dynamic needs the ancestral .*scheduler ddim has not; take euler_anc",
        ),
        ("arms.cfg.post", {"name": "agp"}, r"'agp' .*'rescale', 'renorm', 'apg', .*'guider'"),
        ("arms.cfg.post", {"name": "guider", "guider": "CFG"}, r"guider 'CFG' is unknown; known guiders: Adaptive.*"),
        (
            "arms.cfg.post",
            {"name": "guider", "guider": "AutoGuidance", "arguments": {"layers": 1}},
            r"guider AutoGuidance takes no layers; it takes auto_guidance_layers",
        ),
        ("arms.unguided.post", {"name": "apg"}, r"method unguided has no terms for a schedule, post or step to act on"),
        ("arms.cfg.terms", [{"reference": "guide"}], r"arms.cfg: method cfg takes no terms"),
        ("arms.cfg.method", "mix", r"arms.cfg: method mix needs terms"),
        (
            "arms.cfg.probes",
            ["empt"],
            r"arms.cfg: probes name the reference 'empt', which is unknown; known: empty, negative, guide, unrelated",
        ),
        ("arms.cfg.probes", ["negative"], r"arms.cfg: reference negative needs exactly one of negative_prompt"),
    ],
)
def test_a_wrong_value_is_named_with_the_way_out(params, dotted, value, message):
    change(params, dotted, value)
    with pytest.raises(InputError, match=message) as raised:
        parse_study(params, "params.yaml")
    assert "\n" not in str(raised.value)


def test_an_arm_name_that_is_no_folder_name_is_refused(params):
    params["arms"]["../evil"] = params["arms"]["cfg"]
    with pytest.raises(InputError, match="evil"):
        parse_study(params, "params.yaml")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["study=nope"], r"conf/ has no study 'nope'; known choices: alignment, bad_versions, bad_versions_flow"),
        (["arms.nope.scale=2"], r"Could not override 'arms.nope.scale'"),
        (["arms.cfg.scale=["], r"arms.cfg.scale=\[ is not one value for Hydra"),
        (["nonsense"], r"^nonsense is not an override; write key=value, for instance study=sweep"),
        (["study"], r"^study is not an override"),
        (["--multirun"], r"^--multirun is not an override"),
        (["generate.images:3"], r"^generate.images:3 is not an override"),
        (["=3"], r"^=3 is not an override"),
        (["generate.images = 3"], r"has spaces before =; write generate.images=3$"),
        (["generate/images=3"], r"Could not override 'generate/images': .* write generate.images=3$"),
        (
            ["Generate.images=3"],
            r"Could not override 'Generate.images': Generate is not a known key; did you mean gene",
        ),
        (["generate.imgaes=3"], r"generate.imgaes is not a known key; did you mean images\?$"),
        (["generate.pictures=5"], r"'generate.pictures': generate.pictures is now generate.images$"),
        (["reference.pictures=5"], r"'reference.pictures': reference.pictures is now reference.images$"),
        (["arms.cfg.sclae=3", "study=sweep"], r"Could not override 'arms.cfg.sclae'"),
        (["~arms.nope"], r"Could not delete from config. 'arms.nope' does not exist"),
    ],
)
def test_conf_errors_are_one_line(overrides, message):
    with pytest.raises(InputError, match=message) as raised:
        compose(ROOT / "conf", overrides)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("tag", "instead"),
    [
        *((tag, "into quotes: '>_<'") for tag in ("@_@", ">_<", "|_|", "*", "&", "`x`", "=", "%")),
        (r'"saber \(fate\)"', "put the text into single quotes, in which a backslash is a backslash"),
        ("a\tb", "indent with spaces instead of tabs"),
    ],
)
def test_a_tag_that_yaml_reads_as_syntax_is_told_how_to_be_written(tmp_path, tag, instead):
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    study = tmp_path / "conf/study/mine.yaml"
    study.write_text(f"# @package _global_\nprompts:\n  axes:\n    - - {tag}\n      - cat\n")
    with pytest.raises(InputError, match=re.escape(instead)) as raised:
        compose(tmp_path / "conf", ["study=mine"])
    assert "mine.yaml" in str(raised.value)
    study.write_text(study.read_text().replace(tag, f"'{tag.strip(chr(34))}'"))
    assert compose(tmp_path / "conf", ["study=mine"])["prompts"]["axes"] == [[tag.strip('"'), "cat"]]


@pytest.mark.parametrize("tag", ["${animal}", "${season=winter}", "a ${", "${not one} x", "${a:b}"])
def test_a_text_that_is_read_as_a_reference_is_told_how_to_be_written(tmp_path, tag):
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    study = tmp_path / "conf/study/mine.yaml"
    study.write_text(f"# @package _global_\nprompts:\n  axes:\n    - - '{tag}'\n")
    with pytest.raises(InputError, match=r"write \\\$\{ where it is part of a text$"):
        compose(tmp_path / "conf", ["study=mine"])


NEGATIVE = "arms.negative.negative_prompt"


@pytest.mark.parametrize(
    ("override", "instead"),
    [
        ("name=a, b", """'name="a, b"'"""),
        ("+model.config=(a:1)", """'+model.config="(a:1)"'"""),
        ("name={bad", """'name="{bad"'"""),
        (f'{NEGATIVE}="say "cheese""', rf"""'{NEGATIVE}="say \"cheese\""'"""),
        ("prompts.path=prompts/a=b.txt", """'prompts.path="prompts/a=b.txt"'"""),
    ],
)
def test_a_value_that_hydra_cannot_read_is_shown_in_quotes(override, instead):
    with pytest.raises(InputError) as raised:
        compose(ROOT / "conf", [override])
    assert str(raised.value).startswith(f"{override} is not one value for Hydra")
    assert str(raised.value).endswith(f"if it is one text, quote it: {instead}")


@given(
    text=st.text(
        st.one_of(st.sampled_from([*"'${}[](),:= ab", '"', "\\"]), st.characters(exclude_categories=["Cs", "Cc"]))
    )
)
def test_a_quoted_override_is_the_text_itself(text):
    (override,) = shlex.split(quoted(f"{NEGATIVE}={text}"))
    value = OverridesParser.create().parse_override(override).value()
    assert OmegaConf.to_container(OmegaConf.create({"a": value}), resolve=True) == {"a": text}


@pytest.mark.parametrize("key", [NEGATIVE, "negative", "arms.cfg.description", "+arms.mix.texts.flaws"])
@pytest.mark.parametrize("value", ["bad, worse", "(bad:1.3), [x]", "{bad", "[lowres]", "a=b", "${x} \\${y}", "\\(c\\)"])
def test_a_text_of_a_study_is_taken_as_it_stands(key, value):
    assert OverridesParser.create().parse_override(readable([f"{key}={value}"])[0]).value() == value.replace(
        "${", "\\${"
    ).replace("\\\\${", "\\\\\\${")
    if "texts" not in key:
        content = compose(ROOT / "conf", [f"{key}={value}"])
        for part in key.split("."):
            content = content[part]
        assert content == value


@pytest.mark.parametrize("value", ['"bad, worse"', "'bad, worse'"])
def test_a_text_in_hydras_quotes_is_what_stands_inside(value):
    assert compose(ROOT / "conf", [f"{NEGATIVE}={value}"])["arms"]["negative"]["negative_prompt"] == "bad, worse"


def test_a_key_that_the_study_knows_and_conf_leaves_out_is_added():
    content = compose(ROOT / "conf", [f"{NEGATIVE}=(bad:1.3)", "arms.cfg.schedule.name=interval",
                                      "arms.cfg.schedule.lo=0.3", "arms.cfg.schedule.hi=5"])  # fmt: skip
    assert content["arms"]["negative"]["negative_prompt"] == "(bad:1.3)"
    assert content["arms"]["cfg"]["schedule"] == {"name": "interval", "lo": 0.3, "hi": 5}


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("study=swep", "conf/ has no study 'swep'; did you mean sweep? known choices: alignment, "),
        ("studdy=sweep", "studdy is not a known key; did you mean study?"),
        ("arms.cgf.scale=3", "arms has no cgf; did you mean cfg?"),
        ("arms.cfg.sclae=3", "arms.cfg.sclae is not a known key; did you mean scale?"),
        ("arms/cfg/scale=3", "dots separate the parts of a key; write arms.cfg.scale=3"),
        ("sampler.scheduler=ddmi", "lms; did you mean ddim?"),
        ("arms.cfg.method=cgf", "or 'mix'; did you mean cfg?"),
        ("negative={preset: tinybooru-lihgt}", "did you mean tinybooru-light? known presets: tinybooru, "),
    ],
)
def test_a_slip_of_the_pen_is_answered_with_the_nearest_name(override, said):
    with pytest.raises(InputError, match=re.escape(said)):
        parse_study(compose(ROOT / "conf", [override]), "the composed study")


def test_words_that_spaces_cut_off_say_how_to_be_written(monkeypatch):
    way = "put that into quotes: 'negative=bad hands', and inside OVERRIDES=\"...\" write negative='bad hands'"
    with pytest.raises(InputError, match=re.escape(way)):
        compose(ROOT / "conf", ["negative=bad", "hands"])
    monkeypatch.setenv("GUIDEDRIFT_OVERRIDES", "study=sweep negative='bad hands, blurry'")
    assert from_environment() == ["study=sweep", "negative=bad hands, blurry"]
    monkeypatch.setenv("GUIDEDRIFT_OVERRIDES", "negative=it's bad")
    with pytest.raises(InputError, match=r"GUIDEDRIFT_OVERRIDES is not what a shell reads .*: negative=it's bad; put"):
        from_environment()


@pytest.mark.parametrize(
    ("name", "read"),
    [
        *((name, "false") for name in ("no", "off", "No", "false")),
        *((name, "true") for name in ("yes", "on", "TRUE")),
        *((name, "nothing") for name in ("null", "~")),
        *((name, "a number") for name in ("1.5", "7", "0x1f", "1_0", ".5")),
    ],
)
def test_a_name_that_yaml_does_not_read_as_text_is_named_with_its_line(tmp_path, name, read):
    said = re.escape(f': the name {name} is read as {read}; put it into quotes: "{name}"')
    for number, content in (
        (2, f"arms:\n  {name}: {{method: unguided}}\n"),
        (1, f"arms: {{a: {{scale: 1}}, {name}: {{scale: 2}}}}\n"),
        (3, f"defaults:\n  - /arm:\n    - {name}\n"),
        (1, f"defaults: [{{override /arm: [cfg, {name}]}}]\n"),
    ):
        (tmp_path / "study.yaml").write_text(content)
        with pytest.raises(InputError, match=rf"study\.yaml:{number}{said}"):
            check_names(tmp_path / "study.yaml")


@pytest.mark.parametrize(
    "content",
    [
        'arms: {"no": {scale: 1}, none: {scale: 2}, on_all: {scale: 3}, negative_1: {scale: 4}}\n',
        "restore_mean: true\nscale: 3\nseed: ~\nlist: [1, no, null]\n",
        "defaults:\n  - default\n  - override /scorers: null\n  - _self_\n",
    ],
)
def test_names_in_quotes_and_values_that_are_no_names_are_read(tmp_path, content):
    (tmp_path / "study.yaml").write_text(content)
    check_names(tmp_path / "study.yaml")


def test_conf_with_an_arm_called_no_is_refused_before_it_is_composed(tmp_path):
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    own = "# @package _global_\ndefaults: [default, _self_]\narms:\n  {}: {{method: unguided, scale: 1.0}}\n"
    (tmp_path / "conf/study/own.yaml").write_text(own.format("no"))
    with pytest.raises(InputError, match=r"own.yaml:4: the name no is read as false; put it into quotes: \"no\""):
        compose(tmp_path / "conf", ["study=own"])
    (tmp_path / "conf/study/own.yaml").write_text(own.format('"no"'))
    assert "no" in parse_study(compose(tmp_path / "conf", ["study=own"]), "own").arms


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (False, r"arms: a name was read as false \(no, off or false without quotes\); put it into quotes"),
        (True, r"arms: a name was read as true \(yes, on or true without quotes\); put it into quotes"),
        (None, r"arms: a name was read as nothing \(null or ~ without quotes\); put it into quotes"),
        (1.5, "arms: a name was read as 1.5, which is not text; put it into quotes"),
    ],
)
def test_a_name_of_params_that_is_not_text_says_how_it_was_read(params, name, said):
    params["arms"][name] = params["arms"]["unguided"]
    with pytest.raises(InputError, match=f"params.yaml: {said}"):
        parse_study(params, "params.yaml")


@pytest.mark.parametrize(
    ("value", "written"),
    [(False, "no, off and false"), (True, "yes, on and true"), (1, "a number"), (1.5, "a number")],
)
def test_a_text_that_yaml_reads_otherwise_is_told_to_be_quoted(params, value, written):
    params["arms"]["negative"] |= {"negative_preset": None, "negative_prompt": value}
    said = f"{NEGATIVE} is {value}: Input should be a valid string; YAML reads {written} without quotes"
    with pytest.raises(InputError, match=re.escape(said)):
        parse_study(params, "params.yaml")


def test_params_that_are_no_mapping_are_refused(tmp_path):
    (tmp_path / "params.yaml").write_text("- 1\n")
    with pytest.raises(InputError, match="is not a mapping"):
        load_study(tmp_path / "params.yaml")


@pytest.mark.parametrize("text", ['arms: {cfg: {negative_prompt: "\\ud800"}}', '"\\ud800": 1'])
def test_half_a_surrogate_pair_is_refused(tmp_path, text):
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(InputError, match="not valid Unicode"):
        load_study(tmp_path / "params.yaml")


@pytest.mark.parametrize("path", sorted((ROOT / "conf/arm").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_arm_of_conf_is_a_valid_arm_of_its_own_name(path):
    assert f"@package arms.{path.stem}\n" in path.read_text()
    arm = yaml.safe_load(path.read_text())
    own = with_negative({"negative": "bad", "arms": {"own": arm}})["arms"]["own"]
    guidance = guidance_of(Arm.model_validate(own))
    main = guidance.predictions()[0]
    assert main == (MAIN if main.name == "main" else guidance.main)


def test_the_alignment_study_probes_all_three_references_in_every_arm():
    study = parse_study(composed("study=alignment"), "alignment")
    assert all(arm.probes == ("negative", "empty", "guide") for arm in study.arms.values())
    assert {arm.method for arm in study.arms.values()} == {"unguided", "cfg", "negative", "autoguidance"}


@pytest.mark.parametrize("count", [2, 3, 4])
def test_prompts_too_few_to_compare_are_told_before_anything_is_drawn(count):
    with pytest.raises(InputError, match=f"{count} different prompts; write at least {FOLDS}"):
        check_number_of_prompts([f"prompt {k % count}" for k in range(16)])


@pytest.mark.parametrize("count", [1, 5, 16])
def test_one_prompt_for_all_or_at_least_five_can_be_compared(count):
    check_number_of_prompts([f"prompt {k % count}" for k in range(16)])


def test_dvc_loads_a_stage_for_every_arm_with_controls_too(tmp_path):
    """A control is called <arm>@cfg, and DVC takes "@" for the end of a stage's name."""
    content = compose(ROOT / "conf", ["controls=constant"])
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    shutil.copyfile(ROOT / "dvc.yaml", tmp_path / "dvc.yaml")
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/config").write_text("[core]\n    no_scm = True\n")
    stages = Repo(str(tmp_path)).index.stages
    copied = {stage.outs[0].def_path for stage in stages if stage.name.startswith("metrics@")}
    assert copied == {f"metrics/{arm}.json" for arm in content["arms"]}
    assert "metrics/negative@cfg.json" in copied


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda headlines: headlines.pop("cfg"), "add the line 'cfg: cfg'"),
        (lambda headlines: headlines.update(mine="mine"), "remove the line 'mine: mine'"),
        (
            lambda headlines: headlines.update(cfg="unguided"),
            "remove the line 'cfg: unguided', add the line 'cfg: cfg'",
        ),
        (lambda headlines: headlines.clear(), "add the line 'autoguidance: autoguidance'"),
    ],
)
def test_an_arm_that_dvc_would_not_know_is_refused(edit, said):
    content = composed()
    edit(content["headlines"])
    with pytest.raises(InputError, match="headlines must have every arm once") as refused:
        check_headlines(content["headlines"], content["arms"])
    assert said in str(refused.value)
