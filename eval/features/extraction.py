"""Features: an image set becomes one file of vectors per extractor, with their ids and provenance."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import torch
from tqdm import tqdm

from eval.features.clip import Clip
from eval.features.extractor import Extractor, embed_images
from pipeline.code_units import unit_digests
from pipeline.errors import InputError, printable
from pipeline.execution.allocator import keep_freed_memory
from pipeline.execution.executor import local_devices, run_tasks, runs_here
from pipeline.execution.jobs import Job
from pipeline.execution.termination import Termination
from pipeline.layout import CONCEPTS, FEATURES, REFERENCE_SET, SETS
from pipeline.prompting.plain_text import plain_text
from pipeline.prompting.text_settings import TextSettings
from pipeline.storage.files import fingerprint, remove_leftovers, write_atomically
from pipeline.storage.images import DAMAGED, decode_image, open_image
from pipeline.storage.remote_path import AnyPath
from pipeline.storage.shards import read_table, set_fingerprint, shard_paths
from pipeline.storage.tensor_file import encode_tensors, read_tensors
from pipeline.study.executor import Executor
from pipeline.study.study import Extractor as ExtractorSettings
from pipeline.study.study import Study

REFERENCE = "reference"
# The features of the real images that show concepts (pipeline/tinybooru/concepts.py).
CONCEPT_SET = "concepts"


@dataclass(frozen=True)
class SetFeatures:
    """Image vectors [N, D] of a set, text embeddings [N, D] of its prompts, and where they come from.

    Extractors that read no prompts have texts of [N, 0].
    """

    ids: list[str]
    images: torch.Tensor
    texts: torch.Tensor
    provenance: dict[str, str]


def load_extractor(settings: ExtractorSettings, device: torch.device) -> Extractor:
    """The extractor that a study describes. Raises InputError, with the command that fetches missing weights."""
    keep_freed_memory()
    load: Callable[[Path, torch.device, str], Extractor] = settings.kind.load()
    return load(Path(settings.weights), device, settings.kind.command(settings.weights, settings.hub))


def provenance_of(folder: AnyPath, name: str, extractor: Extractor) -> dict[str, str]:
    """What determines the vectors of an image set: equal provenance, equal vectors."""
    return {
        "extractor": name,
        "extractor_digest": extractor.digest,
        "resize": extractor.resize,
        "precision": extractor.precision,
        "code": fingerprint(dict(unit_digests("eval/features"))),
        "set": set_fingerprint(folder),
    }


@dataclass(frozen=True)
class Wanted:
    """The vectors of one image set in one feature space: the set's folder, the extractor, and the file they go to.

    `text` says how prompts are read; without it they are what they say, as the captions of real images are.
    """

    folder: AnyPath
    extractor: str
    settings: ExtractorSettings
    path: Path
    text: TextSettings | None = None


@dataclass(frozen=True)
class Part:
    """What is embedded of one shard, the `number`-th of its set: the files of its images, and their prompts.

    `of` numbers the set and space that it is wanted for, among those of a run.
    """

    of: int
    number: int
    shard: str
    ids: list[str]
    images: list[bytes | None]
    prompts: list[str]


@dataclass(frozen=True)
class EmbeddedPart:
    """Ids [N] of a part, and the vectors of its images [N, D] and prompts [N, D or 0]."""

    of: int
    number: int
    ids: list[str]
    images: torch.Tensor
    texts: torch.Tensor


def embed_part(extractor: Extractor, part: Part) -> EmbeddedPart:
    """Vectors of one part. Raises InputError, with its id, for an image that cannot be read."""
    # Opened but not decoded: that happens in the threads of embed_images.
    images = (open_image(image) for image in part.images)
    texts = extractor.embed_texts(part.prompts) if isinstance(extractor, Clip) else torch.zeros(len(part.prompts), 0)
    try:
        return EmbeddedPart(part.of, part.number, part.ids, embed_images(extractor, images), texts)
    except (OSError, *DAMAGED):
        _check_images(part)
        raise


def _check_images(part: Part) -> None:
    for image_id, image in zip(part.ids, part.images, strict=True):
        try:
            decode_image(image)
        except OSError as error:
            reason = printable(str(error))[:200]
            raise InputError(
                f"{part.shard}: image {printable(image_id)} cannot be read ({reason}); delete the file and run "
                "`dvc repro`"
            ) from None


def extract(folder: AnyPath, name: str, extractor: Extractor, text: TextSettings | None = None) -> SetFeatures:
    """Vectors of the images (and prompts, where the extractor reads them) of an image set, computed here.

    `text` is as in Wanted. Raises InputError.
    """
    embedded = [embed_part(extractor, part) for part in _parts(0, folder, text)]
    return _joined(embedded, provenance_of(folder, name, extractor))


def _parts(of: int, folder: AnyPath, text: TextSettings | None) -> Iterator[Part]:
    for number, path in enumerate(shard_paths(folder)):
        table = read_table(path, ["image_id", "image", "prompt"])
        images = [cell["bytes"].as_py() for cell in table.column("image")]
        prompts = [plain_text(prompt, text or TextSettings()) for prompt in table.column("prompt").to_pylist()]
        yield Part(of, number, str(path), table.column("image_id").to_pylist(), images, prompts)


def _joined(embedded: list[EmbeddedPart], provenance: dict[str, str]) -> SetFeatures:
    embedded = sorted(embedded, key=lambda part: part.number)
    images, texts = (torch.cat([getattr(part, kind) for part in embedded]) for kind in ("images", "texts"))
    return SetFeatures([image_id for part in embedded for image_id in part.ids], images, texts, provenance)


def save_features(path: AnyPath, features: SetFeatures) -> None:
    """Write features atomically; equal features give equal bytes."""
    tensors = {"images": features.images, "texts": features.texts}
    write_atomically(path, encode_tensors(tensors, {"ids": features.ids, "provenance": features.provenance}))


def load_features(path: AnyPath) -> SetFeatures:
    """Read features back. Raises InputError where the file is missing or damaged."""
    tensors, known = read_tensors(path)
    try:
        return SetFeatures(known["ids"], tensors["images"], tensors["texts"], known["provenance"])
    except KeyError as error:
        raise InputError(f"{path} is not a feature file: it has no {error}; delete it and run `dvc repro`") from None


def refresh(wanted: Sequence[Wanted], executor: Executor) -> list[bool]:
    """Bring feature files up to date; for each whether it was written. Each is written as soon as it is whole.

    Every extractor is loaded once here, and once by each worker that embeds with it. Raises InputError.
    """
    device = local_devices()[0]
    settings = {one.extractor: one.settings for one in wanted}
    extractors = {name: load_extractor(own, device) for name, own in settings.items()}
    provenances = [provenance_of(one.folder, one.extractor, extractors[one.extractor]) for one in wanted]
    stale = [k for k, one in enumerate(wanted) if not _is_fresh(one.path, provenances[k])]
    names = [one.extractor for one in wanted]

    def here(_: torch.device) -> Callable[[Part], EmbeddedPart]:
        return lambda part: embed_part(extractors[names[part.of]], part)

    elsewhere = partial(_embedder, settings, names, torch.get_num_threads())
    job: Job[Part, EmbeddedPart] = here if runs_here(executor) else elsewhere
    parts = (part for k in stale for part in _parts(k, wanted[k].folder, wanted[k].text))
    lacking = {k: len(shard_paths(wanted[k].folder)) for k in stale}
    found: dict[int, list[EmbeddedPart]] = {k: [] for k in stale}
    with tqdm(desc="features", unit="image", disable=None) as bar:
        # A file is made in minutes and has no finished parts, so that a termination ends at once.
        for part in run_tasks(executor, job, parts, Termination()):
            found[part.of].append(part)
            bar.update(len(part.ids))
            if len(found[part.of]) == lacking[part.of]:
                save_features(wanted[part.of].path, _joined(found.pop(part.of), provenances[part.of]))
    return [k in lacking for k in range(len(wanted))]


def _is_fresh(path: Path, provenance: dict[str, str]) -> bool:
    try:
        return load_features(path).provenance == provenance
    except InputError:
        return False


def _embedder(
    settings: Mapping[str, ExtractorSettings], names: Sequence[str], threads: int, device: torch.device
) -> Callable[[Part], EmbeddedPart]:
    """A job (pipeline/execution/jobs.py): embeds parts of any set with its extractor, each loaded on first use."""
    torch.set_num_threads(threads)
    loaded = cache(lambda name: load_extractor(settings[name], device))
    return lambda part: embed_part(loaded(names[part.of]), part)


def study_features(study: Study, sets: Sequence[str]) -> list[Wanted]:
    """The feature files of some of a study's sets: arms by name, the reference set (REFERENCE), or the real images
    that show concepts (CONCEPT_SET), which only the CLIP reads."""
    real = {REFERENCE: REFERENCE_SET, CONCEPT_SET: CONCEPTS}
    return [
        Wanted(
            real.get(name, SETS / name),
            extractor,
            settings,
            FEATURES / name / f"{extractor}.safetensors",
            None if name in real else study.text,
        )
        for name in sets
        for extractor, settings in study.features.extractors.items()
        if name != CONCEPT_SET or extractor == study.features.clip
    ]


def clear_features(study: Study, name: str) -> None:
    """Delete vectors of extractors that the study does not have, and what killed writes have left."""
    folder = FEATURES / name
    for stale in set(folder.glob("*.safetensors")) - {
        folder / f"{own}.safetensors" for own in study.features.extractors
    }:
        stale.unlink()
    remove_leftovers(folder)
