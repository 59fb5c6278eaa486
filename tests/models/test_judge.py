"""The judge answers only what can be asked, and the world check counts what the judge says."""

import json

import pytest
import torch
from PIL import Image

from eval.scorers.image_classifier import save_weights
from models.tinybooru.cards import keep_history, keep_training, write_cards
from models.tinybooru.corpus import load_corpus
from models.tinybooru.held_out_sets import UNGUIDED, draw_set, held_out, prompt_of, study_of
from models.tinybooru.judge import (
    NO_ANSWER,
    QUESTIONS,
    Judge,
    Judgements,
    JudgeTraining,
    build_judge,
    disturbed,
    load_judge,
    truths,
)
from models.tinybooru.scorers import ScorerRecipe
from models.tinybooru.train import HERE
from models.tinybooru.worldcheck import (
    GUIDED,
    SETS_DRAWN,
    Looked,
    as_prompted,
    composition,
    contact_sheet,
    figures,
    legit,
    sets_of_people,
)
from pipeline.errors import InputError
from pipeline.results.interval import Interval
from pipeline.storage.shards import decode_images, read_set
from pipeline.tinybooru.build import WORLD_VERSION, build
from pipeline.tinybooru.flaws import QUALITIES

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    build(folder, "train", 96, seed=0)
    return load_corpus(folder)


def test_only_people_are_asked_for_glasses_and_anatomy(corpus):
    found = truths(corpus)
    person = torch.tensor([kind == "person" for kind in corpus.kind])
    for question in ("glasses", "malformed"):
        assert torch.equal(found[question] != NO_ANSWER, person)
    assert torch.equal(found["malformed"] == 1, corpus.malformed)
    named = [QUESTIONS["hair"][k] if k != NO_ANSWER else "" for k in found["hair"].tolist()]
    assert named == corpus.hair


def test_a_saved_judge_says_what_the_trained_network_says(corpus, tmp_path):
    recipe = ScorerRecipe("judge", steps=2, batch=16, learning_rate=3e-3, warmup=1)
    training = JudgeTraining(recipe, corpus, tmp_path / "judge-checkpoint.safetensors", CPU)
    training.run(len(corpus))
    save_weights(training.network, tmp_path / "judge.safetensors")
    images = [Image.fromarray(pixels.permute(1, 2, 0).numpy()) for pixels in corpus.pixels[:24]]
    judged = load_judge(tmp_path / "judge.safetensors", CPU)(images)
    fresh = Judge(training.network, CPU)(images)
    torch.testing.assert_close(judged.p_malformed, fresh.p_malformed, atol=5e-3, rtol=0)
    assert all(p == 0 for p, kind in zip(judged.p_malformed, judged.kind, strict=True) if kind != "person")
    alone = Judge(training.network, CPU)(images[5:6])
    assert alone.style == fresh.style[5:6]
    torch.testing.assert_close(alone.p_malformed, fresh.p_malformed[5:6], atol=1e-5, rtol=1e-4)


def test_disturbed_images_stay_near_and_half_stay_as_they_are():
    pixels = torch.rand(400, 3, 16, 16) * 2 - 1
    found = disturbed(pixels, torch.Generator().manual_seed(0))
    untouched = (found == pixels).flatten(1).all(1).float().mean()
    assert 0.4 < untouched < 0.6
    assert (found - pixels).abs().mean() < 0.2


def test_a_missing_or_damaged_judge_is_named(tmp_path):
    with pytest.raises(InputError, match=r"judge .*judge\.safetensors is missing; `make train` makes the embedded one"):
        load_judge(tmp_path / "judge.safetensors", CPU)
    save_weights(build_judge(), tmp_path / "judge.safetensors")
    whole = (tmp_path / "judge.safetensors").read_bytes()
    (tmp_path / "judge.safetensors").write_bytes(whole[:1000])
    with pytest.raises(InputError, match="cannot be read"):
        load_judge(tmp_path / "judge.safetensors", CPU)


def test_prompts_of_the_check_are_what_their_names_say():
    assert all(
        plan.malformed and "bad anatomy" in prompt_of("bad anatomy", plan) for plan in held_out("bad anatomy", 8)
    )
    for plan in held_out("no quality", 8):
        tags = prompt_of("no quality", plan).split(", ")
        assert plan.kind == "person"
        assert not set(tags) & set(QUALITIES)
    assert {prompt_of("empty", plan) for plan in held_out("empty", 3)} == {""}
    assert all(not plan.flaws for plan in held_out("good", 8))
    assert {plan.kind for plan in held_out("good people", 8)} == {"person"}
    assert all("glasses" in prompt_of("glasses", plan) and not plan.flaws for plan in held_out("glasses", 4))


