"""The study: what `params.yaml` holds, typed and validated before anything heavy is loaded."""

import re
import reprlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError, field_validator, model_validator

from pipeline.credentials import credential_in, masked
from pipeline.errors import InputError, printable
from pipeline.layout import EMBEDDED, IMAGES, PARAMS
from pipeline.prompting.prompt_sets import PromptSet
from pipeline.prompting.strict_check import check_prompt
from pipeline.prompting.text_settings import TextSettings
from pipeline.settings import CONTROL, ArmName, Count, Name, Seed, Settings, inside_project, nearest, watched_path
from pipeline.study.anlas import Anlas
from pipeline.study.arm import Arm
from pipeline.study.controls import Controls
from pipeline.study.executor import Executor
from pipeline.study.extractors import EXTRACTORS, ExtractorKind, FeatureSpace
from pipeline.study.licences import EMBEDDED_LICENCE
from pipeline.study.loadable import one_of
from pipeline.study.main_lora import MainLora
from pipeline.study.model import Model
from pipeline.study.negative import Negative
from pipeline.study.plain_yaml import misread_key, read_yaml
from pipeline.study.reseeded import reseeded_fault
from pipeline.study.sampler import Canvas, Sampler
from pipeline.study.scales import Scales
from pipeline.study.scorers import PREFERENCES
from pipeline.study.solvers import SOLVERS
from pipeline.study.weaken import Lora
from pipeline.tinybooru.words import known_tags

# A hundred times the largest study that is planned for; lists of seeds and prompts must fit the memory.
MOST_IMAGES = 100_000_000
# Below that many images per arm, intervals are wider than the differences that anybody asks about.
FEWEST_IMAGES = 50
# The reference set of the embedded networks: real images of their own world.
TINYBOORU = "tinybooru"


class Reference(Settings):
    """The reference set: real images that every arm is compared with.

    `source` is tinybooru, of which those of good quality from the split `reference` are drawn, or a folder in
    images/. `world_seed` is that of the world, or of the choice among more files than are asked for. A folder's images
    are brought to `canvas` where it is given, and have to be of one size otherwise. Of tinybooru only
    images with all tags of `showing` are drawn.
    """

    images: Annotated[int, Field(ge=10, le=MOST_IMAGES)]
    world_seed: Seed
    source: str = TINYBOORU
    showing: tuple[str, ...] = ()
    canvas: Canvas | None = None

    _showing = field_validator("showing")(known_tags)

    @field_validator("source")
    @classmethod
    def _world_or_watched(cls, source: str) -> str:
        folder, _, rest = source.partition("/")
        if folder == "pictures":
            raise ValueError(f"the folder pictures/ is now {IMAGES}/; move it and write {IMAGES / rest}")
        return source if source == TINYBOORU else watched_path(source, str(IMAGES))

    @model_validator(mode="after")
    def _world_has_its_canvas(self) -> "Reference":
        if self.canvas is not None and self.source == TINYBOORU:
            raise ValueError(f"canvas is for a folder of images, and source is {TINYBOORU}, drawn at 64x64; remove it")
        return self

    @property
    def title(self) -> str:
        """What the images are, in words."""
        return "64x64 drawings of the embedded world tinybooru" if self.source == TINYBOORU else f"from {self.source}"


class Generate(Settings):
    """How many images an arm has and how the work is cut; `shard`, `batch` and `threads` are part of the bytes.

    `threads` are those that a worker computes with on a CPU: sums are split among them, and rounded so. Of the first
    `watched` images the way from noise is kept. `anlas` says what the images are priced as; it changes none of them.
    """

    images: Annotated[int, Field(ge=10, le=MOST_IMAGES)]
    first_seed: Seed
    shard: Count
    batch: Count
    threads: Count = 1
    watched: Annotated[int, Field(ge=0)] = 0
    anlas: Anlas = Anlas()

    @model_validator(mode="after")
    def _whole_batches(self) -> "Generate":
        if self.shard % self.batch:
            raise ValueError(f"shard ({self.shard}) must be a multiple of batch ({self.batch})")
        return self


