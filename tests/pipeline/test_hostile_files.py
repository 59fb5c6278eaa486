"""LoRA files, headers of checkpoints, images and Label Studio's answers, damaged or made to harm (see fuzz.py)."""

import io
import json
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from accelerate import init_empty_weights
from diffusers import UNet2DConditionModel
from hypothesis import given, settings
from hypothesis import strategies as st
from mutations import mutated
from PIL import Image as PillowImage
from repository_copy import ROOT
from safetensors.torch import save
from test_hostile_inputs import refused_or_not

from labeling.label_studio.answers import annotations_of, read_export
from pipeline.compatibility.declarations import declared, read_header
from pipeline.networks.weights.lora import fuse, read_lora
from pipeline.storage.images import decode_image, decode_photograph

LAYER = "lora_unet_mid_block_attentions_0_proj_in"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place for one input after the other."""
    return tmp_path_factory.mktemp("hostile_files")


def small_unet(stored: bool) -> UNet2DConditionModel:
    sizes = {"sample_size": 8, "in_channels": 4, "out_channels": 4, "layers_per_block": 1, "cross_attention_dim": 8}
    blocks = {"down_block_types": ("CrossAttnDownBlock2D",), "up_block_types": ("CrossAttnUpBlock2D",)}
    more = {"block_out_channels": (8,), "attention_head_dim": 4, "norm_num_groups": 4}
    if stored:
        return UNet2DConditionModel(**sizes, **blocks, **more)
    with init_empty_weights():
        return UNet2DConditionModel(**sizes, **blocks, **more)


UNET = small_unet(stored=False)


def split(content: bytes) -> tuple[bytes, bytes]:
    """The header of a safetensors file, and its data."""
    length = int.from_bytes(content[:8], "little")
    return content[8 : 8 + length], content[8 + length :]


def whole(header: bytes, data: bytes) -> bytes:
    """A safetensors file whose length says how long its header is: else no change of a header gets past it."""
    return len(header).to_bytes(8, "little") + header + data


_FILES = (
    save({f"{LAYER}.lora_down.weight": torch.ones(2, 8), f"{LAYER}.lora_up.weight": torch.ones(8, 2),
          f"{LAYER}.alpha": torch.tensor(1.0)}, {"ss_network_dim": "2", "ss_v_parameterization": "True"}),
    save({"unet.mid_block.attentions.0.proj_in.lora_A.weight": torch.ones(3, 8),
          "unet.mid_block.attentions.0.proj_in.lora_B.weight": torch.ones(8, 3)},
         {"lora_adapter_metadata": json.dumps({"unet.r": 3, "unet.lora_alpha": 6, "unet.alpha_pattern": {"mid": 2}})}),
    save({"v_pred": torch.zeros(1), "ztsnr": torch.zeros(1),
          "model.diffusion_model.input_blocks.0.0.weight": torch.zeros(8, 4, 3, 3)},
         {"modelspec.prediction_type": "v", "modelspec.architecture": "stable-diffusion-xl-v1-base"}),
)  # fmt: skip
HEADERS = tuple(split(file)[0] for file in _FILES)
DATA = max((split(file)[1] for file in _FILES), key=len)
HEADER_TOKENS = tuple(
    token.encode()
    for token in (
        *('"', "{", "}", "[", "]", ",", ":", "null", "-1", "0", "1e9", "true", '"F32"', '"BF16"', '"I64"', '"F8_E4M3"'),
        *("lora_down", "lora_up", ".alpha", "hada_w1_a", "lokr_w1", "dora_scale", "lora_te_", "v_pred", "edm_mean"),
        *(
            '"__metadata__":{"modelspec.prediction_type":"epsilon"},',
            '"shape":[]',
            '"shape":[99999999999,9]',
            "\\u0000",
        ),
        *("\\ud800", "\n", "é", "../x", "9" * 300, "[" * 60),
    )
)


@given(header=mutated(HEADERS, HEADER_TOKENS))
def test_a_lora_of_any_header_is_read_or_an_input_error(folder: Path, header: bytes) -> None:
    path = folder / "x.safetensors"
    path.write_bytes(whole(header, DATA))
    with refused_or_not():
        read_lora(path, UNET)


@settings(max_examples=20)
@given(header=mutated(HEADERS[:2], HEADER_TOKENS))
def test_a_lora_that_is_read_is_fused(folder: Path, header: bytes) -> None:
    path = folder / "x.safetensors"
    path.write_bytes(whole(header, DATA))
    with refused_or_not():
        fuse(small_unet(stored=True), path, 0.5)


@given(header=mutated(HEADERS, HEADER_TOKENS))
def test_a_checkpoint_of_any_header_declares_something_or_is_an_input_error(folder: Path, header: bytes) -> None:
    path = folder / "x.safetensors"
    path.write_bytes(whole(header, b""))
    with refused_or_not():
        for said in declared(read_header(path)):
            assert said.key
            assert said.where


def _encoded(mode: str, suffix: str) -> bytes:
    buffer = io.BytesIO()
    PillowImage.linear_gradient("L").resize((24, 16)).convert(mode if mode != "I;16" else "L").save(buffer, suffix)
    return buffer.getvalue()


IMAGES = (
    *(_encoded(mode, "png") for mode in ("1", "L", "LA", "P", "RGB", "RGBA")),
    *(_encoded(mode, "jpeg") for mode in ("L", "RGB", "CMYK")),
    *(_encoded(mode, "webp") for mode in ("RGB", "RGBA")),
)
IMAGE_TOKENS = (
    *(b"IHDR", b"PLTE", b"tRNS\0\0", b"IDAT", b"IEND", b"iCCP", b"zTXt", b"tEXt", b"eXIf", b"acTL", b"gAMA"),
    *(b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x00\x01\x00\x00", b"\xff\xd8", b"\xff\xda", b"\xff\xe1", b"VP8X", b"ANIM"),
)


@given(content=mutated(IMAGES, IMAGE_TOKENS), photograph=st.booleans())
def test_an_image_of_any_bytes_is_rgb_or_an_os_error(content: bytes, photograph: bool) -> None:
    with suppress(OSError):
        image = (decode_photograph if photograph else decode_image)(content)
        assert image.mode == "RGB"
        assert min(image.size) > 0


ANSWERS = tuple(
    json.dumps(answer).encode()
    for answer in (
        [{"id": 7, "data": {"task_id": "t"}, "total_annotations": 1, "annotations": [
            {"id": 5, "completed_by": {"id": 3, "email": "a@b.c"}, "was_cancelled": None, "ground_truth": False,
             "created_at": "2026-01-02T03:04:05Z", "updated_at": "2026-01-02T03:04:05Z", "lead_time": 1.5,
             "result": [{"from_name": "verdict", "type": "choices", "value": {"choices": ["legit_human"]}}]}]}],
        [{"id": 8, "data": {"task_id": "u"}, "annotations": []},
         {"id": "9", "data": {"task_id": "t"}, "predictions": [],
          "annotations": [{"id": "6", "completed_by": 2, "result": None}]}],
    )
)  # fmt: skip
ANSWER_TOKENS = tuple(
    token.encode()
    for token in (
        *(
            "null",
            "true",
            "-1",
            "1e999",
            '"x"',
            "[]",
            "{}",
            "[[",
            "{" * 40,
            '"choices"',
            '"result":',
            '"completed_by":',
        ),
        *("\\u0000", "\\ud800", "2026-99-99", "9" * 400, "NaN", '"annotations":null', '"value":{"text":["a"]}', "\n"),
    )
)


@given(content=mutated(ANSWERS, ANSWER_TOKENS))
def test_answers_of_any_bytes_are_annotations_or_an_input_error(content: bytes) -> None:
    with refused_or_not():
        assert set(annotations_of(["t", "u"], read_export(content, "http://127.0.0.1/export"))) == {"t", "u"}


def test_make_fuzz_runs_every_property() -> None:
    done = subprocess.run(["make", "fuzz", "FUZZ=2"], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(": 2 inputs, 0 of them broke the property") == 9
