"""Training of what scores images: CLIP and the aesthetic head on it, and what all trainings of scorers share."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from tqdm import tqdm
from transformers import CLIPTokenizer

from eval.scorers.aesthetic import AestheticHead, fit_aesthetic_head
from models.tinybooru.checkpoint import laid_out_like, load_checkpoint, save_checkpoint
from models.tinybooru.corpus import Corpus
from models.tinybooru.precision import has_bfloat16
from models.tinybooru.tokenizer import CONTEXT_LENGTH
from pipeline.errors import InputError
from pipeline.storage.files import fingerprint
from pipeline.tinybooru.flaws import QUALITIES

# Images are drawn without a margin to speak of, so a shift of a few pixels keeps every tag true.
SHIFT = 3
MEAN_AND_STD = (0.5, 0.5, 0.5)


@dataclass(frozen=True)
class ScorerRecipe:
    """One training run with AdamW, warm-up and cosine decay."""

    name: str
    steps: int
    batch: int
    learning_rate: float
    warmup: int = 100
    weight_decay: float = 0.05
    seed: int = 0


def clip_configuration(tokenizer: CLIPTokenizer) -> dict[str, object]:
    """open_clip's model configuration: timm's smallest ResNet (0.5 M parameters) and a two-layer text transformer."""
    return {
        "embed_dim": 128,
        "vision_cfg": {
            "image_size": 64,
            "timm_model_name": "test_resnet",
            "timm_model_pretrained": False,
            "timm_pool": "avg",
            "timm_proj": "linear",
        },
        "text_cfg": {
            "context_length": CONTEXT_LENGTH,
            "vocab_size": len(tokenizer),
            "width": 64,
            "heads": 2,
            "layers": 2,
            # Present and not empty: open_clip then reads the tokenizer beside the configuration.
            "hf_tokenizer_name": "tinybooru",
        },
    }


def build_clip(tokenizer: CLIPTokenizer) -> torch.nn.Module:
    """open_clip's CLIP in the configuration above."""
    configuration = clip_configuration(tokenizer)
    clip: torch.nn.Module = open_clip.CLIP(
        configuration["embed_dim"],
        open_clip.CLIPVisionCfg(**configuration["vision_cfg"]),  # type: ignore[arg-type]
        open_clip.CLIPTextCfg(**configuration["text_cfg"]),  # type: ignore[arg-type]
    )
    return clip


def shifted(pixels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """uint8 [B, 3, H, W] to float in [-1, 1], moved by up to SHIFT pixels, edges repeated."""
    dy, dx = (int(torch.randint(-SHIFT, SHIFT + 1, (), generator=generator)) for _ in range(2))
    x = F.pad(pixels.float() / 127.5 - 1, (SHIFT,) * 4, mode="replicate")
    height, width = pixels.shape[2:]
    return x[:, :, SHIFT + dy : SHIFT + dy + height, SHIFT + dx : SHIFT + dx + width]


class ScorerTraining:
    """A resumable run of one scorer; every step's images come from (seed, step) alone."""

    def __init__(
        self, recipe: ScorerRecipe, network: torch.nn.Module, data: str, checkpoint: Path, device: torch.device
    ):
        """`data` stands for what the network learns from; a run does not continue with other images or words."""
        self.recipe, self.checkpoint, self.device = recipe, checkpoint, device
        self.network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.data = data
        self.optimiser = torch.optim.AdamW(
            self.network.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.98), weight_decay=recipe.weight_decay
        )
        self.step = 0

    def loss(self, chosen: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Loss of the images at indices `chosen` [B]."""
        raise NotImplementedError

    def read(self, pixels: torch.Tensor) -> torch.Tensor:
        """The network's logits of images [B, 3, H, W], in single precision; products in bfloat16 where that is fast."""
        pixels = pixels.to(self.device, memory_format=torch.channels_last)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=has_bfloat16(self.device)):
            logits: torch.Tensor = self.network(pixels)
        return logits.float()

    def resume(self) -> None:
        """Continue from the checkpoint, if there is one. Raises InputError where it is of another recipe."""
        if not self.checkpoint.exists():
            return
        tensors, state = load_checkpoint(self.checkpoint)
        if state["recipe"] != asdict(self.recipe):
            raise InputError(
                f"checkpoint {self.checkpoint} belongs to another recipe; delete it to train from the start"
            )
        if state["data"] != self.data:
            raise InputError(
                f"checkpoint {self.checkpoint} was trained with other images or another vocabulary than there are "
                "now; delete it to train from the start"
            )
        own = {n.removeprefix("weight."): t for n, t in tensors.items() if n.startswith("weight.")}
        shapes = self.network.state_dict()
        self.network.load_state_dict({n: t.reshape(shapes[n].shape) for n, t in own.items()})
        names = dict(self.network.named_parameters())
        for key, value in tensors.items():
            if key.startswith("optimiser."):
                name, slot = key.removeprefix("optimiser.").rsplit("|", 1)
                p = names[name]
                self.optimiser.state[p][slot] = value.reshape(()) if slot == "step" else laid_out_like(p, value)
        self.step = state["step"]

    def save(self) -> None:
        """Write everything a resumed run needs."""
        tensors = {f"weight.{n}": t for n, t in self.network.state_dict().items()}
        for name, p in self.network.named_parameters():
            tensors |= {f"optimiser.{name}|{slot}": t for slot, t in self.optimiser.state[p].items()}
        save_checkpoint(self.checkpoint, tensors, {"recipe": asdict(self.recipe), "step": self.step, "data": self.data})

    def run(self, images: int, until: int | None = None) -> None:
        """Train to the end (or to step `until`) on a corpus of `images`, saving every 200 steps."""
        self.resume()
        recipe = self.recipe
        end = recipe.steps if until is None else until
        self.network.train()
        bar = tqdm(initial=self.step, total=end, desc=recipe.name, unit="step", disable=None)
        losses = []
        while self.step < end:
            progress = self.step / recipe.steps
            rate = (
                recipe.learning_rate * min(1.0, (self.step + 1) / recipe.warmup) * 0.5 * (1 + np.cos(np.pi * progress))
            )
            for group in self.optimiser.param_groups:
                group["lr"] = rate
            generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + self.step)
            chosen = torch.randint(images, (recipe.batch,), generator=generator)
            loss = self.loss(chosen, generator)
            self.optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
            self.optimiser.step()
            self.step += 1
            losses.append(loss.item())
            bar.update()
            if self.step % 200 == 0 or self.step == end:
                bar.set_postfix(loss=f"{np.mean(losses):.4f}")
                if bar.disable:
                    print(f"{recipe.name} step {self.step} loss {np.mean(losses):.4f}", flush=True)
                losses = []
                self.save()
        bar.close()
        self.network.eval()