class Extractor(Settings):
    """One feature extractor: its kind, one of EXTRACTORS, and where its weights lie.

    `weights` is a folder or a safetensors file, as the kind has it, and empty for a kind without weights. `hub` is the
    Hub's name of the folder, for the command that fetches it.
    """

    model: Annotated[str, AfterValidator(one_of(EXTRACTORS))]
    weights: str = ""
    hub: str = ""

    _paths = field_validator("weights")(inside_project)

    @model_validator(mode="after")
    def _weights_where_needed(self) -> "Extractor":
        if bool(self.kind.files) != bool(self.weights):
            raise ValueError(f"model {self.model} {'has no' if self.weights else 'needs'} weights")
        return self

    @property
    def kind(self) -> ExtractorKind:
        """What is known of extractors of this kind."""
        return EXTRACTORS[self.model]


class Features(Settings):
    """The feature extractors by name.

    `clip` is the one that reads prompts: CLIP scores, kinds, tags and the aesthetic head are its. A study of external
    arms alone may do without. `primary` is the space (see `spaces`) whose numbers carry no prefix.
    """

    primary: Name
    clip: Name | None = None
    extractors: dict[Name, Extractor]

    @property
    def spaces(self) -> list[FeatureSpace]:
        """The spaces that sets are compared in, the primary one first.

        Every extractor is one; that of a CLIP, in which lengths grow with what captions praise and blame, also as unit
        vectors.
        """
        found = [FeatureSpace(name, unit) for name, own in self.extractors.items() for unit in own.kind.in_units]
        return sorted(found, key=lambda space: space.name != self.primary)

    @model_validator(mode="after")
    def _names_are_known(self) -> "Features":
        if self.clip is not None and self.clip not in self.extractors:
            raise ValueError(f"clip '{self.clip}' is not one of the extractors: {', '.join(self.extractors)}")
        if self.clip is not None and not self.extractors[self.clip].kind.reads_prompts:
            raise ValueError(f"clip '{self.clip}' reads no prompts; the CLIP score needs an open_clip extractor")
        names = [space.name for space in self.spaces]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"extractor '{twice}' has the name of the unit vectors of another one; rename it")
        if self.primary not in names:
            raise ValueError(f"primary '{self.primary}' is not one of the feature spaces: {', '.join(names)}")
        return self


InsideProject = Annotated[str, AfterValidator(inside_project)]


class Metrics(Settings):
    """Settings of the metrics; `resamples` and `level` are of the intervals.

    `scorers` are learned preference scores by name, each with the folder of its weights; `lpips` is the file of the
    VGG16 that looks at the diversity within a prompt, empty for none. The aesthetic head, the classifier of malformed
    images and the prompts of kinds may be empty in a study of external arms alone, about which those of the embedded
    world say nothing.
    """

    precision_recall_k: Count
    density_coverage_k: Count
    resamples: Annotated[int, Field(ge=100, le=1_000_000)]
    level: Annotated[float, Field(gt=0.5, lt=1)]
    seed: Seed
    aesthetic_head: str = ""
    malformed_classifier: str = ""
    kind_prompts: str = ""
    scorers: dict[Annotated[str, AfterValidator(one_of(PREFERENCES))], InsideProject] = Field(default_factory=dict)
    lpips: str = ""

    _paths = field_validator("aesthetic_head", "malformed_classifier", "kind_prompts", "lpips")(inside_project)


class Labeling(Settings):
    """What people are asked: which of two images is better, what one image shows, or both, and for how long.

    `minutes` are one person's for all arms, half for pairs and half for images where both are asked; an answer takes
    the `seconds_per_...`. `expected_rate` is assumed where the sample says what it can tell. `repeats` and `overlap`
    are shares of the random batch of images; `triage` is images per arm. `transport` is how images get to Label Studio;
    with `preannotate` people see what the judge thinks.
    """

    ask: Literal["pairs", "images", "both"]
    pairs_with: Literal["baseline", "every"]
    minutes: Annotated[float, Field(gt=0, le=6000)]
    seconds_per_pair: Annotated[float, Field(gt=0, le=600)]
    seconds_per_image: Annotated[float, Field(gt=0, le=600)]
    expected_rate: Annotated[float, Field(gt=0, lt=1)]
    repeats: Annotated[float, Field(ge=0, le=0.5)]
    overlap: Annotated[float, Field(ge=0, le=1)]
    labellers: Annotated[int, Field(ge=2)]
    triage: Annotated[int, Field(ge=0)]
    seed: Seed
    transport: Literal["upload", "local_files"]
    preannotate: bool


