"""Where the weights of a model lie: what a configuration names becomes a folder or a file on this machine.

Three kinds of source: a folder in diffusers' layout, `hub:<owner>/<name>[@<revision>]` for a repository that was
fetched from the Hugging Face Hub before, and a single `.safetensors` file with the configurations beside it. Nothing
is downloaded here: gigabytes are fetched by a command that the error names, not by a stage.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

from pipeline.errors import InputError
from pipeline.study.model import HUB, HUB_SOURCE
from pipeline.study.sampler import LEVELS, Sampler

# What a stage reads of a repository; the pickles and the other frameworks' weights beside it stay where they are.
PATTERNS = ("*.json", "*.txt", "*.safetensors")


@dataclass(frozen=True)
class Checkpoint:
    """A source found on this machine: a folder in diffusers' layout, or a single file and its configurations' folder.

    `config` is where configurations, schedules and tokenizers are read; for a folder the folder itself.
    """

    path: Path
    config: Path

    @property
    def is_file(self) -> bool:
        """Whether all weights are in one file, in the layout of the original Stable Diffusion code."""
        return self.path.is_file()

    def settings(self, part: str) -> dict[str, Any] | None:
        """The configuration of a part (unet, vae ...); None where the checkpoint has no such part."""
        return self._mapping(f"{part}/config.json")

    @property
    def schedule(self) -> dict[str, Any]:
        """The configuration of the training noise schedule; empty where there is none."""
        return self._mapping("scheduler/scheduler_config.json") or {}

    def _mapping(self, name: str) -> dict[str, Any] | None:
        path = self.config / name
        if not path.is_file():
            return None
        try:
            content = json.loads(path.read_text("utf-8"))
        except ValueError as error:
            raise InputError(f"{path} is no JSON ({error}); fetch it again") from None
        if not isinstance(content, dict):
            raise InputError(f"{path} holds no mapping; fetch it again")
        return content

    @property
    def factor(self) -> int:
        """Pixels of a picture for each position of a sample: 8 for Stable Diffusion, the patch in pixel space."""
        vae = self.settings("vae")
        if vae is not None:
            return int(2 ** (len(vae["block_out_channels"]) - 1))
        return pixel_patch(int(self._unet["in_channels"]), self.config)

    @property
    def canvas(self) -> tuple[int, int]:
        """(width, height) in pixels that the network was trained on, as far as its configuration tells."""
        side = self._unet["sample_size"]
        height, width = (side, side) if isinstance(side, int) else side
        return int(width) * self.factor, int(height) * self.factor

    @property
    def _unet(self) -> dict[str, Any]:
        settings = self.settings("unet")
        if settings is None:
            raise InputError(f"{self.config / 'unet' / 'config.json'} is missing; {self.config} is no complete network")
        return settings


def pixel_patch(channels: int, where: Path) -> int:
    """The side of the patches of a network in pixel space. Raises InputError where channels are no RGB patches."""
    patch: int = round((channels / 3) ** 0.5)
    if 3 * patch**2 != channels:
        raise InputError(
            f"{where}/unet has {channels} input channels and there is no {where}/vae; latents need one, "
            "and pixel patches have 3, 12, 48 ... channels"
        )
    return patch


def locate(source: str, config: str | None = None) -> Checkpoint:
    """Find a source on this machine. Raises InputError with the command that fetches it."""
    if source.startswith(HUB):
        folder = _in_cache(source)
        return Checkpoint(folder, folder)
    path = Path(source)
    if path.suffix == ".safetensors":
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
        raise InputError(
            f"model folder {source} is missing; `make train` makes the embedded ones; others are fetched with "
            f"hf download <owner>/<name> --include {_quoted(PATTERNS)} --local-dir {source} (docs/checkpoints.md)"
        )
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
            f"hf download {repository}{at} --include {_quoted(PATTERNS)}"
        ) from None


def _quoted(patterns: tuple[str, ...]) -> str:
    return " ".join(f"'{pattern}'" for pattern in patterns)


# What a guide and its main network must have in common: they see the same noisy sample and the same texts.
_SHARED = {
    "in_channels": "channels of a sample",
    "cross_attention_dim": "width of the text embeddings",
    "addition_embed_type": "kind of added conditioning (text_time is SDXL's)",
    "projection_class_embeddings_input_dim": "width of the added conditioning",
}


def check_fit(main: Checkpoint, guide: Checkpoint) -> None:
    """Compare configurations before any weight is read.

    Raises InputError where the guide's predictions cannot be mixed with the main network's.
    """
    ours, theirs = main._unet, guide._unet
    for key, what in _SHARED.items():
        if ours.get(key) != theirs.get(key):
            raise InputError(
                f"the guide {guide.path} does not fit: {what} is {ours.get(key)} in the main network and "
                f"{theirs.get(key)} in the guide; both must be of one kind (two SD 1.x, two SDXL ...)"
            )
    scales = [(c.settings("vae") or {}).get("scaling_factor") for c in (main, guide)]
    if None not in scales and scales[0] != scales[1]:
        raise InputError(
            f"the guide {guide.path} does not fit: its vae scales latents by {scales[1]}, the main one by {scales[0]}"
        )


# Schedulers of diffusers that cannot end training's schedule without signal: they would visit other noise levels.
WITH_SIGNAL_ALONE = ("dpmsolver++_sde", "heun")


def check_schedules(sampler: Sampler, main: Checkpoint, guide: Checkpoint | None) -> None:
    """Raise InputError where training ended without signal (zero terminal SNR, arXiv 2305.08891) and that cannot be.

    Some schedulers do not know such schedules. A network that predicts noise says nothing of the picture where there is
    nothing else to see.
    """
    if not main.schedule.get("rescale_betas_zero_snr"):
        return
    schedule = "whose noise schedule ends without signal (rescale_betas_zero_snr)"
    if sampler.scheduler in WITH_SIGNAL_ALONE:
        others = ", ".join(name for name in LEVELS if name not in WITH_SIGNAL_ALONE)
        raise InputError(
            f"sampler.scheduler {sampler.scheduler} cannot draw with {main.config}, {schedule}; take one of {others}"
        )
    for who, network in (("the main network", main), ("the guide", guide)):
        if network is not None and network.schedule.get("prediction_type", "epsilon") == "epsilon":
            raise InputError(
                f"{who} {network.config} predicts noise (prediction_type epsilon), which says nothing of the picture "
                f"at the first step of {main.config}, {schedule}; "
                + ("one of the two settings is wrong" if network is main else "take a guide that predicts v or x0")
            )
