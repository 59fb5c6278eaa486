"""Prompt sets, presets, and what an arm makes of them."""

import os
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from compositions import composed
from datasets import Dataset
from one_arm import generate
from repository_copy import ROOT

from pipeline.errors import InputError
from pipeline.generation.arm_texts import arm_negatives, arm_prompts, study_prompts
from pipeline.generation.shard_plan import arm_texts, plan_shards
from pipeline.layout import SETS
from pipeline.prompting.emphasis import parse
from pipeline.prompting.presets import LADDERS, NEGATIVE_PRESETS, QUALITY_TAGS
from pipeline.prompting.prompt_sets import (
    DatasetPrompts,
    EmptyPrompts,
    FilePrompts,
    GridPrompts,
    TinybooruPrompts,
    read_prompts,
)
from pipeline.prompting.strict_check import check_prompt
from pipeline.storage.places import Places
from pipeline.storage.shards import decode_images, read_set
from pipeline.study.arm import Arm
from pipeline.study.study import parse_study


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder prompts/ of an empty project."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prompts").mkdir()
    return tmp_path / "prompts"


def grid(**changes):
    return GridPrompts(**{"source": "grid", "axes": [["a", "b"], ["x", "", "z"]], **changes})


def test_a_file_gives_one_prompt_a_line_and_starts_again(folder):
    (folder / "tags.txt").write_text("\ufeff(a:1.2), b\r\n\n  c  \n")
    prompts = read_prompts(FilePrompts(source="file", path="prompts/tags.txt"), 5, "a1111")
    assert prompts == ["(a:1.2), b", "c", "(a:1.2), b", "c", "(a:1.2), b"]


def test_a_grid_is_every_combination_the_last_axis_fastest():
    assert read_prompts(grid(), 6, "a1111") == ["a, x", "a", "a, z", "b, x", "b", "b, z"]


def test_a_grid_takes_a_ladder_of_quality_by_name():
    prompts = read_prompts(grid(axes=[["1girl"], "novelai-v1"]), 6, "novelai")
    assert prompts == [f"1girl, {quality}" for quality in LADDERS["novelai-v1"]]


def test_a_sample_of_a_grid_is_of_its_seed_and_without_repeats():
    axes = [[f"{axis}{k}" for k in range(30)] for axis in "abcde"]
    prompts = read_prompts(grid(axes=axes, sample=50, seed=1), 50, "plain")
    assert prompts == read_prompts(grid(axes=axes, sample=50, seed=1), 50, "plain")
    assert len(set(prompts)) == 50
    assert prompts != read_prompts(grid(axes=axes, sample=50, seed=2), 50, "plain")


@pytest.mark.parametrize("form", ["file", "folder", "saved"])
def test_captions_of_a_dataset_are_taken_as_they_are(folder, form):
    captions = ["(x:abc), 😀", None, "a BREAK b", ""]
    dataset = Dataset.from_dict({"caption": captions, "number": [1, 2, 3, 4]})
    path = folder / {"file": "captions.parquet", "folder": "captions", "saved": "captions"}[form]
    if form == "saved":
        dataset.save_to_disk(path)
    elif form == "folder":
        path.mkdir()
        dataset.select([0, 1]).to_parquet(path / "0.parquet")
        dataset.select([2, 3]).to_parquet(path / "1.parquet")
    else:
        dataset.to_parquet(path)
    prompt_set = DatasetPrompts(source="dataset", path=f"prompts/{path.name}", column="caption")
    assert read_prompts(prompt_set, 5, "a1111") == ["(x:abc), 😀", "", "a BREAK b", "", "(x:abc), 😀"]


TEXT_KINDS = [
    pa.string(),
    pa.large_string(),
    pa.string_view(),
    pa.dictionary(pa.int32(), pa.string()),
    pa.dictionary(pa.int8(), pa.large_string()),
]


