"""What the simulated labeller says of images, and that nothing that scores images asks it."""

import ast
from itertools import islice

import pytest
from PIL import Image
from repository_copy import ROOT

from labeling.judge import WEIGHTS, Judgement, better, judge, judge_version
from labeling.label_studio.demo import main, mistaken
from pipeline.errors import InputError
from pipeline.tinybooru.build import plans
from pipeline.tinybooru.image import draw

VERDICTS = ("legit_human", "malformed_human", "object_or_scenery", "pattern")


@pytest.mark.parametrize(
    ("kind", "p_malformed", "verdict"),
    [
        ("person", 0.6, "malformed_human"),
        ("person", 0.5, "legit_human"),
        ("object", 0.0, "object_or_scenery"),
        ("scenery", 0.0, "object_or_scenery"),
        ("pattern", 0.0, "pattern"),
    ],
)
def test_kind_and_malformed_make_the_verdict(kind, p_malformed, verdict):
    assert Judgement(kind, p_malformed, "masterpiece").verdict == verdict


def test_known_images_get_their_verdicts():
    planned = list(islice(plans("validation", 7), 300))
    verdicts = [found.verdict for found in judge((draw(plan, 64) for plan in planned), ROOT / WEIGHTS)]
    truth = [
        {"person": "malformed_human" if plan.malformed else "legit_human", "pattern": "pattern"}.get(
            plan.kind, "object_or_scenery"
        )
        for plan in planned
    ]
    assert set(truth) == set(VERDICTS)
    assert sum(map(str.__eq__, verdicts, truth)) > 0.9 * len(truth)


def test_an_image_without_faults_is_better_and_then_the_one_of_better_finish():
    fine, rough = Judgement("person", 0.1, "masterpiece"), Judgement("person", 0.1, "low quality")
    broken = Judgement("person", 0.9, "masterpiece")
    assert better(rough, broken) == "left"
    assert better(rough, fine) == "right"
    assert better(fine, Judgement("object", 0.0, "masterpiece")) == "tie"


def test_mistakes_come_at_their_rate_and_again_for_the_same_task():
    given = [mistaken("pattern", VERDICTS, 0.3, str(k), "judge") for k in range(1000)]
    assert 0.25 < sum(answer != "pattern" for answer in given) / 1000 < 0.35
    assert set(given) == set(VERDICTS)
    assert given == [mistaken("pattern", VERDICTS, 0.3, str(k), "judge") for k in range(1000)]
    assert given != [mistaken("pattern", VERDICTS, 0.3, str(k), "another") for k in range(1000)]
    assert {mistaken("tie", ("left", "right", "tie"), 0.0, str(k), "judge") for k in range(50)} == {"tie"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--error-rate", "1.5"], r"--error-rate is 1\.5; a share lies between 0 and 1"),
        (["--error-rate", "nan"], r"--error-rate is nan; a share lies between 0 and 1"),
        (["--labeller", "a@b"], r"--labeller is 'a@b'; letters and digits only"),
    ],
)
def test_no_labeller_is_simulated_without_a_share_of_errors_and_a_plain_name(tmp_path, monkeypatch, given, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["labeling.label_studio.demo", *given])
    with pytest.raises(InputError, match=message):
        main()


def test_a_missing_judge_is_named(tmp_path):
    with pytest.raises(InputError, match=r"judge .*nowhere is missing; `make train` makes the embedded one"):
        judge_version(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"judge .*nowhere is missing; `make train` makes the embedded one"):
        judge([Image.new("RGB", (64, 64))], tmp_path / "nowhere")


def test_nothing_that_draws_or_scores_images_knows_the_judge():
    for path in [*(ROOT / "pipeline").rglob("*.py"), *(ROOT / "eval").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            module = getattr(node, "module", None) or ""
            assert not any("judge" in name for name in [module, *names]), path