def judgements_of(plans_, malformed):
    """What a judge would say that reads the plans themselves."""
    first = {question: QUESTIONS[question][0] for question in ("hair", "background")}
    named = {
        question: [
            next((name for name in QUESTIONS[question] if f"{name} {question}" in plan.tags), first[question])
            for plan in plans_
        ]
        for question in ("hair", "background")
    }
    return Judgements(
        kind=[plan.kind for plan in plans_],
        style=[plan.style for plan in plans_],
        quality=[plan.quality for plan in plans_],
        glasses=torch.tensor([bool({"glasses", "sunglasses"} & set(plan.tags)) for plan in plans_]),
        p_malformed=malformed.double(),
        **named,
    )


def looked_at(plans_, malformed):
    """A set that shows what its plans say, in which some are malformed as well."""
    digits = [str(plan.structure.digits) for plan in plans_]
    nothing = torch.zeros(len(plans_), 2)
    return Looked(plans_, judgements_of(plans_, malformed), malformed.double(), digits, nothing, nothing)


def test_a_perfect_artist_gets_full_marks():
    plans_ = held_out("good", 200)
    looked = looked_at(plans_, torch.zeros(200))
    assert all(interval.value == 1 for interval in as_prompted(looked).values())
    assert legit(looked).value == 1
    assert sum(share.value for share in composition(looked).values()) == pytest.approx(1)


def test_figures_hold_where_they_reach_their_bars():
    torch.manual_seed(0)
    n = 80
    real = {
        "judge": {question: [0.995, 0.99, 1.0, n] for question in QUESTIONS},
        "clip_first_of_100": [0.5, 0.4, 0.6, n],
        "malformed_auc": [0.99, 0.98, 1.0, n],
        "aesthetic_auc_masterpiece_worst": [0.97, 0.96, 0.98, n],
    }
    sets = {}
    for name, drawn in {**SETS_DRAWN, **sets_of_people(GUIDED[0])}.items():
        plans_ = held_out(drawn.prompts, n)
        rates = {"bad_anatomy": 0.9, "no_quality_cfg": 0.4, "no_quality_negative": 0.1, "people_unguided": 0.5}
        malformed = torch.rand(n) < rates.get(name, 0.02)
        spread = 3.0 if name == "unguided" else 1.0
        judged = judgements_of(plans_, malformed)
        digits = [["5", "6"][k % 4 == 0] if name == "waving" else str(p.structure.digits) for k, p in enumerate(plans_)]
        vectors = spread * torch.randn(n, 4)
        chance = malformed * 0.8 + 0.1 * torch.rand(n)
        sets[name] = Looked(plans_, judged, chance, digits, vectors, 2 + vectors)
    found = {entry["name"]: entry for entry in figures(sets, torch.randn(2 * n, 4), torch.randn(2 * n, 4), real)}
    hands = found["waving people: wrong or uncountable hands, unguided"]
    assert (hands["value"], hands["n"], hands["bar"], hands["holds"]) == (0.25, n, "0.15 to 0.6", True)
    assert found["people prompted with extra digit: more than five digits"]["holds"] is True
    assert found["waving people: wrong or uncountable hands, autoguidance at 2"]["value"] == 0
    away = next(entry for name, entry in found.items() if name.endswith("space trained elsewhere"))
    assert away["holds"] is False, "the sets lie 2 from the real images there"
    assert found["CLIP: own caption first of 100"]["holds"] is False
    assert found["malformed classifier on real images, ROC AUC"]["holds"] is True
    assert found["aesthetic head: masterpiece against worst quality, ROC AUC"]["holds"] is False
    assert found["people prompted with bad anatomy judged malformed"]["holds"] is True
    assert found["no quality tags: malformed with the negative prompt at 2"]["holds"] is True
    assert found["judge, real images: kind"] == {
        "name": "judge, real images: kind", "value": 0.995, "low": 0.99, "high": 1.0, "n": n, "bar": ">= 0.99",
        "holds": True,
    }  # fmt: skip
    assert found["malformed classifier against the judge on generated people, ROC AUC"]["holds"] is True
    ratio = next(entry for name, entry in found.items() if name.startswith("FD of autoguidance"))
    assert ratio["holds"] is True, "the unguided set was made three times as wide as the real one"
    assert {entry["holds"] for entry in found.values()} == {True, False, None}
    best = GUIDED[0]  # all are as prompted, and the first of equals is taken
    of_people = [f"{question} as prompted, {name}" for question in ("hair", "glasses") for name in (best, "unguided")]
    of_people += [f"people with good quality tags judged legit, {name}" for name in (best, "unguided")]
    assert {found[name]["n"] for name in of_people} == {n}, "a set of people is behind figures of people"
    assert found[of_people[-2]]["holds"] is True, "half of the unguided people were made malformed"