@pytest.mark.parametrize("kind", TEXT_KINDS, ids=str)
def test_captions_are_read_from_every_kind_of_text_column(folder, kind):
    captions = pa.array(["a cat", None, "a dog", "a cat"])
    pq.write_table(pa.table({"caption": captions.cast(kind)}), folder / "captions.parquet")
    prompt_set = DatasetPrompts(source="dataset", path="prompts/captions.parquet", column="caption")
    assert read_prompts(prompt_set, 4, "a1111") == ["a cat", "", "a dog", "a cat"]


def test_files_of_a_folder_may_hold_captions_in_several_kinds_of_column(folder):
    (folder / "captions").mkdir()
    for k, kind in enumerate(TEXT_KINDS):
        pq.write_table(pa.table({"caption": pa.array([f"number {k}"]).cast(kind)}), folder / f"captions/{k}.parquet")
    prompt_set = DatasetPrompts(source="dataset", path="prompts/captions", column="caption")
    assert read_prompts(prompt_set, 5, "a1111") == [f"number {k}" for k in range(5)]


@pytest.mark.parametrize("kind", [pa.string_view(), pa.large_string()], ids=str)
def test_captions_of_a_saved_dataset_are_read_from_every_kind_of_text_column(folder, kind):
    Dataset(pa.table({"caption": pa.array(["a cat", None]).cast(kind)})).save_to_disk(folder / "saved")
    prompt_set = DatasetPrompts(source="dataset", path="prompts/saved", column="caption")
    assert read_prompts(prompt_set, 2, "a1111") == ["a cat", ""]


@pytest.mark.parametrize("kind", [pa.dictionary(pa.int32(), pa.int64()), pa.binary(), pa.list_(pa.string())], ids=str)
def test_categories_of_numbers_are_not_captions(folder, kind):
    values = {"binary": [b"a"], "list<item: string>": [["a"]]}.get(str(kind).replace("element", "item"), [7])
    array = pa.array(values).dictionary_encode().cast(kind) if pa.types.is_dictionary(kind) else pa.array(values, kind)
    pq.write_table(pa.table({"caption": array}), folder / "captions.parquet")
    prompt_set = DatasetPrompts(source="dataset", path="prompts/captions.parquet", column="caption")
    with pytest.raises(InputError, match=r"'caption' of .* holds .*, not text; choose a text column"):
        read_prompts(prompt_set, 1, "a1111")


@pytest.mark.parametrize("name", [b"\xe9t\xe90.parquet", b"\xed\xb3\xa9.parquet", b"more\n\xff/0.parquet"])
def test_a_file_of_captions_whose_name_is_not_utf8_is_shown_with_its_bytes(folder, name):
    place = os.fsencode(folder / "captions") + b"/" + name
    os.makedirs(os.path.dirname(place))
    pq.write_table(pa.table({"caption": ["a"]}), folder / "0.parquet")
    (folder / "0.parquet").rename(os.fsdecode(place))
    prompt_set = DatasetPrompts(source="dataset", path="prompts/captions", column="caption")
    with pytest.raises(InputError, match=r"^prompts/captions/.*\\x.*: the name is not UTF-8; rename it") as raised:
        read_prompts(prompt_set, 1, "a1111")
    assert str(raised.value).isprintable()


def test_a_file_of_captions_may_have_a_line_break_in_its_name(folder):
    (folder / "captions").mkdir()
    pq.write_table(pa.table({"caption": ["a"]}), folder / "captions/a\nb.parquet")
    prompt_set = DatasetPrompts(source="dataset", path="prompts/captions", column="caption")
    assert read_prompts(prompt_set, 1, "a1111") == ["a"]
    with pytest.raises(InputError, match=r"a\\nb\.parquet"):
        read_prompts(prompt_set.model_copy(update={"column": "tags"}), 1, "a1111")


def test_held_out_prompts_do_not_depend_on_how_many_are_asked_for():
    held_out = TinybooruPrompts(source="tinybooru", split="validation", world_seed=0)
    assert read_prompts(held_out, 8, "a1111") == read_prompts(held_out, 20, "a1111")[:8]
    assert read_prompts(EmptyPrompts(source="empty"), 3, "a1111") == ["", "", ""]


