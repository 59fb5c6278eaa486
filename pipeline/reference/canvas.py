"""Images of any size brought to one canvas: the middle of the canvas's shape, resized."""

from PIL import Image


def fitted(image: Image.Image, canvas: tuple[int, int]) -> Image.Image:
    """An image on a canvas (width, height): the largest part around its middle that has the canvas's shape, resized.

    The middle, as published sets of ImageNet are cut (Dhariwal and Nichol, 2105.05233): stretching would change
    shapes, and borders would be something that both arms and real images have and that features see. Lanczos, whose
    window grows as the image shrinks, so that nothing is skipped.
    """
    if image.size == canvas:
        return image
    box = middle(image.size, canvas)
    return image.resize(canvas, Image.Resampling.LANCZOS, box=box)


def middle(size: tuple[int, int], canvas: tuple[int, int]) -> tuple[float, float, float, float]:
    """The box (left, top, right, bottom) of an image of `size` that has the shape of `canvas`."""
    (width, height), (across, down) = size, canvas
    scale = min(width / across, height / down)
    left, top = (width - across * scale) / 2, (height - down * scale) / 2
    return max(0.0, left), max(0.0, top), min(float(width), width - left), min(float(height), height - top)
