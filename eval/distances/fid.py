"""FID as torchmetrics computes it: the number to put beside published ones, from existing features."""

import torch
from torch import Tensor

from eval.distances.frechet import check_features


class Given(torch.nn.Module):
    """An extractor for torchmetrics that hands features through."""

    def __init__(self, dimension: int):
        super().__init__()
        self.num_features = dimension

    def forward(self, features: Tensor) -> Tensor:
        return features


def torchmetrics_fid(x: Tensor, reference: Tensor) -> float:
    """torchmetrics' FID between Inception features [N, 2048] and [M, 2048] (eval/features/inception.py), >= 0.

    What `FrechetInceptionDistance(2048, antialias=False)` gives on the images: TensorFlow's resize, as in the FIDs of
    papers. torchmetrics' own default resizes with antialias, which moves the number (2104.11222).
    Raises ValueError below 2 images per set, for differing D, and for features that are not finite.
    """
    # Here and not above: it takes a second to import, and only studies with Inception features have this number.
    from torchmetrics.image.fid import FrechetInceptionDistance

    check_features(x, reference, 2, "Fréchet distances")
    metric = FrechetInceptionDistance(feature=Given(x.shape[1])).set_dtype(torch.float64)
    metric.update(x.cpu(), real=False)
    metric.update(reference.cpu(), real=True)
    return float(metric.compute())
