"""Texts that people add to every prompt, by name: unwanted content, quality tags, ladders of quality.

They are written in the syntax of the tool they come from; arm_texts.py translates them into the study's.
"""

from typing import Literal, NamedTuple

from pipeline.prompting.emphasis import Syntax


class NegativePreset(NamedTuple):
    """A list of unwanted content in the syntax of its tool."""

    text: str
    syntax: Syntax


class QualityTags(NamedTuple):
    """Tags that ask for quality, where their tool puts them, and the syntax they are written in."""

    text: str
    place: Literal["prefix", "suffix"]
    syntax: Syntax = "plain"


_HEAVY = (
    "lowres, {bad}, error, fewer, extra, missing, worst quality, jpeg artifacts, bad quality, watermark, unfinished, "
    "displeasing, chromatic aberration, signature, extra digits, artistic error, username, scan, [abstract]"
)
_LIGHT = "nsfw, lowres, jpeg artifacts, worst quality, watermark, blurry, very displeasing"
_TINYBOORU_HEAVY = (
    "worst quality, low quality, normal quality, lowres, blurry, jpeg artifacts, cropped, watermark, text"
)

# tinybooru: every flaw and the two lowest qualities of the embedded world. Its light, heavy and human-focus presets
# differ as NovelAI's do: few flaws; all but the malformed people; those as well.
# novelai-v1-*: "Low Quality" and "Low Quality + Bad Anatomy" of the first model. novelai-v2-*: Light and Heavy of V2;
# -as-generated has the words that NovelAI inserts before its lists by itself, as a user's guide says (V2's heavy list
# has them already). novelai-*, novelai-furry-*: the "undesired content" of V3 and of Furry V3.
# animagine, animagine-4, illustrious, noobai: the cards of Animagine XL 3.1 and 4.0, Illustrious XL 0.1 and NoobAI XL.
# field-note-*: the pure negative prompts of two field notes, on a NovelAI-type model and on anything-v3, where a weight
# may be tiny but not zero.
NEGATIVE_PRESETS = {
    "tinybooru": NegativePreset(
        "worst quality, low quality, bad anatomy, lowres, blurry, jpeg artifacts, cropped, watermark, text", "plain"
    ),
    "tinybooru-light": NegativePreset("lowres, jpeg artifacts, worst quality, watermark, blurry", "plain"),
    "tinybooru-heavy": NegativePreset(_TINYBOORU_HEAVY, "plain"),
    "tinybooru-human-focus": NegativePreset(f"{_TINYBOORU_HEAVY}, bad anatomy", "plain"),
    "novelai-v1-low-quality": NegativePreset(
        "lowres, text, cropped, worst quality, low quality, normal quality, jpeg artifacts, signature, watermark, "
        "username, blurry",
        "novelai",
    ),
    "novelai-v1-bad-anatomy": NegativePreset(
        "lowres, bad anatomy, bad hands, text, error, missing fingers, extra digit, fewer digits, cropped, "
        "worst quality, low quality, normal quality, jpeg artifacts, signature, watermark, username, blurry",
        "novelai",
    ),
    "novelai-v2-light": NegativePreset(_LIGHT, "novelai"),
    "novelai-v2-heavy": NegativePreset(
        "nsfw, lowres, bad, text, error, missing, extra, fewer, cropped, jpeg artifacts, worst quality, bad quality, "
        "watermark, displeasing, unfinished, chromatic aberration, scan, scan artifacts",
        "novelai",
    ),
    "novelai-v2-light-as-generated": NegativePreset(f"worst quality, bad quality, {_LIGHT}", "novelai"),
    "novelai-light": NegativePreset(_LIGHT, "novelai"),
    "novelai-heavy": NegativePreset(f"nsfw, {_HEAVY}", "novelai"),
    "novelai-human-focus": NegativePreset(
        f"{_HEAVY}, bad anatomy, bad hands, @_@, mismatched pupils, heart-shaped pupils, glowing eyes", "novelai"
    ),
    "novelai-furry-light": NegativePreset(
        "nsfw, {worst quality}, guide lines, unfinished, bad, url, tall image, widescreen, compression artifacts, "
        "unknown text",
        "novelai",
    ),
    "novelai-furry-heavy": NegativePreset(
        "nsfw, {{worst quality}}, [displeasing], {unusual pupils}, guide lines, {{unfinished}}, {bad}, url, "
        "artist name, {{tall image}}, mosaic, {sketch page}, comic panel, impact (font), [dated], {logo}, ych, {what}, "
        "{where is your god now}, {distorted text}, repeated text, {floating head}, {1994}, {widescreen}, "
        "absolutely everyone, sequence, {compression artifacts}, hard translated, {cropped}, {commissioner name}, "
        "unknown text, high contrast",
        "novelai",
    ),
    "animagine": NegativePreset(
        "nsfw, lowres, (bad), text, error, fewer, extra, missing, worst quality, jpeg artifacts, low quality, "
        "watermark, unfinished, displeasing, oldest, early, chromatic aberration, signature, extra digits, "
        "artistic error, username, scan",
        "a1111",
    ),
    "animagine-4": NegativePreset(
        "lowres, bad anatomy, bad hands, text, error, missing finger, extra digits, fewer digits, cropped, "
        "worst quality, low quality, low score, bad score, average score, signature, watermark, username, blurry",
        "plain",
    ),
    "illustrious": NegativePreset(
        "worst quality, comic, multiple views, bad quality, low quality, lowres, displeasing, very displeasing, "
        "bad anatomy, bad hands, scan artifacts, monochrome, greyscale, twitter username, jpeg artifacts, 2koma, "
        "4koma, guro, extra digits, fewer digits, jaggy lines, unclear",
        "plain",
    ),
    "noobai": NegativePreset(
        "nsfw, worst quality, old, early, low quality, lowres, signature, username, logo, bad hands, mutated hands, "
        "mammal, anthro, furry, ambiguous form, feral, semi-anthro",
        "plain",
    ),
    "field-note-novelai": NegativePreset(
        "lowres, bad anatomy, bad hands, text, error, missing fingers, extra digit, fewer digits, cropped, "
        "worst quality, low quality, normal quality, jpeg artifacts, signature, watermark, username, blurry, "
        "artist name",
        "novelai",
    ),
    "field-note-anything": NegativePreset(
        "(bad:0.0001), (comic:0.0001), (cropped:0.0001), (error:0.0001), (extra:0.0001), (low:0.0001), "
        "(lowres:0.0001), (speech:0.0001), (worst:0.0001)",
        "a1111",
    ),
}

