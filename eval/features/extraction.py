"""Stage `features@<set>`: an image set becomes one file of vectors an extractor, with their ids and provenance."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from tqdm import tqdm

from eval.features import clip as clip_module
from eval.features import dinov2 as dinov2_module
from eval.features import extractor as extractor_module
from eval.features import inception as inception_module
from eval.features import pyramid as pyramid_module
from eval.features.clip import Clip, load_clip
from eval.features.dinov2 import load_dinov2
from eval.features.extractor import Extractor, embed_images
from eval.features.inception import load_inception
from eval.features.plain_text import plain_text
from eval.features.pyramid import Pyramid
from eval.needed_files import extractor_files
from pipeline.errors import InputError, printable, run_stage
from pipeline.execution.allocator import keep_freed_memory
from pipeline.execution.executor import local_devices, run_tasks, runs_here
from pipeline.execution.jobs import Job
from pipeline.execution.termination import Termination
from pipeline.layout import FEATURES, REFERENCE_SET, SETS
from pipeline.prompting.text_settings import TextSettings
from pipeline.stage_arguments import stage_parser
from pipeline.storage.files import file_digest, fingerprint, remove_leftovers, write_atomically
from pipeline.storage.images import DAMAGED, decode_picture, open_picture
from pipeline.storage.remote_path import AnyPath
from pipeline.storage.shards import read_table, set_fingerprint, shard_paths
from pipeline.storage.tensor_file import encode_tensors, read_tensors
from pipeline.study.executor import Executor
from pipeline.study.study import Extractor as ExtractorSettings
from pipeline.study.study import load_study

REFERENCE = "reference"
_CODE = (clip_module, dinov2_module, extractor_module, inception_module, pyramid_module)


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
    path = Path(settings.weights)
    _, fetch = extractor_files(settings)
    if settings.model == "open_clip":
        return load_clip(path, device, fetch)
    if settings.model == "dinov2":
        return load_dinov2(path, device, fetch)
    if settings.model == "inception":
        return load_inception(path, device)
    return Pyramid(device)


def provenance_of(folder: AnyPath, name: str, extractor: Extractor) -> dict[str, str]:
    """What determines the vectors of an image set: equal provenance, equal vectors."""
    return {
        "extractor": name,
        "extractor_digest": extractor.digest,
        "resize": extractor.resize,
        "precision": extractor.precision,
        "code": fingerprint([file_digest(Path(str(module.__file__))) for module in _CODE]),
        "set": set_fingerprint(folder),
    }


@dataclass(frozen=True)
class Part:
    """What is embedded of one shard, the `number`-th of its set: the files of its pictures, and their prompts."""

    number: int
    shard: str
    ids: list[str]
    pictures: list[bytes | None]
    prompts: list[str]


@dataclass(frozen=True)
class EmbeddedPart:
    """Vectors of a part's pictures [N, D] and prompts [N, D or 0]."""

    number: int
    images: torch.Tensor
    texts: torch.Tensor


def embed_part(extractor: Extractor, part: Part) -> EmbeddedPart:
    """Vectors of one part. Raises InputError, with its id, for a picture that cannot be read."""
    # Opened but not decoded: that happens in the threads of embed_images.
    pictures = (open_picture(picture) for picture in part.pictures)
    texts = extractor.embed_texts(part.prompts) if isinstance(extractor, Clip) else torch.zeros(len(part.prompts), 0)
    try:
        return EmbeddedPart(part.number, embed_images(extractor, pictures), texts)
    except (OSError, *DAMAGED):
        _check_pictures(part)
        raise


def _check_pictures(part: Part) -> None:
    for image_id, picture in zip(part.ids, part.pictures, strict=True):
        try:
            decode_picture(picture)
        except OSError as error:
            reason = printable(str(error))[:200]
            raise InputError(
                f"{part.shard}: picture {printable(image_id)} cannot be read ({reason}); delete the file and run "
                "`dvc repro`"
            ) from None


