"""An embedding that is learned to be a negative prompt: the best bad version of the model that a text can name.

`python -m pipeline.embeddings.learn_negative NAME` learns for the networks of params.yaml and writes
embeddings/NAME.safetensors, which a text calls as NAME, and a card beside it. It resumes where it stopped.

--objective guide: along unguided trajectories, the direction away from the negative, main(prompt) - main(negative),
comes as near as it can to the direction away from the guide, main(prompt) - guide(prompt).
--objective flaws: the network under the negative alone generates images that are tagged bad.
"""

import argparse
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from pipeline.command.durations import in_words
from pipeline.embeddings.card import Measured, card
from pipeline.embeddings.flawed_images import BadImages, with_noise
from pipeline.embeddings.guide_directions import along_trajectories
from pipeline.embeddings.held_out import Told, ceiling, on_held_out
from pipeline.embeddings.learned_vectors import LearnedVectors, starting_vectors
from pipeline.embeddings.learning import Learning
from pipeline.embeddings.new_embedding import new_path, reading_checkpoint
from pipeline.embeddings.noisy_images import NoisyImages
from pipeline.errors import InputError, run_stage
from pipeline.generation.arm_texts import arm_negatives, prompts_without_loras
from pipeline.generation.loaded_model import LoadedModel
from pipeline.generation.shard_plan import library_versions
from pipeline.networks.checkpoints import locate
from pipeline.networks.denoisers.unet import DenoisingNetwork
from pipeline.networks.text.conditioning import Conditioning
from pipeline.networks.weights.weight_files import network_digest
from pipeline.prompting.embedding_names import EMBEDDINGS
from pipeline.storage.files import write_atomically
from pipeline.storage.tensor_file import encode_tensors
from pipeline.study.arm import Arm
from pipeline.study.study import TINYBOORU, Study, load_study

# Not a .safetensors file: that would be an embedding that texts call.
_CHECKPOINTS = EMBEDDINGS / ".training"
# Prompts that are read to walk trajectories for, at most; after the last the first comes again, with other seeds.
_MOST_PROMPTS = 1024
# Seeds of training begin above those that studies have.
_FIRST_SEED = 2**30
_BAD_IMAGES = 2048
_SHORT = "worst quality, low quality"
# Noise levels at which the ceiling is sought, and how: one text for each sample, by so many steps of Adam.
_CEILING_LEVELS, _CEILING_STEPS, _CEILING_RATE = 5, 60, 0.05


@dataclass(frozen=True)
class Recipe:
    """How an embedding is learned.

    `tokens` vectors start from those of some `words`. Each of `rounds` rounds has `images` trajectories, or bad images
    from `source`, at every noise level of the study's sampler, in batches of `batch`; `rate` is Adam's learning rate at
    the beginning, and falls to zero along a cosine. Results are measured on `held_out` images of the study, the ceiling
    on the first `ceiling` of them.
    """

    objective: Literal["guide", "flaws"] = "guide"
    words: str = _SHORT
    tokens: int = 8
    rounds: int = 24
    images: int = 16
    batch: int = 32
    rate: float = 0.02
    seed: int = 0
    source: str = TINYBOORU
    held_out: int = 64
    ceiling: int = 0

    def __post_init__(self) -> None:
        for key in ("rounds", "images", "batch", "held_out"):
            if getattr(self, key) < 1:
                raise InputError(f"{key} is {getattr(self, key)}; it must be at least 1")
        if not 0 < self.rate < 10:
            raise InputError(f"rate is {self.rate:g}; Adam's learning rate lies between 0 and 10, often near 0.02")


def learn(study: Study, name: str, recipe: Recipe, device: torch.device, until: int | None = None) -> Path | None:
    """Learn an embedding for a study's networks; returns its file, None where it stops `until` a round.

    Raises InputError where there is a file of that name, for networks that take no embedding or whose guide does not
    fit, where the guide is the main network itself, and for a checkpoint that is damaged or of another recipe.
    """
    path = new_path(name)
    run = Run(study, recipe, device)
    checkpoint = _CHECKPOINTS / f"{name}.state"
    learning = run.learning()
    print(run.plan(name, checkpoint), flush=True)
    learning.run(run.round, checkpoint, until)
    if len(learning.losses) < recipe.rounds:
        return None
    measured = run.measured()
    known = {"recipe": asdict(recipe), "networks": run.networks, "losses": learning.losses, **asdict(measured)}
    write_atomically(path, encode_tensors(run.vectors.tensors(), known))
    write_atomically(path.with_suffix(".md"), card(name, asdict(recipe), run.networks, measured).encode())
    checkpoint.unlink()
    print(f"{path}: {measured.summary()}; a text calls it as {name}")
    return path


