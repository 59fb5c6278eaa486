"""How fast arms are drawn against diffusers' pipeline: `python -m benchmarks.generate`, into benchmarks/results.json.

Both draw with the same random weights, texts, seeds, scheduler, batch and steps, and must arrive at the same samples.
On the CPU: one thread, the process's own CPU time, the least of interleaved rounds, texts to latents. On a GPU:
SD 1.5's architecture in bfloat16, 512x512 pixels, texts to images, with and without torch.compile.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPTextConfig, CLIPTextModel

from benchmarks.peak import matmul_rate
from benchmarks.record import Result, entry, least, record
from models.tinybooru.tokenizer import train_tokenizer
from pipeline.cost.usage import device_name
from pipeline.guidance.algebra import EMPTY, GUIDE, NEGATIVE, Guidance, Network, Term, Text
from pipeline.guidance.trace import TraceStep, trace_rows, trace_step
from pipeline.networks.checkpoints import locate
from pipeline.networks.denoisers.unet import DenoisingNetwork, load_network
from pipeline.networks.noise_path import NoisePath
from pipeline.networks.text.text_encoder import TextEncoder, load_text_encoder
from pipeline.networks.weights.loaded_part import DTYPES
from pipeline.prompting.text_settings import TextSettings
from pipeline.sampling.sampler import sample
from pipeline.sampling.steppers import build_stepper
from pipeline.study.loading import Loading
from pipeline.study.sampler import Sampler
from pipeline.tinybooru.build import plans

PEER = "diffusers' StableDiffusionPipeline with guidance"
PROMPT, WORSE, SCALE = "1person, blue hair, smile", "worst quality, lowres", 7.5
DDIM: dict[str, Any] = {"timestep_spacing": "leading", "set_alpha_to_one": True, "clip_sample": False}


@dataclass(frozen=True)
class Size:
    """Widths of a Stable Diffusion 1.x: of the UNet's and the autoencoder's levels, and of the text encoder."""

    unet: tuple[int, int, int, int]
    vae: tuple[int, int, int, int]
    text: int
    side: int


SD15 = Size((320, 640, 1280, 1280), (128, 256, 512, 512), 768, 64)
# SD 1.5 at a fifth of its width and three eighths of its side: of an evaluation nearly everything is still the network.
SMALL = Size((64, 128, 256, 256), (32, 32, 64, 64), 192, 24)
SMALL_GUIDE = replace(SMALL, unet=(32, 64, 128, 128))


def save_pipeline(folder: Path, size: Size, seed: int) -> None:
    """A Stable Diffusion 1.x of that size with random weights, in the layout of the real ones."""
    tokenizer = train_tokenizer(", ".join(plan.tags) for plan in islice(plans("validation", 0), 200))
    torch.manual_seed(seed)
    texts = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=size.text,
        intermediate_size=4 * size.text,
        num_hidden_layers=12,
        num_attention_heads=size.text // 64,
        max_position_embeddings=tokenizer.model_max_length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    StableDiffusionPipeline(
        unet=UNet2DConditionModel(
            sample_size=size.side, block_out_channels=size.unet, cross_attention_dim=size.text, attention_head_dim=8
        ),
        vae=AutoencoderKL(
            block_out_channels=size.vae,
            layers_per_block=2,
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            latent_channels=4,
        ),
        text_encoder=CLIPTextModel(texts),
        tokenizer=tokenizer,
        scheduler=DDIMScheduler(
            beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, steps_offset=1, **DDIM
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder, safe_serialization=True)


class Contest:
    """This project and diffusers' pipeline over one folder, each from texts and seeds on."""

    def __init__(self, folder: Path, guide: Path | None, loading: Loading, device: torch.device, steps: int, n: int):
        self.device, self.steps, self.seeds = device, steps, list(range(n))
        checkpoint, dtype = locate(str(folder)), DTYPES[loading.dtype]
        self.networks: dict[Network, DenoisingNetwork] = {"main": load_network(checkpoint, device, loading)}
        if guide is not None:
            latents = self.main.latents
            self.networks["guide"] = load_network(locate(str(guide)), device, loading, latents=latents)
        settings = TextSettings(syntax="plain", underscores="kept")
        self.encoder: TextEncoder = load_text_encoder(checkpoint, device, settings, dtype)
        self.pipeline = StableDiffusionPipeline.from_pretrained(folder, use_safetensors=True, dtype=dtype)
        self.pipeline.to(device).set_progress_bar_config(disable=True)
        self.pipeline.scheduler = DDIMScheduler.from_config(self.main.schedule.config, **DDIM)

    @property
    def main(self) -> DenoisingNetwork:
        return self.networks["main"]

    def ours(self, *terms: Term) -> tuple[torch.Tensor, list[TraceStep]]:
        """Latents [B, 4, H, W] and the trace under the guidance of `terms`."""
        words: dict[Text, str] = {"prompt": PROMPT, "empty": "", "negative": WORSE}
        needed = {"prompt", *(term.reference.text for term in terms)}
        texts = {text: [words[text]] * len(self.seeds) for text in words if text in needed}
        conditioning = self.encoder.encode_together(texts, references=("empty", "negative"))
        setting = Sampler(scheduler="ddim", steps=self.steps, spacing="leading")
        stepper = build_stepper(setting, self.main.schedule.config)
        return sample(self.networks, conditioning, Guidance(terms), stepper, self.steps, self.seeds)

    def theirs(self, negative: str | None, output: str = "latent") -> Any:
        """Latents [B, 4, H, W] under classifier-free guidance, or images (`output` is "pt")."""
        return self.pipeline(
            [PROMPT] * len(self.seeds),
            negative_prompt=None if negative is None else [negative] * len(self.seeds),
            guidance_scale=SCALE,
            num_inference_steps=self.steps,
            generator=[torch.Generator().manual_seed(seed) for seed in self.seeds],
            output_type=output,
        ).images

    def forward(self, name: Network) -> torch.Tensor:
        """One evaluation of one network for the whole batch."""
        conditioning = self.encoder.encode([PROMPT] * len(self.seeds))
        x = torch.zeros(len(self.seeds), *self.main.sample_shape, device=self.device)
        return self.networks[name].at_timestep(x, torch.tensor(500, device=self.device), conditioning)


