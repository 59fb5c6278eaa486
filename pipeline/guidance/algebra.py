"""The algebra of guidance.

With all predictions in one parametrisation (noise, v or x0; they are affine in each other at one noise level, so
the choice does not matter as long as it is one),

    guided = main + sum_i (s_i - 1) (main - reference_i)

where each *reference* is a prediction to move away from and s_i its *scale*; 1 means none. One term is the
familiar `reference + s (main - reference)`. Which reference makes which method:

    classifier-free guidance (arXiv 2207.12598)   main network, empty prompt
    negative prompt                               main network, negative prompt
    autoguidance (arXiv 2406.02507)               a weaker network, the same prompt
    PAG, SEG, skipped layers                      the damaged main network, the same prompt (perturbation.py)
    independent condition (arXiv 2407.02687)      main network, an unrelated prompt

NAG, VSF and NASA change the main prediction itself (pipeline/guidance/attention_space.py); terms act beside them.

A scale may change along the chain (scale_schedules.py, dynamic_negative.py, feedback.py), directions or result may be
changed before the sampler steps (pipeline/guidance/postprocess/), and the step itself may re-noise along a reference.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch

from pipeline.guidance.attention_space import NAG, NASA, VSF
from pipeline.guidance.posterior import Followed
from pipeline.guidance.postprocess.post_process import (
    ONE_SPACE,
    Evaluation,
    Memory,
    PostProcess,
    Push,
    Spaces,
    directed,
    finished,
)
from pipeline.guidance.references import DEFAULT_SHARE, ConditionNoise, PerturbationKind
from pipeline.guidance.scale_schedules import Constant, Moment, NoiseInterval, Ramp, Steps, Window

Network = Literal["main", "guide"]
# The name of a text: prompt, empty, negative, unrelated, or one of the arm's own.
Text = str
CONSTANT = Constant()


@dataclass(frozen=True)
class Perturbation:
    """How a network is damaged for a prediction (pipeline/networks/perturbation.py).

    `layers` are the beginnings of module names (`mid_block`, `up_blocks.1.attentions.0`), `blur` is the standard
    deviation of seg's Gaussian in positions of the layer; None is infinitely wide. `share` is the probability with
    which one of the random kinds (pipeline/guidance/references.py) hits a block, an activation or a position.
    """

    kind: PerturbationKind
    layers: tuple[str, ...]
    blur: float | None = None
    share: float = DEFAULT_SHARE


@dataclass(frozen=True)
class Prediction:
    """What to evaluate: which network, given which text, damaged or not; `name` is what the trace calls it.

    `time` is added to the network's timestep, in thousandths of its training's range. `noise` is on the embedding of
    the text. `attention` steers it away from a second text.
    """

    name: str
    network: Network
    text: Text
    perturbation: Perturbation | None = None
    time: float = 0.0
    noise: ConditionNoise | None = None
    attention: NAG | VSF | NASA | None = None

    @property
    def texts(self) -> tuple[Text, ...]:
        """The texts that it reads."""
        return (self.text,) if self.attention is None else (self.text, self.attention.text)

    @property
    def unsteered(self) -> "Prediction":
        """The main prediction that a steered one is where its attention does not act."""
        return replace(self, name=MAIN.name if self.noise is None else NOISED, attention=None)

    @property
    def way(self) -> "Way":
        """How its network is run, whatever the text."""
        return Way(self.network, self.perturbation, self.time, self.attention)


class Way(NamedTuple):
    """How a network is run: predictions that agree in it go through the network in one call."""

    network: Network
    perturbation: Perturbation | None
    time: float
    attention: NAG | VSF | NASA | None


# The main prediction where there is noise on the prompt's embedding.
NOISED = "noised"
MAIN = Prediction("main", "main", "prompt")
EMPTY = Prediction("empty", "main", "empty")
NEGATIVE = Prediction("negative", "main", "negative")
GUIDE = Prediction("guide", "guide", "prompt")
UNRELATED = Prediction("unrelated", "main", "unrelated")


@dataclass(frozen=True)
class Term:
    """A reference to move away from, and how far: scale 1 is not at all. The schedule weighs scale - 1."""

    reference: Prediction
    scale: float
    schedule: Constant | NoiseInterval | Window | Ramp | Steps | Followed = CONSTANT


@dataclass(frozen=True)
class Renoise:
    """CFG++: a step that gives the sample the noise of another prediction (pipeline/guidance/renoise.py)."""

    along: Prediction
    share: float = 1.0


@dataclass(frozen=True)
class Guidance:
    """A list of terms; without any (or with scales of 1 only) the main prediction stands as it is.

    `post` is what changes directions and result, in its order. `probes` are evaluated at every step and recorded in
    the trace, but not used. `main` is the main prediction. Where it is not the plain one, it carries another name than
    "main", by which the plain one can be a probe or a reference. `renoise` is along the reference of one of the terms.
    """

    terms: tuple[Term, ...] = ()
    post: PostProcess | tuple[PostProcess, ...] = ()
    probes: tuple[Prediction, ...] = ()
    main: Prediction = MAIN
    renoise: Renoise | None = None

    @property
    def posts(self) -> tuple[PostProcess, ...]:
        """The post-processes, in the order in which they act."""
        return self.post if isinstance(self.post, tuple) else (self.post,)

    @property
    def along(self) -> tuple[Prediction, ...]:
        """What the steps re-noise along, where they do."""
        return (self.renoise.along,) if self.renoise and self.renoise.share else ()

    def predictions(self) -> tuple[Prediction, ...]:
        """What has to be evaluated at one step or another, the main prediction first, each once."""
        # A guider says step by step what it needs; some use references at scale 1.
        every = any(post.alone for post in self.posts)
        every |= any(post.every_term for post in self.posts) and any(term.scale != 1 for term in self.terms)
        used = (term.reference for term in self.terms if every or term.scale != 1)
        return tuple(dict.fromkeys((*self._mains(), *used, *self.along, *self.probes)))

    def main_at(self, at: Moment) -> Prediction:
        """The main prediction of a step: as if its attention were not there where that does not act."""
        attention = self.main.attention
        return self.main if attention is None or attention.schedule.factor(at) else self.main.unsteered

    def _mains(self) -> tuple[Prediction, ...]:
        attention = self.main.attention
        always = attention is None or isinstance(attention.schedule, Constant)
        return (self.main,) if always else (self.main, self.main.unsteered)


class Walk:
    """A guidance on its way down the noise levels with one batch.

    It keeps what post-processes and followed scales remember from step to step.
    """

    def __init__(self, guidance: Guidance):
        self.guidance = guidance
        self._posts: tuple[tuple[PostProcess, Memory], ...] = tuple((post, {}) for post in guidance.posts)
        self._followed: dict[Term, torch.Tensor] = {}
        self._active: tuple[Moment, tuple[Term, ...]] | None = None

    def active(self, at: Moment) -> tuple[Term, ...]:
        """The terms that change anything at this step; the others cost no evaluation."""
        if self._active is None or self._active[0] != at:
            # Once a step: placing a guider at the first step restarts its momentum.
            self._active = at, self._find_active(at)
        return self._active[1]

    def _find_active(self, at: Moment) -> tuple[Term, ...]:
        terms = self.guidance.terms
        for post, memory in self._posts:
            acts = post.acts(self._scales, at, memory)
            if acts is not None:
                return terms if acts else ()
        active = tuple(term for term in terms if term.scale != 1 and _share(term, at) != 0)
        return terms if active and any(post.every_term for post, _ in self._posts) else active

    @property
    def _scales(self) -> tuple[float, ...]:
        return tuple(term.scale for term in self.guidance.terms)

    def predictions(self, at: Moment) -> tuple[Prediction, ...]:
        """What has to be evaluated at this step, the main prediction first, each once."""
        return tuple(dict.fromkeys((*self._used(at), *self.guidance.probes)))

    def _used(self, at: Moment) -> tuple[Prediction, ...]:
        along = self.guidance.along if self.renoise_share(at) else ()
        return (self.guidance.main_at(at), *(term.reference for term in self.active(at)), *along)

    def probed(self, at: Moment) -> tuple[str, ...]:
        """The names of what `predictions(at)` evaluates for the trace alone."""
        used = set(self._used(at))
        return tuple(prediction.name for prediction in self.predictions(at) if prediction not in used)

    def combine(
        self, predicted: Mapping[Prediction, torch.Tensor], at: Moment, spaces: Spaces = ONE_SPACE
    ) -> torch.Tensor:
        """The guided prediction from the predictions named by `predictions(at)`, all of one shape [B, C, H, W].

        `spaces` says how they read in the spaces of the post-processes; unless given, all are in one space.
        """
        main = predicted[self.guidance.main_at(at)]
        pushes = []
        for term in self.active(at):
            reference = predicted[term.reference]
            pushes.append(Push(term.reference.name, main - reference, self._weight(term, main, at), reference))
        seen = Evaluation(at, main, tuple(pushes))
        for post, memory in self._posts:
            pushes = directed(post, pushes, seen, memory, spaces)
        guided = main
        for push in pushes:
            guided = guided + push.weight * push.direction
        for post, memory in self._posts:
            guided = finished(post, guided, seen, memory, spaces)
        return guided

    def renoise_share(self, at: Moment) -> float:
        """The share of the noise that this step takes from the prediction it re-noises along, in [0, 1].

        A schedule weighs it as it weighs its term, whatever the term's scale.
        """
        renoise = self.guidance.renoise
        if renoise is None:
            return 0.0
        shares = [_share(term, at) for term in self.guidance.terms if term.reference == renoise.along]
        return renoise.share * max(shares, default=1.0)

    @property
    def follows_steps(self) -> bool:
        """Whether `follow` has to be told of every step."""
        return any(isinstance(term.schedule, Followed) for term in self.guidance.terms)

    def follow(self, at: Moment, x: torch.Tensor, after: torch.Tensor, x0: Mapping[Prediction, torch.Tensor]) -> None:
        """Update what depends on where the step went, from `x` to `after`, both as x0 + sigma e."""
        for term in self.active(at):
            if isinstance(term.schedule, Followed) and term.scale != 1:
                main, reference = x0[self.guidance.main_at(at)], x0[term.reference]
                state = self._state(term, term.schedule, x)
                self._followed[term] = term.schedule.updated(state, at, x, after, main, reference, term.scale)

    def _state(self, term: Term, schedule: Followed, like: torch.Tensor) -> torch.Tensor:
        known = self._followed.get(term)
        return like.new_full((len(like),), schedule.begin()) if known is None else known

    def _weight(self, term: Term, main: torch.Tensor, at: Moment) -> float | torch.Tensor:
        """s_i - 1 at this step; [B, 1, 1, 1] where it differs between images."""
        if isinstance(term.schedule, Followed) and term.scale != 1:
            weight = term.schedule.weight(self._state(term, term.schedule, main), term.scale)
            return weight.view(-1, *(1,) * (main.ndim - 1))
        return (term.scale - 1) * _share(term, at)


def _share(term: Term, at: Moment) -> float:
    """The share of s - 1 that a schedule lets act; all of it where the scale follows the steps itself."""
    return 1.0 if isinstance(term.schedule, Followed) else term.schedule.factor(at)


def by_way(predictions: Sequence[Prediction]) -> dict[Way, list[Prediction]]:
    """Group predictions by the way their network is run: those of a group go through it in one call."""
    groups: dict[Way, list[Prediction]] = {}
    for prediction in predictions:
        groups.setdefault(prediction.way, []).append(prediction)
    return groups
