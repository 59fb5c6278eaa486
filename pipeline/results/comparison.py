"""What `metrics/compare.json` holds: eval/comparison/compare.py writes it, the report and the tracking read it."""

from pathlib import Path
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from pipeline.errors import InputError
from pipeline.layout import METRICS
from pipeline.results.external_arms import ExternalArm
from pipeline.results.interval import Finite, Interval
from pipeline.results.metrics import TABLE
from pipeline.settings import ArmName
from pipeline.storage.json_file import read_json_text
from pipeline.study.study import Study

COMPARISON = METRICS / "compare.json"
# The word of a verdict that the numbers leave open.
UNDECIDED = "undecided"


class _Record(BaseModel):
    # Unknown keys are let through: a reader that shows less than was written is not an error.
    model_config = ConfigDict(frozen=True, from_attributes=True)


class Direction(_Record):
    """One of the directions along which an arm's variance changed most.

    `ratio` is its variance over the baseline's; `score` the per-image score that goes with it most, and `correlation`
    how closely.
    """

    ratio: Finite
    score: str
    correlation: Finite


class TwoSample(_Record):
    """Whether two sets come from one distribution: the squared MMD with its permutation p-value, and a classifier's
    AUC."""

    mmd2: Finite
    mmd_p: Finite
    auc: Interval


class Composition(_Record):
    """How an arm's kinds of images differ from the baseline's: total variation, Jensen-Shannon divergence in bits."""

    total_variation: Interval
    jensen_shannon: Interval
    p: Finite


class TagChange(_Record):
    """A tag's share of an arm's tags, of the baseline's, and their paired difference."""

    tag: str
    share: Finite
    baseline_share: Finite
    difference: Interval


class TagComposition(Composition):
    """How the tags that images show differ: over `readable` tags, with those that `changed` most."""

    readable: int
    changed: list[TagChange]


class InSpace(_Record):
    """An arm against the baseline in one feature space.

    `shift` is the Fréchet distance to the baseline, `drift` the part of it that is between the means, `spread_ratio`
    the arm's variance over the baseline's. `distance` and `variety` are differences, arm minus baseline: of the Fréchet
    distances to the reference set, and of the recalls. `adjusted_p` are the p-values by question after Holm's
    correction over the arms. `detectable` is, by question, the smallest effect that this many images show: one that is
    decided in four of five repetitions. `beyond_floor` is the shift minus that of other seeds (Floor), None where the
    study has no set of these.
    """

    shift: Interval
    drift: Interval
    spread_ratio: Interval
    distance: Interval
    variety: Interval
    adjusted_p: dict[str, Finite]
    detectable: dict[str, Finite]
    beyond_floor: Interval | None = None

    @property
    def intervals(self) -> dict[str, Interval]:
        """The numbers, by the names that they have in AgainstBaseline, `recall` being the difference of the recalls."""
        names = {"shift": "fd", "distance": "reference_fd", "variety": "recall"}
        values = {name: getattr(self, name) for name in type(self).model_fields if name != "beyond_floor"}
        return {names.get(name, name): value for name, value in values.items() if isinstance(value, Interval)}


class AgainstBaseline(_Record):
    """An arm against the baseline: fd = drift + contraction (said: spread change), and paired differences.

    Differences are arm minus baseline. `reference_fd` is the difference of the Fréchet distances to the reference set.
    `mean_share` and `dispersion` are those of the paired displacement, None where the images were put beside each other
    by chance. CLIP score, aesthetic score, P(malformed) and `composition` are None where the study does not ask for
    them. `within_prompt` is the ratio of the spreads within a prompt (None where too few prompts repeat), and
    `adjusted_p` the p-values by question, after Holm's correction over the arms. `lpips` is the difference of LPIPS
    within a prompt and `preferences` those of the learned scores that the study asks for; `tags` is None where the
    reference set's captions hold no tags that features can tell. `spaces` answers the questions about distributions in
    every feature space, the primary one first, in which all of the above is measured.
    """

    fd: Interval
    drift: Interval
    contraction: Interval
    spread_ratio: Interval
    mean_share: Finite | None = None
    dispersion: Finite | None = None
    reference_fd: Interval
    clip_score: Interval | None = None
    aesthetic: Interval | None = None
    malformed: Interval | None = None
    two_sample: TwoSample
    composition: Composition | None = None
    tags: TagComposition | None = None
    directions: list[Direction]
    within_prompt: Interval | None
    lpips: Interval | None = None
    preferences: dict[str, Interval] = Field(default_factory=dict)
    adjusted_p: dict[str, Finite]
    spaces: dict[str, InSpace]

    @property
    def intervals(self) -> dict[str, Interval]:
        """The numbers that have an interval, by name."""
        values = {name: getattr(self, name) for name in type(self).model_fields}
        found = {name: value for name, value in values.items() if isinstance(value, Interval)}
        tags = {} if self.tags is None else {"tags": self.tags.total_variation}
        kinds = {} if self.composition is None else {"kinds": self.composition.total_variation}
        return {**found, "auc": self.two_sample.auc, **kinds, **tags, **self.preferences}


