"""The seam between the algebra and what changes its directions or its result before the sampler steps.

A post-process is one class of settings with hooks. `directed` sees the terms before they are summed, `finished` the
sum. The walk calls them in the order in which an arm lists its post-processes, in the space that each of them states.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from pipeline.guidance.scale_schedules import Moment
from pipeline.settings import Settings

if TYPE_CHECKING:  # a study is composed without torch
    import torch

# What predictions are said in: the network's own output, the finished sample, the noise, or the velocity of the noise
# path (v on the variance preserving path, the flow e - x0 on rectified flow).
Space = Literal["output", "x0", "noise", "v"]
# What a post-process keeps from step to step: tensors [B, ...] of which each row is one image's own.
Memory = dict[str, Any]


class Spaces(Protocol):
    """How the predictions of one evaluation read in each space; all are affine in each other at one noise level."""

    def seen(self, output: "torch.Tensor", space: Space) -> "torch.Tensor":
        """A prediction as `space` has it, [B, C, H, W]; the same tensor where that is the network's own output."""
        ...

    def per_output(self, space: Space) -> float:
        """d prediction / d output, with its sign: turns a difference of outputs into one of `space`."""
        ...


class OneSpace:
    """All spaces are the output: for predictions that come from no network."""

    def seen(self, output: "torch.Tensor", space: Space) -> "torch.Tensor":
        return output

    def per_output(self, space: Space) -> float:
        return 1.0


@dataclass(frozen=True)
class Push:
    """One summand of guided = main + sum of `weight` x `direction`.

    `name` is that of its reference. `direction` [B, C, H, W] is main - reference, in the space of the post-process
    that looks at it. `weight` is s - 1 at this step, a number or [B, 1, 1, 1]. `reference` [B, C, H, W] is the
    prediction itself as the network's output.
    """

    name: str
    direction: "torch.Tensor"
    weight: "float | torch.Tensor"
    reference: "torch.Tensor"

    def along(self, direction: "torch.Tensor", weight: "float | torch.Tensor | None" = None) -> "Push":
        """The same term with another direction, and with another weight where one is given."""
        return replace(self, direction=direction, weight=self.weight if weight is None else weight)


@dataclass(frozen=True)
class Evaluation:
    """What a post-process sees of one evaluation of the networks.

    `main` [B, C, H, W] is the main prediction in the post-process's space, `pushes` are the terms that act at this
    step, before any post-process.
    """

    at: Moment
    main: "torch.Tensor"
    pushes: tuple[Push, ...]

    @property
    def guides(self) -> bool:
        """Whether any term acts at this step."""
        return bool(self.pushes)


class PostProcess(Settings):
    """What every post-process has; each overrides the hooks that it needs.

    `acts_on` says which of the two hooks that is. `every_term`: at a step where any term acts, it needs the references
    of all. `alone`: it combines the predictions by itself, whatever the scales, so no other post-process may act.
    `contrasts`: it sets negatives against the empty prompt, and so needs both among the terms. `needs_terms`: without
    any term there is nothing for it to change.
    """

    space: Space = "output"

    acts_on: ClassVar[Literal["directions", "result"]]
    every_term: ClassVar[bool] = False
    alone: ClassVar[bool] = False
    contrasts: ClassVar[bool] = False
    needs_terms: ClassVar[bool] = True

    def acts(self, scales: Sequence[float], at: Moment, memory: Memory) -> bool | None:
        """Whether the terms, of these scales, act at this step; None leaves it to their schedules."""
        return None

    def directed(self, pushes: list[Push], seen: Evaluation, memory: Memory) -> list[Push]:
        """The summands to take in place of `pushes`, which are never empty."""
        return pushes

    def finished(self, guided: "torch.Tensor", seen: Evaluation, memory: Memory) -> "torch.Tensor":
        """The prediction [B, C, H, W] to take in place of `guided`, both in the post-process's space."""
        return guided


ONE_SPACE = OneSpace()


def directed(
    post: PostProcess, pushes: list[Push], seen: Evaluation, memory: Memory, spaces: Spaces = ONE_SPACE
) -> list[Push]:
    """What `post` makes of `pushes`, whose directions are differences of outputs, before and after."""
    if not pushes or post.acts_on != "directions":
        return pushes
    ratio = spaces.per_output(post.space)
    inside = [replace(push, direction=push.direction * ratio) for push in pushes]
    made = post.directed(inside, replace(seen, main=spaces.seen(seen.main, post.space)), memory)
    return [replace(push, direction=push.direction / ratio) for push in made]


def finished(
    post: PostProcess, guided: "torch.Tensor", seen: Evaluation, memory: Memory, spaces: Spaces = ONE_SPACE
) -> "torch.Tensor":
    """What `post` makes of the guided output, [B, C, H, W]."""
    if post.acts_on != "result":
        return guided
    before = spaces.seen(guided, post.space)
    after = post.finished(before, replace(seen, main=spaces.seen(seen.main, post.space)), memory)
    # The change is converted, not the prediction: what changes nothing in the space leaves the output bit for bit.
    return after if before is guided else guided + (after - before) / spaces.per_output(post.space)


def per_image(values: "torch.Tensor") -> tuple[int, ...]:
    """The axes of one image, all but the first."""
    return tuple(range(1, values.ndim))


def refused_combination(posts: Sequence[PostProcess], references: Mapping[str, bool]) -> str | None:
    """Why these post-processes cannot act on terms with these references, and what to write instead; None if they can.

    `references` says of each reference by its name whether it is a text that the main network reads.
    """
    names = [_name(post) for post in posts]
    if twice := next((name for name in names if names.count(name) > 1), None):
        return f"post lists {twice} twice; keep one"
    for post, name in zip(posts, names, strict=True):
        if post.alone and len(posts) > 1:
            return f"post {name} combines the predictions by itself; take the others out"
        if post.contrasts:
            others = [reference for reference in references if reference != "empty"]
            if "empty" not in references or not others:
                return f"post {name} sets negatives against the empty prompt; the terms must be empty and negatives"
            if wrong := next((other for other in others if not references[other]), None):
                return f"post {name} takes texts of the main network for negatives, not {wrong}"
    for first, second in pairwise(posts):
        if (first.acts_on, second.acts_on) == ("result", "directions"):
            return f"post {_name(second)} acts on the directions before they are summed; list it before {_name(first)}"
    # They may split a term in two, which another one would take for two terms.
    directing = [_name(post) for post in posts if post.acts_on == "directions"]
    if len(directing) > 1:
        return f"post {directing[0]} and {directing[1]} both act on the directions; keep one"
    return None


def _name(post: PostProcess) -> str:
    return str(getattr(post, "name", type(post).__name__))
