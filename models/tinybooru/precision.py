"""Whether a device multiplies in bfloat16 by itself; emulated it would be slower than float32."""

import torch


def has_bfloat16(device: torch.device) -> bool:
    """Whether `device` is a GPU, or a CPU with units for bfloat16 (AVX-512 BF16 or AMX)."""
    if device.type == "cuda":
        return True
    able = torch.cpu.get_capabilities()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))