def test_bad_prompt_files_are_named_with_the_way_out(folder):
    def read(path, column=None, syntax="a1111"):
        if column is None:
            return read_prompts(FilePrompts(source="file", path=path), 2, syntax)
        return read_prompts(DatasetPrompts(source="dataset", path=path, column=column), 2, syntax)

    (folder / "empty.txt").write_text("\n \n")
    (folder / "malformed.txt").write_text("fine\n(x:abc)\n")
    (folder / "latin.txt").write_bytes(b"caf\xe9")
    (folder / "broken.parquet").write_bytes(b"PAR1 no")
    (folder / "nothing").mkdir()
    pq.write_table(pa.table({"caption": ["a"], "number": [1]}), folder / "captions.parquet")
    pq.write_table(pa.table({"caption": pa.array([], pa.string())}), folder / "rowless.parquet")
    for arguments, message in (
        (("prompts/missing.txt",), "prompts.path prompts/missing.txt does not exist"),
        (("prompts/empty.txt",), "prompts/empty.txt holds no prompt"),
        (("prompts/malformed.txt",), r"prompts/malformed.txt:2: '\(x:abc\)' has the weight 'abc'"),
        (("prompts/latin.txt",), "is not a readable UTF-8 text"),
        (("prompts/missing.parquet", "caption"), "prompts/missing.parquet does not exist"),
        (("prompts/broken.parquet", "caption"), "cannot be read as a dataset"),
        (("prompts/nothing", "caption"), "the folder holds neither parquet files nor a saved dataset"),
        (("prompts/captions.parquet", "tags"), "'tags' is unknown in .*; its columns: caption, number"),
        (("prompts/captions.parquet", "number"), "'number' of .* holds int64, not text"),
        (("prompts/rowless.parquet", "caption"), "holds no rows"),
    ):
        with pytest.raises(InputError, match=message) as raised:
            read(*arguments)
        assert "\n" not in str(raised.value)
    assert read("prompts/malformed.txt", syntax="novelai") == ["fine", "(x:abc)"]


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ({"source": "grid", "axes": [["a"], []]}, "has an axis without tags"),
        ({"source": "grid", "axes": [["a"], "novelai-v9"]}, "has the axis 'novelai-v9'; .* one of tinybooru"),
        ({"source": "grid", "axes": [["a", "b"]], "sample": 3}, "sample is 3; the axes have 2 combinations"),
        ({"source": "grid", "axes": [["x"] * 1000] * 2}, "have 1000000 combinations; set sample"),
        ({"source": "file", "path": "/etc/passwd"}, "must lie in prompts/"),
        ({"source": "file", "path": "prompts/../params.yaml"}, "inside the project, without '..'"),
        ({"source": "web"}, "'tinybooru', 'file', 'grid', 'dataset', 'empty'"),
    ],
)
def test_a_wrong_prompt_set_is_named_with_the_way_out(params, prompts, message):
    params["prompts"] = prompts
    with pytest.raises(InputError, match=message) as raised:
        parse_study(params, "test")
    assert "\n" not in str(raised.value)


def test_a_malformed_weight_of_a_configured_prompt_is_refused_before_anything_is_loaded(params):
    params["arms"]["negative"].update(negative_preset=None, negative_prompt="(x:abc)")
    with pytest.raises(InputError, match=r"arms.negative.negative_prompt: '\(x:abc\)' has the weight 'abc'"):
        parse_study(params, "test")
    params["text"]["syntax"] = "plain"
    assert parse_study(params, "test").arms["negative"].negative == "(x:abc)"


