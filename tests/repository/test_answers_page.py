"""docs/answers.md: every claim has a line, and every number on the page is kept in a file or computed by a call."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from repository_copy import ROOT

from docs.answers.claims import Claim, Claims, Topic, load_claims
from docs.answers.measured import MEASURED, Measured, is_current, load_measured, settings_of
from docs.answers.page import CANNOT, FAILS, HOLDS, PAGE, PENDING, answer, current, of_networks, written
from docs.answers.run import check_arms
from docs.answers.studies import composed
from eval.notation import quoted
from pipeline.errors import InputError
from pipeline.preflight import study_digests
from pipeline.results.interval import Interval

# The claims of the five documents by number, without those that no program can be held to (0.6, 2.4 and 2.6). Some
# entries of a document hold several claims, which have letters.
IDS = [
    *(f"0.{k}" for k in range(1, 23) if k != 6),
    *(f"1.{k}" for k in range(1, 21) if k != 16),
    *(f"1.16{letter}" for letter in "abcd"),
    *(f"2.{k}" for k in range(1, 124) if k not in (4, 6, 86)),
    *("2.86a", "2.86b"),
    *(f"3.{k}" for k in range(1, 36)),
    *(f"4.{k}" for k in range(1, 33)),
]


@pytest.fixture(scope="module")
def claims() -> Claims:
    return load_claims(ROOT / "docs/answers/claims")


@pytest.fixture(scope="module")
def page() -> str:
    return (ROOT / PAGE).read_text("utf-8")


def test_every_claim_has_one_line_on_the_page(claims: Claims, page: str) -> None:
    assert sorted(claim.id for claim in claims) == sorted(IDS)
    assert sorted(line.split('"')[1] for line in page.splitlines() if line.startswith('| <a id="claim-')) == sorted(
        f"claim-{one}" for one in IDS
    )


def test_the_page_is_what_the_command_writes(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert page == written()


def test_a_file_of_kept_numbers_holds_those_that_claims_read_and_no_others(claims: Claims) -> None:
    for path in (ROOT / MEASURED).glob("*.json"):
        kept = Measured.model_validate_json(path.read_bytes())
        assert kept.study == path.stem
        assert {*kept.numbers, *kept.unread} == set(claims.wanted[path.stem]), path


def own_arms(name: str) -> set[str]:
    """The arms that a study's file names, and those of a study that it extends."""
    content: dict[str, Any] = yaml.safe_load((ROOT / f"conf/study/{name}.yaml").read_text("utf-8"))
    found = set(content.get("arms", {}))
    for entry in content["defaults"]:
        if isinstance(entry, str) and entry != "_self_":
            found |= own_arms(entry)
        elif isinstance(entry, dict):
            ((group, choice),) = entry.items()
            found |= set(choice) if group == "/arm" else {group.removeprefix("/arm@arms.")}
    return found


def test_every_number_is_of_arms_that_its_study_has(claims: Claims) -> None:
    for study, numbers in claims.wanted.items():
        arms = own_arms(study)
        for number in numbers.values():
            assert set(number.about) <= arms, (study, number.key)


def claim(**content: Any) -> Claim:
    about = {"id": "4.24", "says": "Errors remain.", "done": "CFG at 1 against unguided.", "study": "plain_conditional"}
    number = {"of": "pixels", "arms": ["cfg_scale_one", "unguided"]}
    return Claim.model_validate(
        about | {"cases": [{"shows": "of 255", "number": number, "holds": "above 0"}]} | content
    )


def topic(*claims: Claim) -> Topic:
    return Topic(title="Texts", claims=claims)


def kept(**numbers: dict[str, float]) -> Measured:
    return Measured.model_validate(
        {
            "study": "plain_conditional",
            "model": "tinybooru",
            "networks": {"main": "abc", "guide": None},
            "settings": "abc",
            "images": 64,
            "level": 0.95,
            "numbers": {key.replace("__", " "): value for key, value in numbers.items()},
        }
    )


def of_study(measured: Measured) -> dict[str, Measured | None]:
    return {measured.study: measured}


ZERO = {"value": 0.0, "low": 0.0, "high": 0.0, "n": 64}


def test_a_claim_whose_study_has_not_run_names_the_command() -> None:
    found = answer(claim(), {})
    assert (found.kind, found.said) == (PENDING, f"**{PENDING}**: `guidedrift run --study plain_conditional`")


def test_an_answer_appears_when_its_number_is_kept() -> None:
    found = answer(claim(), of_study(kept(pixels__cfg_scale_one__unguided=ZERO)))
    assert (found.kind, found.networks) == (FAILS, "embedded, 64×64")
    assert found.numbers == (f"of 255: {quoted(Interval(0, 0, 0, 64))}",)


def test_numbers_of_networks_that_were_replaced_are_not_shown() -> None:
    found = kept(pixels__cfg_scale_one__unguided=ZERO)
    assert of_networks(found, found.networks) == found
    assert of_networks(found, {"main": "another", "guide": None}) is None
    assert current(found) is None  # the embedded networks are others
    checkpoint = found.model_copy(update={"study": "presets_animagine", "model": "animagine_xl_4"})
    assert current(checkpoint) == checkpoint  # no weights are there that could be others
    assert current(None) is None


