"""What NovelAI would ask for an image, in its currency Anlas: a cost beside network evaluations and seconds."""

import math
from typing import Literal

Generation = Literal["v1", "v2", "v3"]

# V1 and V2 have this formula up to 1 Mpx only.
MEGAPIXEL = 1024 * 1024
_SMEA = {"none": 1.0, "smea": 1.2, "smea_dyn": 1.4}
_LEAST = 2


def anlas(
    width: int,
    height: int,
    steps: int,
    generation: Generation = "v3",
    smea: Literal["none", "smea", "smea_dyn"] = "none",
    strength: float = 1.0,
    uncond_scale: float = 1.0,
) -> int:
    """The price of one image of `width` x `height` pixels in Anlas, at least 2.

    `strength` is that of image to image, `uncond_scale` that of the undesired content; each product is rounded up.
    V1 and V2 know no SMEA here. Raises ValueError where V1 or V2 are asked for more than 1 Mpx (1024 x 1024), or
    for SMEA.
    """
    pixels = width * height
    if generation == "v3":
        price = math.ceil(2.951823174884865e-6 * pixels + 5.753298233447344e-7 * pixels * steps) * _SMEA[smea]
    else:
        if pixels > MEGAPIXEL or smea != "none":
            raise ValueError(f"the price of {width}x{height} with {smea} smea is unknown for {generation}")
        megapixels = pixels / MEGAPIXEL
        full = 15.266497014243718 * math.exp(megapixels * 0.6326248927474729) - 15.225164493059737
        price = math.ceil(full * steps / 28)
    return math.ceil(max(math.ceil(price * strength), _LEAST) * uncond_scale)