# What "add quality tags" adds in NovelAI, and what the cards of the models recommend: Animagine XL 3.1 and 4.0, NoobAI
# XL, Pony Diffusion V6 XL. Illustrious XL's names its best two qualities and puts them last in its example.
QUALITY_TAGS = {
    "tinybooru": QualityTags("masterpiece", "suffix"),
    "novelai-v1": QualityTags("masterpiece, best quality", "prefix"),
    "novelai-v2": QualityTags("very aesthetic, best quality, absurdres", "prefix"),
    "novelai-v3": QualityTags("best quality, amazing quality, very aesthetic, absurdres", "suffix"),
    "novelai-furry": QualityTags("{best quality, amazing quality}", "suffix", "novelai"),
    "animagine": QualityTags("masterpiece, best quality, very aesthetic, absurdres", "suffix"),
    "animagine-4": QualityTags("masterpiece, high score, great score, absurdres", "suffix"),
    "illustrious": QualityTags("masterpiece, best quality", "suffix"),
    "noobai": QualityTags("masterpiece, best quality, newest, absurdres, highres, safe", "prefix"),
    # The names have underscores: text.underscores must keep them.
    "pony-6": QualityTags("score_9, score_8_up, score_7_up, score_6_up, score_5_up, score_4_up", "prefix"),
}

# Quality in words, best to worst, as the models were trained with them: axes of tag grids.
LADDERS = {
    "tinybooru": (
        *("masterpiece", "best quality", "high quality"),
        *("normal quality", "low quality", "worst quality"),
    ),
    "novelai-v1": (
        *("masterpiece", "best quality", "high quality"),
        *("normal quality", "low quality", "worst quality"),
    ),
    "novelai-v2": (
        *("best quality", "amazing quality", "great quality"),
        *("normal quality", "bad quality", "worst quality"),
    ),
    "aesthetic": ("very aesthetic", "aesthetic", "displeasing", "very displeasing"),
}
