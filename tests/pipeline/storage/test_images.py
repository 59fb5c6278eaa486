"""Whatever a file stores, the pixels that are measured are those that a viewer shows on white paper."""

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

from pipeline.storage import images
from pipeline.storage.images import decode_image, decode_photograph, to_rgb

WHITE = [255, 255, 255]
NOISE = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)


def saved(image: Image.Image, kind: str = "png", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pixels(content: bytes) -> np.ndarray:
    return np.asarray(decode_photograph(content))


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, depth: int, colours: int, row: bytes, transparent: bytes = b"") -> bytes:
    """One row of a PNG with that many bits per channel, of colour type 0 (grey), 2 (RGB), 4 (grey and alpha) or 6."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, 1, depth, colours, 0, 0, 0))
    key = chunk(b"tRNS", transparent) if transparent else b""
    rows = chunk(b"IDAT", zlib.compress(b"\0" + row))
    return b"\x89PNG\r\n\x1a\n" + header + key + rows + chunk(b"IEND", b"")


def test_every_mode_of_pillow_is_mapped_or_refused_by_name() -> None:
    for mode in Image.MODES:
        image = Image.new(mode, (3, 2))
        if mode in images._REFUSED:
            with pytest.raises(OSError, match=f"its mode is {mode}, .*; save it in RGB with 8 bits"):
                to_rgb(image)
        else:
            found = to_rgb(image)
            assert (found.mode, found.size) == ("RGB", (3, 2)), mode
    assert images._TO_RGB.keys() | images._REFUSED.keys() == set(Image.MODES)
    assert not images._TO_RGB.keys() & images._REFUSED.keys()


@pytest.mark.parametrize("read", [decode_image, decode_photograph])
def test_a_palette_that_is_missing_is_named(read: Callable[[bytes], Image.Image]) -> None:
    with pytest.raises(OSError, match="its mode is P, and it has no palette"):
        read(png(3, 8, 3, b"\0\1\2", transparent=b"\0"))


def in_mode(mode: str, rgb: np.ndarray) -> Image.Image:
    """The opaque image in a mode of several channels."""
    image = Image.fromarray(rgb)
    if mode == "LAB":
        profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        return ImageCms.applyTransform(image, ImageCms.buildTransform(*profiles, "RGB", "LAB"))
    if mode == "CMYK":
        return Image.merge("CMYK", [*Image.fromarray(255 - rgb).split(), Image.new("L", image.size)])
    if mode == "RGBa":
        return image.convert("RGBA").convert("RGBa")
    return image.convert(mode)


@pytest.mark.parametrize(
    ("mode", "near"),
    [("RGB", 0), ("RGBA", 0), ("RGBX", 0), ("RGBa", 0), ("CMYK", 0), ("YCbCr", 3), ("HSV", 6), ("LAB", 20)],
)
def test_a_mode_of_colours_keeps_them(mode: str, near: float) -> None:
    found = np.asarray(to_rgb(in_mode(mode, NOISE)), float)
    assert np.abs(found - NOISE).max() <= near


@pytest.mark.parametrize(
    ("mode", "values", "shown"),
    [
        ("1", [0, 255], [0, 255]),
        ("L", [0, 7, 255], [0, 7, 255]),
        ("I;16", [0, 300, 32768, 65535], [0, 1, 128, 255]),
        ("I;16L", [0, 300, 32768, 65535], [0, 1, 128, 255]),
        ("I;16B", [0, 300, 32768, 65535], [0, 1, 128, 255]),
        ("I;16N", [0, 300, 32768, 65535], [0, 1, 128, 255]),
        ("F", [0, 0.5, 1], [0, 128, 255]),
        ("F", [0, 0.4, 100.6, 255], [0, 0, 101, 255]),
    ],
)
def test_a_mode_of_grey_levels_keeps_black_and_white(mode: str, values: list[Any], shown: list[int]) -> None:
    image = Image.new(mode, (len(values), 1))
    for k, value in enumerate(values):
        image.putpixel((k, 0), value)
    assert np.asarray(to_rgb(image))[0].tolist() == [[level] * 3 for level in shown]


@pytest.mark.parametrize("values", [(-0.1, 1), (0, 255.5), (0, float("nan")), (0, float("inf"))])
def test_floats_beyond_black_and_white_are_refused(values: tuple[float, float]) -> None:
    image = Image.fromarray(np.array([values], np.float32))
    assert image.mode == "F"
    with pytest.raises(OSError, match=r"its mode is F, with values from .* to .*; 0 to 1 and 0 to 255 are read"):
        to_rgb(image)


def test_a_mode_that_a_later_pillow_brings_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "_TO_RGB", {})
    with pytest.raises(OSError, match="its mode is CMYK, which is unknown here; save it in RGB with 8 bits"):
        to_rgb(Image.new("CMYK", (2, 2)))


def test_a_grey_ramp_of_16_bits_is_as_bright_as_it_was_drawn() -> None:
    ramp = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    found = pixels(saved(Image.fromarray(ramp)))
    assert found.mean() == pytest.approx(127.5, abs=1e-9)
    assert np.abs(found[..., 0] - ramp / 257).max() <= 0.5
    assert (found == found[..., :1]).all()


@pytest.mark.parametrize(("colours", "channels"), [(2, 3), (4, 2), (6, 4)])
def test_other_pngs_of_16_bits_are_within_a_level(colours: int, channels: int) -> None:
    values = np.random.default_rng(1).integers(0, 65536, (64, channels))
    values[:, 3 if channels == 4 else 1 if channels == 2 else 2] = 65535
    found = pixels(png(64, 16, colours, values.astype(">u2").tobytes()))[0]
    drawn = values[:, [0, 0, 0]] if channels == 2 else values[:, :3]
    assert np.abs(found - drawn / 257).max() <= 1


@pytest.mark.parametrize(("kind", "options"), [("png", {}), ("webp", {"lossless": True, "exact": True})])
def test_noise_under_transparency_is_not_measured(kind: str, options: dict[str, Any]) -> None:
    alpha = np.zeros((16, 16, 1), np.uint8)
    alpha[4:12] = 255
    hidden = Image.fromarray(np.concatenate([NOISE, alpha], axis=2))
    found = pixels(saved(hidden, kind, **options))
    assert (found[4:12] == NOISE[4:12]).all()
    assert (found[:4] == 255).all()
    assert (found[12:] == 255).all()


@pytest.mark.parametrize("mode", ["LA", "La", "PA", "RGBA", "RGBa"])
def test_half_transparent_black_is_grey_in_every_mode_with_alpha(mode: str) -> None:
    if mode == "PA":
        image = Image.new("PA", (1, 1), (0, 128))
    else:
        whole = "LA" if mode in ("LA", "La") else "RGBA"
        image = Image.new(whole, (1, 1), (0, 128) if whole == "LA" else (0, 0, 0, 128)).convert(mode)
    assert np.asarray(to_rgb(image))[0, 0].tolist() == [127] * 3


def test_transparency_of_a_palette_is_white() -> None:
    image = Image.new("P", (3, 1))
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    image.putdata([0, 1, 2])
    whole = [[10, 20, 30], [40, 50, 60], [70, 80, 90]]
    assert pixels(saved(image))[0].tolist() == whole
    assert pixels(saved(image, transparency=1))[0].tolist() == [whole[0], WHITE, whole[2]]
    # 40 x 128/255 + 255 x 127/255, and so on.
    assert pixels(saved(image, transparency=bytes([0, 128, 255])))[0].tolist() == [WHITE, [147, 152, 157], whole[2]]


@pytest.mark.parametrize(
    ("content", "shown"),
    [
        (png(2, 1, 0, b"\x40", b"\0\0"), [255, 255]),
        (png(4, 2, 0, b"\x1b", b"\0\1"), [0, 255, 170, 255]),
        (png(2, 4, 0, b"\x3f", b"\0\3"), [255, 255]),
        (png(2, 4, 0, b"\x3f", b"\0\4"), [51, 255]),
        (png(2, 8, 0, b"\x03\x04", b"\0\3"), [255, 4]),
        (png(3, 16, 0, b"\x03\x00\x03\x01\x00\x03", b"\3\0"), [255, 3, 0]),
    ],
    ids=["1 bit", "2 bits", "4 bits", "another of 4 bits", "8 bits", "16 bits"],
)
def test_a_grey_level_that_is_declared_transparent_is_white(content: bytes, shown: list[int]) -> None:
    assert pixels(content)[0].tolist() == [[level] * 3 for level in shown]


def test_a_colour_that_is_declared_transparent_is_white() -> None:
    content = png(2, 8, 2, b"\1\2\3\4\5\6", b"\0\1\0\2\0\3")
    assert pixels(content)[0].tolist() == [WHITE, [4, 5, 6]]


def test_a_transparent_colour_that_rounding_has_merged_with_others_is_refused() -> None:
    with pytest.raises(OSError, match="it has 16 bits per channel and declares one colour transparent"):
        decode_photograph(png(1, 16, 2, b"\1\0\2\0\3\0", b"\1\0\2\0\3\0"))


@pytest.mark.parametrize("mode", ["L", "P", "I;16", "LA", "RGBA"])
def test_an_image_stands_upright_in_every_mode(mode: str) -> None:
    grey = Image.fromarray(np.arange(6, dtype=np.uint8).reshape(2, 3) * 40)
    image = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257) if mode == "I;16" else grey.convert(mode)
    held = Image.Exif()
    held[0x0112] = 6  # to be turned a quarter to the right
    turned = np.rot90(np.asarray(grey), -1)
    assert (pixels(saved(image, exif=held))[..., 0] == turned).all()


def with_text(size: int, compressed: bool = True) -> bytes:
    text = PngInfo()
    text.add_text("workflow", "0123456789" * (size // 10), zip=compressed)
    return saved(Image.fromarray(NOISE), pnginfo=text)


@pytest.mark.parametrize(("size", "compressed"), [(2_000_000, True), (2_000_000, False), (10_000_000, True)])
def test_an_image_with_a_workflow_in_its_text_is_read(size: int, compressed: bool) -> None:
    for decode in (decode_image, decode_photograph):
        assert (np.asarray(decode(with_text(size, compressed))) == NOISE).all()


def test_an_image_with_a_large_colour_profile_is_read() -> None:
    profile = np.random.default_rng(2).bytes(2_000_000)
    assert (pixels(saved(Image.fromarray(NOISE), icc_profile=profile)) == NOISE).all()


@pytest.mark.parametrize(
    "bomb",
    [
        lambda: with_text(30_000_000),
        lambda: with_text(70_000_000, compressed=False),
        lambda: saved(Image.fromarray(NOISE), icc_profile=bytes(30_000_000)),
    ],
    ids=["one text", "all texts", "colour profile"],
)
def test_texts_that_fill_the_memory_are_refused(bomb: Callable[[], bytes]) -> None:
    with pytest.raises(OSError, match="a text or colour profile in it unpacks to more than 16 MiB, or all to 64"):
        decode_photograph(bomb())


# XYZ under D50 (of ICC profiles) of red, green and blue, one a column: Display P3's and sRGB's.
P3 = np.array([[0.51512, 0.29198, 0.15710], [0.24120, 0.69225, 0.06657], [-0.00105, 0.04189, 0.78407]])
SRGB = np.array([[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]])


def wide_gamut(space: bytes = b"RGB ", name: bytes = b"wide") -> bytes:
    """An ICC profile (ICC.1:2001-04) with Display P3's primaries and a gamma of 2.2."""

    def xyz(values: Any) -> bytes:
        return b"XYZ " + bytes(4) + b"".join(struct.pack(">i", round(value * 65536)) for value in values)

    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(2.2 * 256))
    colours = zip((b"r", b"g", b"b"), P3.T, strict=True)
    tags = {
        b"desc": b"desc" + bytes(4) + struct.pack(">I", len(name) + 1) + name + bytes(79),
        b"cprt": b"text" + bytes(4) + b"none\0",
        b"wtpt": xyz((0.9642, 1, 0.8249)),
        **{key + kind: what for key, column in colours for kind, what in ((b"XYZ", xyz(column)), (b"TRC", curve))},
    }
    start = 128 + 4 + 12 * len(tags)
    table, data = struct.pack(">I", len(tags)), b""
    for key, tag in tags.items():
        table += struct.pack(">4sII", key, start + len(data), len(tag))
        data += tag + bytes(-len(tag) % 4)
    head = struct.pack(">I4sI4s4s4s", start + len(data), bytes(4), 0x02400000, b"mntr", space, b"XYZ ")
    head += bytes(12) + b"acsp" + bytes(24) + struct.pack(">I3i", 1, 63190, 65536, 54061)
    return head.ljust(128, b"\0") + table + data


