"""The published study: every image as it was drawn, people's labels as people's, and a card that is no markup."""

import copy
import hashlib
import json
import shutil
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import small_study
import yaml
from datasets import Features, load_dataset
from datasets import Image as ImageFeature
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from small_study import (
    ARMS,
    HOSTILE,
    IMAGES,
    PARAMS,
    comparison,
    rates_of,
    write_comparison,
    write_rates,
    write_study,
)

from labeling.records import (
    PAIR_LABELS,
    SAMPLED_PAIRS,
    SAMPLED_TASKS,
    TASK_LABELS,
    Label,
    PairLabel,
    SampledPair,
    SampledTask,
    write_labels,
    write_pairs,
    write_tasks,
)
from pipeline.errors import InputError
from pipeline.generation.shard_files import SET_FEATURES
from pipeline.layout import DATASET
from pipeline.publishing import viewer_groups
from pipeline.publishing.dataset import build, check, dataset_features, majority, make_dataset
from pipeline.publishing.dataset_card import ADULT, size_category
from pipeline.publishing.digits import in_two_digits
from pipeline.publishing.markdown import fenced, plain
from pipeline.results.answer import answer
from pipeline.results.comparison import Comparison
from pipeline.results.interval import Interval
from pipeline.results.rates import VERDICTS
from pipeline.storage import shards
from pipeline.storage.shards import read_set, read_table, write_shard
from pipeline.study.study import Study, parse_study

NOW = datetime(2026, 1, 1, tzinfo=UTC)
NAMES = ("0123456789ab", "ba9876543210")
EMBEDDED = {"name": "tinybooru", "main": "models/tinybooru/main", "guide": "models/tinybooru/guide"}


def task(task_id: str, image_id: str, repeat_of: str | None = None) -> SampledTask:
    arm, pair = image_id.rsplit("-", 1)
    return SampledTask(
        task_id=task_id,
        image_id=image_id,
        arm=arm,
        pair_id=int(pair),
        canvas="64x64",
        stratum=arm,
        inclusion_probability=0.25,
        batch="random",
        repeat_of=repeat_of,
        position=0,
    )


def label(task_id: str, labeller: str, verdict: Any, simulated: bool = False, note: str = "") -> Label:
    return Label(task_id=task_id, labeller=labeller, verdict=verdict, created_at=NOW, simulated=simulated, note=note)


def write_human_labels(root: Path) -> None:
    """Two people and a simulated labeller on three images; one pair."""
    write_tasks(
        root / SAMPLED_TASKS,
        [task("t0", "cfg-000000"), task("t1", "cfg-000001"), task("t2", "cfg-000002"), task("t3", "cfg-000000", "t0")],
    )
    write_labels(
        root / TASK_LABELS,
        [
            label("t0", NAMES[0], "pattern", note="Anna says hello"),
            label("t0", NAMES[1], "pattern"),
            label("t3", NAMES[0], "legit_human"),
            label("t1", NAMES[0], "pattern"),
            label("t1", NAMES[1], "malformed_human"),
            label("t2", "simulated-001122334455", "pattern", simulated=True),
            label("other pixels", NAMES[0], "pattern"),
        ],
    )
    pair = SampledPair(
        task_id="p0",
        pair_id=3,
        prompt="1person, solo",
        left_arm="cfg",
        right_arm="negative",
        left_image_id="cfg-000003",
        right_image_id="negative-000003",
        position=0,
    )
    write_pairs(root / SAMPLED_PAIRS, [pair])
    choices = [
        PairLabel(task_id="p0", labeller=NAMES[1], choice="right", created_at=NOW, simulated=False),
        PairLabel(task_id="p0", labeller="simulated-001122334455", choice="left", created_at=NOW, simulated=True),
    ]
    write_labels(root / PAIR_LABELS, choices)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_study(tmp_path)
    write_tasks(tmp_path / SAMPLED_TASKS, [task("t0", "cfg-000000")])
    return tmp_path


def study_of(**changes: Any) -> Study:
    return parse_study(copy.deepcopy({**PARAMS, **changes}), "test")


@pytest.fixture
def study() -> Study:
    return study_of()


def drawn(root: Path, arm: str) -> list[str]:
    return [hashlib.sha256(cell["bytes"].as_py()).hexdigest() for cell in read_set(root / "data/sets" / arm)["image"]]


def loaded(root: Path, arm: str, streaming: bool = False) -> Any:
    """The configuration as `datasets` gives it, images as bytes."""
    found = load_dataset(str(root / DATASET), arm, split="train", streaming=streaming, cache_dir=str(root / "cache"))
    return found.cast_column("image", ImageFeature(decode=False))


