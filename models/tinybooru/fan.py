"""How many digits a waving hand has, by image analysis alone: no training, a check of the classifier that counts.

Fingers and thumb are the rays of a fan that meet near the wrist. The palm is found by its skin: where a disc of one
colour, unlike the background, fits best. Around every point near the wrist the likeness to that skin is added up along
rays; from the right point the rays of digits and the gaps between them stand out most, and the peaks are the digits.
Colours are compared in units of the image's own contrast, so more or less of it changes nothing.
"""

from collections.abc import Iterator
from itertools import product

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.signal import find_peaks

Array = npt.NDArray[np.float64]

SCALE = 3  # the image is enlarged so much before anything is measured
# Where the palm of a greeting may be, in pixels of the image, the hand on the right (pipeline/tinybooru/figures.py).
PALM_X, PALM_Y = np.arange(41.0, 53.0), np.arange(31.0, 43.0)
PALM_RADIUS = 5.0
# From the palm's centre to where the rays meet.
FROM_PALM = tuple(product((-3.0, -1.5, 0.0, 1.5, 3.0), (2.0, 4.0, 6.0, 8.0)))
RADII = np.arange(8.0, 21.0, 0.5)
# Clockwise from straight up: from below the thumb to below the last finger.
ANGLES = np.radians(np.arange(-85.0, 60.0))
PROMINENCE = 0.1


def digits_by_fan(image: npt.NDArray[np.uint8]) -> int | None:
    """Digits of the hand in a greeting uint8 [64, 64, 3]; None where no hand is found."""
    zoomed = [
        ndimage.zoom(image[:, :, c].astype(float), SCALE, order=1, grid_mode=True, mode="nearest") for c in range(3)
    ]
    pixels = np.stack(zoomed, axis=-1)
    background = np.median(pixels[: 6 * SCALE].reshape(-1, 3), axis=0)
    # Which side the hand is on, the rays say: a head has none.
    profiles = [profile for side in (pixels, pixels[:, ::-1]) for profile in _profiles(side, background)]
    if not profiles:
        return None
    clearest = max(profiles, key=lambda profile: float(np.abs(np.diff(profile)).sum()))
    return len(find_peaks(np.r_[0, clearest, 0], prominence=PROMINENCE)[0])


def _profiles(pixels: Array, background: Array) -> Iterator[Array]:
    """Mean likeness to skin along each of ANGLES, around each point near the wrist of a hand on the right."""
    palm = _palm(pixels, background)
    if palm is None:
        return
    x, y = palm
    skin = np.median(_disc(pixels, x, y, 3.0), axis=0)
    # 1 for skin, 0 for whatever is as far from it as the background is: outlines, hair, shirts.
    likeness = np.clip(
        1 - np.linalg.norm(pixels - skin, axis=-1) / (0.6 * np.linalg.norm(background - skin) + 1e-9), 0, 1
    )
    along = RADII[:, None]
    for dx, dy in FROM_PALM:
        at = [(y + dy - along * np.cos(ANGLES)) * SCALE, (x + dx + along * np.sin(ANGLES)) * SCALE]
        rays = ndimage.map_coordinates(likeness, at, order=1, mode="constant")
        yield ndimage.gaussian_filter1d(rays.mean(0), 1.0)


def _palm(pixels: Array, background: Array) -> tuple[float, float] | None:
    """Centre (x, y) of the palm, in pixels of the image; None where nothing is of one colour."""
    best, found = 0.8, None
    for y, x in product(PALM_Y, PALM_X):
        patch = _disc(pixels, float(x), float(y), PALM_RADIUS)
        colour = np.median(patch, axis=0)
        unlike = float(np.linalg.norm(colour - background))
        if unlike < 12:
            continue
        same = float((np.linalg.norm(patch - colour, axis=-1) < 0.35 * unlike).mean())
        if same > best:
            best, found = same, (float(x), float(y))
    return found


def _disc(pixels: Array, x: float, y: float, radius: float) -> Array:
    """The pixels of a disc, [N, 3]."""
    reach = int(radius * SCALE)
    v, u = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    inside = u**2 + v**2 <= reach**2
    rows = np.clip(int(y * SCALE) + v[inside], 0, len(pixels) - 1)
    columns = np.clip(int(x * SCALE) + u[inside], 0, pixels.shape[1] - 1)
    return np.asarray(pixels[rows, columns])