def test_a_refused_prompt_of_a_file_or_a_grid_is_named_by_its_place(folder):
    (folder / "mine.txt").write_text("1girl, solo\n\n1girl, [cat|dog]\n")
    with pytest.raises(InputError, match=r"prompts/mine.txt:3: '\[cat\|dog\]' is alternation.* \(character 8\)"):
        read_prompts(FilePrompts(source="file", path="prompts/mine.txt"), 2, "a1111")
    with pytest.raises(InputError, match=r"prompts.axes.1.2: '__hair__' is a wildcard"):
        read_prompts(grid(axes=[["a", "b"], ["x", "", "__hair__"]]), 6, "a1111")


def test_the_field_notes_tiny_weights_stay_tiny_in_novelais_syntax():
    """1.05^-189 is the power of 1.05 nearest to the note's 0.0001."""
    arm = Arm(method="negative", scale=2, negative_preset="field-note-anything")
    (section,) = parse(arm_negatives(arm, ["a"], "novelai")[0], "novelai")
    weights = {span.text.strip(", "): span.weight for span in section if span.text.strip(", ")}
    assert set(weights) == {"bad", "comic", "cropped", "error", "extra", "low", "lowres", "speech", "worst"}
    assert set(weights.values()) == {1.05**-189}


@pytest.mark.parametrize("choice", ["tinybooru", "empty", "file", "grid"])
def test_the_prompt_sets_of_conf_are_whole(choice, params, monkeypatch):
    monkeypatch.chdir(ROOT)
    params["prompts"] = composed(f"prompts={choice}")["prompts"]
    assert len(study_prompts(parse_study(params, "test"))) == params["generate"]["images"]


@pytest.mark.parametrize("name", NEGATIVE_PRESETS)
def test_a_preset_keeps_its_weights_in_the_other_syntax(name):
    preset = NEGATIVE_PRESETS[name]
    check_prompt(preset.text, preset.syntax)
    arm = Arm(method="negative", scale=2, negative_preset=name)
    (translated,) = arm_negatives(arm, ["a"], "a1111")
    assert parse(translated, "a1111") == parse(preset.text, preset.syntax)
    # Round brackets are text in NovelAI's syntax, as in impact (font).
    brackets = "{}[]" if preset.syntax == "novelai" else "{}()[]"
    assert not set(brackets) & set(arm_negatives(arm, ["a"], "plain")[0])


def test_quality_tags_stand_where_their_tool_puts_them():
    def drawn(**changes):
        return arm_prompts(Arm(method="cfg", scale=2, **changes), ["1girl"], "a1111")

    assert drawn() == ["1girl"]
    assert drawn(quality_preset="novelai-v1") == ["masterpiece, best quality, 1girl"]
    assert drawn(quality_preset="novelai-v3") == ["1girl, best quality, amazing quality, very aesthetic, absurdres"]
    assert drawn(quality_preset="tinybooru", prompt="empty") == ["masterpiece"]
    assert drawn(quality_preset="novelai-furry") == ["1girl, (best quality, amazing quality:1.05)"]


def test_the_furry_list_weighs_its_elements_as_novelai_does():
    """Of its 32 elements three have two pairs of braces, thirteen one, and two stand in brackets."""
    (section,) = parse(NEGATIVE_PRESETS["novelai-furry-heavy"].text, "novelai")
    weights = {tag.strip(): span.weight for span in section for tag in span.text.split(",") if tag.strip()}
    assert len(weights) == 32
    assert {tag for tag, weight in weights.items() if weight > 1.1} == {"worst quality", "unfinished", "tall image"}
    assert {tag for tag, weight in weights.items() if weight < 1} == {"displeasing", "dated"}
    assert sum(weight == pytest.approx(1.05) for weight in weights.values()) == 13


def test_brackets_that_cancel_change_nothing_here():
    """NovelAI rounds bracket by bracket, so there such a prompt gives another image; whole steps are exact here."""
    assert parse("{[{[blue eyes, black hair]}]}", "novelai") == parse("blue eyes, black hair", "novelai")