def in_srgb(colours: np.ndarray) -> np.ndarray:
    """What a viewer shows of colours [..., 3] of the profile, clipped to what sRGB can hold."""
    linear = (colours / 255) ** 2.2 @ P3.T @ np.linalg.inv(SRGB).T
    linear = linear.clip(0, 1)
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def far(content: bytes, expected: np.ndarray) -> float:
    return float(np.abs(pixels(content).astype(float) - expected).max())


def test_a_colour_profile_is_applied() -> None:
    image = Image.fromarray(NOISE)
    expected = in_srgb(NOISE)
    assert np.abs(expected - NOISE).max() > 40
    for kind, options in (("png", {}), ("webp", {"lossless": True})):
        assert far(saved(image, kind, icc_profile=wide_gamut(), **options), expected) < 2
    few = image.quantize(16)
    assert far(saved(few, icc_profile=wide_gamut()), in_srgb(np.asarray(few.convert("RGB")))) < 2


def test_colours_of_a_profile_are_blended_with_the_white_of_the_sheet() -> None:
    alpha = np.random.default_rng(1).integers(0, 256, (16, 16, 1), dtype=np.uint8)
    image = Image.fromarray(np.concatenate([NOISE, alpha], axis=-1))
    expected = in_srgb(NOISE) * (alpha / 255) + 255 * (1 - alpha / 255)
    assert far(saved(image, icc_profile=wide_gamut()), expected) < 2
    # The colour that is declared transparent is one of the file.
    key = tuple(int(v) for v in NOISE[0, 0])
    shown = pixels(saved(Image.fromarray(NOISE), icc_profile=wide_gamut(), transparency=key))
    assert shown[0, 0].tolist() == WHITE
    assert np.abs(shown[0, 1:] - in_srgb(NOISE[0, 1:])).max() < 2