# Servers and databases that MLflow speaks to. A folder ("file:") is none: MLflow would write wherever it names.
_SERVERS = ("http", "https", "mssql", "mysql", "postgresql")


class Tracking(Settings):
    """MLflow: where runs go unless the environment variable MLFLOW_TRACKING_URI says otherwise.

    `uri` is a sqlite file inside the project, or a server without credentials, which only the environment holds.
    """

    uri: Annotated[str, Field(max_length=1000)]
    # MLflow's registry takes neither slashes nor colons in a name, and its searches no quotes.
    experiment: Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^/:'\"`\s][^/:'\"`\r\n]*$")]

    @field_validator("uri")
    @classmethod
    def _inside_or_server(cls, uri: str) -> str:
        scheme, _, rest = uri.partition("://")
        if scheme == "sqlite" and re.fullmatch(r"/[^?#%]+", rest):
            inside_project(rest[1:])
            return uri
        if scheme.partition("+")[0] not in _SERVERS:
            raise ValueError(f"must be sqlite:///<file inside the project> or an address of {', '.join(_SERVERS)}")
        if "@" in rest or "?" in rest:
            raise ValueError(
                "may hold no credentials, since it is committed; set MLFLOW_TRACKING_URI, or "
                "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, in the environment"
            )
        return uri


# Settings that change no image and no number; they name machines and people of one place.
BESIDE_THE_NUMBERS = {"executor", "labeling", "tracking"}

# What scores images of arms that are generated, whichever networks they are of.
_OF_GENERATED = ("aesthetic_head", "malformed_classifier", "kind_prompts")

# The networks and the sampler of a study in which nothing is generated.
_NO_NETWORKS = Model(name="none", main="none", guide="none")
_NO_SAMPLER = Sampler(scheduler="ddim", steps=1, spacing="leading")

# Names that the stages give to other things in the folders where arms' files lie.
_TAKEN = {"compare", "concepts", "labels", "reference"}


