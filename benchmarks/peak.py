"""What a device reaches on large products of matrices: the peak that shares of peak are shares of."""

import torch

from benchmarks.record import least


def matmul_rate(device: torch.device, dtype: torch.dtype = torch.bfloat16, side: int = 8192) -> float:
    """FLOPs a second of a product of two square matrices, the best of five times ten."""
    a = torch.randn(side, side, device=device, dtype=dtype)

    def product() -> None:
        for _ in range(10):
            a @ a
        a[0, 0].item()  # waits for the device

    (seconds,) = least(5, product)
    return 10 * 2 * side**3 / seconds
