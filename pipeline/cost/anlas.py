"""What NovelAI would ask for an image, in its currency Anlas: a cost beside network evaluations and seconds.

The formulas are those of NovelAI's web client as public clients of its API repeat them. What they do not agree on is
refused as unknown: V1 and V2 beyond 1 Mpx or with other samplers, whose prices are tables; SMEA outside V3; undesired
content strength of V1 and V4; every model after V4.
"""

import math
from typing import Literal

from pipeline.study.anlas import WITH_SMEA, WITH_UNCOND_SCALE, Generation, Tier

MEGAPIXEL = 1024 * 1024
# Smaller images cost what one of 256 x 256 costs.
_SMALLEST = 65_536
_SMEA = {"none": 1.0, "smea": 1.2, "smea_dyn": 1.4}
_LEAST, _MOST = 2, 140
# Any undesired content strength but 100% costs this factor.
_UNCOND = 1.3
# The samplers that V1's and V2's formula is of, by our names.
_V1_SAMPLERS = ("ddim", "euler", "euler_ancestral", "lms")
_FREE_STEPS = 28
# For V1 some clients say 640 x 640, others 1024 x 1024.
_FREE_PIXELS_OF_V1 = 640 * 640


def anlas(
    width: int,
    height: int,
    steps: int,
    generation: Generation = "v3",
    smea: Literal["none", "smea", "smea_dyn"] = "none",
    strength: float = 1.0,
    uncond_scale: float = 1.0,
    tier: Tier = "none",
    sampler: str = "euler_ancestral",
) -> int:
    """The price of one image of `width` x `height` pixels in Anlas, at least 2, or 0 where the `tier` has it free.

    `strength` is that of image to image, `uncond_scale` the undesired content strength (1 is 100%), `sampler` one of
    ours. Opus has one image at a time free, of up to 1024 x 1024 pixels and 28 steps. Raises ValueError where the price
    is unknown, or NovelAI does not draw such an image.
    """
    pixels = max(width * height, _SMALLEST)
    if smea != "none" and generation not in WITH_SMEA:
        raise ValueError(f"the price of {smea} is unknown for {generation}")
    if uncond_scale <= 0 or (uncond_scale != 1 and generation not in WITH_UNCOND_SCALE):
        raise ValueError(f"the price of uncond_scale {uncond_scale:g} is unknown for {generation}")
    if generation in ("v3", "v4"):
        price = math.ceil(2.951823174884865e-6 * pixels + 5.753298233447344e-7 * pixels * steps) * _SMEA[smea]
    else:
        if pixels > MEGAPIXEL or sampler not in _V1_SAMPLERS:
            raise ValueError(f"the price of {width}x{height} with sampler {sampler} is unknown for {generation}")
        full = 15.266497014243718 * math.exp(pixels / MEGAPIXEL * 0.6326248927474729) - 15.225164493059737
        # Rounded once, after the strength; V3's is rounded before it, too.
        price = full * steps / 28
    price = max(math.ceil(price * strength), _LEAST)
    if price > _MOST:
        raise ValueError(f"an image of {price} Anlas; NovelAI draws none above {_MOST}")
    if uncond_scale != 1:
        price = math.ceil(price * _UNCOND)
    if tier == "opus" and steps <= _FREE_STEPS and pixels <= MEGAPIXEL:
        if generation == "v1" and pixels > _FREE_PIXELS_OF_V1:
            raise ValueError(f"whether {width}x{height} is free for opus is unknown for v1")
        return 0
    return price
