"""The files that a study is measured with, and how to get those that are missing.

They are listed here and not by the loaders, whose libraries take seconds to import: what is missing is better known
before the first picture is drawn than after the last.
"""

from collections.abc import Mapping
from pathlib import Path

from pipeline.study.study import Extractor, Study

_VIT_H_14 = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"

MALFORMED_CLASSIFIER = "malformed-picture classifier"

Files = tuple[Path, ...]


def extractor_files(settings: Extractor) -> tuple[Files, str]:
    """The files of a feature extractor, and the command that gets them."""
    place = Path(settings.weights)
    fetch = f"hf download {settings.hub} --local-dir {place}" if settings.hub else "make train"
    if settings.model == "open_clip":
        return clip_files(place), fetch
    if settings.model == "dinov2":
        return dinov2_files(place), fetch
    if settings.model == "inception":
        return (place,), f"python -m eval.features.inception {place}"
    return (), ""


def clip_files(folder: Path) -> Files:
    """The files of an open_clip folder."""
    return _in(folder, "open_clip_config.json", "open_clip_model.safetensors", "tokenizer.json")


def dinov2_files(folder: Path) -> Files:
    """The files of a timm folder."""
    return _in(folder, "config.json", "model.safetensors")


def preference_files(name: str, folder: Path) -> tuple[Files, str]:
    """The files of a learned preference score, and the command that gets them. Raises KeyError for an unknown name."""
    names, fetch = {
        "hpsv2_1": (
            ("open_clip_config.json", "open_clip_model.safetensors"),
            f"hf download xswu/HPSv2 HPS_v2.1_compressed.pt --local-dir {folder} && "
            f"python -m eval.scorers.preference hpsv2_1 {folder}/HPS_v2.1_compressed.pt {folder}",
        ),
        "imagereward": (
            ("model.safetensors", "tokenizer.json"),
            f"hf download THUDM/ImageReward ImageReward.pt --local-dir {folder} && "
            f"hf download google-bert/bert-base-uncased tokenizer.json tokenizer_config.json --local-dir {folder} && "
            f"python -m eval.scorers.preference imagereward {folder}/ImageReward.pt {folder}",
        ),
        "pickscore": (
            ("config.json", "model.safetensors", "preprocessor_config.json", "tokenizer.json"),
            f"hf download yuvalkirstain/PickScore_v1 config.json model.safetensors --local-dir {folder} && "
            f"hf download {_VIT_H_14} preprocessor_config.json tokenizer.json tokenizer_config.json "
            f"--local-dir {folder}",
        ),
    }[name]
    return _in(folder, *names), fetch


def lpips_fetch(path: Path) -> str:
    """The command that gets the VGG16 of LPIPS."""
    return f"hf download timm/vgg16.tv_in1k model.safetensors --local-dir {path.parent}"


def missing(path: Path, fetch: str) -> str:
    """What is said of a file that a command gets."""
    return f"{path} is missing; get it with `{fetch}`"


def missing_aesthetic_head(path: Path) -> str:
    """What is said where there is no aesthetic head."""
    return (
        f"aesthetic head {path} is missing; `make train` makes the embedded one, "
        f"`python -m eval.scorers.aesthetic {path}` fetches LAION's for CLIP ViT-L/14"
    )


def missing_classifier(name: str, path: Path) -> str:
    """What is said where there are no weights of the small classifier `name`."""
    return f"{name} {path} is missing; `make train` makes the embedded one"


def missing_kind_prompts(path: Path) -> str:
    """What is said where there are no prompts of the kinds."""
    return f"kind prompts {path} are missing; metrics.kind_prompts names the file"


def needed_files(study: Study) -> Mapping[Path, str]:
    """The files that a study's pictures are measured with, each with what is said where it is missing."""
    metrics = study.metrics
    fetched = [extractor_files(settings) for settings in study.features.extractors.values()]
    fetched += [preference_files(name, Path(folder)) for name, folder in metrics.scorers.items()]
    if metrics.lpips:
        fetched.append(((Path(metrics.lpips),), lpips_fetch(Path(metrics.lpips))))
    head, classifier, kinds = map(Path, (metrics.aesthetic_head, metrics.malformed_classifier, metrics.kind_prompts))
    return {
        **{path: missing(path, fetch) for paths, fetch in fetched for path in paths},
        head: missing_aesthetic_head(head),
        classifier: missing_classifier(MALFORMED_CLASSIFIER, classifier),
        kinds: missing_kind_prompts(kinds),
    }


def _in(folder: Path, *names: str) -> Files:
    return tuple(folder / name for name in names)
