"""Metadata of other tools: read from samples in each tool's format, or named and left out."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from external_images import WEB_UI, comfy_graph, hidden, novelai_comment, picture, texts, user_comment
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from pipeline.external.metadata.comfyui import read_comfyui
from pipeline.external.metadata.reader import Found, read_metadata
from pipeline.external.metadata.record import MOST_TEXT, Metadata, Unreadable
from pipeline.storage.images import open_image


def found_in(image: Image.Image, kind: str = "PNG", **saved: Any) -> Found:
    buffer = io.BytesIO()
    image.save(buffer, kind, **saved)
    return read_metadata(open_image(buffer.getvalue(), ("PNG", "JPEG", "WEBP")))


def read(info: PngInfo) -> Metadata:
    found = found_in(picture(), pnginfo=info)
    assert found.metadata is not None, found.fault
    return found.metadata


def fault(info: PngInfo) -> str:
    found = found_in(picture(), pnginfo=info)
    assert found.metadata is None
    return found.fault


WEB_UI_READ = Metadata(
    tool="A1111",
    prompt="a cat, (best:1.2)\nin a hat",
    negative="blurry,\nlowres",
    seed=123,
    sampler="DPM++ 2M Karras",
    steps=20,
    scale=7.5,
    model="a, b",
)


def test_the_web_uis_text_is_read_with_quoted_values() -> None:
    assert read(texts(parameters=WEB_UI)) == WEB_UI_READ


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
@pytest.mark.parametrize("order", ["utf-16-be", "utf-16-le"])
def test_the_same_text_is_read_from_a_user_comment_in_either_order_of_bytes(kind: str, order: str) -> None:
    assert found_in(picture(), kind, exif=user_comment(WEB_UI, order)).metadata == WEB_UI_READ


def test_forge_is_told_by_its_version() -> None:
    forge = read(texts(parameters="a cat\nSteps: 4, Sampler: Euler, CFG scale: 1, Seed: 7, Version: f2.0.1v1.10"))
    assert (forge.tool, forge.prompt, forge.negative, forge.scale) == ("Forge", "a cat", "", 1.0)


def test_fields_that_are_missing_stay_open() -> None:
    assert read(texts(parameters="\nSteps: 20, Sampler: Euler, Size: 8x8")) == Metadata(
        "A1111", sampler="Euler", steps=20
    )


def test_a_text_without_a_line_of_settings_is_named() -> None:
    assert fault(texts(parameters="a cat")) == (
        "its parameters text has no line of settings (Steps: ..., Sampler: ...)"
    )


def test_a_remark_of_a_camera_is_no_metadata() -> None:
    assert found_in(picture(), "JPEG", exif=user_comment("on the beach")) == Found(None)


@pytest.mark.parametrize("prompt", ["猫が帽子をかぶる", "кошка в шляпе", "قطة", "a\u0000b<script>alert(1)</script>"])
def test_prompts_in_other_scripts_come_through_and_control_characters_do_not(prompt: str) -> None:
    assert read(texts(prompt=json.dumps(comfy_graph(prompt)))).prompt == prompt.replace("\0", "")


def test_half_of_a_surrogate_pair_becomes_text_that_a_file_can_hold() -> None:
    assert read(texts(prompt=json.dumps(comfy_graph("a \ud800 cat")))).prompt == "a ? cat"


def test_comfyuis_graph_is_followed_from_the_sampler() -> None:
    assert read(texts(prompt=json.dumps(comfy_graph()), workflow="{}")) == Metadata(
        tool="ComfyUI",
        prompt="a cat",
        negative="blurry",
        seed=123,
        sampler="dpmpp_2m karras",
        steps=28,
        scale=5.5,
        model="dream.safetensors",
    )


def test_comfyuis_webp_holds_its_graph_in_exif() -> None:
    exif = Image.Exif()
    exif[0x0110] = f"prompt:{json.dumps(comfy_graph())}"
    found = found_in(picture(), "WEBP", exif=exif).metadata
    assert found is not None
    assert (found.prompt, found.seed) == ("a cat", 123)


def test_texts_and_seeds_are_followed_through_other_nodes() -> None:
    graph = comfy_graph()
    graph["3"]["inputs"] |= {"seed": ["20", 0], "positive": ["10", 0], "negative": ["10", 1], "model": ["30", 0]}
    graph["6"]["inputs"]["text"] = ["21", 0]
    graph |= {
        "10": {"class_type": "ControlNetApplyAdvanced", "inputs": {"positive": ["11", 0], "negative": ["7", 0]}},
        "11": {
            "class_type": "ConditioningCombine",
            "inputs": {"conditioning_1": ["6", 0], "conditioning_2": ["12", 0]},
        },
        "12": {"class_type": "CLIPTextEncodeSDXL", "inputs": {"text_g": "in a hat", "text_l": "in a hat"}},
        "20": {"class_type": "PrimitiveInt", "inputs": {"value": 2**64 - 1}},
        "21": {"class_type": "StringConcatenate", "inputs": {"string_a": "a cat", "string_b": "red", "delimiter": ";"}},
        "30": {"class_type": "LoraLoader", "inputs": {"lora_name": "x.safetensors", "model": ["4", 0]}},
    }
    found = read_comfyui(graph)
    assert found.prompt == "a cat, red, in a hat"
    assert (found.negative, found.seed, found.model) == ("blurry", 2**64 - 1, "dream.safetensors")


def test_a_sampler_of_parts_is_read_with_its_guider() -> None:
    graph = {
        "1": {"class_type": "UNETLoader", "inputs": {"unet_name": "flux1-dev.safetensors"}},
        "2": {"class_type": "CLIPTextEncodeFlux", "inputs": {"clip_l": "a cat", "t5xxl": "a cat in a hat"}},
        "3": {
            "class_type": "CFGGuider",
            "inputs": {"positive": ["2", 0], "negative": ["9", 0], "cfg": 3, "model": ["1", 0]},
        },
        "4": {"class_type": "RandomNoise", "inputs": {"noise_seed": 5}},
        "5": {"class_type": "KSamplerSelect", "inputs": {"sampler_name": "euler"}},
        "6": {"class_type": "BasicScheduler", "inputs": {"scheduler": "simple", "steps": 20, "model": ["1", 0]}},
        "7": {
            "class_type": "SamplerCustomAdvanced",
            "inputs": {"noise": ["4", 0], "guider": ["3", 0], "sampler": ["5", 0], "sigmas": ["6", 0]},
        },
        "9": {"class_type": "ConditioningZeroOut", "inputs": {"conditioning": ["2", 0]}},
    }
    assert read_comfyui(graph) == Metadata(
        "ComfyUI", "a cat, a cat in a hat", "", 5, "euler simple", 20, 3.0, "flux1-dev.safetensors"
    )


def test_of_two_samplers_in_a_row_the_first_made_the_image() -> None:
    graph = comfy_graph()
    second = {**graph["3"]["inputs"], "seed": 999, "latent_image": ["3", 0], "denoise": 0.4}
    graph |= {"13": {"class_type": "KSampler", "inputs": second}}
    graph["8"]["inputs"]["samples"] = ["13", 0]
    assert read_comfyui(dict(reversed(graph.items()))).seed == 123


@pytest.mark.parametrize("link", [["6", 0], ["3", 0], ["7", 0]])
def test_a_graph_that_runs_in_circles_ends(link: list[Any]) -> None:
    graph = comfy_graph()
    graph["6"]["inputs"]["text"] = link
    graph["4"] = {"class_type": "ModelPatch", "inputs": {"model": ["4", 0]}}
    graph["5"] = {"class_type": "LatentUpscale", "inputs": {"samples": ["3", 0]}}
    assert read_comfyui(graph).model == ""


def test_two_megabytes_of_workflow_are_no_obstacle() -> None:
    graph = comfy_graph() | {str(k): {"class_type": "Note", "inputs": {"text": "n" * 300}} for k in range(100, 7000)}
    found = found_in(picture(), pnginfo=_compressed(prompt=json.dumps(graph), workflow=json.dumps(graph)))
    assert found.metadata is not None
    assert found.metadata.prompt == "a cat"


def _compressed(**content: str) -> PngInfo:
    info = PngInfo()
    for key, value in content.items():
        info.add_text(key, value, zip=True)
    return info


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (json.dumps(comfy_graph())[:200], "its ComfyUI graph is not whole JSON"),
        ("{" + '"a":{' * 100_000, "its ComfyUI graph is nested too deeply"),
        (json.dumps({"1": {"class_type": "SaveImage", "inputs": {}}}), "has no sampler with a positive text"),
        (json.dumps({str(k): {} for k in range(20_000)}), "has 20000 nodes; at most 10000 are read"),
    ],
)
def test_a_graph_that_cannot_be_read_is_named_and_left_out(content: str, said: str) -> None:
    assert said in fault(texts(prompt=content))


def test_a_workflow_without_the_graph_that_was_run_is_named() -> None:
    assert fault(texts(workflow="{}")) == "it has a ComfyUI workflow without the graph that was run (prompt)"


def test_novelais_comment_is_read() -> None:
    info = texts(Software="NovelAI", Source="NovelAI Diffusion V3", Description="other", Comment=novelai_comment())
    assert read(info) == Metadata("NovelAI", "a cat", "blurry", 123, "k_euler", 28, 6.0, "NovelAI Diffusion V3")


def test_novelais_characters_follow_the_prompt() -> None:
    caption = {"caption": {"base_caption": "two cats", "char_captions": [{"char_caption": "black"}, {}, "x"]}}
    found = read(
        texts(Software="NovelAI", Comment=novelai_comment(v4_prompt=caption, v4_negative_prompt={"caption": 1}))
    )
    assert (found.prompt, found.negative) == ("two cats, black", "blurry")


@pytest.mark.parametrize("signature", [b"stealth_pngcomp", b"stealth_pnginfo"])
def test_novelais_hidden_texts_are_read_from_the_alpha_channel(signature: bytes) -> None:
    said = json.dumps({"Software": "NovelAI", "Source": "V4", "Comment": novelai_comment()})
    found = found_in(hidden(said, signature)).metadata
    assert found == Metadata("NovelAI", "a cat", "blurry", 123, "k_euler", 28, 6.0, "V4")


def test_hidden_texts_of_an_image_that_was_cropped_are_named() -> None:
    image = hidden(json.dumps({"Comment": novelai_comment()})).crop((0, 0, 6, 64))
    assert found_in(image).fault == "the texts in its alpha channel are cut off; the image was cropped or resized"


def test_hidden_texts_that_unpack_to_a_flood_are_named() -> None:
    assert "unpack to more than 16 MiB" in found_in(hidden("0" * 17 * 2**20, size=(400, 400))).fault


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_swarmuis_object_is_read(kind: str) -> None:
    settings = {"prompt": "a cat", "negativeprompt": "blurry", "seed": 123, "steps": 20, "cfgscale": 7.0}
    content = json.dumps({"sui_image_params": settings | {"sampler": "euler", "scheduler": "karras", "model": "dream"}})
    saved = {"pnginfo": texts(parameters=content)} if kind == "PNG" else {"exif": user_comment(content)}
    assert found_in(picture(), kind, **saved).metadata == Metadata(
        "SwarmUI", "a cat", "blurry", 123, "euler karras", 20, 7.0, "dream"
    )


def test_an_image_of_no_tool_says_nothing() -> None:
    assert found_in(picture()) == Found(None)
    assert found_in(picture(mode="L"), pnginfo=texts(Comment="scanned", Software="GIMP")) == Found(None)


def test_numbers_that_are_none_stay_open_and_long_texts_are_cut() -> None:
    graph = comfy_graph("x" * 30_000, seed="many", scale=float("nan"))
    graph["3"]["inputs"]["steps"] = 10**400
    found = read(texts(prompt=json.dumps(graph).replace(str(10**400), "1e999")))
    assert (found.seed, found.scale, found.steps, len(found.prompt)) == (None, None, None, MOST_TEXT)


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
_INPUTS = st.dictionaries(
    st.sampled_from(["positive", "negative", "seed", "model", "text", "guider", "samples", "latent_image", "cfg"]),
    st.tuples(st.sampled_from("123"), st.integers(0, 2)).map(list) | _VALUES,
)


@given(
    st.dictionaries(st.sampled_from("123"), st.fixed_dictionaries({"class_type": _VALUES, "inputs": _INPUTS | _VALUES}))
)
def test_any_graph_is_read_or_refused(graph: dict[str, Any]) -> None:
    try:
        found = read_comfyui(graph)
    except Unreadable:
        return
    assert isinstance(found.prompt, str)


@given(st.binary(max_size=60))
def test_any_user_comment_is_read_or_refused(tail: bytes) -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + "Steps: 1, Seed: 2, Size: 3x3".encode("utf-16-be") + tail
    found = found_in(picture(size=(8, 8)), "JPEG", exif=exif)
    assert found.metadata is None or found.metadata.tool == "A1111"


def test_a_metadata_record_comes_back_as_it_was(tmp_path: Path) -> None:
    assert Metadata.of(json.loads(json.dumps(WEB_UI_READ.as_dict()))) == WEB_UI_READ
