"""How fast the metrics are against their peers: `python -m benchmarks.metrics`, appended to benchmarks/results.json.

Ratios are of the least of several interleaved runs in one process, both sides with as many threads as torch takes;
memory is the peak of a process of its own.
"""

import argparse
import io
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from PIL import Image
from threadpoolctl import threadpool_limits

from benchmarks.record import Result, entry, least, record
from eval.features.extractor import BATCH, Extractor, embed_images


def features(n: int, d: int, seed: int) -> torch.Tensor:
    """Correlated features [n, d] with a decaying spectrum, as networks give them."""
    generator = torch.Generator().manual_seed(seed)
    spectrum = torch.linspace(0, 4, d).neg().exp()
    turn = torch.linalg.qr(torch.randn(d, d, generator=torch.Generator().manual_seed(0))).Q
    return (torch.randn(n, d, generator=generator) * spectrum + 0.02 * seed) @ turn


def our_neighbours(x: torch.Tensor, y: torch.Tensor) -> object:
    from eval.distances.neighbours import neighbour_metrics

    return neighbour_metrics(x, y, 5, 5)


def their_neighbours(x: torch.Tensor, y: torch.Tensor) -> object:
    from prdc import compute_prdc

    return compute_prdc(y.numpy(), x.numpy(), nearest_k=5)


def frechet(x: torch.Tensor, y: torch.Tensor) -> object:
    from eval.distances.frechet import frechet_distance

    return frechet_distance(x, y)


def extrapolated(x: torch.Tensor, y: torch.Tensor) -> object:
    from eval.distances.frechet_infinity import frechet_infinity

    return frechet_infinity(x, y, 0)


def all_neighbours(x: torch.Tensor, y: torch.Tensor) -> object:
    from eval.distances.neighbours import neighbour_metrics

    return neighbour_metrics(x, y)


def kernel_distance(x: torch.Tensor, y: torch.Tensor) -> object:
    from eval.distances.mmd import kid

    return kid(x, y)


def clip_kernel_distance(x: torch.Tensor, y: torch.Tensor) -> object:
    from eval.distances.mmd import cmmd

    return cmmd(x, y)


def variety(x: torch.Tensor, _: torch.Tensor) -> object:
    from eval.distances.vendi import vendi_score

    return vendi_score(x)


# Every set metric of the score stage, as it is called there; precision, recall, density and coverage are one pass.
METRICS = {
    "fd": frechet,
    "fd_infinity": extrapolated,
    "neighbours": all_neighbours,
    "kid": kernel_distance,
    "cmmd": clip_kernel_distance,
    "vendi": variety,
}
MEMORY = {"ours": our_neighbours, "theirs": their_neighbours, **METRICS}


def resident_mib(field: str) -> float:
    """This process's resident memory in MiB: `VmRSS` now, `VmHWM` at its highest."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field)]
    return int(line.split()[1]) / 1024


def peak(what: str, n: int, d: int) -> tuple[float, float]:
    """Growth over the features and whole of a fresh process's peak resident memory, in MiB."""
    command = [sys.executable, "-m", "benchmarks.metrics", "--peak", what, str(n), str(d)]
    growth, whole = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-2:]
    return float(growth), float(whole)


def frechet_ratio() -> list[Result]:
    from torchmetrics.image.fid import FrechetInceptionDistance

    from eval.distances.frechet import frechet_distance

    class Given(torch.nn.Module):
        """An extractor that hands features through."""

        num_features = 768

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    x, y = features(10_000, 768, 1), features(10_000, 768, 2)

    def theirs(batch: int) -> object:
        metric = FrechetInceptionDistance(feature=Given(), normalize=False)
        metric.set_dtype(torch.float64)
        for part in torch.split(x, batch):
            metric.update(part, real=False)
        for part in torch.split(y, batch):
            metric.update(part, real=True)
        return metric.compute()

    ours, peer, batched = least(5, lambda: frechet_distance(x, y), lambda: theirs(len(x)), lambda: theirs(BATCH))
    print(f"FD {ours:.3f} s, torchmetrics {peer:.3f} s at once, {batched:.3f} s in batches of {BATCH}")
    return [
        entry("fd_speed_10000x768", peer / ours, 5, peer / ours >= 5, "torchmetrics, all features in one update"),
        entry("fd_speed_10000x768_batches", batched / ours, None, None, f"torchmetrics, updates of {BATCH}"),
    ]