def extract(
    folder: AnyPath,
    name: str,
    extractor: Extractor,
    embed: Callable[[Iterable[Part]], Iterable[EmbeddedPart]] | None = None,
    text: TextSettings | None = None,
) -> SetFeatures:
    """Vectors of the pictures (and prompts, where the extractor reads them) of an image set.

    `text` says how prompts are read; without it they are what they say, as the captions of real pictures are.
    `embed` does the work where it is not done by `extractor` in this process. Raises InputError.
    """
    ids: list[str] = []

    def parts() -> Iterator[Part]:
        for number, path in enumerate(shard_paths(folder)):
            table = read_table(path, ["image_id", "image", "prompt"])
            ids_here = table.column("image_id").to_pylist()
            ids.extend(ids_here)
            pictures = [cell["bytes"].as_py() for cell in table.column("image")]
            prompts = [plain_text(prompt, text or TextSettings()) for prompt in table.column("prompt").to_pylist()]
            yield Part(number, str(path), ids_here, pictures, prompts)

    embedded = []
    with tqdm(desc=f"features {folder.name} {name}", unit="picture", disable=None) as bar:
        for part in (partial(map, partial(embed_part, extractor)) if embed is None else embed)(parts()):
            embedded.append(part)
            bar.update(len(part.images))
    embedded.sort(key=lambda part: part.number)
    images, texts = (torch.cat([getattr(part, kind) for part in embedded]) for kind in ("images", "texts"))
    return SetFeatures(ids, images, texts, provenance_of(folder, name, extractor))


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
        raise InputError(f"{path} is no feature file, it has no {error}; delete it and run `dvc repro`") from None


def refresh(
    folder: Path,
    name: str,
    settings: ExtractorSettings,
    path: Path,
    executor: Executor,
    text: TextSettings | None = None,
) -> bool:
    """Bring one feature file up to date; False where it was. Raises InputError."""
    extractor = load_extractor(settings, local_devices()[0])
    try:
        fresh = load_features(path).provenance == provenance_of(folder, name, extractor)
    except InputError:
        fresh = False
    if fresh:
        return False

    def embed(parts: Iterable[Part]) -> Iterator[EmbeddedPart]:
        # A file is made in minutes and has no finished parts, so that a termination ends at once.
        here: Job[Part, EmbeddedPart] = lambda _: partial(embed_part, extractor)  # noqa: E731
        elsewhere = partial(_embedder, settings, torch.get_num_threads())
        return run_tasks(executor, here if runs_here(executor) else elsewhere, parts, Termination())

    save_features(path, extract(folder, name, extractor, embed, text))
    return True


def _embedder(settings: ExtractorSettings, threads: int, device: torch.device) -> Callable[[Part], EmbeddedPart]:
    """A job (pipeline/execution/executor.py): embeds parts."""
    torch.set_num_threads(threads)
    return partial(embed_part, load_extractor(settings, device))


def main() -> None:
    parser = stage_parser("eval.features.extraction", __doc__)
    parser.add_argument("--set", required=True, help="an arm of params.yaml, or reference")
    chosen = parser.parse_args().set
    study = load_study()
    if chosen != REFERENCE:
        study.arm(chosen)
    folder = REFERENCE_SET if chosen == REFERENCE else SETS / chosen
    # Sums are split among threads, and rounded so: as many on every machine.
    torch.set_num_threads(study.generate.threads)
    paths = {name: FEATURES / chosen / f"{name}.safetensors" for name in study.features.extractors}
    # The folder is persisted, so that another extractor does not cost those that are done.
    for stale in set((FEATURES / chosen).glob("*.safetensors")) - set(paths.values()):
        stale.unlink()
    remove_leftovers(FEATURES / chosen)
    for name, settings in study.features.extractors.items():
        text = None if chosen == REFERENCE else study.text
        made = refresh(folder, name, settings, paths[name], study.executor, text)
        print(f"features {chosen}: {paths[name]} {'written' if made else 'is up to date'}")


if __name__ == "__main__":
    run_stage(main)
