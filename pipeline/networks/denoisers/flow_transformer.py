"""Transformers along rectified flow: what those of all families have in common.

A checkpoint holds `transformer/` and `scheduler/`, for latents `vae/`, and for a main network its text encoders. A
timestep is 1000 t, where x = (1 - t) x0 + t e, and the prediction is the velocity e - x0.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from accelerate import cpu_offload
from diffusers import FlowMatchEulerDiscreteScheduler

from pipeline.errors import InputError, is_out_of_memory
from pipeline.guidance.algebra import Network, Perturbation
from pipeline.guidance.attention_space import NAG, NASA, VSF
from pipeline.guidance.chance import Chance
from pipeline.networks.checkpoints import Checkpoint, interface_of, latent_space
from pipeline.networks.denoiser import Denoiser
from pipeline.networks.denoisers.latents import Latents, load_latents, rounded
from pipeline.networks.families import Family
from pipeline.networks.joint_steering import jointly_steered, with_second_text
from pipeline.networks.noise_path import NoisePath
from pipeline.networks.perturbation import perturbed
from pipeline.networks.stream_steering import streams_steered
from pipeline.networks.text.conditioning import Conditioning
from pipeline.networks.weaken import Change, weaken
from pipeline.networks.weights.loaded_part import DTYPES, check_compiler, load_part, unloadable
from pipeline.networks.weights.weight_files import check_files
from pipeline.study.loading import Loading
from pipeline.study.sampler import Canvas

_TIMESTEPS = 1000


@dataclass
class FlowTransformer(ABC):
    """A transformer with the schedule of its training (pipeline/networks/denoiser.py: SampledNetwork).

    It works on latents or, without any, on pixels. Weights of half precision read and predict in half precision;
    everything between two calls is single precision. `execution` is the device of a network whose weights stay on the
    CPU until they are needed.
    """

    transformer: Any
    schedule: FlowMatchEulerDiscreteScheduler
    family: Family
    latents: Latents | None = None
    dtype: torch.dtype = torch.float32
    execution: torch.device | None = None
    place: str = ""

    @property
    @abstractmethod
    def channels(self) -> int:
        """Channels of a sample."""

    @abstractmethod
    def _predicted(self, x: torch.Tensor, timestep: float, conditioning: Conditioning) -> torch.Tensor:
        """The velocity [B, C, H, W] for `x` in the network's precision, at a timestep in [0, 1000].

        Of a steered network `conditioning` has twice the rows.
        """

    def _image_starts(self, conditioning: Conditioning) -> list[int] | None:
        """Where the image begins in each row's stream of text and image; None where streams have one length."""
        return None

    def steps_of(self, shape: tuple[int, int, int], steps: int) -> Mapping[str, Any]:
        """What the scheduler is told of the levels besides their number, for samples of `shape`.

        Dynamic shifting moves the levels by the number of the image's patches, as the pipelines compute it
        (calculate_shift in diffusers): linear between base_shift and max_shift.
        """
        config = self.schedule.config
        if not config.use_dynamic_shifting:
            return {}
        patches = (shape[1] // self.patch) * (shape[2] // self.patch)
        slope = (config.max_shift - config.base_shift) / (config.max_image_seq_len - config.base_image_seq_len)
        return {"mu": patches * slope + config.base_shift - slope * config.base_image_seq_len}

    @property
    def module(self) -> Any:
        return self.transformer

    @property
    def device(self) -> torch.device:
        device: torch.device = self.execution or self.transformer.device
        return device

    @property
    def path(self) -> NoisePath:
        return self.family.path

    @property
    def prediction_type(self) -> str:
        return "flow_prediction"

    @property
    def reads_masks(self) -> bool:
        return False

    @property
    def factor(self) -> int:
        return self.latents.factor if self.latents else 1

    @property
    def patch(self) -> int:
        """The side of the patches that it cuts samples into."""
        return self.family.patch(self.transformer.config)

    @property
    def interface(self) -> dict[str, Any]:
        space = "pixels" if self.latents is None else latent_space(self.latents.vae.config)
        return interface_of(self.family, self.transformer.config, space)

    @property
    def sample_shape(self) -> tuple[int, int, int]:
        side = self.family.side or self.transformer.config.sample_size
        return (self.channels, side, side)

    def shape_of(self, canvas: Canvas | None) -> tuple[int, int, int]:
        """(channels, height, width) of a sample whose image fills `canvas`.

        Raises InputError for a canvas that is not whole patches, or larger than the grid of position embeddings.
        """
        channels, *own = self.sample_shape
        if canvas is None:
            return (channels, own[0], own[1])
        unit, grid = self.factor * self.patch, self.family.grid(self.transformer.config)
        _check_extent(f"canvas {canvas.width}x{canvas.height} does not fit {self.place}", canvas, unit, grid)
        return (channels, canvas.height // self.factor, canvas.width // self.factor)

    def added_conditions(self, images: int, canvas: Canvas | None) -> dict[str, torch.Tensor]:
        return {}

    @torch.inference_mode()
    def __call__(
        self,
        x: torch.Tensor,
        sigma: float,
        conditioning: Conditioning,
        texts: int = 1,
        damage: Perturbation | None = None,
        timestep: float | None = None,
        chance: Chance | None = None,
        attention: NAG | VSF | NASA | None = None,
    ) -> torch.Tensor:
        """The velocity e - x0 [texts B, C, H, W] for `x` on rectified flow (pipeline/networks/denoiser.py).

        Damage and attention are not both changed at once: in these networks they are of the same layers.
        """
        assert damage is None or attention is None
        known = self.timestep_at(sigma) if timestep is None else timestep
        x = x.to(self.dtype).repeat(texts, 1, 1, 1)
        extent = (x.shape[-2] // self.patch, x.shape[-1] // self.patch)
        with ExitStack() as changes:
            if damage is not None:
                starts = self._image_starts(conditioning)
                changes.enter_context(perturbed(self.transformer, damage, extent, chance, starts))
            if attention is not None:
                both = with_second_text(conditioning, attention)
                changes.enter_context(
                    streams_steered(self.transformer, attention, both, extent, self._image_starts(both))
                    if self.family.one_stream
                    else jointly_steered(self.transformer, attention, conditioning, extent)
                )
                conditioning = both
            return self._predicted(x, known, conditioning).float()

    def timestep_at(self, sigma: float) -> float:
        """The timestep 1000 t of the noise level sigma = t / (1 - t)."""
        return _TIMESTEPS * sigma / (1 + sigma)

    @property
    def timesteps(self) -> float:
        return float(_TIMESTEPS)

    def same_schedule(self, other: Denoiser) -> bool:
        # A timestep is t itself, whatever levels training preferred.
        return isinstance(other, FlowTransformer)

    def to_pixels(self, x: torch.Tensor) -> torch.Tensor:
        return self.latents.decode(x) if self.latents else x.float()

    def to_images(self, x: torch.Tensor) -> torch.Tensor:
        return rounded(self.to_pixels(x))

    def to_samples(self, images: torch.Tensor) -> torch.Tensor:
        pixels = images.to(self.device).float() / 127.5 - 1
        return self.latents.encode(pixels) if self.latents else pixels

    def around(self, images: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError(f"{self.family.name} reads no masks")  # `reads_masks` says so

    def to_mask(self, mask: torch.Tensor) -> torch.Tensor:
        mask = mask.to(self.device)
        return self.latents.mask(mask) if self.latents else mask

    @classmethod
    def load(
        cls,
        source: Checkpoint | Path,
        device: torch.device,
        loading: Loading | None = None,
        vae: Checkpoint | None = None,
        latents: Latents | None = None,
        how: Change | Sequence[Change] | None = None,
        role: Network = "main",
    ) -> Self:
        """Load a transformer with its schedule, and its autoencoder where it has one (or that of `vae` instead).

        A guide shares the main network's `latents`; `how` it is weakened, or given LoRAs. `role` is which of the two
        it is.
        Raises InputError for missing, pickled or damaged weights, for an autoencoder beside pixels, for a LoRA that
        does not fit, and for ways to save memory that support only UNets.
        """
        checkpoint = source if isinstance(source, Checkpoint) else Checkpoint(source, source)
        loading = loading or Loading()
        dtype, own = DTYPES[loading.dtype], checkpoint.settings("vae") is not None
        if vae is not None and not own:
            raise InputError(
                f"{checkpoint.path} works on pixels and has no use for an autoencoder; leave model.vae out"
            )
        if loading.attention_slicing:
            raise InputError(f"model.loading.attention_slicing is for UNets; {checkpoint.path} is a transformer")
        check_files(checkpoint, ("transformer",))
        try:
            transformer = load_part(checkpoint.family.model_class, checkpoint, "transformer", dtype)
            schedule = FlowMatchEulerDiscreteScheduler.from_pretrained(checkpoint.config / "scheduler")
            if latents is None and own:
                latents = load_latents(vae or checkpoint, dtype, loading, device)
        except InputError:
            raise
        except Exception as error:  # diffusers and safetensors raise many kinds for a damaged folder
            if is_out_of_memory(error):
                raise
            raise unloadable(checkpoint, error) from None
        if how is not None:
            weaken(transformer, how)
        execution = None
        if role in loading.offload:
            execution = device
            cpu_offload(transformer, execution_device=device, offload_buffers=True)
        else:
            transformer = transformer.to(device)
        transformer = transformer.eval().requires_grad_(False)
        if loading.compile:
            check_compiler()
            transformer.compile(dynamic=False)
        return cls(transformer, schedule, checkpoint.family, latents, dtype, execution, checkpoint.place)


def _check_extent(what: str, canvas: Canvas, unit: int, grid: int | None) -> None:
    sides = (canvas.width, canvas.height)
    if any(side % unit for side in sides) or (grid is not None and max(sides) > unit * grid):
        most = "" if grid is None else f" up to {unit * grid}"
        raise InputError(f"{what}; take multiples of {unit}{most}")
