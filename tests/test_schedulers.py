"""The table of schedulers, and the noise that pictures start from."""

import pytest
import torch

from pipeline.errors import InputError
from pipeline.schedulers import build_scheduler, initial_noise


def test_initial_noise_is_the_seeds_own():
    together, _ = initial_noise([3, 4, 5], (3, 8, 8))
    alone, _ = initial_noise([4], (3, 8, 8))
    assert torch.equal(together[1], alone[0])
    assert not torch.equal(together[0], together[1])


def test_an_unknown_scheduler_is_named_with_the_known_ones():
    with pytest.raises(InputError, match=r"scheduler 'ddpm' is unknown; known schedulers: ddim, euler, dpmsolver\+\+"):
        build_scheduler("ddpm", {})
