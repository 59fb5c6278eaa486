"""Where the weights of a model lie: what a configuration names becomes a folder or a file on this machine.

Three kinds of source: a folder in diffusers' layout, `hub:<owner>/<name>[@<revision>]` for a repository that was
fetched from the Hugging Face Hub before, and a single `.safetensors` file with the configurations beside it. Nothing
is downloaded here: gigabytes are fetched by a command that the error names, not by a stage.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

from pipeline.errors import InputError
from pipeline.networks.families import Family, labelled_family, patch_side, unlabelled_family
from pipeline.networks.noise_path import VARIANCE_PRESERVING
from pipeline.networks.weights.identification import check_base, check_file, check_folder, read_from_file
from pipeline.networks.weights.weight_places import PATTERNS, fetching, quoted
from pipeline.study.model import HUB, HUB_SOURCE
from pipeline.study.sampler import Sampler
from pipeline.study.solvers import SOLVERS


@dataclass(frozen=True)
class Checkpoint:
    """A source found on this machine: a folder in diffusers' layout, or a single file and its configurations' folder.

    `config` is where configurations, schedules and tokenizers are read; for a folder the folder itself. A transformer's
    file may lack other parts, whose weights are then read there, too.
    """

    path: Path
    config: Path

    @property
    def is_file(self) -> bool:
        """Whether it is one file, in the layout of the original code."""
        return self.path.is_file()

    def in_file(self, part: str) -> bool:
        """Whether the weights of a part (unet, vae ...) are read from one file."""
        return self.is_file and read_from_file(self.path, self.family, part)

    @property
    def folder(self) -> Path:
        """Where the weights lie that are not in one file."""
        return self.config if self.is_file else self.path

    def settings(self, part: str) -> dict[str, Any] | None:
        """The configuration of a part (unet, vae ...); None where the checkpoint has no such part."""
        return self.mapping(f"{part}/config.json")

    @property
    def schedule(self) -> dict[str, Any]:
        """The configuration of the training noise schedule; empty where there is none."""
        return self.mapping("scheduler/scheduler_config.json") or {}

    def mapping(self, name: str) -> dict[str, Any] | None:
        """The content of a JSON file beside the configurations; None where there is none. Raises InputError."""
        path = self.config / name
        if not path.is_file():
            return None
        try:
            content = json.loads(path.read_text("utf-8"))
        except ValueError as error:
            raise InputError(f"{path} is not JSON ({error}); {fetching(path)}") from None
        if not isinstance(content, dict):
            raise InputError(f"{path} is not a mapping; {fetching(path)}")
        return content

    @property
    def index(self) -> dict[str, Any]:
        """The content of model_index.json (of a modular pipeline's, too); empty where there is none."""
        return self.mapping("model_index.json") or self.mapping("modular_model_index.json") or {}

    @property
    def family(self) -> Family:
        """The family of its networks. Raises InputError that names a pipeline which is of none."""
        pipeline, network = self.index.get("_class_name"), self.settings("unet")
        check_base(network or {}, self.index, self.config)
        if pipeline is not None:
            return labelled_family(str(pipeline), self.config)
        family = unlabelled_family(self.settings, self.settings("vae") is not None)
        if self.settings(family.network) is None:
            check_folder(self.config)
        return family

    @property
    def factor(self) -> int:
        """Pixels of an image for each position of a sample: 8 for Stable Diffusion, the patch in pixel space."""
        vae = self.settings("vae")
        if vae is not None:
            return latent_factor(vae)
        if self.family.path is not VARIANCE_PRESERVING:
            return 1  # transformers cut their samples into patches themselves
        return pixel_patch(int(self._network.get("in_channels", 4)), self.config)

    @property
    def unit(self) -> int:
        """Pixels that a canvas must be whole numbers of, in each direction: those of a patch of positions."""
        return self.factor * self.family.patch(self.settings(self.family.network) or {})

    @property
    def longest_side(self) -> int | None:
        """The most pixels in one direction that the network has positions for; None for any number."""
        grid = self.family.grid(self.settings(self.family.network) or {})
        return None if grid is None else self.unit * int(grid)

    @property
    def canvas(self) -> tuple[int, int]:
        """(width, height) in pixels that the network was trained on. Raises InputError where it is not stated."""
        side = self.family.side or self._network.get("sample_size")
        sides: list[Any] = side if isinstance(side, list) else [side, side]
        if len(sides) != 2 or not all(type(one) is int and one > 0 for one in sides):
            raise InputError(
                f"{self.config / self.family.network / 'config.json'} gives no canvas "
                f"(sample_size is {'null' if side is None else side}); set the arm's canvas, for example "
                "{width: 512, height: 512}"
            )
        height, width = sides
        return width * self.factor, height * self.factor

    @property
    def place(self) -> str:
        """Where the weights lie."""
        return str(self.path)

    @property
    def interface(self) -> dict[str, Any]:
        """What a guide and its main network share; the space of samples is known where there is an autoencoder.

        Without one, it may be that of another checkpoint.
        """
        vae = self.settings("vae")
        return interface_of(self.family, self._network, None if vae is None else latent_space(vae))

    @property
    def reads_masks(self) -> bool:
        """Whether its network is a UNet that was trained to inpaint, and reads masks."""
        unet = self.settings("unet") or {}
        return self.family.network == "unet" and reads_masks(unet.get("in_channels", 4), unet.get("out_channels", 4))

    @property
    def _network(self) -> dict[str, Any]:
        part = self.family.network
        settings = self.settings(part)
        if settings is None:
            raise InputError(
                f"{self.config / part / 'config.json'} is missing; {self.config} is not a complete network"
            )
        return settings


def pixel_patch(channels: int, where: Path) -> int:
    """The side of the patches of a network in pixel space. Raises InputError where channels are not RGB patches."""
    patch = patch_side(channels)
    if patch is None:
        raise InputError(
            f"{where}/unet has {channels} input channels and there is no {where}/vae; latents need one, "
            "and pixel patches have 3, 12, 48 ... channels"
        )
    return patch


def reads_masks(channels: int, predicted: int) -> bool:
    """Whether a UNet of so many input and output channels inpaints: it reads a sample, a mask, and another sample."""
    return channels == 2 * predicted + 1


def locate(source: str, config: str | None = None) -> Checkpoint:
    """Find a source on this machine. Raises InputError with the command that fetches it."""
    if source.startswith(HUB):
        folder = _in_cache(source)
        return Checkpoint(folder, folder)
    path = Path(source)
    if path.suffix == ".safetensors":
        if path.is_file():
            check_file(path, None if config is None else locate(config).family)
        if config is None:
            raise InputError(
                f"{source} is a single file, which has no configurations and no tokenizer; set model.config to a "
                "folder with those of its kind, for SD 1.x: hf download stable-diffusion-v1-5/stable-diffusion-v1-5 "
                "--include '*.json' '*.txt' --local-dir models/sd_v1_5_config"
            )
        if not path.is_file():
            raise InputError(f"weights {source} are missing; put the file there (docs/checkpoints.md says where from)")
        return Checkpoint(path, locate(config).path)
    if not path.is_dir():
        raise InputError(f"model folder {source} is missing; {fetching(path)}")
    return Checkpoint(path, path)


def _in_cache(source: str) -> Path:
    match = HUB_SOURCE.fullmatch(source)
    assert match is not None, source
    repository, revision = match["repository"], match["revision"]
    try:
        # Also where the network could be reached: what a stage draws must not depend on what the Hub says today.
        return Path(snapshot_download(repository, revision=revision, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError, FileNotFoundError):
        at = f" --revision {revision}" if revision else ""
        what = f"{repository} at revision {revision}" if revision else repository
        raise InputError(
            f"{what} is not in the Hugging Face cache; fetch it with: "
            f"hf download {repository}{at} --include {quoted(PATTERNS)}"
        ) from None


_SPACE = "space of the samples"


class Fitting(Protocol):
    """A network, as a checkpoint describes it or as it was loaded."""

    @property
    def interface(self) -> dict[str, Any]: ...

    @property
    def place(self) -> str: ...


def interface_of(family: Family, network: Mapping[str, Any], space: str | None) -> dict[str, Any]:
    """What a network must share with those that it is mixed with, by what it is in words.

    `network` is its configuration; `space` says in words what samples stand for, None where that is not known yet.
    """
    texts = {"text encoders": ", ".join(text.title for text in family.texts)}
    return {**{what: network.get(key) for key, what in family.shared.items()}, **texts, _SPACE: space}


# What autoencoders were trained to before their configurations said it: Stable Diffusion 1.x.
_FIRST_SCALE = 0.18215


def of_videos(vae: Mapping[str, Any]) -> bool:
    """Whether the configuration of an autoencoder is that of one of videos, for which an image is one frame."""
    return "temperal_downsample" in vae


def latent_patch(vae: Mapping[str, Any]) -> int:
    """The side of the patches whose values are the channels of a latent, by the configuration of its autoencoder.

    It is 1, but for FLUX.2's, where patches are normalized by statistics that lie with the weights.
    """
    return int((vae.get("patch_size") or (2, 2))[0]) if "batch_norm_eps" in vae else 1


def latent_factor(vae: Mapping[str, Any]) -> int:
    """Pixels for each position of a latent, in each direction, by the configuration of its autoencoder."""
    if of_videos(vae):
        return int(2 ** len(vae["temperal_downsample"]))
    return int(2 ** (len(vae.get("block_out_channels") or (64,)) - 1)) * latent_patch(vae)


def latent_channels(vae: Mapping[str, Any]) -> int:
    """Channels of a latent, by the configuration of its autoencoder."""
    return int(vae.get("z_dim", 16) if of_videos(vae) else vae.get("latent_channels", 4)) * latent_patch(vae) ** 2


def latent_space(vae: Mapping[str, Any]) -> str:
    """Latents, in words, by the configuration of their autoencoder: their size, and what makes their variance one."""
    scale, shift = vae.get("scaling_factor", _FIRST_SCALE), vae.get("shift_factor")
    factor = latent_factor(vae)
    words = f"{latent_channels(vae)} channels for {factor}x{factor} pixels"
    if latent_patch(vae) > 1:
        return f"{words}, normalized by the statistics of its training"
    words += "" if of_videos(vae) else f", scaled by {scale}"
    words += f", shifted by {shift}" if shift else ""
    for name in ("latents_mean", "latents_std"):
        if vae.get(name) is not None:
            words += f", {name} {list(vae[name])}"
    return words


def check_fit(main: Fitting, guide: Fitting) -> None:
    """Raise InputError where the guide's predictions cannot be mixed with the main network's.

    Configurations are compared before any weight is read, and the networks again when they are loaded. Prediction types
    and noise schedules may differ (they are converted), and so may the size of the canvas of training.
    """
    ours, theirs = main.interface, guide.interface
    for what in dict.fromkeys((*ours, *theirs)):
        own, other = ours.get(what), theirs.get(what)
        known = what != _SPACE or None not in (own, other)
        if known and own != other:
            raise InputError(
                f"the guide {guide.place} does not fit: {what} is {own} in the main network and "
                f"{other} in the guide; both must be of one kind (two SD 1.x, two SDXL ...)"
            )


def check_schedules(sampler: Sampler, main: Checkpoint, guide: Checkpoint | None) -> None:
    """Raise InputError where the sampler cannot step along the main network's noise path or training schedule.

    Where training ended without signal (zero terminal SNR, arXiv 2305.08891) some schedulers do not know its schedule,
    and a network that predicts noise says nothing about the image where there is nothing else to see.
    """
    family = main.family
    if sampler.scheduler not in family.solvers:
        raise InputError(
            f"sampler.scheduler {sampler.scheduler} does not step along {family.path.name}, the noise path of "
            f"{main.config} ({family.name}); take one of {', '.join(family.solvers)}"
        )
    if sampler.levels != "native" and family.path is not VARIANCE_PRESERVING:
        raise InputError(
            f"sampler.levels {sampler.levels} are those of the variance preserving path; along {family.path.name} "
            f"levels are native (sampler.levels: native)"
        )
    if not main.schedule.get("rescale_betas_zero_snr"):
        return
    schedule = "whose noise schedule ends without signal (rescale_betas_zero_snr)"
    if not SOLVERS[sampler.scheduler].from_pure_noise:
        others = ", ".join(name for name, solver in SOLVERS.items() if solver.from_pure_noise)
        raise InputError(
            f"sampler.scheduler {sampler.scheduler} does not support {main.config}, {schedule}; take one of {others}"
        )
    for who, network in (("the main network", main), ("the guide", guide)):
        if network is not None and network.schedule.get("prediction_type", "epsilon") == "epsilon":
            raise InputError(
                f"{who} {network.config} predicts noise (prediction_type epsilon), which says nothing about the image "
                f"at the first step of {main.config}, {schedule}; "
                + ("one of the two settings is wrong" if network is main else "take a guide that predicts v or x0")
            )
