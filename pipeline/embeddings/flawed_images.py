"""Images that are tagged bad, with noise: what a negative prompt that names what is bad would generate.

ReNeg (arXiv 2412.19637) learns a negative embedding from a reward; here it is learned from images that tags, or the
folder that they lie in, call bad, by the loss that the network itself was trained with.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image as PillowImage

from pipeline.embeddings.noisy_images import NoisyImages
from pipeline.errors import InputError
from pipeline.networks.denoisers.unet import DenoisingNetwork
from pipeline.reference.canvas import fitted
from pipeline.reference.source_folder import decoded, image_files, read_files
from pipeline.sampling.steppers import build_stepper
from pipeline.study.sampler import Sampler
from pipeline.study.study import TINYBOORU

# The loss of the path's velocity, SNR + 1, cut at 5 (arXiv 2303.09556): that of the embedded networks' training.
_MOST_WEIGHT = 5.0
_KEY = "--images-from"


@dataclass(frozen=True)
class FlawedImages(NoisyImages):
    """Noisy bad images; `right` [N, C, H, W] is the output that would give them back, `weights` [N] are of its error.

    What is measured of a text is the weighted mean squared error, the lower the better.
    """

    right: torch.Tensor
    weights: torch.Tensor

    def measured(self, rows: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        return self.losses(rows, output)

    def losses(self, rows: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        return self.weights[rows] * (output - self.right[rows]).square().flatten(1).mean(1)


@torch.no_grad()
def with_noise(network: DenoisingNetwork, samples: torch.Tensor, sampler: Sampler, seed: int) -> FlawedImages:
    """Finished samples [B, C, H, W], each with separate noise at every noise level of a sampler.

    Noise comes from `seed`. N is B times the number of levels, level by level.
    """
    path, kind = network.path, network.prediction_type
    stepper = build_stepper(
        sampler, network.schedule.config, path, network.steps_of(network.sample_shape, sampler.steps)
    )
    stepper.lay_out(sampler.steps, network.device)
    stepper.begin_at(0)
    moments = stepper.moments()
    generator = torch.Generator().manual_seed(seed)
    x, right, weights = [], [], []
    for at in moments:
        signal, noise = path.signal_and_noise(at.sigma)
        e = torch.randn(samples.shape, generator=generator).to(samples)
        x.append(signal * samples + noise * e)
        right.append(path.from_x0(samples, kind, x[-1], at.sigma))
        per_velocity = path.per_output(path.velocity, "sample", at.sigma)
        weights.append(min(per_velocity**2, _MOST_WEIGHT) * path.x0_per_output(kind, at.sigma) ** 2)
    levels = torch.arange(len(moments), device=network.device).repeat_interleave(len(samples))
    return FlawedImages(
        x=torch.cat(x),
        timesteps=torch.tensor([at.timestep for at in moments], device=network.device)[levels],
        levels=levels,
        sigmas=tuple(at.sigma for at in moments),
        chunks=1,
        right=torch.cat(right),
        weights=torch.tensor(weights, device=network.device)[levels],
    )


class BadImages:
    """Images that are tagged bad: those of the embedded world, or a folder's. A few are held out.

    Of the world those with a flaw or one of its two lowest qualities are bad, and those of its split `validation` are
    held out; of a folder every fifth image is. `shape` (channels, height, width) and `factor` are the network's.
    Raises InputError for a folder that is missing, or has too few images.
    """

    def __init__(self, source: str, network: DenoisingNetwork, count: int, held_out: int):
        self.source, self.network = source, network
        _, rows, columns = network.sample_shape
        canvas = (columns * network.factor, rows * network.factor)
        if source == TINYBOORU:
            self.train = list(islice(_of_the_world("train", canvas), count))
            self.held_out = list(islice(_of_the_world("validation", canvas), held_out))
            return
        folder = Path(source)
        files = image_files(folder, _KEY, f", or {_KEY} {TINYBOORU}")
        if len(files) < 2:
            raise InputError(
                f"{_KEY} {folder} holds {len(files)} images; learning takes at least 2, and dozens to mean much"
            )
        kept = [path for k, path in enumerate(files) if k % 5][:count]
        aside = files[::5][:held_out]
        self.train, self.held_out = (_of_a_folder(folder, chosen, canvas) for chosen in (kept, aside))

    def batch(self, number: int, size: int) -> torch.Tensor:
        """Samples [size, C, H, W] of a round, of the training images in their order and then from the first again."""
        return self._samples([self.train[(number * size + k) % len(self.train)] for k in range(size)])

    def kept_back(self) -> torch.Tensor:
        """Samples [B, C, H, W] of the images that training does not see."""
        return self._samples(self.held_out)

    def _samples(self, images: Sequence[PillowImage.Image]) -> torch.Tensor:
        pixels = torch.stack([torch.from_numpy(np.array(image)).permute(2, 0, 1) for image in images])
        # A copy, since what is made in inference mode lets no gradient pass.
        return self.network.to_samples(pixels).clone()


def _of_the_world(split: str, canvas: tuple[int, int]) -> Iterator[PillowImage.Image]:
    # Imports of drawing libraries cost a second.
    from pipeline.tinybooru.build import CANVAS, plans
    from pipeline.tinybooru.flaws import QUALITIES
    from pipeline.tinybooru.image import draw

    for planned in plans(split, seed=0):
        if planned.flaws or planned.quality in QUALITIES[-2:]:
            yield fitted(draw(planned, CANVAS), canvas)


def _of_a_folder(folder: Path, files: list[Path], canvas: tuple[int, int]) -> list[PillowImage.Image]:
    return [fitted(decoded(found, folder, _KEY).convert("RGB"), canvas) for found in read_files(folder, files)]