def test_a_smaller_set_leaves_nothing_of_a_larger_one(tmp_path, monkeypatch):
    monkeypatch.setattr("models.tinybooru.held_out_sets.SHARD", 4)
    prompts = [prompt_of("good", plan) for plan in held_out("good", 10)]
    study = study_of({"unguided": UNGUIDED}, 10, steps=1)
    for images in (10, 6):
        draw_set(study, "unguided", prompts[:images], tmp_path, CPU)
        assert len(read_set(tmp_path)) == images


def test_the_contact_sheet_has_a_row_for_each_guidance():
    tile = [Image.new("RGB", (8, 8), colour) for colour in ("red", "green")]
    sheet = contact_sheet(tile, [tile[::-1]])
    assert sheet.size == (16, 16)
    assert sheet.getpixel((0, 0)) == sheet.getpixel((8, 8)) == (255, 0, 0)


def test_intervals_of_the_check_come_with_their_n():
    plans_ = held_out("good", 50)
    looked = looked_at(plans_, torch.ones(50))
    assert isinstance(legit(looked), Interval)
    assert legit(looked).n == sum(plan.kind == "person" for plan in plans_)
    assert legit(looked).value == 0


def test_the_card_shows_what_was_measured_and_leaves_out_what_was_not(tmp_path):
    (tmp_path / "measured.json").write_text(json.dumps({"images": 9, "judge": {"kind": [0.995, 0.99, 1.0, 9]}}))
    (tmp_path / "main").mkdir()
    (tmp_path / "main" / "a.safetensors").write_bytes(bytes(2_500_000))
    keep_training(tmp_path, "main", {"name": "main", "steps": 7}, CPU)
    of_old = {"world_version": 1, "device": "a GPU", "recipe": {"name": "clip", "steps": 8}, "remarks": "Quick"}
    trainings = json.loads((tmp_path / "training.json").read_text())
    (tmp_path / "training.json").write_text(json.dumps({**trainings, "clip": of_old}))
    card = write_cards(tmp_path).read_text()
    assert f"- **main** (world version {WORLD_VERSION}; cpu, " in card
    assert "- **clip** (world version 1, the one before the current one; a GPU): steps 8. Quick" in card
    assert card.startswith("---\nlicense:")
    assert "| main/a.safetensors | 2.50 |" in card
    assert "| judge, right about: kind | 99.5 % | 99.0 to 100.0 |" in card
    assert "What the networks generate" not in card

    figure_ = {"name": "style as prompted", "value": 0.8, "low": 0.7, "high": 0.9, "n": 9, "bar": ">= 0.9"}
    held = [{**figure_, "holds": False}, {**figure_, "name": "kind", "holds": None}]
    (tmp_path / "worldcheck.json").write_text(json.dumps(held))
    keep_history(tmp_path, "unet-main", {1000: 0.05, 500: 0.06})
    card = write_cards(tmp_path).read_text()
    assert "| style as prompted | 0.8 | 0.7 to 0.9 | 9 | >= 0.9 | **no** |" in card
    assert "| kind | 0.8 | 0.7 to 0.9 | 9 | >= 0.9 |  |" in card
    assert "Loss of `unet-main` on held-out images (fixed noise, averaged weights): 0.0600 at step 500, 0.05" in card


def test_the_shipped_networks_draw_the_colours_that_prompts_name(tmp_path):
    # A tokenizer that is not the text encoder's own gives people and styles still, but colours at random.
    plans = [plan for plan in held_out("good", 64) if plan.kind == "person"][:16]
    study = study_of({"unguided": UNGUIDED, "arm": {"method": "cfg", "scale": 2.0}}, len(plans), steps=10)
    draw_set(study, "arm", [prompt_of("good", plan) for plan in plans], tmp_path, CPU)
    judged = load_judge(HERE / "judge.safetensors", CPU)(list(decode_images(read_set(tmp_path, ["image"]))))
    for question, share in (("hair", 0.7), ("background", 0.8)):
        right = [f"{said} {question}" in plan.tags for said, plan in zip(getattr(judged, question), plans, strict=True)]
        assert sum(right) >= share * len(plans), (question, right)
