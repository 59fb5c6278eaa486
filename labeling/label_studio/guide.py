"""The guide that a labeller reads first: one screen, with examples whose truth is known."""

from collections.abc import Mapping
from itertools import islice

from PIL import Image

from labeling.label_studio.interface import Kind
from pipeline.results.rates import Verdict
from pipeline.storage.contact_sheet import grid
from pipeline.tinybooru.build import CANVAS, plans
from pipeline.tinybooru.image import Plan, draw

_EXAMPLES = 5
# Another world than the reference set's and the prompts', so that no example is ever asked about.
_WORLD_SEED = 20_000

_MEANINGS: dict[Verdict, str] = {
    "legit_human": "<b>1 Legit human.</b> A person, drawn right. Style and finish do not matter: flat colours, blur "
    "or a watermark make nobody malformed.",
    "malformed_human": "<b>2 Malformed human.</b> A person with a part that is missing, doubled, misplaced, turned or "
    "far too big. Say which: <b>a</b> face, <b>s</b> hands, <b>d</b> limbs, <b>f</b> count, <b>g</b> other.",
    "object_or_scenery": "<b>3 Object or scenery.</b> Something that one can name: an animal, a thing, a landscape.",
    "pattern": "<b>4 Pattern.</b> Shapes or texture without a subject, noise included.",
}
_TASKS_GUIDE = """<h4>What is in the image?</h4>
{rows}
<p>For people also the body shape: <b>q</b> normal, <b>w</b> other (not the body one expects of a person). In doubt
between two verdicts take the one you would defend to a colleague, and write a note; skip what you cannot judge.
Some images come twice: judge them again. <b>Ctrl+Enter</b> submits; the wheel and the buttons zoom.</p>"""
_PAIRS_GUIDE = """<h4>Which image is better?</h4>
<p>Both were generated for the prompt above them. <b>1</b> left, <b>3</b> right, <b>2</b> where you see no
difference that matters. Count what is drawn right and fits the prompt; take no account of the side.
<b>Ctrl+Enter</b> submits.</p>"""


def examples() -> dict[Verdict, Image.Image]:
    """A strip of known examples for each verdict, drawn by the embedded world."""
    return {verdict: grid([draw(planned, CANVAS) for planned in _of(verdict)], _EXAMPLES) for verdict in _MEANINGS}


def guide(kind: Kind, addresses: Mapping[Verdict, str]) -> str:
    """The guide as HTML; `addresses` are those of the strips of examples, which only the verdicts have."""
    if kind == "pairs":
        return _PAIRS_GUIDE
    rows = (
        f'<p>{meaning}<img src="{addresses[verdict]}" alt="examples" width="280"><br></p>'
        for verdict, meaning in _MEANINGS.items()
    )
    return _TASKS_GUIDE.format(rows="".join(rows))


def _of(verdict: Verdict) -> list[Plan]:
    def fits(planned: Plan) -> bool:
        match verdict:
            case "malformed_human":
                return planned.flaws == ("bad anatomy",)
            case "legit_human":
                return planned.kind == "person" and not planned.flaws
            case "object_or_scenery":
                return planned.kind in ("object", "scenery") and not planned.flaws
            case "pattern":
                return planned.kind == "pattern" and not planned.flaws

    return list(islice(filter(fits, plans("validation", _WORLD_SEED)), _EXAMPLES))