class Stopwatch:
    """CPU seconds spent in the functions it was put around."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **more: Any) -> Any:
            start = time.process_time()
            result = function(*arguments, **more)
            self.seconds += time.process_time() - start
            return result

        return timed


@contextmanager
def traced_by(stopwatch: Stopwatch) -> Iterator[None]:
    """The stopwatch is around everything that the sampler does for the trace alone.

    Recording has no switch. What it costs is too little to be seen as the difference of two runs.
    """
    with (
        patch("pipeline.sampling.sampler.trace_step", stopwatch.around(trace_step)),
        patch.object(NoisePath, "to_x0", stopwatch.around(NoisePath.to_x0)),
        patch.object(NoisePath, "x0_per_output", stopwatch.around(NoisePath.x0_per_output)),
        patch.object(TraceStep, "cpu", stopwatch.around(TraceStep.cpu)),
    ):
        yield


def trace_share(contest: Contest, rounds: int) -> float:
    """CPU time of recording the trace as a share of the sampling without it."""
    shares = []
    for _ in range(rounds):
        stopwatch = Stopwatch()
        start = time.process_time()
        with traced_by(stopwatch):
            _, trace = contest.ours(Term(EMPTY, SCALE))
        rest = time.process_time() - start - stopwatch.seconds
        rows = stopwatch.around(trace_rows)
        for image in range(len(contest.seeds)):
            rows(trace, image)
        shares.append(stopwatch.seconds / rest)
    return min(shares)


def on_cpu(size: Size, guide: Size, steps: int, n: int, rounds: int) -> list[Result]:
    """Guided, unguided and autoguided arms and the trace, as shares of the pipeline's time with guidance."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        save_pipeline(Path(folder, "main"), size, 0)
        save_pipeline(Path(folder, "guide"), guide, 1)
        contest = Contest(Path(folder, "main"), Path(folder, "guide"), Loading(), torch.device("cpu"), steps, n)
        same_samples(contest)
        cfg, their_cfg, negative, their_negative, unguided, auto, forward, guide_forward = least(
            rounds,
            lambda: contest.ours(Term(EMPTY, SCALE)),
            lambda: contest.theirs(None),
            lambda: contest.ours(Term(NEGATIVE, SCALE)),
            lambda: contest.theirs(WORSE),
            lambda: contest.ours(),
            lambda: contest.ours(Term(GUIDE, SCALE)),
            lambda: contest.forward("main"),
            lambda: contest.forward("guide"),
            clock=time.process_time,
        )
        trace = trace_share(contest, 2)
    print(f"pipeline {their_cfg:.2f} s, main's evaluation {forward:.3f} s, the guide's {guide_forward:.3f} s")
    auto_bar = (forward + guide_forward) / (2 * forward) * 1.05
    found = (
        ("generate_cfg_time", cfg / their_cfg, 1.0, PEER),
        ("generate_negative_time", negative / their_negative, 1.0, f"{PEER}, negative prompt"),
        ("generate_unguided_time", unguided / their_cfg, 0.55, PEER),
        ("generate_autoguidance_time", auto / their_cfg, auto_bar, f"{PEER}; bar (main + guide) / (2 main) x 1.05"),
        ("generate_trace_cost", trace, 0.03, "the same sampling without what the trace takes"),
    )
    return [entry(name, value, bar, value <= bar, peer) for name, value, bar, peer in found]


