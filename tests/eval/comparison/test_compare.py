"""The comparison: what holds of an arm against itself, what it names, and what it refuses."""

import json
from typing import Any

import pytest
import torch
from datasets import Features, Value
from torch import Tensor

from eval.comparison.arm_measurements import (
    KIND_COLUMNS,
    NAMING,
    PAIRED_SCORES,
    check_one_instrument,
    read_arms,
    read_cost,
    reference_captions,
)
from eval.comparison.compare import alignment_of, compare
from eval.comparison.feature_spaces import p_values
from eval.comparison.paired_arms import ArmValues, arm_replicates
from eval.comparison.shift import (
    DISTANCES,
    PERMUTATIONS,
    against_baseline,
    against_reference,
    first_of_each,
    lpips_difference,
    named_directions,
    permutations,
    within_prompt,
)
from eval.distances.composition import paired_composition_p_value
from eval.distances.frechet import frechet_distance
from eval.distances.neighbours import neighbour_metrics
from eval.distances.two_sample_mmd import mmd_test, paired_mmd_test
from eval.features.extraction import REFERENCE, SetFeatures, load_features, save_features
from eval.features.spaces import Space
from eval.scorers.arm_scores import SCORE_FEATURES
from eval.statistics.holm import holm_by_question
from eval.statistics.jackknife import deletions
from pipeline.errors import InputError
from pipeline.generation.shard_files import TRACE_FEATURES
from pipeline.guidance.algebra import EMPTY, GUIDE, MAIN, NEGATIVE
from pipeline.guidance.scale_schedules import Moment
from pipeline.guidance.trace import trace_rows, trace_step
from pipeline.layout import FEATURES, METRICS, REFERENCE_SET, SCORES, SETS, TRACES
from pipeline.results.comparison import COMPARISON, load_comparison
from pipeline.storage.json_file import seal_json
from pipeline.storage.shards import read_set, write_shard
from pipeline.study.extractors import FeatureSpace
from pipeline.study.study import Metrics, Study, parse_study
from pipeline.tinybooru.build import build

N, D = 40, 5
MADE_WITH = {"extractor": "clip", "extractor_digest": "a", "resize": "r", "precision": "float32", "set": "s"}