class Study(Settings):
    """One composed configuration.

    `negative` is the negative prompt that arms share (pipeline/study/negative.py), None where each has its own.
    `scales` asks for more arms of other scales, which `arms` then has (pipeline/study/scales.py).
    `controls` asks for plain CFG at the effective scale of every guided arm beside it; `arms` then has these controls.
    `headlines` are the stages of dvc.yaml that keep each arm's headline numbers; they are written when it is composed.
    A study of external arms alone has neither `model` nor `sampler`: both are null.
    """

    name: Name
    baseline: Name
    model: Model = _NO_NETWORKS
    prompts: PromptSet
    text: TextSettings
    reference: Reference
    sampler: Sampler = _NO_SAMPLER
    generate: Generate
    negative: Negative | None = None
    scales: Scales = Field(default_factory=dict)
    controls: Controls = "none"
    arms: dict[ArmName, Arm]
    headlines: dict[str, ArmName] = Field(default_factory=dict)
    features: Features
    metrics: Metrics
    labeling: Labeling
    executor: Executor
    tracking: Tracking

    @field_validator("model", mode="before")
    @classmethod
    def _null_is_no_network(cls, model: Any) -> Any:
        return _NO_NETWORKS if model is None else model

    @field_validator("sampler", mode="before")
    @classmethod
    def _null_is_no_sampler(cls, sampler: Any) -> Any:
        return _NO_SAMPLER if sampler is None else sampler

    @model_validator(mode="after")
    def _consistent(self) -> "Study":
        if taken := sorted(_TAKEN & set(self.arms)):
            raise ValueError(f"arm '{taken[0]}' would overwrite another file of that name; choose another name")
        if self.baseline not in self.arms:
            raise ValueError(f"baseline '{self.baseline}' is not one of the arms: {', '.join(self.arms)}")
        needed = 2 * self.generate.images
        if self.reference.images < needed:
            raise ValueError(
                f"reference.images is {self.reference.images}; two disjoint halves of an arm's "
                f"generate.images ({self.generate.images}) need at least {needed}"
            )
        # The classifier two-sample test has five folds of two images per set.
        smallest = max(10, self.metrics.precision_recall_k + 1, self.metrics.density_coverage_k + 1)
        if self.generate.images < smallest:
            raise ValueError(f"generate.images is {self.generate.images}; the comparison needs {smallest}")
        return self

    @model_validator(mode="after")
    def _external_arms_fit(self) -> "Study":
        folders: dict[str, str] = {}
        for name, arm in self.arms.items():
            if arm.from_folder is None:
                continue
            if other := folders.get(arm.from_folder.folder):
                raise ValueError(
                    f"arms.{name}.from_folder is {arm.from_folder.folder}, as arms.{other}.from_folder is; an arm "
                    "compared with itself says nothing: name another folder"
                )
            folders[arm.from_folder.folder] = name
            if arm.from_folder.folder == self.reference.source:
                raise ValueError(
                    f"arms.{name}.from_folder is {self.reference.source}, as reference.source is; name another folder"
                )
        return self

    @model_validator(mode="after")
    def _whoever_generates_has_networks(self) -> "Study":
        if not self.generated:
            return self
        settings = self.metrics
        needed: dict[str, object] = {
            "model": self.model != _NO_NETWORKS,
            "sampler": self.sampler != _NO_SAMPLER,
            "features.clip": self.features.clip,
            **{f"metrics.{key}": getattr(settings, key) for key in _OF_GENERATED},
        }
        if missing := next((key for key, given in needed.items() if not given), None):
            raise ValueError(f"{missing} is missing, which arms that are generated need ({self.generated[0]} is one)")
        return self

    @model_validator(mode="after")
    def _clip_reads_what_scores(self) -> "Study":
        for key in ("aesthetic_head", "kind_prompts"):
            if getattr(self.metrics, key) and self.features.clip is None:
                raise ValueError(f"metrics.{key} reads the vectors of a CLIP; set features.clip, or leave it empty")
        return self

    @model_validator(mode="after")
    def _well_formed_emphasis(self) -> "Study":
        for name, arm in self.arms.items():
            own = {f"texts.{text}": named.text for text, named in arm.texts.items()}
            own |= {f"prompt_edits.{k}.text": getattr(edit, "text", None) for k, edit in enumerate(arm.prompt_edits)}
            for key, text in {"negative_prompt": arm.negative_prompt, **own}.items():
                try:
                    check_prompt(text or "", self.text.syntax)
                except ValueError as error:
                    raise ValueError(f"arms.{name}.{key}: {error}") from None
        for name, arm in self.arms.items():
            if fault := self._solver_fault(arm):
                raise ValueError(f"arms.{name}.{fault}")
        return self

    @model_validator(mode="after")
    def _prompts_can_be_edited(self) -> "Study":
        for name, arm in self.arms.items():
            if arm.prompt_column is not None and self.prompts.source not in ("dataset", "suite"):
                raise ValueError(
                    f"arms.{name}.prompt_column is '{arm.prompt_column}', and prompts.source {self.prompts.source} has "
                    "no columns; take prompts=dataset"
                )
            for k, edit in enumerate(arm.prompt_edits):
                if edit.name == "weigh" and self.text.syntax == "plain":
                    raise ValueError(
                        f"arms.{name}.prompt_edits.{k} weighs words, and text.syntax plain has no weights; take "
                        "text=a1111 or text=novelai"
                    )
        return self

    def _solver_fault(self, arm: Arm) -> str | None:
        """What an arm asks for that its solver has not, with those that have it; None where there is nothing."""
        scheduler = self.sampler_of(arm).scheduler
        solver = SOLVERS[scheduler]
        for schedule in arm.followed:
            if schedule.ancestral and not solver.ancestral_posterior:
                fitting = [name for name, other in SOLVERS.items() if other.ancestral_posterior]
                needed = "needs the ancestral posterior of each step, which sampler.scheduler"
                return f"schedule {schedule.name} {needed} {scheduler} has not; take {', '.join(fitting)}"
            if not solver.first_order:
                fitting = [name for name, other in SOLVERS.items() if other.first_order]
                needed = "needs steps of first order, which sampler.scheduler"
                return f"schedule {schedule.name} {needed} {scheduler} has not; take {', '.join(fitting)}"
        if arm.step is not None and (not solver.first_order or solver.draws):
            fitting = [name for name, other in SOLVERS.items() if other.first_order and not other.draws]
            needed = "needs deterministic steps of first order, which sampler.scheduler"
            return f"step {arm.step.name} {needed} {scheduler} has not; take {', '.join(fitting)}"
        return None

    @model_validator(mode="after")
    def _scales_are_of_arms(self) -> "Study":
        for name in self.scales:
            if name not in self.arms:
                raise ValueError(f"scales.{name} is not one of the arms: {', '.join(self.arms)}")
        return self

    @model_validator(mode="after")
    def _controls_follow_an_arm(self) -> "Study":
        for name, arm in self.arms.items():
            followed = None if arm.control is None else self.arms.get(arm.control.of)
            if (arm.control is not None) != name.endswith(CONTROL):
                raise ValueError(f"arms.{name}: an arm is called <arm>{CONTROL} if it has a control, and only then")
            if arm.control is None:
                continue
            if name != f"{arm.control.of}{CONTROL}" or followed is None:
                raise ValueError(f"arms.{name}.control.of must be '{name.removesuffix(CONTROL)}', one of the arms")
            if "empty" not in (*followed.probes, *(term.reference for term in followed.all_terms)):
                raise ValueError(
                    f"arms.{name} follows '{arm.control.of}', which must have 'empty' among its probes; compose with "
                    "the study's key controls, which adds it"
                )
        return self

    @model_validator(mode="after")
    def _starts_are_there(self) -> "Study":
        for name, arm in self.arms.items():
            start = arm.image_to_image
            if start is None or start.is_folder:
                continue
            key = f"arms.{name}.image_to_image"
            if start.start not in self.arms:
                raise ValueError(
                    f"{key}.from '{start.start}' is neither an arm nor a folder of shards; arms: {', '.join(self.arms)}"
                )
            other = self.arms[start.start]
            if other.from_folder is not None:
                raise ValueError(f"{key}.from '{start.start}' is external; name an arm that is generated, or shards")
            if other.image_to_image is not None:
                raise ValueError(f"{key}.from '{start.start}' starts from images itself; name one that does not")
            if start.source is None or Arm.model_validate(start.source) != other:
                raise ValueError(
                    f"{key}.source must repeat the arm it starts from; write source: ${{arms.{start.start}}} in conf/"
                )
        return self

    @model_validator(mode="after")
    def _images_have_an_adapter(self) -> "Study":
        for name, arm in self.arms.items():
            if arm.reference_images is not None and self.model.ip_adapter is None:
                raise ValueError(
                    f"arms.{name}.reference_images needs model.ip_adapter, the file of an adapter and the folder of "
                    "its image encoder (docs/reference-images.md)"
                )
        return self

    @model_validator(mode="after")
    def _other_seeds_are_of_the_baseline(self) -> "Study":
        if fault := reseeded_fault(self.arms, self.baseline, self.generate.first_seed, self.generate.images):
            raise ValueError(fault)
        return self

    @property
    def reseeded(self) -> str | None:
        """The arm that is the baseline from other seeds; None where the study has none."""
        return next((name for name, arm in self.arms.items() if arm.first_seed is not None), None)

    @property
    def compared(self) -> dict[str, Arm]:
        """The arms that are compared with one another: those of the study's seeds, so that their images form pairs."""
        return {name: arm for name, arm in self.arms.items() if arm.first_seed is None}

    def seeds_of(self, name: str) -> range:
        """The seeds of an arm, one per image."""
        own = self.arm(name).first_seed
        first = self.generate.first_seed if own is None else own
        return range(first, first + self.generate.images)

    def pairs_of(self, name: str) -> range:
        """The pair numbers of an arm, one per image: equal in two arms where prompt and seed are."""
        seeds, first = self.seeds_of(name), self.generate.first_seed
        return range(seeds.start - first, seeds.stop - first)

    @property
    def generated(self) -> list[str]:
        """The arms that this study generates; the others are external."""
        return [name for name, arm in self.arms.items() if arm.from_folder is None]

    @property
    def external(self) -> list[str]:
        """The arms whose images someone else generated."""
        return [name for name, arm in self.arms.items() if arm.from_folder is not None]

    @property
    def is_embedded(self) -> bool:
        """Whether tinybooru's networks alone have made every image."""
        foreign = any(arm.image_to_image is not None and arm.image_to_image.is_folder for arm in self.arms.values())
        return not foreign and not self.external and self._has_embedded_networks

    @property
    def _has_embedded_networks(self) -> bool:
        model = self.model
        sources = [model.main, model.guide, model.vae, model.text_encoder]
        if self.model.ip_adapter is not None:
            sources += [self.model.ip_adapter.file, self.model.ip_adapter.image_encoder]
        sources += [lora.file for lora in (model.weaken, *model.loras) if isinstance(lora, Lora | MainLora)]
        return all(Path(source).is_relative_to(EMBEDDED) for source in sources if source is not None)

    @property
    def reference_caution(self) -> str:
        """What to know where the networks generate another world than the reference set's; empty where they do not."""
        if self.reference.source != TINYBOORU:
            return ""
        if self.external:
            return (
                f"The images of {', '.join(self.external)} were made elsewhere, and the reference set is tinybooru's: "
                "distances to it, precision, recall, density, coverage and realism say nothing about how good they are."
            )
        if self._has_embedded_networks:
            return ""
        return (
            f"The networks of model {self.model.name} are not tinybooru's, and the reference set is: distances to it, "
            "precision, recall, density, coverage and realism say nothing about how good these images are."
        )

    @property
    def size_caution(self) -> str:
        """What to know where an arm has few images; empty where it has enough for a first look."""
        images = self.generate.images
        if images >= FEWEST_IMAGES:
            return ""
        return (
            f"{images} images per arm are too few to conclude anything: this shows what a study looks like, and its "
            "numbers are mostly chance."
        )

    @property
    def caution(self) -> str:
        """What to know before a number of this study is believed; empty where there is nothing."""
        return " ".join(part for part in (self.size_caution, self.reference_caution) if part)

    @property
    def licence(self) -> str:
        """The licence of the images; empty where the configuration does not say it."""
        if self.external:
            return ""  # whoever made them says it, and not this study
        return self.model.licence or (EMBEDDED_LICENCE if self.is_embedded else "")

    def sampler_of(self, arm: Arm) -> Sampler:
        """The sampler of an arm: its own, or the study's."""
        return arm.sampler or self.sampler

    def arm(self, name: str) -> Arm:
        """The arm called `name`. Raises InputError where the study has none."""
        if name not in self.arms:
            raise InputError(f"arm '{name}' is unknown; known arms: {', '.join(self.arms)}")
        return self.arms[name]