def test_a_number_may_be_held_against_that_of_another_study_of_other_networks() -> None:
    score = {"of": "score", "metric": "clip_score", "arm": "unguided"}
    case = {"shows": "CLIP score", "number": score, "holds": "above", "than": score, "than_study": "variety"}
    mine = claim(cases=[case])
    assert {study: list(found) for study, found in Claims([topic(mine)]).wanted.items()} == {
        "plain_conditional": ["score clip_score unguided"],
        "variety": ["score clip_score unguided"],
    }
    high = kept(score__clip_score__unguided={"value": 80.0, "low": 79.0, "high": 81.0, "n": 64})
    low = kept(score__clip_score__unguided={"value": 70.0, "low": 69.0, "high": 71.0, "n": 64})
    other = low.model_copy(update={"study": "variety", "model": "tinybooru_weak_text"})
    assert answer(mine, of_study(high)).said == f"**{PENDING}**: `guidedrift run --study variety`"
    found = answer(mine, of_study(high) | of_study(other))
    assert (found.kind, found.networks) == (HOLDS, "embedded (weak text), 64×64, embedded, 64×64")
    assert found.numbers == ("CLIP score: 80.0 (79.0\u201381.0) against 70.0 (69.0\u201371.0)",)


def test_a_kept_study_without_the_number_is_refused_by_name() -> None:
    with pytest.raises(InputError, match=r"claim 4\.24 reads 'pixels cfg_scale_one unguided', which the kept results"):
        answer(claim(), of_study(kept(pixels__other__unguided=ZERO)))


def shows(concept: str) -> dict[str, Any]:
    number = {"of": "shows", "concept": concept, "arm": "cfg_scale_one"}
    return {"when": f"the tag is {concept}", "shows": f"images with {concept}", "number": number, "holds": "below 0"}


def test_what_no_classifier_reads_is_said_where_the_number_would_stand() -> None:
    fewer = {"value": -0.2, "low": -0.3, "high": -0.1, "n": 64}
    unread = {"shows text cfg_scale_one": "no classifier reads it"}
    measured = kept(shows__watermark__cfg_scale_one=fewer).model_copy(update={"unread": unread})
    both = answer(claim(cases=[shows("watermark"), shows("text")]), of_study(measured))
    assert both.said == "**holds when** the tag is watermark; undecided when the tag is text"
    assert both.numbers[1] == "images with text: not read, no classifier reads it"
    alone = answer(claim(cases=[shows("text")]), of_study(measured))
    assert (alone.kind, alone.said) == (CANNOT, f"**{CANNOT}**, because no classifier reads it.")


def test_a_claim_that_cannot_be_asked_gives_the_reason() -> None:
    found = answer(claim(study=None, cases=(), cannot="nobody has labelled images."), {})
    assert (found.kind, found.said) == (CANNOT, f"**{CANNOT}**, because nobody has labelled images.")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"cannot": "no reason"}, "either cases or the reason"),
        ({"cases": ()}, "either cases or the reason"),
        ({"study": None}, "numbers that are measured need a study"),
        ({"done": ""}, "say what was done"),
    ],
)
def test_a_claim_is_decided_one_way(content: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        claim(**content)


def test_an_arm_that_a_study_lacks_is_named_before_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    number = claim().measured[0][1].model_copy(update={"arms": ("cgf", "unguided")})
    with pytest.raises(
        InputError, match="'pixels cgf unguided' reads arm 'cgf' of study 'plain_conditional', whose arms"
    ):
        check_arms(composed("plain_conditional"), [number])


def test_what_is_kept_is_read_back_as_it_was_rounded(tmp_path: Path, claims: Claims) -> None:
    third = kept(pixels__cfg_scale_one__unguided={"value": 1 / 3, "low": 0.25, "high": 0.5, "n": 64})
    (tmp_path / MEASURED).mkdir(parents=True)
    (tmp_path / MEASURED / "plain_conditional.json").write_bytes(third.to_json())
    found = load_measured("plain_conditional", {}, tmp_path)
    assert found is not None
    assert found.numbers["pixels cfg_scale_one unguided"].value == 0.33333
    assert load_measured("weights", claims.wanted["weights"], tmp_path) is None


def test_a_damaged_file_of_kept_numbers_is_named(tmp_path: Path) -> None:
    (tmp_path / MEASURED).mkdir(parents=True)
    (tmp_path / MEASURED / "weights.json").write_text(json.dumps({"study": "weights"}))
    with pytest.raises(InputError, match=r"weights\.json: .*; `make answers` writes it"):
        load_measured("weights", {}, tmp_path)


def test_a_study_runs_again_when_it_its_networks_or_its_claims_have_changed(
    claims: Claims, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    study, numbers = composed("plain_conditional"), claims.wanted["plain_conditional"]
    found = kept(**{key.replace(" ", "__"): ZERO for key in numbers}).model_copy(
        update={"networks": study_digests(study), "settings": settings_of(study)}
    )
    assert is_current(found, study, numbers)
    assert not is_current(None, study, numbers)
    assert not is_current(found.model_copy(update={"networks": {"main": "another"}}), study, numbers)
    assert not is_current(found.model_copy(update={"numbers": {}}), study, numbers)
    more = study.model_copy(update={"generate": study.generate.model_copy(update={"images": 256})})
    assert not is_current(found, more, numbers)