def metadata(root: Path) -> dict[str, Any]:
    return yaml.safe_load((root / DATASET / "README.md").read_text().split("---\n")[1])


def files(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("streaming", [False, True])
def test_every_image_of_every_arm_loads_as_it_was_drawn(study: Study, root: Path, streaming: bool) -> None:
    make_dataset(study, root)
    for arm in ARMS:
        rows = list(loaded(root, arm, streaming))
        assert [hashlib.sha256(row["image"]["bytes"]).hexdigest() for row in rows] == drawn(root, arm)
        assert [row["pair_id"] for row in rows] == list(range(IMAGES))


def test_the_baseline_from_other_seeds_is_a_floor_on_the_card_and_no_configuration(root: Path) -> None:
    arms = PARAMS["arms"] | {"reseeded": PARAMS["arms"]["unguided"] | {"first_seed": 1000}}
    content = comparison()
    floor = {"value": 0.7123, "low": 0.6, "high": 0.8, "n": IMAGES}
    for one in [content["floor"], *(space["floor"] for space in content["spaces"])]:
        one["other_seeds"] = floor
    write_comparison(root, content)
    make_dataset(study_of(arms=arms), root)
    card = (root / DATASET / "README.md").read_text()
    assert [one["config_name"] for one in metadata(root)["configs"][1:]] == list(ARMS)
    assert "| `unguided` from other seeds | 0.71 (0.60 to 0.80) | 0.71 (0.60 to 0.80) |" in card
    assert "| `reseeded` |" not in card
    assert not (root / DATASET / "data/reseeded").exists()


def test_a_study_too_small_to_conclude_says_so_at_the_top_of_its_card(study: Study, root: Path) -> None:
    make_dataset(study, root)
    first, second = (root / DATASET / "README.md").read_text().split("---\n", 2)[2].split("\n\n")[:2]
    assert first == "# guidedrift: study small"
    assert second == f"**{plain(study.caution)}**"
    assert "16 images per arm are too few to conclude anything" in second


def test_columns_are_classes_and_scores_that_a_viewer_can_show(study: Study, root: Path) -> None:
    make_dataset(study, root)
    found = load_dataset(str(root / DATASET), "negative", split="train", cache_dir=str(root / "cache"))
    assert found.features["arm"].names == list(ARMS)
    assert found.features["kind"].names == found.features["verdict"].names == list(VERDICTS)
    assert found[5]["image"].size == (64, 64)
    assert found.features["arm"].int2str(found[5]["arm"]) == "negative"
    assert found[5]["kind"] == 5 % len(VERDICTS)
    assert (found[5]["clip_score"], found[5]["inside_reference"], found[5]["verdict"]) == (0.5, False, None)
    assert (found[5]["negative_prompt"], found[5]["seed"]) == (HOSTILE, 5)


def test_the_pairs_are_what_loads_without_a_name(study: Study, root: Path) -> None:
    make_dataset(study, root)
    found = load_dataset(str(root / DATASET), split="train", streaming=True)
    assert [row["pair_id"] for row in found] == list(range(IMAGES))


def test_an_arm_named_default_is_what_loads_without_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # `datasets` takes it so, and refuses a second one.
    arms = {name.replace("negative", "default"): arm for name, arm in PARAMS["arms"].items()}
    monkeypatch.setattr(small_study, "ARMS", tuple(arms))
    monkeypatch.setattr(small_study, "PARAMS", {**PARAMS, "arms": arms})
    write_study(tmp_path)
    write_tasks(tmp_path / SAMPLED_TASKS, [])
    make_dataset(study_of(arms=arms), tmp_path)
    found = load_dataset(str(tmp_path / DATASET), split="train", streaming=True)
    assert {row["arm"] for row in found} == {list(arms).index("default")}
    assert [hashlib.sha256(row["image"]["bytes"]).hexdigest() for row in loaded(tmp_path, "cfg")] == drawn(
        tmp_path, "cfg"
    )


def test_lists_are_described_as_every_version_of_datasets_reads_them(study: Study, root: Path) -> None:
    write_human_labels(root)
    make_dataset(study, root)
    paths = list((root / DATASET / "data").rglob("*.parquet"))
    # Also where a column is empty in one arm, which the Hub's viewer would take for another type.
    assert all(pq.read_schema(path).equals(pq.read_schema(paths[0]), check_metadata=True) for path in paths)
    for path in paths:
        described = json.loads(pq.read_schema(path).metadata[b"huggingface"])["info"]["features"]
        # Before version 4, whose `List` earlier ones do not know, a list stood for one.
        assert '"List"' not in json.dumps(described)
        assert described["labels"][0]["malformed_parts"] == [{"dtype": "string", "_type": "Value"}]
        scores = Features.from_arrow_schema(read_table(root / "data/scores/cfg.parquet").schema)
        assert Features.from_dict(described) == dataset_features(ARMS, scores)
    rows = list(loaded(root, "cfg"))
    assert [len(row["labels"]) for row in rows[:3]] == [3, 2, 0]
    assert rows[0]["labels"][0]["labeller"] == "labeller-1"


def test_the_same_study_gives_the_same_bytes(study: Study, root: Path) -> None:
    write_human_labels(root)
    make_dataset(study, root)
    first = files(root / DATASET)
    make_dataset(study, root)
    assert files(root / DATASET) == first
    assert len(first) == len(ARMS) * 2 + len(("README.md", "grid.png", "pairs/part-00000.parquet"))


def groups(path: Path) -> list[tuple[int, int]]:
    """Rows and bytes of every row group."""
    found = pq.read_metadata(path)
    return [(found.row_group(k).num_rows, found.row_group(k).total_byte_size) for k in range(found.num_row_groups)]


def has_page_index(path: Path) -> bool:
    found = pq.read_metadata(path)
    columns = [found.row_group(k).column(j) for k in range(found.num_row_groups) for j in range(found.num_columns)]
    return all(column.has_offset_index for column in columns) and any(column.has_column_index for column in columns)


def test_row_groups_are_no_larger_than_a_viewer_reads(
    study: Study, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_dataset(study, root)
    paths = sorted((root / DATASET / "data/cfg").iterdir())
    assert [[rows for rows, _ in groups(path)] for path in paths] == [[8], [8]]
    assert all(has_page_index(path) for path in paths)
    bound = max(size for path in paths for _, size in groups(path)) // 2
    monkeypatch.setattr(viewer_groups, "GROUP_BYTES", bound)
    make_dataset(study, root)
    for path in paths:
        found = groups(path)
        assert len(found) > 1
        assert sum(rows for rows, _ in found) == 8
        assert has_page_index(path)
        # Parquet's own headers and dictionaries take a little beside the values.
        assert all(size <= bound + 5_000 for _, size in found)
    rows = list(loaded(root, "cfg"))
    assert [hashlib.sha256(row["image"]["bytes"]).hexdigest() for row in rows] == drawn(root, "cfg")
    assert [row["pair_id"] for row in rows] == list(range(IMAGES))


def test_a_shard_of_several_row_groups_is_published(study: Study, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_dataset(study, root)
    first = files(root / DATASET)
    columns = read_table(root / "data/sets/cfg/part-00000.parquet").to_pydict()
    monkeypatch.setattr(shards, "GROUP_BYTES", 1)
    write_shard(root / "data/sets/cfg/part-00000.parquet", columns, SET_FEATURES, "mark")
    make_dataset(study, root)
    assert files(root / DATASET) == first


def test_people_stand_under_numbers_and_simulated_labels_are_left_out(study: Study, root: Path) -> None:
    write_human_labels(root)
    contents = make_dataset(study, root)
    assert (contents.labels, contents.choices, contents.labellers, contents.simulated) == (5, 1, 2, 2)
    rows = list(loaded(root, "cfg"))
    classes = loaded(root, "cfg").features["verdict"]
    said = [
        (given["labeller"], classes.int2str(given["verdict"]), given["repeat"], given["inclusion_probability"])
        for given in rows[0]["labels"]
    ]
    assert sorted(said) == [
        ("labeller-1", "legit_human", True, 0.25),
        ("labeller-1", "pattern", False, 0.25),
        ("labeller-2", "pattern", False, 0.25),
    ]
    assert classes.int2str(rows[0]["verdict"]) == "pattern"
    assert rows[1]["verdict"] is None  # one against one
    assert (rows[2]["verdict"], rows[2]["labels"]) == (None, [])
    published = b"".join(path.read_bytes() for path in (root / DATASET).rglob("*") if path.is_file())
    assert not any(word.encode() in published for word in (*NAMES, "simulated-00", "hello"))


def test_a_choice_between_two_images_stands_beside_both(study: Study, root: Path) -> None:
    write_human_labels(root)
    make_dataset(study, root)
    arms = loaded(root, "cfg").features["arm"]
    (lost,), (won,) = (list(loaded(root, arm))[3]["choices"] for arm in ("cfg", "negative"))
    assert (lost["outcome"], lost["against"], lost["against_image_id"]) == (
        1,
        arms.str2int("negative"),
        "negative-000003",
    )
    assert (won["outcome"], won["against"], won["labeller"]) == (0, arms.str2int("cfg"), "labeller-2")


def test_a_verdict_needs_a_lead_at_first_sight() -> None:
    def given(*verdicts: str, repeat: bool = False) -> list[dict[str, Any]]:
        return [{"verdict": verdict, "repeat": repeat} for verdict in verdicts]

    assert majority([]) is None
    assert majority(given("pattern", "legit_human")) is None
    assert majority(given("pattern", "legit_human", "pattern")) == "pattern"
    assert majority([*given("pattern"), *given("legit_human", "legit_human", repeat=True)]) == "pattern"


def test_the_card_says_what_is_there_and_what_was_found(root: Path) -> None:
    make_dataset(study_of(model=EMBEDDED), root)
    about = metadata(root)
    assert about["license"] == "cc-by-4.0"
    assert about["size_categories"] == ["n<1K"]
    assert [config["config_name"] for config in about["configs"]] == ["pairs", *ARMS]
    assert [config.get("default", False) for config in about["configs"]] == [True, False, False, False]
    text = (root / DATASET / "README.md").read_text()
    found = comparison()["arms"][1]["scores"]["fd"]
    assert f"| `cfg` | {in_two_digits(Interval(**found))} |" in text
    assert "[adventurer](" in text
    asked = answer(Comparison(**comparison()))
    assert f"{asked.question} {asked.text}" in Page(MARKDOWN.render(text)).line
    rules = [line for line in text.splitlines() if "|---|" in line]
    assert all(line.startswith("|---|") for line in rules), "a head and its rule are two lines"
    assert MARKDOWN.render(text).count("<table>") == len(rules)
    assert "No person has labelled these images" in text


def test_the_card_names_no_machine(root: Path) -> None:
    place = {"kind": "ray", "address": "ray-head.example.org:6379", "storage": "s3://private-bucket/shards"}
    make_dataset(study_of(model=EMBEDDED, executor=place), root)
    text = (root / DATASET / "README.md").read_text()
    assert "ray-head" not in text
    assert "private-bucket" not in text


def test_a_study_over_a_real_checkpoint_is_flagged_and_the_embedded_world_is_not(root: Path) -> None:
    make_dataset(study_of(model=EMBEDDED), root)
    assert ADULT not in metadata(root)["tags"]
    real = {"name": "sd", "main": "hub:someone/sd", "guide": "hub:someone/sd-early"}
    make_dataset(study_of(model={**real, "licence": "creativeml-openrail-m"}), root)
    assert ADULT in metadata(root)["tags"]
    assert metadata(root)["license"] == "creativeml-openrail-m"
    assert "Not for all audiences" in (root / DATASET / "README.md").read_text()


@pytest.mark.parametrize(
    "foreign",
    [
        {"main": "models/mine"},
        {"guide": "hub:someone/sd"},
        {"vae": "models/mine"},
        {"weaken": {"name": "lora", "file": "models/mine.safetensors"}},
    ],
)
def test_any_foreign_part_makes_the_images_foreign(foreign: dict[str, Any]) -> None:
    assert study_of(model=EMBEDDED).licence == "cc-by-4.0"
    found = study_of(model={**EMBEDDED, **foreign})
    assert not found.is_embedded
    assert found.licence == ""


def test_images_that_start_from_a_folder_have_its_licence_and_not_ours() -> None:
    arms = copy.deepcopy(PARAMS["arms"])
    arms["cfg"]["image_to_image"] = {"from": "data/photographs", "strength": 0.5}
    assert not study_of(model=EMBEDDED, arms=arms).is_embedded


def test_a_licence_of_its_own_is_named_with_its_link(root: Path) -> None:
    own = {"licence": "faipl-1.0-sd", "licence_link": "https://example.org/licence"}
    make_dataset(study_of(model={**PARAMS["model"], **own}), root)
    about = metadata(root)
    assert (about["license"], about["license_name"], about["license_link"]) == ("other", *own.values())


@pytest.mark.parametrize("licence", ["unknown", "other", "free"])
def test_a_licence_that_nobody_can_look_up_is_refused_before_anything_is_drawn(licence: str) -> None:
    with pytest.raises(InputError, match=rf"model.*licence '{licence}'.*identifiers"):
        study_of(model={**PARAMS["model"], "licence": licence})


def test_rates_by_people_are_in_the_card_and_simulated_ones_are_not(study: Study, root: Path) -> None:
    write_rates(root, rates_of(simulated=False))
    make_dataset(study, root)
    assert "36.0% (33.0% to 38.0%)" in (root / DATASET / "README.md").read_text()
    write_rates(root, rates_of(simulated=True))
    make_dataset(study, root)
    assert "36.0%" not in (root / DATASET / "README.md").read_text()


class Page(HTMLParser):
    """What a browser would make of a page: its elements and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: set[str] = set()
        self.images: list[str | None] = []
        self.text = ""
        self.feed(html)
        self.line = " ".join(self.text.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.add(tag)
        self.images += [dict(attrs).get("src")] if tag == "img" else []

    def handle_data(self, data: str) -> None:
        self.text += data


MARKDOWN = MarkdownIt("commonmark").enable(["table", "strikethrough"])


def test_a_hostile_prompt_shows_as_text_in_the_card(study: Study, root: Path) -> None:
    make_dataset(study, root)
    text = (root / DATASET / "README.md").read_text().split("---\n", 2)[2]
    page = Page(MARKDOWN.render(text))
    assert "script" not in page.elements
    assert page.images == ["grid.png"]
    assert page.text.count(HOSTILE) == 2  # in the table of arms, and in the configuration
    assert page.text.count("\nMade with guidedrift") == 1


@given(st.text(alphabet=st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zl", "Zp"]), max_size=60))
def test_untrusted_text_is_shown_as_it_is(text: str) -> None:
    page = Page(MARKDOWN.render(f"| a | b |\n|---|---|\n| x {plain(text)} x | y |\n"))
    assert page.elements == {"table", "thead", "tbody", "tr", "th", "td"}
    assert " ".join(f"x {text} x".split()) in " ".join(page.text.split())


@given(st.text(alphabet="`~x\n #-", max_size=60))
def test_a_code_block_ends_where_it_should(text: str) -> None:
    html = MARKDOWN.render(f"{fenced(text)}\n\nafter")
    assert Page(html).elements == {"pre", "code", "p"}
    assert html.endswith("<p>after</p>\n")


def test_sizes_are_the_hubs_categories() -> None:
    assert [size_category(n) for n in (999, 1000, 10**6, 10**7)] == ["n<1K", "1K<n<10K", "1M<n<10M", "n>10M"]


def test_scores_of_other_images_are_refused_and_what_was_there_stays(study: Study, root: Path) -> None:
    make_dataset(study, root)
    before = files(root / DATASET)
    shutil.copy(root / "data/scores/cfg.parquet", root / "data/scores/negative.parquet")
    with pytest.raises(InputError, match=r"negative\.parquet has no scores of negative-000000"):
        make_dataset(study, root)
    assert files(root / DATASET) == before
    assert not list((root / "data").glob("*.tmp"))


def test_scores_without_images_are_refused(study: Study, root: Path) -> None:
    (root / "data/sets/cfg/part-00001.parquet").unlink()
    with pytest.raises(InputError, match=r"has scores of 16 images, .*cfg holds 8"):
        make_dataset(study, root)


def test_an_image_that_does_not_read_back_is_named(study: Study, root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "built"
    build(study, root, folder)
    check(folder, ARMS, root / "data/sets")
    shards = folder / "data/cfg"
    shutil.copy(shards / "part-00000.parquet", shards / "part-00001.parquet")
    with pytest.raises(InputError, match="cfg-000008 of arm 'cfg' is changed"):
        check(folder, ARMS, root / "data/sets")
    (shards / "part-00001.parquet").unlink()
    with pytest.raises(InputError, match="cfg-000008 of arm 'cfg' is lost"):
        check(folder, ARMS, root / "data/sets")


@pytest.mark.parametrize("missing", ["metrics/compare.json", "metrics/labels.json", "data/scores/cfg.parquet"])
def test_a_missing_input_is_named(study: Study, root: Path, missing: str) -> None:
    (root / missing).unlink()
    with pytest.raises(InputError, match=missing):
        make_dataset(study, root)
    assert not (root / DATASET).exists()


def test_numbers_of_another_study_are_refused(study: Study, root: Path) -> None:
    write_comparison(root, json.loads(json.dumps({**comparison(), "study": "other"})))
    with pytest.raises(InputError, match="has study other, the study has small"):
        make_dataset(study, root)
