"""The trajectory of an image: what guidance took it for at some of the steps, from the noisiest to the last."""

from collections.abc import Sequence
from dataclasses import dataclass

from datasets import Features, Image, Value
from PIL import Image as PillowImage

from pipeline.generation.shard_plan import Shard
from pipeline.guidance.trace import TraceStep
from pipeline.storage.files import fingerprint

FRAMES = 8
TRAJECTORY_FEATURES = Features(
    {
        "image_id": Value("string"),
        "step": Value("int32"),
        "sigma": Value("float32"),
        "image": Image(),
    }
)


@dataclass(frozen=True)
class Frame:
    """The guided estimate of x0 at one step, as an image; `sigma` is the noise level b / a."""

    step: int
    sigma: float
    image: PillowImage.Image


def shown_steps(trace: Sequence[TraceStep]) -> list[TraceStep]:
    """At most FRAMES steps, evenly spaced, the first and the last among them."""
    last = len(trace) - 1
    return [trace[k] for k in sorted({round(i * last / (FRAMES - 1)) for i in range(FRAMES)})]


def watched_of(images: range, watched: int) -> int:
    """How many of these consecutive images of a study are among its first `watched`."""
    return max(0, min(watched, images.stop) - images.start)


def trajectory_fingerprint(shard: Shard, watched: int) -> str:
    """What determines the trajectories that a shard keeps in a study that keeps those of its first `watched` images."""
    return fingerprint([shard.fingerprint, FRAMES, watched_of(range(shard.start, shard.stop), watched)])