def same_samples(contest: Contest) -> None:
    """Raise AssertionError where the two sides draw different samples: then their times mean nothing."""
    for reference, negative in ((EMPTY, None), (NEGATIVE, WORSE)):
        torch.testing.assert_close(
            contest.ours(Term(reference, SCALE))[0], contest.theirs(negative), atol=1e-3, rtol=1e-3
        )


def on_gpu(size: Size, device: torch.device, steps: int, n: int, rounds: int) -> list[Result]:
    """Images per second of a guided arm and of the pipeline, and the share of the device's peak."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        save_pipeline(Path(folder), size, 0)
        contest = Contest(Path(folder), None, Loading(dtype="bfloat16"), device, steps, n)

        def ours() -> None:
            contest.main.to_images(contest.ours(Term(EMPTY, SCALE))[0]).cpu()

        def theirs() -> None:
            contest.theirs(None, "pt").cpu()

        peak, flops = matmul_rate(device), image_flops(contest)
        machine = f"{device_name(device)}, bfloat16, {8 * size.side}x{8 * size.side}, {steps} steps, batch {n}"
        for suffix in ("", "_compiled"):
            if suffix:
                contest.main.unet.compile()
                contest.pipeline.unet.compile()
            least(1, ours, theirs)  # kernels are chosen, and networks compiled, at the first call
            rate, peer = (n / seconds for seconds in least(rounds, ours, theirs))
            share = rate * flops / peak
            peak_peer = f"a matrix product of the device, {peak / 1e12:.0f} TFLOP/s"
            found += [
                entry(f"generate_gpu{suffix}_images_per_second", rate, peer, rate >= peer, PEER, machine),
                entry(f"generate_gpu{suffix}_share_of_peak", share, None, None, peak_peer, machine),
            ]
    return found


def image_flops(contest: Contest) -> int:
    """FLOPs of one guided image: a call with two texts at every step, and the decoder."""
    one = torch.zeros(1, *contest.main.sample_shape, device=contest.device)
    texts = contest.encoder.encode([PROMPT, WORSE])
    with FlopCounterMode(display=False) as step, sdpa_kernel(SDPBackend.MATH):
        contest.main(one, torch.tensor(500, device=contest.device), texts, 2)
    with FlopCounterMode(display=False) as decoder, sdpa_kernel(SDPBackend.MATH):
        contest.main.to_images(one)
    return contest.steps * int(step.get_total_flops()) + int(decoder.get_total_flops())


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.generate", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="interleaved rounds; the least of each counts")
    arguments = parser.parse_args()
    record(on_cpu(SMALL, SMALL_GUIDE, steps=2, n=8, rounds=arguments.rounds))
    if torch.cuda.is_available():
        record(on_gpu(SD15, torch.device("cuda"), steps=30, n=16, rounds=arguments.rounds))
    else:
        print("the GPU part is skipped: torch sees no CUDA device")


if __name__ == "__main__":
    main()