@pytest.mark.parametrize(
    "profile",
    [
        b"no profile",
        wide_gamut(space=b"GRAY"),
        wide_gamut(space=b"CMYK"),
        wide_gamut(name=b"sRGB IEC61966-2.1"),
        ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
    ],
    ids=["damaged", "grey", "CMYK", "sRGB by name", "sRGB"],
)
def test_a_profile_that_says_nothing_of_these_colours_changes_none(profile: bytes) -> None:
    assert (pixels(saved(Image.fromarray(NOISE), icc_profile=profile)) == NOISE).all()


def with_chunk(content: bytes, kind: bytes, data: bytes) -> bytes:
    """A PNG with one more chunk behind its header."""
    return content[:33] + chunk(kind, data) + content[33:]


@pytest.mark.parametrize(
    ("gamma", "more", "power"),
    [(1.0, b"", 1 / 2.2), (0.45455, b"", 1), (0.5, b"", 1 / 1.1), (1.0, b"sRGB", 1), (0.0, b"", 1)],
)
def test_a_gamma_is_applied_where_nothing_else_says_what_colours_are(gamma: float, more: bytes, power: float) -> None:
    content = with_chunk(saved(Image.fromarray(NOISE)), b"gAMA", struct.pack(">I", round(gamma * 100000)))
    content = with_chunk(content, more, b"\0") if more else content
    assert far(content, 255 * (NOISE / 255) ** power) < 1


def test_an_image_whose_exif_is_damaged_is_shown_as_it_lies() -> None:
    image = Image.fromarray(NOISE)
    for damaged in (b"garbage", b"", b"MM\0*\0\0\0\x08\xff\xff"):
        assert (pixels(with_chunk(saved(image), b"eXIf", damaged)) == NOISE).all()
    turned = Image.Exif()
    turned[0x0112] = 6
    # Some programs write its mark twice.
    for exif in (b"Exif\0\0" + turned.tobytes(), turned.tobytes()):
        assert (pixels(saved(image, "webp", lossless=True, exif=exif)) == np.rot90(NOISE, -1)).all()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "it is a pointer of Git LFS, not the"),
        (b"<!doctype html>", "it is not a PNG, JPEG or WebP image, or its header is damaged"),
        (b"", "it is not a PNG, JPEG or WebP image, or its header is damaged"),
        (b"\0\0\0\x18ftypheic" + bytes(40), "it is not a PNG, JPEG or WebP image, or its header is damaged"),
    ],
)
def test_what_is_no_image_is_said_in_words(content: bytes, said: str) -> None:
    with pytest.raises(OSError, match=f"^{said}"):
        decode_photograph(content)
