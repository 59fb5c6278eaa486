"""Negative prompts that people use, by name."""

# tinybooru: every flaw and the two lowest qualities of the embedded world.
# novelai-*: the "undesired content" presets of the NovelAI image models (V3), animagine: Animagine XL 3.1's card.
NEGATIVE_PROMPTS = {
    "tinybooru": ("worst quality, low quality, bad anatomy, lowres, blurry, jpeg artifacts, cropped, watermark, text"),
    "novelai-light": "nsfw, lowres, jpeg artifacts, worst quality, watermark, blurry, very displeasing",
    "novelai-heavy": (
        "nsfw, lowres, {bad}, error, fewer, extra, missing, worst quality, jpeg artifacts, bad quality, watermark, "
        "unfinished, displeasing, chromatic aberration, signature, extra digits, artistic error, username, scan, "
        "[abstract]"
    ),
    "novelai-human-focus": (
        "lowres, {bad}, error, fewer, extra, missing, worst quality, jpeg artifacts, bad quality, watermark, "
        "unfinished, displeasing, chromatic aberration, signature, extra digits, artistic error, username, scan, "
        "[abstract], bad anatomy, bad hands, @_@, mismatched pupils, heart-shaped pupils, glowing eyes"
    ),
    "animagine": (
        "nsfw, lowres, (bad), text, error, fewer, extra, missing, worst quality, jpeg artifacts, low quality, "
        "watermark, unfinished, displeasing, oldest, early, chromatic aberration, signature, extra digits, "
        "artistic error, username, scan"
    ),
}