class AgainstReference(_Record):
    """An arm against the reference set: fd = drift + contraction; a spread ratio below 1 is narrower than reality."""

    drift: Interval
    contraction: Interval
    spread_ratio: Interval
    two_sample: TwoSample


class Cost(_Record):
    """What drawing one image of an arm took: network evaluations, floating-point operations, seconds, Anlas.

    Anlas is what NovelAI would ask for it (pipeline/cost/anlas.py), None where that is unknown. Evaluations of probes,
    which change no image, are counted apart; the seconds include them.
    """

    nfe_per_image: Finite
    flops_per_image: Finite
    probe_nfe_per_image: Finite
    probe_flops_per_image: Finite
    seconds_per_image: Finite
    anlas_per_image: int | None
    device: str = ""


class TraceStep(_Record):
    """A mean over images at one noise level."""

    sigma: Finite
    value: Interval


class EffectiveScale(_Record):
    """At which scale plain CFG would have pushed as an arm did: <guided - empty, D> / <D, D>, D = prompt - empty.

    `scale` is its mean over steps, of each image and then over images; `steps` are the means over images, from high
    noise to low; `over_steps` and `over_images` the standard deviations of these means. `elsewhere` is the share of
    the squared push across D. `without_direction` images are left out, whose prompt reads as the empty text does.
    """

    scale: Interval
    elsewhere: Interval
    steps: list[TraceStep]
    over_steps: Finite
    over_images: Finite
    without_direction: int
    answer: str


class AgainstControl(_Record):
    """An arm against its control, plain CFG at the arm's effective scale with the same number of evaluations.

    `wins` are the shares of the pairs in which the arm's image has the better score (ties count half), `adjusted` the
    same for scores without what they pay for saturation and contrast, where the study has retouched arms to tell. The
    others are differences, arm minus control, in the primary feature space.
    """

    control: ArmName
    wins: dict[str, Interval]
    adjusted: dict[str, Interval] = Field(default_factory=dict)
    fd: Interval
    precision: Interval
    recall: Interval
    vendi: Interval


