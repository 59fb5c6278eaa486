"""The text side: a CLIP text encoder turns prompts into what the denoising networks read."""

from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import CLIPTextModel, CLIPTokenizer
from transformers.utils import logging as transformers_logging

from pipeline.conditioning import Conditioning
from pipeline.errors import InputError
from pipeline.weights import check_folder

# Loading takes no time worth a bar, and a bar would be the only noise of a quiet stage.
transformers_logging.disable_progress_bar()


@dataclass
class TextEncoder:
    """A CLIP text encoder with its tokenizer."""

    model: CLIPTextModel
    tokenizer: CLIPTokenizer

    @torch.inference_mode()
    def encode(self, texts: list[str]) -> Conditioning:
        """What the networks are told of these texts; texts longer than the context are cut."""
        ids = self.tokenizer(
            texts,
            padding="max_length",
            truncation=True,
            max_length=self.tokenizer.model_max_length,
            return_tensors="pt",
        ).input_ids
        return Conditioning(self.model(ids.to(self.model.device)).last_hidden_state)


def load_text_encoder(folder: Path, device: torch.device) -> TextEncoder:
    """Load a text encoder and its tokenizer, in single precision. Raises InputError."""
    check_folder(folder, with_text_encoder=True)
    try:
        model = CLIPTextModel.from_pretrained(folder / "text_encoder", use_safetensors=True, torch_dtype=torch.float32)
        tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    except Exception as error:  # transformers and safetensors raise many kinds for a damaged folder
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{folder} cannot be loaded ({reason}); restore it or train it anew") from None
    return TextEncoder(model.to(device).eval().requires_grad_(False), tokenizer)
