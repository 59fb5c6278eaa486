"""Images as prompts: the IP-Adapter of a model, and the reference images of an arm that it reads (arXiv 2308.06721)."""

from typing import Annotated

from pydantic import AfterValidator, Field

from pipeline.settings import Settings, inside_project
from pipeline.study.main_lora import SafeFile

InsideProject = Annotated[str, AfterValidator(inside_project)]
Strength = Annotated[float, Field(ge=0, le=2)]


class IPAdapter(Settings):
    """An IP-Adapter of the main network: its `file`, and the folder of the `image_encoder` that it was trained with.

    `file` has the layout of the published ones (h94/IP-Adapter); the folder is transformers'
    CLIPVisionModelWithProjection. A guide reads the images as well only with `in_guide`: without, it is the guide's own
    condition, and autoguidance then moves towards the images too.
    """

    file: SafeFile
    image_encoder: InsideProject
    in_guide: bool = False


class ReferenceImages(Settings):
    """The images that an arm's main network reads beside the prompt, all of them for every image that it generates.

    `files` are images or folders of images, `strength` is the factor of their attention (diffusers' scale): 0 is as
    without them, 1 as in training. `layers` (beginnings of module names) bound what is taken from the images: the
    attention there alone reads them, and all of it unless given.
    """

    files: Annotated[tuple[InsideProject, ...], Field(min_length=1)]
    strength: Strength = 1.0
    layers: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
