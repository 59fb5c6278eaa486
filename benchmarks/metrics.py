"""How fast the metrics are against their peers: `python -m benchmarks.metrics`, appended to benchmarks/results.json.

Ratios are of the least of several interleaved runs in one process; memory is the growth of a process of its own.
"""

import argparse
import resource
import subprocess
import sys

import numpy as np
import torch

from benchmarks.record import Result, entry, least, record


def features(n: int, d: int, seed: int) -> torch.Tensor:
    """Correlated features [n, d] with a decaying spectrum, as networks give them."""
    generator = torch.Generator().manual_seed(seed)
    spectrum = torch.linspace(0, 4, d).neg().exp()
    turn = torch.linalg.qr(torch.randn(d, d, generator=torch.Generator().manual_seed(0))).Q
    return (torch.randn(n, d, generator=generator) * spectrum + 0.02 * seed) @ turn


def our_neighbours(x: torch.Tensor, y: torch.Tensor) -> object:
    from eval.neighbours import neighbour_metrics

    return neighbour_metrics(x, y, 5, 5)


def their_neighbours(x: torch.Tensor, y: torch.Tensor) -> object:
    from prdc import compute_prdc

    return compute_prdc(y.numpy(), x.numpy(), nearest_k=5)


def everything(x: torch.Tensor, y: torch.Tensor) -> object:
    from eval.frechet import frechet_distance
    from eval.mmd import cmmd, kid
    from eval.neighbours import neighbour_metrics
    from eval.vendi import vendi_score

    return frechet_distance(x, y), neighbour_metrics(x, y), vendi_score(x), kid(x, y), cmmd(x, y)


MEMORY = {"ours": our_neighbours, "theirs": their_neighbours, "everything": everything}


def peak(what: str, n: int, d: int) -> tuple[float, float]:
    """Growth over the features and whole of a fresh process's peak resident memory, in MiB."""
    command = [sys.executable, "-m", "benchmarks.metrics", "--peak", what, str(n), str(d)]
    growth, whole = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-2:]
    return float(growth), float(whole)


def frechet_ratio() -> list[Result]:
    from torchmetrics.image.fid import FrechetInceptionDistance

    from eval.frechet import frechet_distance

    class Given(torch.nn.Module):
        """An extractor that hands features through."""

        num_features = 768

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    x, y = features(10_000, 768, 1), features(10_000, 768, 2)

    def theirs() -> object:
        metric = FrechetInceptionDistance(feature=Given(), normalize=False)
        metric.set_dtype(torch.float64)
        metric.update(x, real=False)
        metric.update(y, real=True)
        return metric.compute()

    ours, peer = least(3, lambda: frechet_distance(x, y), theirs)
    print(f"FD {ours:.2f} s, torchmetrics {peer:.2f} s")
    return [entry("fd_speed_10000x768", peer / ours, 5, peer / ours >= 5, "torchmetrics, update and compute")]


def neighbour_ratio() -> list[Result]:
    x, y = features(10_000, 768, 1), features(10_000, 768, 2)
    ours, peer = least(2, lambda: our_neighbours(x, y), lambda: their_neighbours(x, y))
    print(f"neighbours {ours:.2f} s, prdc {peer:.2f} s")
    return [entry("neighbours_speed_10000x768", peer / ours, 5, peer / ours >= 5, "prdc")]


def neighbour_memory() -> list[Result]:
    (ours, _), (peer, _) = peak("ours", 10_000, 768), peak("theirs", 10_000, 768)
    print(f"neighbours {ours:.0f} MiB, prdc {peer:.0f} MiB")
    return [entry("neighbours_memory_10000x768", ours / peer, 0.1, ours / peer <= 0.1, "prdc")]


def large_memory() -> list[Result]:
    _, whole = peak("everything", 50_000, 1024)
    return [entry("all_metrics_peak_gib_50000x1024", whole / 1024, 2, whole < 2048, "none")]


def extraction() -> list[Result]:
    """A ViT-S/16 of timm's with random weights through DINOv2's path, 64 pixels in and 224 to the network."""
    import timm

    from eval.dinov2 import SIDE, DinoV2
    from eval.extractor import embed_images
    from pipeline.shards import encode_png
    from pipeline.tinybooru.picture import draw, plan

    cpu = torch.device("cpu")
    model = timm.create_model("vit_small_patch14_dinov2", num_classes=0, img_size=SIDE).eval()
    extractor = DinoV2(model, "random", cpu)
    import io

    from PIL import Image

    files = [encode_png(draw(plan(0, k % 16), 64)) for k in range(64)]
    pixels = torch.stack([extractor.prepare(Image.open(io.BytesIO(file)).convert("RGB")) for file in files])

    def whole() -> object:
        return embed_images(extractor, (Image.open(io.BytesIO(file)) for file in files), batch=16)

    def bare() -> object:
        with torch.inference_mode():
            return [extractor.embed(part) for part in torch.split(pixels, 16)]

    ours, peer = least(3, whole, bare)
    print(f"extraction {ours:.2f} s, bare forward {peer:.2f} s")
    return [entry("extraction_throughput_dinov2_vits", peer / ours, 0.85, peer / ours >= 0.85, "bare forward")]


PARTS = {
    "frechet": frechet_ratio,
    "neighbours": neighbour_ratio,
    "memory": neighbour_memory,
    "extraction": extraction,
    "large": large_memory,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.metrics", description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], help=f"which of {', '.join(PARTS)} (default: all)")
    parser.add_argument("--peak", nargs=3, metavar=("WHAT", "N", "D"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak:
        what, n, d = arguments.peak
        x, y = features(int(n), int(d), 1), features(int(n), int(d), 2)
        MEMORY[what](x[:64], y[:64])  # imports and the libraries' own pools
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        MEMORY[what](x, y)
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print((after - before) / 1024, after / 1024)
        return
    np.random.seed(0)
    for part in arguments.parts or PARTS:
        record(PARTS[part]())


if __name__ == "__main__":
    main()