def gaussian(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def values(features: Tensor, seed: int = 0, **scores: Tensor) -> ArmValues:
    columns = dict.fromkeys([*PAIRED_SCORES.values(), *NAMING])
    own = {name: gaussian(len(features), seed=seed + k) for k, name in enumerate(columns)}
    kinds = gaussian(len(features), len(KIND_COLUMNS), seed=seed).softmax(1)
    own |= {name: kinds[:, k] for k, name in enumerate(KIND_COLUMNS)}
    return ArmValues(features, {**own, **scores})


@pytest.fixture
def settings(params: dict[str, Any]) -> Metrics:
    return Metrics.model_validate(params["metrics"])


def compared(ours: ArmValues, theirs: ArmValues, settings: Metrics, prompts: Tensor | None = None) -> dict[str, Any]:
    prompts = torch.arange(N) if prompts is None else prompts
    arms = {"ours": ours, "theirs": theirs}
    found = arm_replicates(arms, "theirs", gaussian(90, D, seed=99), 3, deletions(prompts, 0))
    pair, both = (found["ours"], found["theirs"]), (ours.features, theirs.features)
    content = against_baseline(ours, theirs, *pair, prompts, settings)
    content["p_values"] |= p_values(*both, *pair, prompts, settings.seed, PERMUTATIONS)
    return content


def test_an_arm_has_not_moved_from_itself(settings: Metrics) -> None:
    arm = values(gaussian(N, D, seed=0))
    found = compared(arm, arm, settings)
    for name in ("fd", "drift", "contraction", "reference_fd", "clip_score", "aesthetic", "malformed"):
        assert found[name].value == pytest.approx(0, abs=1e-9), name
    assert found["spread_ratio"].value == pytest.approx(1)
    assert found["two_sample"]["auc"].value == 0.5
    assert found["composition"]["total_variation"].value == 0
    assert set(found["p_values"].values()) == {1}
    assert (found["mean_share"], found["dispersion"]) == (0, 0)


def test_permutations_turn_whole_prompts(settings: Metrics) -> None:
    prompts = torch.arange(10).repeat_interleave(4)
    arms = []
    for k in (0, 50):
        place = gaussian(10, D, seed=k).repeat_interleave(4, 0)
        kinds = gaussian(10, len(KIND_COLUMNS), seed=k + 1).softmax(1).repeat_interleave(4, 0)
        own = {name: kinds[:, column] for column, name in enumerate(KIND_COLUMNS)}
        arms.append((values(place + 0.1 * gaussian(N, D, seed=k + 2), **own), kinds))
    (ours, our_kinds), (theirs, their_kinds) = arms
    found = compared(ours, theirs, settings, prompts)
    seed = settings.seed
    by_prompt, by_pair = (
        (
            paired_mmd_test(ours.features, theirs.features, PERMUTATIONS, seed, clusters).p,
            paired_composition_p_value(our_kinds, their_kinds, PERMUTATIONS, seed, clusters),
        )
        for clusters in (prompts, None)
    )
    assert (found["two_sample"]["mmd_p"], found["composition"]["p"]) == by_prompt
    assert by_pair[0] < by_prompt[0]
    assert by_pair[1] < by_prompt[1]


def test_what_is_never_negative_has_no_negative_end(settings: Metrics) -> None:
    lows = []
    for seed in range(4):
        found = compared(*(values(gaussian(N, D, seed=seed), seed=100 * seed + k) for k in (1, 20)), settings)
        shares = found["composition"]["total_variation"], found["composition"]["jensen_shannon"]
        lows += [one.low for one in (*shares, *(found[name] for name in DISTANCES))]
    assert min(lows) == 0
    assert lows.count(0) < len(lows)


def test_there_are_as_many_permutations_as_a_decision_needs() -> None:
    for arms, level in ((1, 0.95), (8, 0.95), (15, 0.99), (60, 0.999)):
        assert arms / (1 + permutations(arms, level)) < 1 - level
    assert permutations(1, 0.95) == 999


def test_a_test_against_the_reference_takes_one_image_of_each_prompt(settings: Metrics) -> None:
    assert first_of_each(torch.tensor([7, 7, 3, 9, 3, 9, 9])).tolist() == [0, 2, 3]
    assert first_of_each(torch.arange(5)).tolist() == [0, 1, 2, 3, 4]
    arm, real = values(gaussian(N, D, seed=10)), gaussian(60, D, seed=11)
    prompts = torch.arange(N // 2).repeat_interleave(2)
    found = arm_replicates({"arm": arm}, "arm", real, 3, deletions(prompts, 0))["arm"]
    tested = against_reference(arm, found, real, prompts, settings)["two_sample"]
    expected = mmd_test(arm.features[::2], real, PERMUTATIONS, settings.seed)
    assert (tested["mmd2"], tested["mmd_p"]) == (pytest.approx(expected.mmd2), expected.p)


def test_precision_and_recall_of_an_arm_and_of_what_is_left_of_it_are_those_of_the_score() -> None:
    # Of whole numbers many lie on the rim of a ball.
    x, reference = ((size * gaussian(n, 3, seed=n)).round() for n, size in ((N, 4), (90, 3)))
    kept = deletions(torch.arange(N), 0, groups=10)
    found = arm_replicates({"arm": values(x)}, "arm", reference, 3, kept)["arm"]
    for name in ("precision", "recall"):
        assert found[name].value == pytest.approx(getattr(neighbour_metrics(x, reference, 3), name))
        left = [getattr(neighbour_metrics(x[index], reference, 3), name) for index in kept]
        assert found[name].without.tolist() == pytest.approx(left)
        assert len(set(left)) > 2


def test_every_question_is_adjusted_over_the_arms() -> None:
    asked = {"a": {"shift": 0.01, "spread": 0.5}, "b": {"shift": 0.04, "spread": 0.02}}
    assert holm_by_question(asked) == {"a": {"shift": 0.02, "spread": 0.5}, "b": {"shift": 0.04, "spread": 0.04}}


def test_exchanging_the_arms_turns_the_differences(settings: Metrics) -> None:
    a, b = values(gaussian(N, D, seed=1) + 0.5), values(gaussian(N, D, seed=2), seed=50)
    there, back = compared(a, b, settings), compared(b, a, settings)
    for name in ("reference_fd", "clip_score", "aesthetic", "malformed"):
        assert there[name].value == pytest.approx(-back[name].value)
        assert there[name].low == pytest.approx(-back[name].high)
    assert there["fd"].value == pytest.approx(back["fd"].value)
    assert there["p_values"] == pytest.approx(back["p_values"])


def test_a_shift_and_a_contraction_are_told_apart(settings: Metrics) -> None:
    base = gaussian(N, D, seed=3)
    moved, shrunk = (compared(values(x), values(base), settings) for x in (base + 2, 0.5 * base))
    assert moved["drift"].value == pytest.approx(4 * D)
    assert moved["mean_share"] == pytest.approx(1)
    assert moved["p_values"]["shift"] < 0.01 <= moved["p_values"]["spread"]
    assert shrunk["spread_ratio"].high < 1
    assert shrunk["p_values"]["spread"] < 0.01


def test_a_direction_is_named_by_the_score_that_goes_with_it() -> None:
    base = gaussian(200, D, seed=4)
    squeezed = base.clone()
    squeezed[:, 2] *= 0.2
    arms = [values(x, contrast=-x[:, 2]) for x in (squeezed, base)]
    leading = named_directions(*arms)[0]
    assert leading["score"] == "contrast"
    assert leading["correlation"] > 0.9
    assert leading["ratio"] < 0.2


def test_diversity_within_a_prompt_needs_prompts_that_repeat(settings: Metrics) -> None:
    base = gaussian(N, D, seed=5)
    prompts = torch.arange(N // 2).repeat_interleave(2)
    lost = within_prompt(values(0.5 * base), values(base), prompts, settings)
    assert lost is not None
    assert lost.value == pytest.approx(0.25)
    assert within_prompt(values(base), values(base), torch.arange(N), settings) is None


def test_learned_scores_are_compared_pair_by_pair_where_they_are_asked_for(settings: Metrics) -> None:
    asked = settings.model_copy(update={"scorers": {"pickscore": "x"}, "lpips": "y"})
    prompts = torch.arange(N // 2).repeat_interleave(2)
    # The last prompt's images are alone with theirs: no LPIPS.
    shared, lpips = gaussian(N, seed=6), gaussian(N, seed=7).abs()
    lpips[-2:] = torch.nan
    prompts[-1] += 1
    ours, theirs = (
        values(gaussian(N, D, seed=8), pickscore=shared + plus, lpips=lpips - minus)
        for plus, minus in ((1.0, 0.25), (0.0, 0.0))
    )
    found = compared(ours, theirs, asked, prompts)
    assert found["preferences"]["pickscore"].value == pytest.approx(1)
    assert found["lpips"].value == pytest.approx(-0.25)
    without = compared(values(gaussian(N, D, seed=8)), values(gaussian(N, D, seed=8)), settings, prompts)
    assert (without["preferences"], without["lpips"]) == ({}, None)
    assert lpips_difference({}, {}, torch.arange(N), asked) is None


def test_an_unreadable_cost_is_named(tmp_path: Any) -> None:
    assert read_cost(tmp_path / "none.json") is None
    (tmp_path / "c.json").write_text(json.dumps({"nfe_per_image": "many"}))
    with pytest.raises(InputError, match=r"c\.json: .*; delete it and run `dvc repro`"):
        read_cost(tmp_path / "c.json")


@pytest.mark.parametrize("key", ["extractor", "extractor_digest", "resize", "precision"])
def test_features_of_another_instrument_are_refused(key: str) -> None:
    nothing = gaussian(0, D, seed=0)
    ours = SetFeatures([], nothing, nothing, {**MADE_WITH, key: "b"})
    reference = SetFeatures([], nothing, nothing, {**MADE_WITH, "set": "real"})
    measured = {"reference": "real", "set": "s"}
    with pytest.raises(InputError, match=f"features of 'cfg' and of the reference differ in {key}: b and"):
        check_one_instrument("cfg", ours, reference, measured)


def test_a_foreign_reference_other_images_and_other_dimensions_are_refused() -> None:
    ours = SetFeatures([], gaussian(0, D, seed=0), gaussian(0, D, seed=0), MADE_WITH)
    reference = SetFeatures([], gaussian(0, D, seed=0), gaussian(0, D, seed=0), {**MADE_WITH, "set": "real"})
    check_one_instrument("cfg", ours, reference, {"reference": "real", "set": "s"})
    with pytest.raises(InputError, match="the scores of 'cfg' have reference set foreign, the features real"):
        check_one_instrument("cfg", ours, reference, {"reference": "foreign", "set": "s"})
    with pytest.raises(InputError, match="the scores of 'cfg' have images old, the features s"):
        check_one_instrument("cfg", ours, reference, {"reference": "real", "set": "old"})
    wider = SetFeatures([], gaussian(0, D + 1, seed=0), gaussian(0, D, seed=0), reference.provenance)
    with pytest.raises(InputError, match="features of 'cfg' have 5 dimensions, of the reference 6"):
        check_one_instrument("cfg", ours, wider, {"reference": "real", "set": "s"})


def write_trace(arm: str) -> Tensor:
    """A trace in which the negative prompt pushes as the guide does; the cosine [N] of that with the empty prompt's."""
    main = torch.zeros(N, 1, 8, 8)
    empty, guide = (gaussian(*main.shape, seed=k).float() for k in (12, 13))
    predicted = {MAIN: main, EMPTY: empty, NEGATIVE: guide, GUIDE: guide}
    moments = [Moment(k, 2, 0, 10 / (k + 1), 0.0) for k in range(2)]
    steps = [trace_step(at, main, predicted, MAIN, main + 1, 1) for at in moments]
    rows = [trace_rows(steps, image) for image in range(N)]
    columns = {name: [value for one in rows for value in one[name]] for name in rows[0]}
    columns["image_id"] = [f"{arm}-{k:03}" for k in range(N) for _ in steps]
    write_shard(TRACES / arm / "part-00000.parquet", columns, TRACE_FEATURES, "s")
    return torch.nn.functional.cosine_similarity(empty.flatten(1), guide.flatten(1))


def test_a_negative_prompt_that_pushes_as_the_guide_does_is_closer_to_the_guide(
    project: Any, settings: Metrics
) -> None:
    to_empty = write_trace("unguided")
    found = alignment_of("unguided", read_set(TRACES / "unguided"), torch.arange(N), settings)
    assert found is not None
    assert found.guide_over_empty is not None
    assert found.guide_over_empty.value == pytest.approx(float(1 - to_empty.mean()), rel=1e-4)
    assert found.guide_over_empty.low > 0
    assert "is closer to the weaker network's than to the empty prompt's" in found.answer


@pytest.fixture
def measured(networks_project: Any, params: dict[str, Any]) -> Study:
    """The files of a study of two guided arms: cfg is far from the baseline, negative is not, and the baseline is there
    from other seeds.

    Its level asks for more permutations than the least.
    """
    params["arms"] = {name: params["arms"][name] for name in ("unguided", "cfg", "negative")}
    params["arms"]["reseeded"] = params["arms"]["unguided"] | {"first_seed": 1000}
    params["metrics"]["level"] = 0.999
    params["generate"]["images"], params["reference"]["images"] = N, 100
    params["features"] |= {"primary": "clip", "extractors": {"clip": params["features"]["extractors"]["clip"]}}
    study = parse_study(params, "test")
    written = Features({"image_id": Value("string"), "prompt": Value("string")})
    for k, (name, size) in enumerate({**dict.fromkeys(study.arms, N), REFERENCE: 100}.items()):
        ids, prompts = [f"{name}-{i:03}" for i in range(size)], [f"{i}" for i in range(size)]
        provenance = {**MADE_WITH, "set": name}
        vectors = gaussian(size, D, seed=k) + 3 * (name == "cfg")
        found = SetFeatures(ids, vectors, torch.zeros(size, 0), provenance)
        save_features(FEATURES / name / "clip.safetensors", found)
        folder = REFERENCE_SET if name == REFERENCE else SETS / name
        write_shard(folder / "part-00000.parquet", {"image_id": ids, "prompt": prompts}, written, "s")
        if name == REFERENCE:
            continue
        columns = {column: own.tolist() for column, own in values(vectors, seed=10 * k).scores.items()}
        columns |= {
            "image_id": ids,
            "pair_id": list(study.pairs_of(name)),
            "realism": [1.0] * N,
            "inside_reference": [True] * N,
        }
        write_shard(SCORES / f"{name}.parquet", columns, SCORE_FEATURES, "s")
        fd = {"value": 1, "low": 0, "high": 2, "n": N}
        detail = {"scores": {"fd": fd, "recall": fd}, "provenance": {**provenance, "reference": REFERENCE}}
        (METRICS / "detail").mkdir(parents=True, exist_ok=True)
        (METRICS / "detail" / f"{name}.json").write_bytes(seal_json(json.dumps(detail)))
        write_trace(name)
    return study


def test_a_comparison_has_the_p_values_of_its_number_of_arms_and_the_floors_of_real_images(measured: Study) -> None:
    found = compare(measured)
    against = {arm.arm: numbers for arm, numbers in found.guided}
    least = 1 / (1 + permutations(2, 0.999))
    raw = {name: numbers.two_sample.mmd_p for name, numbers in against.items()}
    assert raw["cfg"] == pytest.approx(least)
    assert raw["negative"] > 0.05
    adjusted = {name: numbers.adjusted_p["shift"] for name, numbers in against.items()}
    assert adjusted == pytest.approx({"cfg": 2 * least, "negative": raw["negative"]})
    real = load_features(FEATURES / REFERENCE / "clip.safetensors").images
    assert found.floor.fd.value == pytest.approx(frechet_distance(real[:N], real[N:]))
    assert found.floor.between_sets.value == pytest.approx(frechet_distance(real[:N], real[N : 2 * N]))
    assert [one.arm for one in found.alignment] == list(measured.compared)


def test_the_baseline_from_other_seeds_is_the_floor_of_shifts_and_no_arm(measured: Study) -> None:
    found = compare(measured)
    assert [arm.arm for arm in found.arms] == ["unguided", "cfg", "negative"]
    own, base = (load_features(FEATURES / name / "clip.safetensors").images for name in ("reseeded", "unguided"))
    for space in found.spaces:
        assert space.floor.other_seeds is not None
        assert space.floor.shift == space.floor.other_seeds
        assert space.floor.other_seeds.low < space.floor.other_seeds.value < space.floor.other_seeds.high
    assert found.floor.other_seeds is not None
    assert found.floor.other_seeds.value == pytest.approx(frechet_distance(own, base))
    beyond = {arm.arm: against.spaces["clip"].beyond_floor for arm, against in found.guided}
    assert beyond["cfg"] is not None
    assert beyond["negative"] is not None
    assert beyond["cfg"].low > 0 > beyond["negative"].low
    shifts = {one.arm: answer.verdict for one in found.verdicts for answer in one.verdicts if answer.topic == "Shift"}
    assert shifts == {"cfg": "shifts the distribution", "negative": "undecided"}
    named = {arm for removed in (found.named.removed if found.named else []) for arm in removed.arms}
    points = {point.arm for frontier in found.frontiers for point in frontier.points}
    assert "reseeded" not in named | points
    COMPARISON.write_bytes(seal_json(found.model_dump_json()))
    assert load_comparison(COMPARISON, measured).floor == found.floor


@pytest.fixture
def scored(project: Any, params: dict[str, Any]) -> Any:
    """A study of two arms with scores of four images, and its features."""
    params["arms"] = {name: params["arms"][name] for name in ("unguided", "cfg")}
    study = parse_study(params, "test")

    def write(arm: str, pairs: list[int], ids: list[str]) -> None:
        columns: dict[str, list[object]] = {name: [0.5] * 4 for name in SCORE_FEATURES}
        columns |= {"image_id": list(ids), "pair_id": list(pairs), "inside_reference": [True] * 4}
        write_shard(SCORES / f"{arm}.parquet", columns, SCORE_FEATURES, "s")

    ids = {arm: [f"{arm}-{k}" for k in range(4)] for arm in study.arms}
    features = {
        arm: SetFeatures(own, gaussian(4, D, seed=0), gaussian(4, D, seed=1), MADE_WITH) for arm, own in ids.items()
    }
    for arm, own in ids.items():
        write(arm, [0, 1, 2, 3], own)
    return study, features, write


def test_arms_that_do_not_share_their_pairs_are_counted(scored: Any) -> None:
    study, features, write = scored
    space = Space(FeatureSpace("clip"), gaussian(9, D, seed=2), 8)
    arms = read_arms(study, features, space)
    assert {name: len(arm.features) for name, arm in arms.items()} == {"unguided": 4, "cfg": 4}
    write("cfg", [0, 1, 2, 9], features["cfg"].ids)
    with pytest.raises(InputError, match=r"'cfg' \(4 images\) and 'unguided' \(4\) do not share their pairs, only 3"):
        read_arms(study, features, space)
    write("cfg", [0, 1, 2, 3], ["a", "b", "c", "d"])
    with pytest.raises(InputError, match="scores of 'cfg' belong to other images than its features"):
        read_arms(study, features, space)


def test_captions_belong_to_the_images_of_the_features(project: Any) -> None:
    build(project / "data/reference", "reference", 6, 0)
    ids = read_set(REFERENCE_SET, ["image_id"])["image_id"].to_pylist()
    features = gaussian(6, D, seed=0)
    assert len(reference_captions(SetFeatures(ids, features, features, MADE_WITH))) == 6
    with pytest.raises(InputError, match="features of the reference belong to other images than data/reference"):
        reference_captions(SetFeatures(ids[::-1], features, features, MADE_WITH))


def test_a_study_without_prompts_is_asked_nothing_about_them(measured: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    assert compare(measured).prompted
    told: list[bool] = []
    monkeypatch.setattr("eval.comparison.compare.frontiers", lambda *given: told.append(given[-1]) or [])
    for name in measured.arms:
        columns = read_set(SETS / name, ["image_id", "prompt"]).to_pydict() | {"prompt": [""] * N}
        written = Features({"image_id": Value("string"), "prompt": Value("string")})
        write_shard(SETS / name / "part-00000.parquet", columns, written, "without prompts")
    found = compare(measured)
    assert not found.prompted
    assert all(set(numbers.adjusted_p) and "prompt" not in numbers.adjusted_p for _, numbers in found.guided)
    assert all("Prompt" not in {answer.topic for answer in one.verdicts} for one in found.verdicts)
    assert told == [False]
