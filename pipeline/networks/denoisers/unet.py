"""UNets (Stable Diffusion, SDXL, the embedded networks): loaded, they predict, and show what was predicted.

A checkpoint holds `unet/` and `scheduler/`, for latents `vae/`, and for a main network its text encoders; a guide reads
the main network's text embeddings. Weights load from safetensors only, and no code of a repository is ever run.
"""

import copy
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from accelerate import cpu_offload
from diffusers import DDPMScheduler, UNet2DConditionModel

from pipeline.errors import InputError, is_out_of_memory
from pipeline.guidance.algebra import Network, Perturbation
from pipeline.guidance.attention_space import NAG, NASA, VSF
from pipeline.guidance.chance import Chance
from pipeline.networks.attention_space import steered
from pipeline.networks.checkpoints import Checkpoint, interface_of, latent_space, pixel_patch, reads_masks
from pipeline.networks.denoiser import Denoiser
from pipeline.networks.denoisers.latents import Latents, load_latents, rounded
from pipeline.networks.denoisers.text_free import TextFreeLayers
from pipeline.networks.families import SD, Family
from pipeline.networks.image_prompt import ImagePrompt
from pipeline.networks.noise_path import NoisePath
from pipeline.networks.noise_schedule import timestep_at
from pipeline.networks.perturbation import perturbed
from pipeline.networks.text.conditioning import Conditioning
from pipeline.networks.weaken import Change, weaken
from pipeline.networks.weights.loaded_part import DTYPES, check_compiler, load_part, unloadable
from pipeline.networks.weights.weight_files import check_files
from pipeline.study.loading import Loading
from pipeline.study.sampler import Canvas


