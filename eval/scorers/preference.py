"""Learned preference scores: networks that were tuned to say which of two images of a prompt people like better.

`python -m eval.scorers.preference <name> <checkpoint> <folder>` converts a checkpoint that is published as a pickle to
safetensors; the error about missing weights names the whole command.
"""

import argparse
import json
import pickle
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import open_clip
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPModel, CLIPProcessor

from eval.features.extractor import forward_precision, weights_digest
from eval.scorers.image_reward import image_reward_tensors
from pipeline.errors import InputError, run_stage
from pipeline.study.scorers import PREFERENCES

BATCH = 32


class Preference(Protocol):
    """How much people would like images as drawings of their prompts; scores of two models have no common scale."""

    digest: str

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> Tensor:
        """Scores [B] of RGB images and their prompts, higher is liked better."""
        ...


@dataclass
class PickScore:
    """PickScore (Kirstain et al., 2305.01569): logit_scale times the cosine, 20 to 23 for usual images."""

    model: Any
    processor: Any
    digest: str
    device: torch.device

    @torch.inference_mode()
    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> Tensor:
        given = self.processor(
            text=list(prompts), images=list(images), padding=True, truncation=True, max_length=77, return_tensors="pt"
        ).to(self.device)
        with torch.autocast(self.device.type, torch.float16, enabled=forward_precision(self.device) == torch.float16):
            found = self.model(**given)
        cosine = torch.nn.functional.cosine_similarity(found.image_embeds.float(), found.text_embeds.float())
        return self.model.logit_scale.exp() * cosine  # type: ignore[no-any-return]


@dataclass
class HumanPreferenceScore:
    """HPS v2.1 (Wu et al., 2306.09341): the cosine of a tuned ViT-H/14, 0.2 to 0.35 for usual images.

    The authors' tables show it a hundredfold.
    """

    model: Any
    preprocess: Any
    tokenizer: Any
    digest: str
    device: torch.device

    @torch.inference_mode()
    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> Tensor:
        pixels = torch.stack([self.preprocess(image) for image in images]).to(self.device)
        tokens = self.tokenizer(list(prompts)).to(self.device)
        with torch.autocast(self.device.type, torch.float16, enabled=forward_precision(self.device) == torch.float16):
            looks, reads = self.model.encode_image(pixels), self.model.encode_text(tokens)
        return torch.nn.functional.cosine_similarity(looks.float(), reads.float())


def load_pickscore(folder: Path, device: torch.device, fetch: str) -> PickScore:
    """Load a folder of transformers' CLIP, which `fetch` fills. Raises InputError."""
    digest = weights_digest(PREFERENCES["pickscore"].paths(folder), fetch)
    try:
        model, report = CLIPModel.from_pretrained(
            folder, use_safetensors=True, local_files_only=True, output_loading_info=True
        )
        processor = CLIPProcessor.from_pretrained(folder, local_files_only=True)
    except (SafetensorError, RuntimeError, OSError, ValueError, KeyError) as error:
        raise _unreadable(folder, "PickScore", error, fetch) from None
    # transformers draws what a file lacks at random and only warns.
    if report["missing_keys"]:
        raise _unreadable(folder, "PickScore", f"it lacks {sorted(report['missing_keys'])[0]}", fetch)
    return PickScore(model.to(device).eval().requires_grad_(False), processor, digest, device)


def load_hps(folder: Path, device: torch.device, fetch: str) -> HumanPreferenceScore:
    """Load a folder that `convert` made of HPS v2.1; `fetch` does that. Raises InputError."""
    digest = weights_digest(PREFERENCES["hpsv2_1"].paths(folder), fetch)
    try:
        model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}", device=device)
        tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    except Exception as error:  # open_clip raises many kinds for a damaged folder
        raise _unreadable(folder, "HPS v2.1", error, fetch) from None
    return HumanPreferenceScore(model.eval().requires_grad_(False), preprocess, tokenizer, digest, device)


def load_preference(name: str, folder: Path, device: torch.device) -> Preference:
    """The preference model `name` from its folder. Raises InputError that names the command which fetches it."""
    if name not in PREFERENCES:
        raise InputError(f"preference score '{name}' is unknown; known ones: {', '.join(PREFERENCES)}")
    load: Callable[[Path, torch.device, str], Preference] = PREFERENCES[name].load()
    return load(folder, device, PREFERENCES[name].command(folder))


def preference_scores(model: Preference, images: Iterable[Image.Image], prompts: Sequence[str]) -> Tensor:
    """Scores [N] float64 of images and their prompts, on the CPU. Raises ValueError where their numbers differ."""
    remaining, parts = iter(images), []
    for start in range(0, len(prompts), BATCH):
        texts = prompts[start : start + BATCH]
        chunk = [image.convert("RGB") for image in islice(remaining, BATCH)]
        if len(chunk) != len(texts):
            raise ValueError(f"preference scores need one prompt per image; {len(prompts)} prompts have fewer images")
        parts.append(model.score(chunk, texts).double().cpu())
    if next(remaining, None) is not None:
        raise ValueError(f"preference scores need one prompt per image; {len(prompts)} prompts have more images")
    return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.float64)


def convert(name: str, checkpoint: Path, folder: Path, architecture: dict[str, Any] | None = None) -> None:
    """Write the files that `load_preference` reads from a checkpoint that is published as a pickle.

    `architecture` is open_clip's configuration of hpsv2_1, ViT-H-14 unless given. Only tensors are read from the
    pickle: torch refuses everything that could run code. Raises InputError.
    """
    try:
        content = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
    except (OSError, RuntimeError, pickle.UnpicklingError, EOFError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{checkpoint} cannot be read as tensors ({reason}); fetch it again") from None
    tensors: dict[str, Tensor] = content.get("state_dict", content) if isinstance(content, dict) else {}
    if not tensors or not all(isinstance(tensor, Tensor) for tensor in tensors.values()):
        raise InputError(f"{checkpoint} does not hold a state_dict of tensors; is it the checkpoint of {name}?")
    folder.mkdir(parents=True, exist_ok=True)
    if name == "imagereward":
        weights, _ = PREFERENCES[name].paths(folder)
        save_file(image_reward_tensors(tensors, checkpoint), weights)
        return
    configuration = {
        "model_cfg": architecture or open_clip.get_model_config("ViT-H-14"),
        "preprocess_cfg": {
            "mean": open_clip.OPENAI_DATASET_MEAN,
            "std": open_clip.OPENAI_DATASET_STD,
            "interpolation": "bicubic",
            "resize_mode": "shortest",
        },
    }
    described, weights = PREFERENCES[name].paths(folder)
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, weights)
    described.write_text(json.dumps(configuration, indent=2) + "\n")


def _unreadable(folder: Path, what: str, error: object, fetch: str) -> InputError:
    return InputError(
        f"{folder} cannot be loaded as {what} ({' '.join(str(error).split())[:200]}); restore it with `{fetch}`"
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m eval.scorers.preference", description=__doc__)
    parser.add_argument("name", choices=["hpsv2_1", "imagereward"])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("folder", type=Path)
    chosen = parser.parse_args()
    convert(chosen.name, chosen.checkpoint, chosen.folder)
    print(f"{chosen.name} in {chosen.folder}")


if __name__ == "__main__":
    run_stage(main)
