"""Draws images of one arm: its networks, texts and guidance put together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image as PillowImage
from PIL import ImageEnhance

from pipeline.cost.evaluation_counts import evaluations, prediction_flops
from pipeline.cost.shard_cost import ShardCost
from pipeline.cost.usage import Usage, UsageClock, device_name
from pipeline.errors import InputError
from pipeline.generation.arm_guidance import guidance_of
from pipeline.generation.loaded_model import LoadedModel
from pipeline.generation.trajectory import Frame, shown_steps
from pipeline.guidance.algebra import Guidance, Network, Text
from pipeline.guidance.trace import TraceStep, trace_rows
from pipeline.networks.denoisers.latents import rounded
from pipeline.networks.text.conditioning import Conditioning, told
from pipeline.sampling.sampler import sample
from pipeline.sampling.starts import FromImages, Inpainting
from pipeline.sampling.steppers import build_stepper
from pipeline.study.arm import Arm, Retouch
from pipeline.study.study import Study

# Seeds that an error names at most.
_SHOWN = 8


def retouched(image: PillowImage.Image, how: Retouch) -> PillowImage.Image:
    """An image with other saturation and, after that, contrast (Pillow's ImageEnhance, about its own mean grey)."""
    return ImageEnhance.Contrast(ImageEnhance.Color(image).enhance(how.saturation)).enhance(how.contrast)


@dataclass(frozen=True)
class GeneratedBatch:
    """A batch: images, the trace of each as columns, what it cost, and the trajectories of those that were watched."""

    images: list[PillowImage.Image]
    traces: list[dict[str, list[object]]]
    cost: ShardCost
    trajectories: list[list[Frame]]


class ArmGenerator:
    """Generates the images of one arm, with networks that it shares with the study's other arms where `model` has them.

    Raises InputError for networks that cannot be loaded.
    """

    def __init__(self, study: Study, arm_name: str, device: torch.device, model: LoadedModel | None = None):
        self.study, self.arm_name, self.device = study, arm_name, device
        self.arm: Arm = study.arm(arm_name)
        self.model = model or LoadedModel(study, device)
        self.guidance: Guidance = guidance_of(self.arm, self.model.family.post)
        self.text_encoder = self.model.text_encoder
        needed: set[Network] = {"main", *(prediction.network for prediction in self.guidance.predictions())}
        self.networks = {name: self.model.reading_images(name, arm_name) for name in sorted(needed, reverse=True)}
        self._image_tokens = self.model.image_tokens(arm_name)
        self._flops: dict[str, int] = {}

    def draw(
        self,
        texts: Mapping[Text, list[str]],
        seeds: list[int],
        starts: Sequence[PillowImage.Image] | None = None,
        watched: int = 0,
        masks: Sequence[PillowImage.Image] | None = None,
    ) -> GeneratedBatch:
        """One batch.

        `starts` are the images that image-to-image starts from, `masks` of mode L and the canvas's size where they are
        kept (black) and generated (white); of the first `watched` images the way is kept.
        Raises InputError where an image is not finite.
        """
        clock = UsageClock(self.device)
        conditioning = self.model.encode(texts)
        for text, own in self.arm.texts.items():
            if text in conditioning and own.degraded is not None:
                conditioning[text] = self.model.degrade(conditioning, texts, text, own.degraded, seeds)
        steering = self.guidance.main.attention
        if steering is not None:
            conditioning[steering.text] = self.model.telling_padding(conditioning, texts, steering.text)
        main, sampler, canvas = self.networks["main"], self.study.sampler_of(self.arm), self.arm.canvas
        added = main.added_conditions(len(seeds), canvas)
        if (scale := self.arm.embedded_guidance) is not None:
            added = {**added, "embedded_guidance": torch.full((len(seeds),), scale, device=main.device)}
        start, around = self._start(starts, masks)
        conditioning = {
            text: own.adding({**added, **around, **self._images_beside(text, len(seeds))})
            for text, own in conditioning.items()
        }
        shape = main.shape_of(canvas)
        stepper = build_stepper(sampler, main.schedule.config, main.path, main.steps_of(shape, sampler.steps))
        samples, trace = sample(
            self.networks, conditioning, self.guidance, stepper, sampler.steps, seeds, shape, start, watched
        )
        images = self._images(samples, seeds)
        cost = self._cost(samples, trace, conditioning, clock.read())
        frames = (
            [(step, self._images(step.estimates.to(self.device), seeds[:watched])) for step in shown_steps(trace)]
            if watched
            else []
        )
        trajectories = [[Frame(step.step, step.sigma, drawn[k]) for step, drawn in frames] for k in range(watched)]
        return GeneratedBatch(images, [trace_rows(trace, k) for k in range(len(seeds))], cost, trajectories)

    def _images_beside(self, text: Text, rows: int) -> dict[str, torch.Tensor]:
        """The arm's reference images, of which only the prompt is told; other texts are told of empty ones."""
        if self._image_tokens is None:
            return {}
        shown, empty = self._image_tokens
        return {"image_tokens": (shown if text == "prompt" else empty).expand(rows, -1, -1, -1)}

    def _images(self, samples: torch.Tensor, seeds: list[int]) -> list[PillowImage.Image]:
        pixels = self.networks["main"].to_pixels(samples)
        self._check_finite(samples, pixels, seeds)
        images = [PillowImage.fromarray(image) for image in rounded(pixels).permute(0, 2, 3, 1).cpu().numpy()]
        return images if self.arm.retouch is None else [retouched(image, self.arm.retouch) for image in images]

    def _check_finite(self, samples: torch.Tensor, pixels: torch.Tensor, seeds: list[int]) -> None:
        # As bytes, NaN is black and infinity white: an image like any other.
        drawn, decoded = (x.flatten(1).isfinite().all(1).tolist() for x in (samples, pixels))
        broken = [seed for seed, *finite in zip(seeds, drawn, decoded, strict=True) if not all(finite)]
        if not broken:
            return
        dtype, by = self.study.model.loading.dtype, "autoencoder decoded" if all(drawn) else "sampler generated"
        ways = ["model.loading.dtype=float32"] if dtype != "float32" else []
        ways += [f"a scale smaller than {self.arm.scale:g}"] if self.arm.scale > 1 else []
        ways += ["another autoencoder (model.vae)"] if self.networks["main"].latents else []
        more = f" and {len(broken) - _SHOWN} more" if len(broken) > _SHOWN else ""
        raise InputError(
            f"arm '{self.arm_name}' generated no image from seed {', '.join(map(str, broken[:_SHOWN]))}{more}: what "
            f"the {by} is not finite (model.loading.dtype is {dtype}); take {' or '.join([*ways, 'other weights'])}"
        )

    def _cost(
        self,
        samples: torch.Tensor,
        trace: Sequence[TraceStep],
        conditioning: Mapping[Text, Conditioning],
        usage: Usage,
    ) -> ShardCost:
        n, (used, probed) = len(samples), evaluations(trace)
        flops, probe_flops = (
            sum(count * self._flops_of(name, samples, conditioning) for name, count in counts.items())
            for counts in (used, probed)
        )
        return ShardCost(
            fingerprint="",
            images=n,
            nfe=n * used.total(),
            flops=n * flops,
            probe_nfe=n * probed.total(),
            probe_flops=n * probe_flops,
            seconds=usage.seconds,
            device=device_name(self.device),
            cpu_seconds=usage.cpu_seconds,
            memory=usage.memory,
            gpu_memory=usage.gpu_memory,
        )

    def _flops_of(self, name: str, samples: torch.Tensor, conditioning: Mapping[Text, Conditioning]) -> int:
        """FLOPs of one evaluation of the prediction called `name`, counted once."""
        if name not in self._flops:
            prediction = next(p for p in self.guidance.predictions() if p.name == name)
            text = told(conditioning, prediction).rows(slice(1))
            self._flops[name] = prediction_flops(self.networks[prediction.network], prediction, samples[:1], text)
        return self._flops[name]

    def _start(
        self, starts: Sequence[PillowImage.Image] | None, masks: Sequence[PillowImage.Image] | None
    ) -> tuple[FromImages | None, dict[str, torch.Tensor]]:
        """What sampling starts from, and what a network that reads masks is told of it."""
        # Images of another size are resized to the canvas, as diffusers' image-to-image does (Lanczos).
        setting, main = self.arm.image_to_image, self.networks["main"]
        if setting is None or starts is None:
            return None, {}
        _, rows, columns = main.shape_of(self.arm.canvas)
        extent = (columns * main.factor, rows * main.factor)
        fitted = [p if p.size == extent else p.resize(extent, PillowImage.Resampling.LANCZOS) for p in starts]
        pixels = torch.stack([torch.from_numpy(np.array(p.convert("RGB"))).permute(2, 0, 1) for p in fitted])
        samples = main.to_samples(pixels)
        if masks is None:
            return FromImages(samples, setting.strength, setting.noise), {}
        mask = torch.stack([torch.from_numpy(np.array(m))[None] for m in masks]).float() / 255  # [B, 1, H, W]
        if main.reads_masks:
            return Inpainting(samples, setting.strength, setting.noise), {"around": main.around(pixels, mask)}
        return Inpainting(samples, setting.strength, setting.noise, main.to_mask(mask)), {}