@dataclass
class DenoisingNetwork:
    """A UNet with its training noise schedule; it works on latents or, without any, on pixels.

    `patch` is the side of the patches that are a pixel network's channels (`pixel_unshuffle`), 1 for none. Weights of
    half precision read and predict in half precision; everything between two calls is single precision.
    `execution` is the device of a network whose weights stay on the CPU until they are needed. `place` is where they
    lie. With an `image_prompt` it also reads the `image_tokens` that it is told.
    """

    unet: UNet2DConditionModel
    schedule: DDPMScheduler
    patch: int
    latents: Latents | None = None
    dtype: torch.dtype = torch.float32
    execution: torch.device | None = None
    place: str = ""
    family: Family = SD
    image_prompt: ImagePrompt | None = None

    def __post_init__(self) -> None:
        self._text_free = TextFreeLayers(self.unet)

    def reading(self, image_prompt: ImagePrompt) -> "DenoisingNetwork":
        """The same network, of the same weights, reading images besides."""
        other = copy.copy(self)  # `replace` would put hooks into the UNet once more
        other.image_prompt = image_prompt
        return other

    @property
    def device(self) -> torch.device:
        """Where the network computes."""
        return self.execution or self.unet.device

    @property
    def path(self) -> NoisePath:
        """The noise path of its training, which it sees samples on."""
        return self.family.path

    @property
    def prediction_type(self) -> str:
        return str(self.schedule.config.prediction_type)

    @property
    def factor(self) -> int:
        """Pixels of an image for each position of a sample, in each direction."""
        return self.latents.factor if self.latents else self.patch

    @property
    def interface(self) -> dict[str, Any]:
        """What a guide and its main network share (pipeline/networks/checkpoints.py)."""
        space = f"patches of {self.patch}x{self.patch} pixels"
        if self.latents:
            space = latent_space(self.latents.vae.config)
        return interface_of(self.family, self.unet.config, space)

    @property
    def sample_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of what the sampler works on, at the canvas of training."""
        config = self.unet.config
        side = config.sample_size
        height, width = (side, side) if isinstance(side, int) else side
        return (config.out_channels, height, width)

    def shape_of(self, canvas: Canvas | None) -> tuple[int, int, int]:
        """(channels, height, width) of a sample whose image fills `canvas`."""
        if canvas is None:
            return self.sample_shape
        return (self.unet.config.out_channels, canvas.height // self.factor, canvas.width // self.factor)

    def steps_of(self, shape: tuple[int, int, int], steps: int) -> Mapping[str, Any]:
        return {}

    def added_conditions(self, images: int, canvas: Canvas | None) -> dict[str, torch.Tensor]:
        """What the network is told besides the texts, which follows from the size of the images alone.

        For SDXL `time_ids` [B, 6], its micro-conditioning (arXiv 2307.01952), for whole images; else nothing.
        """
        if self.family.sizes is None:
            return {}
        _, rows, columns = self.shape_of(canvas)
        height, width = rows * self.factor, columns * self.factor
        row = torch.tensor([self.family.sizes(height, width)], dtype=torch.float32, device=self.device)
        return {"time_ids": row.repeat(images, 1)}

    @property
    def reads_masks(self) -> bool:
        """Whether it was trained to inpaint, and reads the mask and the latents of the image around it."""
        return reads_masks(self.unet.config.in_channels, self.unet.config.out_channels)

    @property
    def module(self) -> UNet2DConditionModel:
        """What computes a prediction."""
        return self.unet

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
        """The network's output [texts B, C, H, W] in its own prediction type (pipeline/networks/denoiser.py).

        `x` [B, C, H, W] has unit total variance.
        """
        known = self.timestep_at(sigma) if timestep is None else timestep
        # Filled in on the device: a GPU that a number is copied to waits for all that was asked before.
        step = torch.full((), known, dtype=torch.float32, device=x.device)
        with ExitStack() as changes:
            if damage is not None:
                changes.enter_context(perturbed(self.unet, damage, x.shape[-2:], chance))
            if attention is not None:
                changes.enter_context(steered(self.unet, attention, conditioning, x.device))
            if self.image_prompt is not None:
                changes.enter_context(self.image_prompt.read(self.unet))
            return self.at_timestep(x, step, conditioning, texts)

    @torch.inference_mode()
    def at_timestep(
        self, x: torch.Tensor, timestep: torch.Tensor, conditioning: Conditioning, texts: int = 1
    ) -> torch.Tensor:
        """The network's output as `__call__` gives it, at a timestep of its training, undamaged and unsteered."""
        x = x.to(self.dtype).repeat(texts, 1, 1, 1).contiguous(memory_format=memory_format(self.device))
        added: dict[str, Any] = {own: conditioning[name].to(x) for name, own in self.family.added.items()}
        if self.image_prompt is not None:
            added["image_embeds"] = [conditioning["image_tokens"].to(x)]
        more = {"added_cond_kwargs": added} if added else {}
        tokens = conditioning["tokens"].to(x)
        if self.reads_masks:
            x = torch.cat([x, conditioning["around"].to(x)], 1)
        with self._text_free.shared(texts):
            output: torch.Tensor = self.unet(x, timestep, encoder_hidden_states=tokens, **more).sample
        return output.float()

    def timestep_at(self, sigma: float) -> float:
        """The timestep of the training schedule, fractional as a rule, with the noise level sigma = b / a."""
        return timestep_at(sigma, self.schedule.alphas_cumprod)

    @property
    def timesteps(self) -> float:
        return float(len(self.schedule.alphas_cumprod) - 1)

    def same_schedule(self, other: Denoiser) -> bool:
        """Whether a timestep means the same noise level to both."""
        if not isinstance(other, DenoisingNetwork):
            return False
        ours, theirs = self.schedule.alphas_cumprod, other.schedule.alphas_cumprod
        return ours.shape == theirs.shape and torch.allclose(ours, theirs)

    @torch.inference_mode()
    def to_pixels(self, x: torch.Tensor) -> torch.Tensor:
        """Images [B, 3, H, W], about in [-1, 1], from finished samples."""
        if self.latents:
            return self.latents.decode(x)
        return F.pixel_shuffle(x.float(), self.patch) if self.patch > 1 else x.float()

    @torch.inference_mode()
    def to_images(self, x: torch.Tensor) -> torch.Tensor:
        """uint8 images [B, 3, H, W] from finished samples."""
        return rounded(self.to_pixels(x))

    @torch.inference_mode()
    def to_samples(self, images: torch.Tensor) -> torch.Tensor:
        """Finished samples from uint8 images [B, 3, H, W]: the way back from `to_images`."""
        pixels = images.to(self.device).float() / 127.5 - 1
        if self.latents:
            return self.latents.encode(pixels)
        return F.pixel_unshuffle(pixels, self.patch) if self.patch > 1 else pixels

    def to_mask(self, mask: torch.Tensor) -> torch.Tensor:
        """The mask of samples that a mask of pixels [B, 1, H, W] means (pipeline/networks/denoiser.py)."""
        mask = mask.to(self.device)
        if self.latents:
            return self.latents.mask(mask)
        return F.pixel_unshuffle(mask.expand(-1, 3, -1, -1), self.patch) if self.patch > 1 else mask

    @torch.inference_mode()
    def around(self, images: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """What a UNet that `reads_masks` reads besides a noisy sample: [B, 1 + C, H, W].

        That is the mask, 1 where it is at least a half, and the latents of uint8 `images` [B, 3, H, W] with grey inside
        the `mask` [B, 1, H, W].
        """
        assert self.latents is not None  # preflight refuses it
        inside = (mask.to(self.device) >= 0.5).float()
        pixels = (images.to(self.device).float() / 127.5 - 1) * (1 - inside)
        return torch.cat([self.latents.mask(inside), self.latents.encode(pixels)], 1)


def memory_format(device: torch.device) -> torch.memory_format:
    """The layout in which a UNet is fastest: channels last on GPUs; on CPUs that is 2 to 4 % slower."""
    return torch.channels_last if device.type == "cuda" else torch.contiguous_format


def load_network(
    source: Checkpoint | Path,
    device: torch.device,
    loading: Loading | None = None,
    vae: Checkpoint | None = None,
    latents: Latents | None = None,
    how: Change | Sequence[Change] | None = None,
    role: Network = "main",
) -> DenoisingNetwork:
    """Load a UNet with its noise schedule, and its autoencoder where it has one (or that of `vae` instead).

    A guide shares the main network's `latents`, and does not load its own; `how` it is
    weakened, or given LoRAs. `role` is which of the two it is.
    Raises InputError for missing, pickled or damaged weights.
    """
    checkpoint = source if isinstance(source, Checkpoint) else Checkpoint(source, source)
    loading = loading or Loading()
    dtype, family = DTYPES[loading.dtype], checkpoint.family
    check_files(checkpoint, ("unet",))
    autoencoder = vae or checkpoint
    try:
        unet = load_part(UNet2DConditionModel, checkpoint, "unet", dtype)
        schedule = DDPMScheduler.from_pretrained(checkpoint.config / "scheduler")
        if latents is None and autoencoder.settings("vae") is not None:
            latents = load_latents(autoencoder, dtype, loading, device)
    except InputError:
        raise
    except Exception as error:  # diffusers and safetensors raise many kinds for a damaged folder
        if is_out_of_memory(error):
            raise
        raise unloadable(checkpoint, error) from None
    if how is not None:
        weaken(unet, how)  # before its weights are moved away and its operations fused
    if loading.attention_slicing:
        unet.set_attention_slice("auto")
    execution = None
    if role in loading.offload:
        execution = device
        cpu_offload(unet, execution_device=device)
    else:
        unet = unet.to(device, memory_format=memory_format(device))
    unet = unet.eval().requires_grad_(False)
    if loading.compile:
        check_compiler()
        unet.compile(dynamic=False)
    patch = 1 if latents else pixel_patch(unet.config.in_channels, checkpoint.path)
    return DenoisingNetwork(unet, schedule, patch, latents, dtype, execution, checkpoint.place, family)
