"""The reference images of an arm: found, decoded, and the digests of all that they change in it."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image as PillowImage

from pipeline.errors import InputError
from pipeline.networks.weights.adapter_file import KEY
from pipeline.reference.source_folder import SUFFIXES, decoded, image_files, read_files
from pipeline.storage.file_names import printable_name, said_missing
from pipeline.storage.files import file_digest, fingerprint
from pipeline.study.arm import Arm
from pipeline.study.reference_images import IPAdapter
from pipeline.study.study import Study

# Attention reads the tokens of all of them for every image that is generated.
MOST_IMAGES = 32
ENCODER_FILES = ("config.json", "model.safetensors")


def reference_files(arm_name: str, arm: Arm) -> list[Path]:
    """The files of an arm's reference images, those of a folder in the order of their names.

    Raises InputError for a file or folder that is missing or in a format that is not read, an empty folder, and too
    many images.
    """
    assert arm.reference_images is not None
    key = _key(arm_name)
    found: list[Path] = []
    for name in arm.reference_images.files:
        path = Path(name)
        if path.is_dir():
            own = image_files(path, key)
            if not own:
                raise InputError(f"{key} {path} holds no images ({', '.join(SUFFIXES)}); put some there")
            found += own
        elif not path.is_file():
            raise InputError(f"{key} {path} does not exist{said_missing(path)}; put the image or the folder there")
        elif path.suffix.lower() not in SUFFIXES:
            raise InputError(f"{key} {path} is in a format that is not read; save it as one of {', '.join(SUFFIXES)}")
        else:
            found.append(path)
    if twice := next((path for path in found if found.count(path) > 1), None):
        raise InputError(f"{key} names {printable_name(twice)} twice; name it once")
    if len(found) > MOST_IMAGES:
        raise InputError(f"{key} names {len(found)} images; at most {MOST_IMAGES} are read")
    return found


def read_reference_images(arm_name: str, arm: Arm) -> list[PillowImage.Image]:
    """The upright RGB images, in the order of `reference_files`. Raises InputError for one that cannot be read."""
    images = []
    for path in reference_files(arm_name, arm):
        (source,) = read_files(path.parent, [path])
        images.append(decoded(source, path.parent, _key(arm_name)))
    return images


def encoder_digests(adapter: IPAdapter) -> dict[str, str]:
    """Digests of the adapter's file and of its image encoder's. Raises InputError where one is missing."""
    if not Path(adapter.file).is_file():
        raise InputError(f"{KEY} {adapter.file} is missing; put the adapter there (docs/reference-images.md)")
    folder = Path(adapter.image_encoder)
    for name in ENCODER_FILES:
        if not (folder / name).is_file():
            raise InputError(
                f"model.ip_adapter.image_encoder {folder} has no {name}; name the folder of a "
                "CLIPVisionModelWithProjection (docs/reference-images.md)"
            )
    return {"file": file_digest(Path(adapter.file))} | {name: file_digest(folder / name) for name in ENCODER_FILES}


def reference_inputs(study: Study, arm_name: str) -> Mapping[str, Any]:
    """What determines an arm's images besides its networks and texts, where it has reference images; else nothing.

    Digests of the adapter, the image encoder and the decoded images, whose files may be renamed and moved. Raises
    InputError.
    """
    arm, adapter = study.arm(arm_name), study.model.ip_adapter
    if arm.reference_images is None or adapter is None:
        return {}
    return {
        **arm.reference_images.model_dump(exclude={"files"}),
        "in_guide": adapter.in_guide,
        "adapter": encoder_digests(adapter),
        "images": [_digest(image) for image in read_reference_images(arm_name, arm)],
    }


def _digest(image: PillowImage.Image) -> str:
    return fingerprint([image.size, hashlib.sha256(image.tobytes()).hexdigest()])


def _key(arm_name: str) -> str:
    return f"arms.{arm_name}.reference_images.files"