# Values are other people's text of any length; an error is one line to read.
_VALUES = reprlib.Repr()
_VALUES.maxstring = _VALUES.maxother = _VALUES.maxlong = 200
_SHOWN_KEY = 100
_RENAMED = {
    "generate.pictures": "generate.images",
    "reference.pictures": "reference.images",
    "generate.anlas.uncond_scale": "negative_strength of an arm",
    "model.lora": "model.loras, a list: [{file: ..., weight: 1}]",
}
_SHOWN_FAULTS = 20
_LONGEST_REASON = 1000


def parse_study(content: Any, source: str) -> Study:
    """Validate a composed configuration; `source` names it in errors.

    Raises InputError with one line that lists every wrong key, the value seen and what is allowed.
    """
    if not isinstance(content, dict):
        raise InputError(f"{source} is not a mapping; compose it with `python -m pipeline.compose`")
    if fault := misread_key(content):
        raise InputError(f"{source}: {fault}")
    texts = "\n".join(_texts(content))
    # YAML can write half of a surrogate pair ("\\ud800"), which pydantic cannot tell an error of.
    if not texts.isascii() and texts.encode(errors="replace") != texts.encode(errors="surrogatepass"):
        raise InputError(f"{source} holds a text that is not valid Unicode (half of a surrogate pair); write it again")
    if what := credential_in(texts):
        raise InputError(f"{source} holds {what}; the configuration is committed and logged: take it out, revoke it")
    try:
        return Study.model_validate(content)
    except ValidationError as error:
        errors = error.errors(include_url=False, include_context=False)
        faults = [printable(_explain(e)) for e in errors[:_SHOWN_FAULTS]]
        more = f"; and {len(errors) - _SHOWN_FAULTS} more" if len(errors) > _SHOWN_FAULTS else ""
        raise InputError(f"{source}: {'; '.join(faults)}{more}") from None


