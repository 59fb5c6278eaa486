"""Stage `features@<set>`: an image set becomes embeddings, kept with their ids and provenance."""

import argparse
import json
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from tqdm import tqdm

from eval.clip import load_clip
from pipeline.errors import InputError, run_stage
from pipeline.layout import FEATURES, REFERENCE_SET, SETS
from pipeline.shards import decode_images, read_table, set_fingerprint, shard_paths
from pipeline.study import load_study

REFERENCE = "reference"


@dataclass(frozen=True)
class SetFeatures:
    """Image embeddings [N, D] of a set, text embeddings [N, D] of its prompts, and where they come from."""

    ids: list[str]
    images: torch.Tensor
    texts: torch.Tensor
    provenance: dict[str, str]


def extract(folder: Path, clip_folder: Path, extractor: str, device: torch.device) -> SetFeatures:
    """Embed the pictures and prompts of an image set. Raises InputError."""
    clip = load_clip(clip_folder, device)
    ids: list[str] = []
    images, texts = [], []
    with tqdm(desc=f"features {folder.name}", unit="picture", disable=None) as bar:
        for path in shard_paths(folder):
            table = read_table(path, ["image_id", "image", "prompt"])
            ids += table.column("image_id").to_pylist()
            images.append(clip.embed_images(decode_images(table)))
            texts.append(clip.embed_texts(table.column("prompt").to_pylist()))
            bar.update(len(table))
    provenance = {
        "extractor": extractor,
        "extractor_digest": clip.digest,
        "resize": clip.resize,
        "set": set_fingerprint(folder),
    }
    return SetFeatures(ids, torch.cat(images), torch.cat(texts), provenance)


def save_features(path: Path, features: SetFeatures) -> None:
    """Write features atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    metadata = {"ids": json.dumps(features.ids), "provenance": json.dumps(features.provenance)}
    save_file({"images": features.images, "texts": features.texts}, temporary, metadata)
    os.replace(temporary, path)


def load_features(path: Path) -> SetFeatures:
    """Read features back. Raises InputError where the file is missing or damaged."""
    if not path.exists():
        raise InputError(f"{path} does not exist; `dvc repro` makes it")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
            ids, provenance = json.loads(metadata["ids"]), json.loads(metadata["provenance"])
            return SetFeatures(ids, file.get_tensor("images"), file.get_tensor("texts"), provenance)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} is no readable feature file ({error}); delete it and run `dvc repro`") from None


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m eval.features", description=__doc__)
    parser.add_argument("--set", required=True, help="an arm of params.yaml, or reference")
    name = parser.parse_args().set
    study = load_study()
    if name != REFERENCE:
        study.arm(name)
    folder = REFERENCE_SET if name == REFERENCE else SETS / name
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    features = extract(folder, Path(study.features.clip), study.features.extractor, device)
    path = FEATURES / name / f"{study.features.extractor}.safetensors"
    save_features(path, features)
    print(f"features {name}: {len(features.ids)} x {features.images.shape[1]} in {path}")


if __name__ == "__main__":
    run_stage(main)
