"""Stage `features@<set>`: an image set becomes one file of vectors an extractor, with their ids and provenance."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import torch
from PIL import Image
from tqdm import tqdm

from eval import clip as clip_module
from eval import dinov2 as dinov2_module
from eval import extractor as extractor_module
from eval import inception as inception_module
from eval import pyramid as pyramid_module
from eval.clip import Clip, load_clip
from eval.dinov2 import load_dinov2
from eval.extractor import Extractor, embed_images
from eval.inception import load_inception
from eval.pyramid import Pyramid
from pipeline.errors import InputError, run_stage
from pipeline.files import file_digest, fingerprint, write_atomically
from pipeline.layout import FEATURES, REFERENCE_SET, SETS
from pipeline.shards import read_table, set_fingerprint, shard_paths
from pipeline.stage_arguments import stage_parser
from pipeline.study import Extractor as ExtractorSettings
from pipeline.study import load_study
from pipeline.tensor_file import encode_tensors, read_tensors

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
    path = Path(settings.weights)
    fetch = f"hf download {settings.hub} --local-dir {path}" if settings.hub else "make train"
    if settings.model == "open_clip":
        return load_clip(path, device, fetch)
    if settings.model == "dinov2":
        return load_dinov2(path, device, fetch)
    if settings.model == "inception":
        return load_inception(path, device)
    return Pyramid(device)


def provenance_of(folder: Path, name: str, extractor: Extractor) -> dict[str, str]:
    """What determines the vectors of an image set: equal provenance, equal vectors."""
    return {
        "extractor": name,
        "extractor_digest": extractor.digest,
        "resize": extractor.resize,
        "precision": extractor.precision,
        "code": fingerprint([file_digest(Path(str(module.__file__))) for module in _CODE]),
        "set": set_fingerprint(folder),
    }


def extract(folder: Path, name: str, extractor: Extractor) -> SetFeatures:
    """Vectors of the pictures (and prompts, where the extractor reads them) of an image set. Raises InputError."""
    ids: list[str] = []
    images, texts = [], []
    with tqdm(desc=f"features {folder.name} {name}", unit="picture", disable=None) as bar:
        for path in shard_paths(folder):
            table = read_table(path, ["image_id", "image", "prompt"])
            ids += table.column("image_id").to_pylist()
            images.append(embed_images(extractor, _opened(table)))
            prompts = table.column("prompt").to_pylist()
            texts.append(extractor.embed_texts(prompts) if isinstance(extractor, Clip) else torch.zeros(len(table), 0))
            bar.update(len(table))
    return SetFeatures(ids, torch.cat(images), torch.cat(texts), provenance_of(folder, name, extractor))


def save_features(path: Path, features: SetFeatures) -> None:
    """Write features atomically; equal features give equal bytes."""
    tensors = {"images": features.images, "texts": features.texts}
    write_atomically(path, encode_tensors(tensors, {"ids": features.ids, "provenance": features.provenance}))


def load_features(path: Path) -> SetFeatures:
    """Read features back. Raises InputError where the file is missing or damaged."""
    tensors, known = read_tensors(path)
    try:
        return SetFeatures(known["ids"], tensors["images"], tensors["texts"], known["provenance"])
    except KeyError as error:
        raise InputError(f"{path} is no feature file, it has no {error}; delete it and run `dvc repro`") from None


def refresh(folder: Path, name: str, settings: ExtractorSettings, device: torch.device, path: Path) -> bool:
    """Bring one feature file up to date; False where it was. Raises InputError."""
    extractor = load_extractor(settings, device)
    try:
        fresh = load_features(path).provenance == provenance_of(folder, name, extractor)
    except InputError:
        fresh = False
    if not fresh:
        save_features(path, extract(folder, name, extractor))
    return not fresh


def _opened(table: pa.Table) -> Iterator[Image.Image]:
    """The pictures of a table, opened but not decoded."""
    for cell in table.column("image"):
        yield Image.open(io.BytesIO(cell["bytes"].as_py()))


def main() -> None:
    parser = stage_parser("eval.features", __doc__)
    parser.add_argument("--set", required=True, help="an arm of params.yaml, or reference")
    chosen = parser.parse_args().set
    study = load_study()
    if chosen != REFERENCE:
        study.arm(chosen)
    folder = REFERENCE_SET if chosen == REFERENCE else SETS / chosen
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    paths = {name: FEATURES / chosen / f"{name}.safetensors" for name in study.features.extractors}
    # The folder is persisted, so that another extractor does not cost those that are done.
    for stale in set((FEATURES / chosen).glob("*.safetensors")) - set(paths.values()):
        stale.unlink()
    for name, settings in study.features.extractors.items():
        made = refresh(folder, name, settings, device, paths[name])
        print(f"features {chosen}: {paths[name]} {'written' if made else 'is up to date'}")


if __name__ == "__main__":
    run_stage(main)
