"""The scorers that read files, each a record that is known without torch.

A further preference score is a module in eval/scorers/, whose loader takes a place, a device and the command that gets
the files, and a record in PREFERENCES.
"""

from pipeline.study.loadable import THE_FILE_ITSELF, Loadable

_VIT_H_14 = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"

# Learned preference scores: the keys of `metrics.scorers`, whose values are their folders.
PREFERENCES: dict[str, Loadable] = {
    "hpsv2_1": Loadable(
        "eval.scorers.preference:load_hps",
        "Human Preference Score v2.1: an OpenCLIP ViT-H/14 tuned on rankings",
        ("open_clip_config.json", "open_clip_model.safetensors"),
        "hf download xswu/HPSv2 HPS_v2.1_compressed.pt --local-dir {place} && "
        "python -m eval.scorers.preference hpsv2_1 {place}/HPS_v2.1_compressed.pt {place}",
    ),
    "imagereward": Loadable(
        "eval.scorers.image_reward:load_image_reward",
        "ImageReward v1.0: BLIP that reads the prompt while it looks at the image",
        ("model.safetensors", "tokenizer.json"),
        "hf download THUDM/ImageReward ImageReward.pt --local-dir {place} && "
        "hf download google-bert/bert-base-uncased tokenizer.json tokenizer_config.json --local-dir {place} && "
        "python -m eval.scorers.preference imagereward {place}/ImageReward.pt {place}",
    ),
    "pickscore": Loadable(
        "eval.scorers.preference:load_pickscore",
        "PickScore v1: a CLIP ViT-H/14 tuned on choices between two images of a prompt",
        ("config.json", "model.safetensors", "preprocessor_config.json", "tokenizer.json"),
        "hf download yuvalkirstain/PickScore_v1 config.json model.safetensors --local-dir {place} && "
        f"hf download {_VIT_H_14} preprocessor_config.json tokenizer.json tokenizer_config.json --local-dir {{place}}",
    ),
}

# Scorers that are one file each: keys of `metrics`. An empty `lpips` asks for none.
SINGLE_FILES: dict[str, Loadable] = {
    "lpips": Loadable(
        "eval.scorers.lpips:load_lpips",
        "LPIPS between images of one prompt, over a VGG16: diversity within a prompt",
        THE_FILE_ITSELF,
        "hf download timm/vgg16.tv_in1k model.safetensors --local-dir {parent}",
    ),
    "aesthetic_head": Loadable(
        "eval.scorers.aesthetic:load_aesthetic_head",
        "a linear head on CLIP's image embeddings: taste",
        THE_FILE_ITSELF,
        missing="aesthetic head {path} is missing; `make train` makes the embedded one, "
        "`python -m eval.scorers.aesthetic {path}` fetches LAION's for CLIP ViT-L/14",
    ),
    "malformed_classifier": Loadable(
        "eval.scorers.malformed:load_classifier",
        "a small convolutional classifier: the chance that an image shows a malformed person",
        THE_FILE_ITSELF,
        missing="malformed-image classifier {path} is missing; `make train` makes the embedded one",
    ),
    "kind_prompts": Loadable(
        "eval.scorers.kinds:load_kind_prompts",
        "prompts of the four label kinds, for CLIP's zero-shot classification",
        THE_FILE_ITSELF,
        missing="kind prompts {path} are missing; metrics.kind_prompts names the file",
    ),
}

SCORERS = {**PREFERENCES, **SINGLE_FILES}