def neighbour_ratio() -> list[Result]:
    """prdc with its defaults, and with one BLAS thread in each of the eight threads that it starts.

    As it comes, these are eight times as many as the cores and hinder one another.
    """
    x, y = features(10_000, 768, 1), features(10_000, 768, 2)
    our_neighbours(x[:64], y[:64]), their_neighbours(x[:64], y[:64])  # imports
    with threadpool_limits(limits=1, user_api="blas"):
        (best,) = least(2, lambda: their_neighbours(x, y))
    ours, peer = least(2, lambda: our_neighbours(x, y), lambda: their_neighbours(x, y))
    print(f"neighbours {ours:.2f} s, prdc {peer:.2f} s, {best:.2f} s with one BLAS thread a thread")
    return [
        entry("neighbours_speed_10000x768", peer / ours, 5, peer / ours >= 5, "prdc with its defaults"),
        entry("neighbours_speed_10000x768_tuned", best / ours, 5, best / ours >= 5, "prdc, one BLAS thread a thread"),
    ]


def neighbour_memory() -> list[Result]:
    (ours, _), (peer, _) = peak("ours", 10_000, 768), peak("theirs", 10_000, 768)
    print(f"neighbours {ours:.0f} MiB, prdc {peer:.0f} MiB")
    return [entry("neighbours_memory_10000x768", ours / peer, 0.1, ours / peer <= 0.1, "prdc")]


def large_memory(metric: str) -> list[Result]:
    """The peak of a process that holds both sets and computes one metric: the whole set's is the largest of them."""
    growth, whole = peak(metric, 50_000, 1024)
    print(f"{metric} of 50,000 x 1024: {whole:.0f} MiB, of which {growth:.0f} MiB beside features and libraries")
    return [entry(f"peak_gib_50000x1024_{metric}", whole / 1024, 2, whole < 2048, "none")]


def opened(files: list[bytes]) -> Iterator[Image.Image]:
    return (Image.open(io.BytesIO(file)) for file in files)


def throughput(name: str, extractor: Extractor, files: list[bytes], batch: int, rounds: int) -> list[Result]:
    """PNG files to vectors, against the forward pass on the same images as tensors that are there."""
    pixels = torch.stack([extractor.prepare(image.convert("RGB")) for image in opened(files)])

    def bare() -> object:
        with torch.inference_mode():
            return [extractor.embed(part) for part in torch.split(pixels, batch)]

    ours, peer = least(rounds, lambda: embed_images(extractor, opened(files), batch), bare)
    print(f"{name}: {len(files)} images in {ours:.2f} s, bare forward {peer:.2f} s")
    against = f"bare forward, {len(files)} images, batches of {batch}"
    return [entry(f"extraction_{name}", peer / ours, 0.85, peer / ours >= 0.85, against)]


def extraction() -> list[Result]:
    """The embedded CLIP, EfficientNet-Lite0, and a ViT-S/14 of timm's with random weights through DINOv2's path."""
    # Not above: a process that measures memory should hold no networks' libraries.
    import timm

    from eval.features.clip import load_clip
    from eval.features.dinov2 import SIDE, DinoV2
    from eval.features.efficientnet import load_efficientnet
    from pipeline.storage.shards import encode_png
    from pipeline.tinybooru.image import draw, plan

    cpu = torch.device("cpu")
    # Each image several times: drawing takes longer than all that is measured here.
    files = [encode_png(draw(plan(0, k), 64)) for k in range(128)] * 16
    vit = timm.create_model("vit_small_patch14_dinov2", num_classes=0, img_size=SIDE).eval()
    return [
        *throughput("embedded_clip", load_clip(Path("models/tinybooru/clip"), cpu), files, BATCH, 4),
        *throughput("dinov2_vits", DinoV2(vit, "random", cpu), files[:64], 16, 3),
        *throughput("efficientnet_lite0", load_efficientnet(EFFICIENTNET, cpu, "make setup"), files[:256], BATCH, 3),
    ]


EFFICIENTNET = Path("models/extractors/efficientnet_lite0.safetensors")
PARTS: dict[str, Callable[[], list[Result]]] = {
    "frechet": frechet_ratio,
    "neighbours": neighbour_ratio,
    "memory": neighbour_memory,
    "extraction": extraction,
    **{f"large_{metric}": partial(large_memory, metric) for metric in METRICS},
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
        # From here on, without what making the features took (Linux). A child's ru_maxrss begins with its parent's.
        Path("/proc/self/clear_refs").write_text("5")
        before = resident_mib("VmRSS")
        MEMORY[what](x, y)
        after = resident_mib("VmHWM")
        print(after - before, after)
        return
    for part in arguments.parts or PARTS:
        record(PARTS[part]())


if __name__ == "__main__":
    main()
