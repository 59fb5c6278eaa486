"""The counter: how many digits a waving hand has, how many arms and legs a full figure, or that nobody can say.

A classifier trained on real images and on hands that were spoilt on purpose (ghosts of a second hand, smears, warps),
whose answer is "uncountable". Sharpness, contrast, blur and noise, which guidance changes, vary at random in training
and change no answer.
"""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from timm.models.resnet import BasicBlock, ResNet

from eval.scorers.image_classifier import load_weights
from pipeline.tinybooru.figures import GREETING, PAPERDOLL
from pipeline.tinybooru.image import Plan

UNCOUNTABLE_NAME = "uncountable"
DIGITS = (*map(str, range(9)), UNCOUNTABLE_NAME)
LIMBS = (*map(str, range(5)), UNCOUNTABLE_NAME)
ANSWERS = {"digits": DIGITS, "arms": LIMBS, "legs": LIMBS}


def build_counter() -> Any:
    """timm's ResNet with a deep stem that keeps 32x32 positions: 64x64 RGB in [-1, 1] to all answers' logits."""
    return ResNet(
        BasicBlock, layers=(2, 2, 1, 1), channels=(32, 64, 96, 128), stem_width=24, stem_type="deep",
        num_classes=sum(map(len, ANSWERS.values())),
    )  # fmt: skip


def counts(plans: list[Plan]) -> torch.Tensor:
    """The right answers [N, 3] as indices into ANSWERS; uncountable where there is nothing to count."""
    found = []
    for planned in plans:
        s = planned.structure
        row = []
        for value, names in ((s.digits, DIGITS), (s.arms, LIMBS), (s.legs, LIMBS)):
            row.append(len(names) - 1 if value is None or not planned.countable else value)
        found.append(row)
    return torch.tensor(found)


def greetings(plans: list[Plan]) -> torch.Tensor:
    """Which plans are waving people or full figures that can be counted, bool [N]."""
    return torch.tensor([p.style in (GREETING, PAPERDOLL) and p.countable for p in plans])