class Run:
    """What one run reads: networks, the vectors that are learned, prompts and images. Raises InputError."""

    def __init__(self, study: Study, recipe: Recipe, device: torch.device):
        self.recipe = recipe
        if study.text.syntax != "a1111":
            raise InputError(f"text.syntax is {study.text.syntax}, which calls no embeddings; take text=a1111")
        if study.model.loading.offload:
            raise InputError("model.loading.offload moves weights away, and gradients need them; take offload: []")
        checkpoint = reading_checkpoint(study)
        if checkpoint.family.network != "unet":
            raise InputError(
                f"{checkpoint.config} ({checkpoint.family.name}) is not a UNet; negatives are learned for UNets that "
                "read CLIP's tokens alone (SD 1.x, SD 2.x, SDXL, tinybooru)"
            )
        self.networks = _digests(study)
        self.has_guide = self.networks["main"] != self.networks["guide"]
        if recipe.objective == "guide" and not self.has_guide:
            raise InputError(
                f"model.guide {study.model.guide} is the main network itself, so no direction leads away from it; name "
                "a weaker one, or weaken it (model.weaken)"
            )
        torch.set_num_threads(study.generate.threads)
        # Without arms: their texts may call the embedding that is to be learned.
        self.study = study.model_copy(update={"arms": {}})
        self.general = _general(study)
        self.model = LoadedModel(self.study, device)
        start = starting_vectors(self.model.text_encoder, recipe.words, recipe.tokens)
        self.vectors = LearnedVectors(self.model.text_encoder, start).to(device)
        main = self.model.main
        assert isinstance(main, DenoisingNetwork)
        self.main = main
        if self.has_guide:
            _ = self.model.guide  # loaded now, so that one that does not fit is refused before anything is learned
        self._prompts()
        self.bad = (
            BadImages(recipe.source, main, min(_BAD_IMAGES, recipe.rounds * recipe.images), recipe.held_out)
            if recipe.objective == "flaws"
            else None
        )

    def _prompts(self) -> None:
        known = self.study.generate.images
        wanted = min(_MOST_PROMPTS, 4 * self.recipe.rounds * self.recipe.images)  # prompt sets repeat themselves
        prompts = prompts_without_loras(self.study, None, known + wanted)
        own = prompts[:known]
        self.held_out = own[: self.recipe.held_out]
        self.prompts = [prompt for prompt in dict.fromkeys(prompts[known:]) if prompt not in set(own)]
        if not self.prompts and self.recipe.objective == "guide":
            raise InputError(
                f"prompts has {len(set(own))} different prompts, which the {known} images of the study use up; add "
                "others to learn from, or lower generate.images"
            )

    def learning(self) -> Learning:
        """The run itself, at its beginning."""
        recipe, study = self.recipe, self.study
        identity = {
            **{key: value for key, value in asdict(recipe).items() if key not in ("held_out", "ceiling")},
            **self.networks,
            "prompts": study.prompts.model_dump(),
            "images of the study": study.generate.images,
            "sampler": study.sampler.model_dump(),
            "text": study.text.model_dump(),
            "loading": study.model.loading.model_dump(),
            "libraries": library_versions(),
            "device": self.main.device.type,
        }
        return Learning(
            self.vectors, self.main, recipe.rounds, recipe.batch, recipe.rate, recipe.seed, _plain(identity)
        )

    def round(self, number: int) -> NoisyImages:
        """The noisy images of a round."""
        count, seed = self.recipe.images, _FIRST_SEED + self.recipe.seed * 2**20 + number * self.recipe.images
        if self.bad is not None:
            return with_noise(self.main, self.bad.batch(number, count), self.study.sampler, seed)
        chosen = [self.prompts[(number * count + k) % len(self.prompts)] for k in range(count)]
        return along_trajectories(self.model, chosen, [seed + k for k in range(count)])

    def texts(self) -> dict[str, Told]:
        """What is measured: the learned text, and written ones."""
        written = {"empty": "", "short": _SHORT, **({} if self.general is None else {"general": self.general})}
        return {"learned": self.vectors.told, **{name: self._told(text) for name, text in written.items()}}

    def _told(self, text: str) -> Told:
        # As an arm's negative prompt is read: the empty one as zeros where a family was trained so.
        def told(chunks: int) -> Conditioning:
            encoder = self.vectors.encoder
            cut = encoder.cut(text)
            encoded = encoder.embed([cut], max(chunks, encoder.number([cut])))
            return encoder.zeroed(encoded, [text], is_reference=True)

        return told

    def measured(self) -> "Measured":
        """The results on held-out images."""
        recipe, study, texts = self.recipe, self.study, self.texts()
        cosines = errors = None
        highest: dict[int, float] = {}
        sigmas: tuple[float, ...] = ()
        if self.has_guide:
            seeds = [study.generate.first_seed + k for k in range(len(self.held_out))]
            images = along_trajectories(self.model, self.held_out, seeds)
            cosines, sigmas = on_held_out(self.main, images, texts, recipe.batch), images.sigmas
            if recipe.ceiling:
                step = max(1, len(sigmas) // _CEILING_LEVELS)
                levels = list(range(step // 2, len(sigmas), step))
                told = self.vectors.told(images.chunks)
                highest = ceiling(self.main, images, told, levels, recipe.ceiling, _CEILING_STEPS, _CEILING_RATE)
        if self.bad is not None:
            noisy = with_noise(self.main, self.bad.kept_back(), study.sampler, _FIRST_SEED - 1)
            errors, sigmas = on_held_out(self.main, noisy, texts, recipe.batch), noisy.sigmas
        return Measured(sigmas, len(self.held_out), cosines, errors, highest)

    def plan(self, name: str, checkpoint: Path) -> str:
        """What the run takes, in words; it times one evaluation of a batch."""
        recipe, steps = self.recipe, self.study.sampler.steps
        samples = recipe.rounds * recipe.images * steps
        # A gradient costs about two evaluations more; trajectories take one of main and of guide each.
        per_sample = 5 if recipe.objective == "guide" else 3
        measuring = (recipe.held_out * steps) * (2 + 4)
        searching = recipe.ceiling * min(_CEILING_LEVELS, steps) * _CEILING_STEPS * 3
        evaluations = samples * per_sample + measuring + searching
        what = "unguided trajectories" if recipe.objective == "guide" else f"bad images of {recipe.source}"
        begun = f"\ncontinues from {checkpoint}" if checkpoint.exists() else ""
        return (
            f"{name}: {recipe.tokens} vectors from the words '{recipe.words[:60]}'\n"
            f"{recipe.rounds} rounds of {recipe.images} {what} at {steps} noise levels, in batches of {recipe.batch}: "
            f"about {evaluations:,} evaluations, {in_words(evaluations * self._seconds())} on {self.main.device.type}"
            f"{begun}"
        )

    @torch.no_grad()
    def _seconds(self) -> float:
        count = min(self.recipe.batch, 8)
        told = self.vectors.told().adding(self.main.added_conditions(1, None))
        x = torch.zeros(count, *self.main.sample_shape, device=self.main.device)
        rows = Conditioning({key: own.expand(count, *own.shape[1:]) for key, own in told.items()})
        began = 0.0
        for _ in range(2):  # the first one prepares what later ones find
            began = time.perf_counter()
            self.main(x, 1.0, rows)
        return (time.perf_counter() - began) / count


def _digests(study: Study) -> dict[str, Any]:
    """What tells networks apart; the two are equal where the guide is the main network itself."""
    model = study.model
    main, guide = locate(model.main, model.config), locate(model.guide, model.config_of_guide)
    loras = [lora.model_dump() for lora in model.loras]
    how = None if model.weaken is None else model.weaken.model_dump(mode="json")
    return {
        "main": [network_digest(main, with_text_encoder=False), loras, None],
        "guide": [network_digest(guide, with_text_encoder=False), loras if model.loras_in_guide else [], how],
        "texts": network_digest(main, with_text_encoder=True),
    }


def _general(study: Study) -> str | None:
    """The negative prompt that the study's arms share, in the study's syntax."""
    if study.negative is None:
        return None
    key = "negative_prompt" if study.negative.preset is None else "negative_preset"
    arm = Arm.model_validate({"method": "negative", "scale": 2.0, key: study.negative.preset or study.negative.text})
    return arm_negatives(arm, [""], study.text.syntax)[0]


def _plain(content: Mapping[str, Any]) -> dict[str, Any]:
    """As JSON gives it back, so that what was read equals what was written."""
    found: dict[str, Any] = json.loads(json.dumps(content, default=str))
    return found


def main() -> None:
    plain = Recipe()
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.embeddings.learn_negative",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", help="what texts call it by")
    parser.add_argument("--objective", choices=("guide", "flaws"), default="guide", help="(default: guide)")
    parser.add_argument("--words", default=plain.words, help=f"what the vectors start from (default: {plain.words})")
    numbers: dict[str, tuple[Callable[[str], Any], str]] = {
        "tokens": (int, "vectors, as many as words of one token"),
        "rounds": (int, "rounds; a checkpoint is written after each"),
        "images": (int, "trajectories or bad images a round"),
        "batch": (int, "noisy samples a step"),
        "rate": (float, "Adam's learning rate at the beginning"),
        "seed": (int, "of training"),
        "held_out": (int, "images of the study that results are measured on"),
        "ceiling": (int, "of these, on so many: how near the best text of each image and noise level comes"),
    }
    for key, (kind, words) in numbers.items():
        default = getattr(plain, key)
        parser.add_argument(f"--{key.replace('_', '-')}", type=kind, default=default, help=f"{words} ({default})")
    parser.add_argument(
        "--images-from",
        dest="source",
        default=TINYBOORU,
        help=f"bad images of --objective flaws: a folder, or {TINYBOORU} (default)",
    )
    given = vars(parser.parse_args())
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    learn(load_study(), given.pop("name"), Recipe(**given), device)


if __name__ == "__main__":
    run_stage(main)