def test_presets_that_entries_of_models_recommend_are_there():
    recommended = {"negative": set(), "quality": set()}
    for path in sorted((ROOT / "conf/model").glob("*.yaml")):
        text = " ".join(line.lstrip("# ") for line in path.read_text("utf-8").splitlines() if line.startswith("#"))
        for kinds, name in re.findall(r"((?:(?:quality|negative)_preset(?: and )?)+) ([\w-]+)", text):
            for kind in recommended:
                if f"{kind}_preset" in kinds:
                    recommended[kind].add(name)
    assert {"animagine-4", "illustrious", "noobai"} <= recommended["negative"] <= set(NEGATIVE_PRESETS)
    assert {"animagine-4", "illustrious", "noobai", "pony-6"} <= recommended["quality"] <= set(QUALITY_TAGS)


def test_the_prompt_can_be_its_own_negative():
    arm = Arm(method="negative", scale=2, negative_from_prompt=True, quality_preset="tinybooru")
    prompts = arm_prompts(arm, ["1girl", "1boy"], "a1111")
    assert arm_negatives(arm, prompts, "a1111") == prompts == ["1girl, masterpiece", "1boy, masterpiece"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"negative_preset": "tinybooru", "negative_from_prompt": True}, "needs exactly one of"),
        ({}, "needs exactly one of negative_prompt, negative_preset and negative_from_prompt"),
        ({"negative_preset": "hevy"}, "is unknown; known presets: tinybooru, "),
        (
            {"negative_preset": "tinybooru", "quality_preset": "best"},
            "is unknown; known presets: tinybooru, novelai-v1",
        ),
    ],
)
def test_an_arm_has_one_negative_prompt_and_known_presets(changes, message):
    with pytest.raises(ValueError, match=message):
        Arm(method="negative", scale=2, **changes)


def test_the_negative_prompt_and_the_reading_belong_to_a_shards_fingerprint(study):
    def marks(arm_changes=None, **changes):
        arm = study.arms["negative"].model_copy(update=arm_changes or {})
        other = study.model_copy(update={"arms": {**study.arms, "negative": arm}, **changes})
        return [shard.fingerprint for shard in plan_shards(other, "negative", arm_texts(other, "negative"), "cpu")]

    assert marks() == marks({"description": "other words"})
    text = arm_negatives(study.arms["negative"], [""], "a1111")[0]
    assert marks() == marks({"negative_preset": None, "negative_prompt": text}), "a preset is its text"
    assert marks() != marks({"negative_preset": "tinybooru-light"})
    assert marks() != marks({"negative_preset": None, "negative_from_prompt": True})
    assert marks() != marks(text=study.text.model_copy(update={"clip_skip": 1}))


def test_a_prompt_as_its_own_negative_draws_what_the_prompt_draws(study, tmp_path):
    """Any scale: both predictions are one, so their difference is nothing but rounding."""
    arms = {
        "unguided": study.arms["unguided"],
        "repeated": Arm(method="negative", scale=7.5, negative_from_prompt=True),
        "negative": study.arms["negative"],
    }
    small = study.model_copy(update={"arms": arms, "baseline": "unguided"})
    for name in arms:
        generate(small, name, Places.under(tmp_path))
    tables = {name: read_set(tmp_path / SETS / name) for name in arms}
    images = {
        name: np.stack([np.asarray(p, dtype=np.int16) for p in decode_images(table)]) for name, table in tables.items()
    }
    assert np.abs(images["repeated"] - images["unguided"]).max() <= 1
    assert np.abs(images["negative"] - images["unguided"]).max() > 1
    assert tables["repeated"]["negative_prompt"].to_pylist() == tables["repeated"]["prompt"].to_pylist()


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "conf/study").glob("*.yaml")))
def test_every_study_of_conf_composes_with_its_prompts(name, monkeypatch):
    monkeypatch.chdir(ROOT)
    study = parse_study(composed(f"study={name}"), name)
    assert study.name == name
    prompts = study_prompts(study)
    for arm in study.arms.values():
        assert (
            len(arm_negatives(arm, arm_prompts(arm, prompts, study.text.syntax), study.text.syntax))
            == study.generate.images
        )