def varied(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Images [B, 3, H, W] in [-1, 1] with random light blur or sharpening, contrast, saturation, noise and shift."""
    n, device = len(x), x.device

    def uniform(low: float, high: float) -> torch.Tensor:
        return low + (high - low) * torch.rand(n, 1, 1, 1, generator=generator, device=device)

    soft = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    x = x + uniform(-0.75, 1.5) * (x - soft)  # below 0: blur
    grey = x.mean(1, keepdim=True)
    x = grey + uniform(0.4, 1.8) * (x - grey)
    mean = x.mean((1, 2, 3), keepdim=True)
    x = mean + uniform(0.6, 1.5) * (x - mean) + uniform(-0.2, 0.2)
    amount = uniform(-0.08, 0.14).clamp(min=0)
    x = x + amount * torch.randn(x.shape, generator=generator, device=device)
    dy, dx = (int(v) for v in torch.randint(-3, 4, (2,), generator=generator, device=device))
    padded = F.pad(x, (3, 3, 3, 3), mode="replicate")
    return padded[:, :, 3 + dy : 67 + dy, 3 + dx : 67 + dx].clamp(-1, 1)


def spoilt(x: torch.Tensor, other: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Images [B, 3, 64, 64] whose hands or limbs cannot be counted: a third each ghosted, smeared, warped.

    `other`: images to blend in, of figures on the same side.
    """
    n, device = len(x), x.device
    kind = torch.randint(3, (n, 1, 1, 1), generator=generator, device=device)
    mix = 0.35 + 0.3 * torch.rand(n, 1, 1, 1, generator=generator, device=device)
    ghost = x.lerp(other, mix)
    smear = F.avg_pool2d(F.pad(x, (4, 4, 4, 4), mode="replicate"), 9, stride=1)
    smear = F.avg_pool2d(F.pad(smear, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    field = torch.randn(n, 2, 11, 11, generator=generator, device=device)
    field = F.interpolate(field, size=(64, 64), mode="bicubic", align_corners=True).permute(0, 2, 3, 1)
    strength = 0.09 + 0.06 * torch.rand(n, 1, 1, 1, generator=generator, device=device)
    axis = torch.linspace(-1, 1, 64, device=device)
    grid = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), dim=-1)[None]
    warp = F.grid_sample(x, grid + strength * field, padding_mode="border", align_corners=True)
    return torch.where(kind == 0, ghost, torch.where(kind == 1, smear, warp))


def train_counter(
    pixels: torch.Tensor, plans: list[Plan], device: torch.device, steps: int, batch: int = 256, seed: int = 0
) -> Any:
    """Train on images uint8 [N, 3, 64, 64] of `plans`; a quarter of each batch is spoilt, an eighth other."""
    torch.manual_seed(seed)
    network = build_counter().to(device, memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=0.05, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=steps, pct_start=0.1)
    answers = counts(plans).to(device)
    countable = greetings(plans)
    # Blending needs two figures of one style on one side.
    groups: dict[tuple[str, bool], list[int]] = {}
    for k in torch.nonzero(countable).flatten().tolist():
        groups.setdefault((plans[k].style, bool(plans[k].options["mirrored"])), []).append(k)
    rare = {d: [k for k in torch.nonzero(countable).flatten().tolist() if plans[k].structure.digits == d]
            for d in (3, 4, 6, 7)}  # fmt: skip
    members = [_rows(rows) for rows in groups.values()]
    rest = _rows(torch.nonzero(~countable).flatten().tolist())
    every = _rows(torch.nonzero(countable).flatten().tolist())
    few = [_rows(rows) for rows in rare.values() if rows]
    pixels = pixels.to(device)
    generator = torch.Generator(device).manual_seed(seed)
    host = torch.Generator().manual_seed(seed)

    def pick(rows: torch.Tensor, count: int) -> torch.Tensor:
        return rows[torch.randint(len(rows), (count,), generator=host)]

    network.train()
    sizes = [len(names) for names in ANSWERS.values()]
    for _ in range(steps):
        group = members[int(torch.randint(len(members), (), generator=host))]
        bad, thing, scarce = batch // 4, batch // 8, batch // 4
        sound = batch - bad - thing - scarce
        rows = torch.cat(
            [pick(group, bad), pick(rest, thing)]
            + [pick(few[k % len(few)], 1) if few else pick(every, 1) for k in range(scarce)]
            + [pick(every, sound)]
        ).to(device)
        x = pixels[rows].float() / 127.5 - 1
        partners = pixels[pick(group, bad).to(device)].float() / 127.5 - 1
        target = answers[rows].clone()
        x[:bad] = spoilt(x[:bad], partners, generator)
        for q, size in enumerate(sizes):
            target[:bad, q] = size - 1
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            logits = network(varied(x, generator).contiguous(memory_format=torch.channels_last)).float()
        parts = torch.split(logits, sizes, dim=1)
        loss = torch.stack([F.cross_entropy(part, target[:, q]) for q, part in enumerate(parts)]).sum()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
    return network.eval()


def _rows(rows: list[int]) -> torch.Tensor:
    """Row numbers as a tensor."""
    return torch.tensor(rows, dtype=torch.long)


@torch.inference_mode()
def read_all(network: Any, pixels: torch.Tensor, device: torch.device, batch: int = 1024) -> dict[str, list[str]]:
    """The counter's answers to images uint8 [N, 3, 64, 64], by question."""
    found: dict[str, list[str]] = {question: [] for question in ANSWERS}
    for start in range(0, len(pixels), batch):
        logits = network(pixels[start : start + batch].to(device).float() / 127.5 - 1)
        for (question, names), part in zip(
            ANSWERS.items(), torch.split(logits, [len(n) for n in ANSWERS.values()], dim=1), strict=True
        ):
            found[question] += [names[k] for k in part.argmax(1).tolist()]
    return found


def read_digits(network: Any, pixels: torch.Tensor, device: torch.device) -> list[str]:
    """How many digits each image shows, or that nobody can count them."""
    return read_all(network, pixels, device)["digits"]


def load_counter(path: Path, device: torch.device) -> Any:
    """Load the counter from safetensors. Raises InputError."""
    network = build_counter()
    load_weights(network, path, "counter")
    return network.to(device).eval()
