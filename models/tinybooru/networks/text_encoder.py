"""The text encoder of the embedded networks: a small CLIP, learnt with a small UNet and frozen from there on."""

import torch
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from models.tinybooru.checkpoint import tensors_digest
from models.tinybooru.tokenizer import CONTEXT_LENGTH


def build_text_encoder(tokenizer: CLIPTokenizer, width: int, layers: int = 2) -> CLIPTextModel:
    """A small CLIP text transformer; without layers it is a table of token and position embeddings."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=4 * width,
            projection_dim=width,
            num_hidden_layers=layers,
            num_attention_heads=4,
            max_position_embeddings=CONTEXT_LENGTH,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def text_encoder_digest(text_encoder: CLIPTextModel) -> str:
    """Hex digest of a text encoder's weights."""
    return tensors_digest(text_encoder.state_dict())


def encode_text(text_encoder: CLIPTextModel, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Text embeddings [B, CONTEXT_LENGTH, width] and pooled ones [B, width] of token ids [B, CONTEXT_LENGTH].

    What CLIPTextModel's forward gives, without its checks on the host, which a CUDA graph cannot hold.
    """
    hidden = text_encoder.embeddings(input_ids=ids)
    length = ids.shape[1]
    future = torch.full((length, length), torch.finfo(hidden.dtype).min, device=ids.device, dtype=hidden.dtype).triu(1)
    for layer in text_encoder.encoder.layers:
        hidden = layer(hidden, future[None, None])
    hidden = text_encoder.final_layer_norm(hidden)
    end = (ids == text_encoder.config.eos_token_id).int().argmax(1)
    pooled: torch.Tensor = hidden[torch.arange(len(ids), device=ids.device), end]
    return hidden, pooled


def pad_ids(ids: list[int], end: int) -> list[int]:
    """Token ids filled up with the end token to CONTEXT_LENGTH."""
    return [*ids, *[end] * (CONTEXT_LENGTH - len(ids))]
