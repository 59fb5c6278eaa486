"""The aesthetic score: a linear head on CLIP image embeddings, as LAION's aesthetic predictor is one.

`python -m eval.scorers.aesthetic <path>.safetensors` fetches LAION's head for OpenAI's CLIP ViT-L/14 and converts it.
"""

import pickle
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from pipeline.errors import InputError, run_stage
from pipeline.study.scorers import SINGLE_FILES

# Scores from 1 to 10, about 5 for usual images.
LAION_URL = "https://github.com/LAION-AI/aesthetic-predictor/raw/main/sa_0_4_vit_l_14_linear.pth"


@dataclass(frozen=True)
class AestheticHead:
    """`weight` [D], `bias` []: score = weight . (embedding / |embedding|) + bias."""

    weight: torch.Tensor
    bias: torch.Tensor

    def __call__(self, image_embeddings: torch.Tensor) -> torch.Tensor:
        """Scores [N] of image embeddings [N, D]; in tinybooru 0 is worst quality and 5 masterpiece.

        Raises ValueError where the width does not fit.
        """
        if image_embeddings.shape[1] != len(self.weight):
            raise ValueError(
                f"the aesthetic head reads embeddings of width {len(self.weight)}, found {image_embeddings.shape[1]}"
            )
        unit = torch.nn.functional.normalize(image_embeddings.double(), dim=1)
        return unit @ self.weight.double() + self.bias.double()

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({"weight": self.weight.float().contiguous(), "bias": self.bias.float().reshape(1)}, path)


def fit_aesthetic_head(image_embeddings: torch.Tensor, ranks: torch.Tensor, ridge: float = 1e-3) -> AestheticHead:
    """Ridge regression of quality ranks [N] (0 worst) on normalised embeddings [N, D], in closed form."""
    unit = torch.nn.functional.normalize(image_embeddings.double(), dim=1)
    centre, mean = unit.mean(0), ranks.double().mean()
    x, y = unit - centre, ranks.double() - mean
    gram = x.T @ x / len(x) + ridge * torch.eye(x.shape[1], dtype=torch.float64) * x.square().mean()
    weight = torch.linalg.solve(gram, x.T @ y / len(x))
    return AestheticHead(weight, mean - centre @ weight)


def load_aesthetic_head(path: Path) -> AestheticHead:
    """Load a head from safetensors. Raises InputError."""
    try:
        tensors = load_file(path)
        return AestheticHead(tensors["weight"], tensors["bias"].reshape(()))
    except FileNotFoundError:
        raise InputError(SINGLE_FILES["aesthetic_head"].faults(path)[path]) from None
    except (SafetensorError, KeyError, RuntimeError) as error:
        raise InputError(f"aesthetic head {path} cannot be read ({error}); restore it or retrain it") from None


def convert_linear_head(checkpoint: Path, path: Path) -> None:
    """Write a pickled `torch.nn.Linear(D, 1)`, as LAION publishes heads, as safetensors. Raises InputError."""
    try:
        tensors = torch.load(checkpoint, map_location="cpu", weights_only=True)
        AestheticHead(tensors["weight"].reshape(-1), tensors["bias"].reshape(())).save(path)
    except (OSError, RuntimeError, pickle.UnpicklingError, EOFError, KeyError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{checkpoint} is not a pickled linear head ({reason}); fetch {LAION_URL} again") from None


def main() -> None:
    if len(sys.argv) != 2 or not sys.argv[1].endswith(".safetensors"):
        raise InputError("usage: python -m eval.scorers.aesthetic <path>.safetensors")
    path = Path(sys.argv[1])
    checkpoint = path.with_suffix(".pth")
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    try:
        torch.hub.download_url_to_file(LAION_URL, str(checkpoint), progress=False)
    except OSError as error:
        raise InputError(f"{LAION_URL} cannot be fetched ({error}); try again where it can be reached") from None
    try:
        convert_linear_head(checkpoint, path)
    finally:
        checkpoint.unlink()
    print(f"LAION's aesthetic head in {path}")


if __name__ == "__main__":
    run_stage(main)
