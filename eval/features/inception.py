"""Inception v3 in the weights of the original FID, ported by torch-fidelity: the space of FID, KID and torchmetrics.

`python -m eval.features.inception <path>.safetensors` fetches torch-fidelity's weights and converts them.
"""

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from eval.features.extractor import weights_digest
from pipeline.errors import InputError, run_stage
from pipeline.study.extractors import EXTRACTORS

DIMENSION = 2048


@dataclass
class Inception:
    """torch-fidelity's `inception-v3-compat`; an image's vector is the last average pool's, of width 2048."""

    model: Any
    digest: str
    device: torch.device

    @property
    def resize(self) -> str:
        return "TensorFlow 1.x bilinear 299x299 without antialias, (x - 128) / 128"

    @property
    def precision(self) -> str:
        # Half precision would leave the published numbers.
        return "float32"

    def prepare(self, image: Image.Image) -> torch.Tensor:
        """One image as it is, [3, H, W] uint8; the network resizes it itself. A set has one canvas."""
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)

    @torch.inference_mode()
    def embed(self, pixels: torch.Tensor) -> torch.Tensor:
        """Features [B, 2048] of images [B, 3, H, W] uint8."""
        return self.model(pixels)[0]  # type: ignore[no-any-return]


def load_inception(path: Path, device: torch.device, fetch: str | None = None) -> Inception:
    """Load converted weights from safetensors. Raises InputError that names the command which fetches them."""
    # Here and not above: it takes seconds to import, and most of what reads features loads no network.
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    fetch = fetch or EXTRACTORS["inception"].command(path)
    digest = weights_digest([path], fetch)
    try:
        tensors = load_file(path)
        # torch-fidelity reads a file of torch.save and nothing else; this one is our own.
        with tempfile.NamedTemporaryFile(suffix=".pth") as file:
            torch.save(tensors, file.name)
            model = FeatureExtractorInceptionV3(
                "inception-v3-compat", [str(DIMENSION)], feature_extractor_weights_path=file.name
            )
    except (SafetensorError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"{path} is not the Inception v3 of torch-fidelity ({reason}); get it with `{fetch}`"
        ) from None
    return Inception(model.to(device).eval(), digest, device)


def main() -> None:
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3

    if len(sys.argv) != 2 or not sys.argv[1].endswith(".safetensors"):
        raise InputError("usage: python -m eval.features.inception <path>.safetensors")
    path = Path(sys.argv[1])
    try:
        tensors = torch.hub.load_state_dict_from_url(URL_INCEPTION_V3, weights_only=True, check_hash=True)
    except OSError as error:
        raise InputError(f"{URL_INCEPTION_V3} cannot be fetched ({error}); try again where it can be reached") from None
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    print(f"Inception v3 in {path}")


if __name__ == "__main__":
    run_stage(main)
