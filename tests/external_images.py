"""Images with the metadata that each tool writes, for the tests of external arms."""

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

WEB_UI = (
    "a cat, (best:1.2)\nin a hat\nNegative prompt: blurry,\nlowres\n"
    'Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7.5, Seed: 123, Size: 512x768, Model: "a, b", '
    'Lora hashes: "x: 1, y: 2", Version: v1.10.1'
)


def picture(k: int = 0, size: tuple[int, int] = (40, 30), mode: str = "RGB") -> Image.Image:
    """An image of noise, the same for the same number."""
    noise = np.random.default_rng(k).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(noise).convert(mode)


def texts(**content: str) -> PngInfo:
    """PNG texts, in Latin-1 where that holds them, as tools write them."""
    info = PngInfo()
    for key, value in content.items():
        info.add_text(key, value) if value.isascii() else info.add_itxt(key, value)
    return info


def user_comment(text: str, order: str = "utf-16-be") -> Image.Exif:
    """EXIF with a UserComment, as the web UI writes it into JPEG and WebP."""
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + text.encode(order)
    return exif


def comfy_graph(prompt: str = "a cat", negative: str = "blurry", seed: Any = 123, scale: float = 5.5) -> dict[str, Any]:
    """The graph of ComfyUI's own example, as its images hold it."""
    return {
        "3": {
            "class_type": "KSampler",
            "inputs": {
                "seed": seed,
                "steps": 28,
                "cfg": scale,
                "sampler_name": "dpmpp_2m",
                "scheduler": "karras",
                "denoise": 1,
                "model": ["4", 0],
                "positive": ["6", 0],
                "negative": ["7", 0],
                "latent_image": ["5", 0],
            },
        },
        "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "dream.safetensors"}},
        "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 512, "height": 512, "batch_size": 1}},
        "6": {"class_type": "CLIPTextEncode", "inputs": {"text": prompt, "clip": ["4", 1]}},
        "7": {"class_type": "CLIPTextEncode", "inputs": {"text": negative, "clip": ["4", 1]}},
        "8": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["4", 2]}},
        "9": {"class_type": "SaveImage", "inputs": {"filename_prefix": "ComfyUI", "images": ["8", 0]}},
    }


def novelai_comment(**more: Any) -> str:
    """NovelAI's Comment."""
    known = {"prompt": "a cat", "uc": "blurry", "seed": 123, "steps": 28, "scale": 6.0, "sampler": "k_euler"}
    return json.dumps({**known, **more})


def hidden(content: str, signature: bytes = b"stealth_pngcomp", size: tuple[int, int] = (64, 64)) -> Image.Image:
    """An image with texts in the lowest bit of its alpha channel, column by column, as NovelAI writes them."""
    packed = gzip.compress(content.encode()) if signature == b"stealth_pngcomp" else content.encode()
    message = signature + (8 * len(packed)).to_bytes(4, "big") + packed
    bits = np.unpackbits(np.frombuffer(message, np.uint8))
    width, height = size
    alpha = np.full(width * height, 254, np.uint8)
    alpha[: len(bits)] |= bits
    image = picture(1, size).convert("RGBA")
    image.putalpha(Image.fromarray(alpha.reshape(width, height).T))
    return image


def save_folder(folder: Path, count: int, first: int = 0, **info: Any) -> Path:
    """A folder of images 000.png, 001.png, ... of the web UI, whose seeds begin with `first`."""
    folder.mkdir(parents=True)
    for k in range(count):
        said = texts(parameters=f"image {k}\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: {first + k}", **info)
        picture(first + k).save(folder / f"{k:03d}.png", pnginfo=said)
    return folder
