"""The networks of a study, as conf/model describes them, and what may name their weights."""

import re
from typing import Any

from pydantic import SerializerFunctionWrapHandler, field_validator, model_serializer, model_validator

from pipeline.settings import Name, Settings, inside_project
from pipeline.study.licences import check_licence
from pipeline.study.loading import Loading
from pipeline.study.main_lora import MainLora
from pipeline.study.reference_images import IPAdapter
from pipeline.study.weaken import Weaken

HUB = "hub:"
HUB_SOURCE = re.compile(r"hub:(?P<repository>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?")


def known_source(source: str) -> str:
    """A source as a configuration may name it. Raises ValueError."""
    if source.startswith(HUB):
        # Names and revisions become folders of the cache.
        if HUB_SOURCE.fullmatch(source) is None or ".." in source:
            raise ValueError("must be hub:<owner>/<name> or hub:<owner>/<name>@<revision>")
        return source
    if source.endswith((".ckpt", ".pt", ".pth", ".bin", ".pkl")):
        raise ValueError("is a pickle, which can run code when it is read; convert it to .safetensors")
    if source.endswith(".gguf"):
        raise ValueError("is a file of quantized weights (GGUF), which is not supported; take the .safetensors")
    return inside_project(source)


def _known_source(source: str | None) -> str | None:
    return None if source is None else known_source(source)


class Model(Settings):
    """The networks: `main` draws, `guide` is the weaker one of autoguidance.

    Each is a folder in diffusers' layout, hub:<owner>/<name>[@<revision>], or a single .safetensors file, for which
    `config` is a folder with the configurations and tokenizers of its kind; `guide_config` is one for the guide alone,
    where it is of another kind. `vae` and `text_encoder` name checkpoints whose autoencoder and first text encoder
    replace the main one's. `weaken` makes the guide from the network at `guide`: a weakened copy, or with a LoRA
    (weaken.py). `loras` are added to the main network and its text encoders, and to a guide before it is weakened only
    with `loras_in_guide`: without, a guide from the same place as main is their base. `ip_adapter` is what the main
    network reads images with, in the arms that have `reference_images`.
    `licence` is that of the images, as the Hub names it; one that the Hub does not know needs `licence_link`. The
    embedded networks' is known.
    """

    name: Name
    main: str
    guide: str
    weaken: Weaken | None = None
    loras: tuple[MainLora, ...] = ()
    loras_in_guide: bool = False
    ip_adapter: IPAdapter | None = None
    config: str | None = None
    guide_config: str | None = None
    vae: str | None = None
    text_encoder: str | None = None
    loading: Loading = Loading()
    licence: str = ""
    licence_link: str = ""

    _sources = field_validator("main", "guide", "config", "guide_config", "vae", "text_encoder")(_known_source)

    @model_serializer(mode="wrap")
    def _without_an_adapter(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Numbers that were kept of studies before there were adapters stay theirs.
        content: dict[str, Any] = handler(self)
        return {key: value for key, value in content.items() if key != "ip_adapter" or value is not None}

    @property
    def config_of_guide(self) -> str | None:
        """The folder of the guide's configurations where the guide is a single file."""
        return self.guide_config or self.config

    @model_validator(mode="after")
    def _known_licence(self) -> "Model":
        if self.licence or self.licence_link:
            check_licence(self.licence, self.licence_link)
        return self