class ClipTraining(ScorerTraining):
    """Contrastive training of image and text embeddings (arXiv 2103.00020)."""

    def __init__(
        self, recipe: ScorerRecipe, tokenizer: CLIPTokenizer, corpus: Corpus, checkpoint: Path, device: torch.device
    ):
        torch.manual_seed(recipe.seed)
        data = fingerprint([corpus.mark, tokenizer.get_vocab()])
        super().__init__(recipe, build_clip(tokenizer), data, checkpoint, device)
        self.corpus = corpus
        self.tokens = tokenizer(
            corpus.captions(), padding="max_length", truncation=True, max_length=CONTEXT_LENGTH, return_tensors="pt"
        ).input_ids

    def loss(self, chosen: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        pixels = shifted(self.corpus.pixels[chosen], generator).to(self.device, memory_format=torch.channels_last)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=has_bfloat16(self.device)):
            images, texts, scale = self.network(pixels, self.tokens[chosen].to(self.device))
        logits = scale.float() * images.float() @ texts.float().T
        # Two images of one caption are both right; without this the loss would push them apart.
        same = (self.tokens[chosen][:, None] == self.tokens[chosen][None]).all(-1).to(self.device).float()
        target = same / same.sum(1, keepdim=True)
        return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def export_clip(network: torch.nn.Module, tokenizer: CLIPTokenizer, folder: Path) -> None:
    """Write CLIP as a folder that `open_clip.create_model_and_transforms("local-dir:...")` loads."""
    folder.mkdir(parents=True, exist_ok=True)
    preprocess = {
        "mean": MEAN_AND_STD,
        "std": MEAN_AND_STD,
        "interpolation": "bicubic",
        "resize_mode": "shortest",
        "size": 64,
    }
    content = {"model_cfg": clip_configuration(tokenizer), "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(content, indent=2) + "\n")
    tensors = {n: t.half() if t.is_floating_point() else t for n, t in network.state_dict().items()}
    save_file({n: t.contiguous() for n, t in tensors.items()}, folder / "open_clip_model.safetensors")
    tokenizer.save_pretrained(folder)


def quality_ranks(corpus: Corpus) -> torch.Tensor:
    """Quality of each image as a rank [N]: 0 worst quality, 5 masterpiece."""
    return torch.tensor([len(QUALITIES) - 1 - QUALITIES.index(quality) for quality in corpus.quality])


def train_aesthetic_head(image_embeddings: torch.Tensor, corpus: Corpus) -> AestheticHead:
    """Fit the head on embeddings of real images."""
    return fit_aesthetic_head(image_embeddings, quality_ranks(corpus))