class ComparedArm(_Record):
    """One arm; `against_baseline` is None for the baseline itself.

    `family` names the arms that form one sweep of scales. `distinct` of its `n` images differ, and `copied` are equal
    to an image of the reference set. `scores` are the set metrics against the reference set and the means of the per-
    image scores, by name; `inpainted` are the numbers of an arm that inpaints. `kinds` are the shares of the kinds of
    images. `push` is the root mean square of guided - main in x0 at the step where it is largest; an arm that
    `does_nothing` has one of rounding alone, and is meant to be guided. `effective` is None where the empty text was
    not evaluated. A control has the arm that it is `control_of`, and that one's effective scale as its `scale`.
    """

    arm: ArmName
    family: ArmName
    method: str
    scale: Finite
    prompt: Literal["positive", "empty"]
    negative_prompt: str
    description: str
    n: int
    distinct: int | None = None
    copied: int | None = None
    cost: Cost | None
    kinds: dict[str, Finite]
    scores: dict[str, Interval]
    inpainted: dict[str, Interval] = Field(default_factory=dict)
    against_reference: AgainstReference
    against_baseline: AgainstBaseline | None
    push: Finite | None = None
    does_nothing: bool = False
    effective: EffectiveScale | None = None
    control_of: ArmName | None = None
    against_control: AgainstControl | None = None

    @model_serializer(mode="wrap")
    def _without_a_mask(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Comparisons that were kept before arms inpainted read and write as they did.
        content: dict[str, Any] = handler(self)
        return {key: value for key, value in content.items() if key != "inpainted" or value}


class FrontierPoint(_Record):
    """One arm on its method's frontier; the baseline starts every frontier that shares its prompts."""

    arm: ArmName
    scale: Finite
    precision: Interval
    recall: Interval
    fd: Interval
    clip_score: Interval
    aesthetic: Interval
    shift: Interval


# What strength is measured by, and the metric behind each axis.
AXES = {"clip_score": "clip_score", "shift": "shift_fd"}
# What is known of every point, and what is read at equal strength: that by which strength is measured comes last.
POINT = tuple(row.name for row in TABLE if row.name in FrontierPoint.model_fields)
MATCHED = (*(name for name in POINT if name not in AXES.values()), *AXES.values())


class Matched(_Record):
    """A method's numbers where its frontier first reaches `level` of `axis`; `values` is empty where it does not."""

    axis: Literal["clip_score", "shift"]
    level: Finite
    values: dict[str, Interval]


class Frontier(_Record):
    """A method over its scales. `area` is the area below its precision and recall."""

    family: ArmName
    points: list[FrontierPoint]
    area: Interval
    matched: list[Matched]


class AlignedPair(_Record):
    """The cosine between two references' directions: at every step, and its mean over steps."""

    references: tuple[str, str]
    steps: list[TraceStep]
    cosine: Interval


class ActingReference(_Record):
    """Where a reference acts: |main - reference| / |main| at every step, its mean, and the share of the steps that
    holds half of it."""

    reference: str
    steps: list[TraceStep]
    norm: Interval
    half: Interval


class Alignment(_Record):
    """The references along one arm's trajectories.

    `coinciding` are references without a direction, since they predict what the main network does; `incomplete` those
    that were not evaluated at every step. `without_direction` images are left out, since one of the references
    predicts for them what the main network does.
    `guide_over_empty` is cos(negative, guide) - cos(negative, empty), None where one of them was not evaluated;
    `answer` says in words what that means.
    """

    arm: ArmName
    pairs: list[AlignedPair]
    actions: list[ActingReference]
    coinciding: list[str]
    incomplete: list[str] = Field(default_factory=list)
    without_direction: int = 0
    guide_over_empty: Interval | None
    answer: str


class Verdict(_Record):
    """One answer about an arm: what was asked, the verdict, and the numbers behind it.

    `spaces` has the answer in each feature space where the question is about distributions; the verdict is what they
    agree on, and `reason` says what the spaces answer to that contradict each other.
    """

    topic: str
    verdict: str
    numbers: str
    decided: bool
    spaces: dict[str, str] = Field(default_factory=dict)
    reason: str = ""


class ArmVerdicts(_Record):
    """The answers about one guided arm."""

    arm: ArmName
    verdicts: list[Verdict]


class Floor(_Record):
    """The Fréchet distances of sets that differ in nothing anybody asked about, each of as many images as an arm has.

    Real images in place of an arm have `fd` to the other images of the reference set, and `between_sets` to as many
    others. The baseline has `other_seeds` to a second set of the same prompts from other seeds, None where the study
    has no such set. Arms share prompts and seeds, so two of them can lie nearer to each other than either of these.
    """

    fd: Interval
    between_sets: Interval
    other_seeds: Interval | None = None

    @property
    def shift(self) -> Interval:
        """What shifts are counted in."""
        return self.between_sets if self.other_seeds is None else self.other_seeds


class ComparedSpace(_Record):
    """A feature space: its extractor, which part of it is compared, and what real images in place of an arm get in it.

    `components` is None where all dimensions are; `explained` the share of the reference set's variance that it has.
    """

    name: str
    extractor: str
    unit: bool
    components: int | None
    explained: Finite
    digest: str
    resize: str
    floor: Floor


class ArmWithoutNamed(_Record):
    """What of an arm's shift and distance stays when a concept is taken out of the feature space.

    `shift` and `distance` (to the reference set) are with it, `shift_without` and `distance_without` without;
    `named_share` is the share of the shift that goes.
    """

    shift: Interval
    shift_without: Interval
    distance: Interval
    distance_without: Interval
    named_share: Interval


class RemovedConcept(_Record):
    """A concept taken out of a feature space, or all of them: by `directions` of it, which hold `energy` of what the
    concept does to real images, and `variance` of the reference set's: about as much would go of any other shift."""

    concept: str
    directions: int
    energy: Finite
    variance: Finite
    arms: dict[ArmName, ArmWithoutNamed]


class NamedConcepts(_Record):
    """How much of each arm's shift is what negative prompts name: `named` by them and shown by tagged real images.

    `unknown` are names that no image is known to show. `space` is that of the CLIP's unit vectors.
    """

    space: str
    dimensions: int
    named: list[str]
    unknown: list[str]
    removed: list[RemovedConcept]


class ChosenScale(_Record):
    """A method at the scale whose arm has the lowest FD on one half of the prompts, reported on the other half.

    `candidates` are the FDs by arm on the first half. Differences are paired, arm minus baseline or control, of FD,
    precision, recall, CLIP score, aesthetic score and Vendi score.
    """

    family: str
    arm: ArmName
    scale: Finite
    candidates: dict[ArmName, Finite]
    fd: Interval
    against_baseline: dict[str, Interval]
    control: ArmName | None
    against_control: dict[str, Interval] | None


class ShownConcept(_Record):
    """How often the images of each arm show a concept, by a classifier of `auc` on real subjects it had not seen.

    `differences` are paired, arm minus baseline.
    """

    concept: str
    auc: Finite
    shares: dict[ArmName, Interval]
    differences: dict[ArmName, Interval]


class Adherence(_Record):
    """What an arm's negative prompt, which `names` these concepts, does.

    `obeyed` is how much less often an image shows them than the baseline's does, mean over the concepts; `kept` and
    `quality` are differences of the CLIP score and of the aesthetic score, arm minus baseline. `collateral` is the
    share of the shift that stays without the directions of the concepts.
    """

    arm: ArmName
    names: list[str]
    obeyed: Interval
    kept: Interval
    quality: Interval
    collateral: Interval


class Provenance(_Record):
    """Where the numbers come from; without networks where nothing was generated."""

    extractor: str
    extractor_digest: str
    resize: str
    main: str = ""
    guide: str = ""
    reference: str
    code: str
    libraries: dict[str, str]
    params: str


class Comparison(_Record):
    """One study's arms against each other and against the reference set.

    Where no pair was `prompted`, or nothing reads prompts, a CLIP score means nothing or there is none. `external` has
    the arms that someone else generated. `reference_distinct` of
    the `reference_n` real images differ.
    """

    study: str
    baseline: ArmName
    level: Finite
    prompted: bool = True
    arms: list[ComparedArm]
    external: dict[ArmName, ExternalArm] = Field(default_factory=dict)
    floor: Floor
    spaces: list[ComparedSpace]
    named: NamedConcepts | None = None
    chosen: list[ChosenScale] = Field(default_factory=list)
    shown: list[ShownConcept] = Field(default_factory=list)
    adherence: list[Adherence] = Field(default_factory=list)
    reference_n: int
    reference_distinct: int | None = None
    frontiers: list[Frontier]
    alignment: list[Alignment]
    verdicts: list[ArmVerdicts]
    provenance: Provenance

    @model_validator(mode="after")
    def _one_baseline(self) -> "Comparison":
        without = [arm.arm for arm in self.arms if arm.against_baseline is None]
        if without != [self.baseline]:
            raise ValueError(f"against_baseline must be null for the baseline '{self.baseline}' alone, not {without}")
        return self

    @model_validator(mode="after")
    def _one_set_of_scores(self) -> "Comparison":
        wanted = set(self.by_name(self.baseline).scores)
        for arm in self.arms:
            if set(arm.scores) != wanted:
                differing = ", ".join(sorted(set(arm.scores) ^ wanted))
                raise ValueError(f"arms '{arm.arm}' and '{self.baseline}' do not have the same scores: {differing}")
        return self

    def is_paired(self, name: str) -> bool:
        """Whether an arm's images and the baseline's are two versions of the same ones."""
        return all(own.is_paired for arm, own in self.external.items() if arm in (name, self.baseline))

    @property
    def all_paired(self) -> bool:
        """Whether every pair of images is two versions of one."""
        return all(own.is_paired for own in self.external.values())

    @property
    def row_word(self) -> str:
        """What images of all arms share that stand beside each other: a seed, another mark of a pair, or nothing."""
        if all(own.paired_by == "seed" for own in self.external.values()):
            return "seed"
        return "pair" if self.all_paired else "row"

    def by_name(self, name: str) -> ComparedArm:
        return next(arm for arm in self.arms if arm.arm == name)

    @property
    def guided(self) -> list[tuple[ComparedArm, AgainstBaseline]]:
        return [(arm, arm.against_baseline) for arm in self.arms if arm.against_baseline is not None]


def load_comparison(path: Path, study: Study) -> Comparison:
    """Read and validate `metrics/compare.json`.

    Raises InputError where the file is missing, damaged, malformed, or not of this study's name, baseline and arms.
    """
    try:
        comparison = Comparison.model_validate_json(read_json_text(path))
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; `dvc repro compare` makes it") from None
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "its content"
        raise InputError(f"{path}: {key}: {first['msg']}; `dvc repro compare` regenerates it") from None
    for what, seen, wanted in (
        ("study", [comparison.study], [study.name]),
        ("baseline", [comparison.baseline], [study.baseline]),
        ("arms", sorted(arm.arm for arm in comparison.arms), sorted(study.compared)),
    ):
        if seen != wanted:
            raise InputError(
                f"{path} has {what} {', '.join(seen)}, the study has {', '.join(wanted)}; "
                "`dvc repro compare` regenerates it"
            )
    return comparison