def _texts(content: Any) -> Iterator[str]:
    if isinstance(content, dict):
        for key, value in content.items():
            yield str(key)
            yield from _texts(value)
    elif isinstance(content, list | tuple):
        for value in content:
            yield from _texts(value)
    elif isinstance(content, str):
        yield content


def load_study(path: Path = PARAMS) -> Study:
    """Read and validate `params.yaml`. Raises InputError."""
    content = read_yaml(path, "compose it with `python -m pipeline.compose`")
    return parse_study(content, str(path))


def _explain(error: Any) -> str:
    key = ".".join(_shown_key(part) for part in error["loc"] if part != "[key]") or "study"
    if error["type"] == "extra_forbidden":
        if new := _RENAMED.get(key):
            return f"{key} is now {new}"
        # Of the start: the work grows with the length, and a key can be anybody's text.
        near = nearest(str(error["loc"][-1])[:_SHOWN_KEY].lower(), _known_keys())
        return f"{key} is not a known key" + (f"; did you mean {near}?" if near else "")
    if error["type"] == "missing":
        return f"{key} is missing"
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "value_error" and isinstance(error["input"], dict):
        return f"{key}: {message}"
    value = _VALUES.repr(error["input"])
    if error["type"] == "string_type" and not isinstance(error["input"], dict | list | tuple):
        message += f"; YAML reads {_without_quotes(error['input'])} without quotes as this, so put it into quotes"
    near = nearest(str(error["input"])[:_SHOWN_KEY], _named_in(message))
    meant = f"; did you mean {near}?" if near else ""
    return f"{key} is {masked(value) if '://' in value else value}: {message[:_LONGEST_REASON]}{meant}"


def _named_in(message: str) -> list[str]:
    # The values that an error allows: pydantic quotes them, ours end with a list.
    if message.startswith("Input should be '"):
        return re.findall(r"'([^']+)'", message)
    return message.rpartition("; known ")[2].partition(": ")[2].split(", ")


@cache
def _known_keys() -> list[str]:
    # Of every part of a study, as a guess at what was meant.
    kinds: list[type[Settings]] = [Settings]
    names: set[str] = set()
    while kinds:
        kind = kinds.pop()
        kinds += kind.__subclasses__()
        if kind.__module__.startswith("pipeline."):  # others have settings that no study has
            names |= set(kind.model_fields)
    return sorted(names)


def _without_quotes(value: object) -> str:
    # How a value that is not text was written.
    if isinstance(value, bool):
        return "yes, on and true" if value else "no, off and false"
    return "null and ~" if value is None else "a number"


def _shown_key(part: str | int) -> str:
    key = str(part)
    return key if len(key) <= _SHOWN_KEY else _VALUES.repr(key)
