"""Noise paths: converting a prediction between types and between paths changes nothing that it says of the image."""

import itertools
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from repository_copy import ROOT

from pipeline.networks.noise_path import PATHS, RECTIFIED_FLOW, VARIANCE_PRESERVING, NoisePath, from_x0, to_x0

SIGMAS = st.floats(1e-2, 80.0)
KINDS = [(path, kind) for path in PATHS.values() for kind in path.prediction_types]
SHAPE = (2, 3, 4, 4)


def ids(path_and_kind: tuple[NoisePath, str]) -> str:
    return f"{path_and_kind[0].name}, {path_and_kind[1]}"


def image_and_noise():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(SHAPE, generator=generator, dtype=torch.float64) for _ in range(2)]


def meant(kind: str, x0: torch.Tensor, e: torch.Tensor, a: float, b: float) -> torch.Tensor:
    """What a perfect network of this type predicts, by the type's definition."""
    return {"sample": x0, "epsilon": e, "v_prediction": a * e - b * x0, "flow_prediction": e - x0}[kind]


@given(SIGMAS)
def test_sigma_is_noise_by_signal_on_every_path(sigma):
    for path in PATHS.values():
        a, b = path.signal_and_noise(sigma)
        assert b / a == pytest.approx(sigma)
    a, b = VARIANCE_PRESERVING.signal_and_noise(sigma)
    assert a**2 + b**2 == pytest.approx(1)
    a, b = RECTIFIED_FLOW.signal_and_noise(sigma)
    assert a + b == pytest.approx(1)
    assert b == pytest.approx(sigma / (1 + sigma)), "t of rectified flow"


@pytest.mark.parametrize("path_and_kind", KINDS, ids=ids)
@given(sigma=SIGMAS)
def test_every_type_says_the_image_that_it_is_defined_by(path_and_kind, sigma):
    path, kind = path_and_kind
    x0, e = image_and_noise()
    a, b = path.signal_and_noise(sigma)
    x = a * x0 + b * e
    output = meant(kind, x0, e, a, b)
    torch.testing.assert_close(path.to_x0(output, kind, x, sigma), x0, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(path.from_x0(x0, kind, x, sigma), output, atol=1e-9, rtol=1e-9)
    moved = path.to_x0(output + 1, kind, x, sigma) - x0
    torch.testing.assert_close(moved.abs(), torch.full_like(moved, path.x0_per_output(kind, sigma)))


@pytest.mark.parametrize(("of", "to"), list(itertools.product(KINDS, KINDS)), ids=ids)
@given(sigma=SIGMAS)
def test_one_network_says_the_same_image_along_every_path_in_every_type(of, to, sigma):
    """A network that is not perfect: what it says of x follows from x, here along its own path by a cosine."""
    (own, kind), (other, wanted) = of, to
    x0, e = image_and_noise()
    a, b = other.signal_and_noise(sigma)
    x = a * x0 + b * e  # the sampler is on the other path
    seen = other.moved(x, sigma, own)
    torch.testing.assert_close(own.moved(seen, sigma, other), x)
    said = own.to_x0(torch.cos(3 * seen), kind, seen, sigma)
    converted = other.from_x0(said, wanted, x, sigma)
    torch.testing.assert_close(other.to_x0(converted, wanted, x, sigma), said, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("kind", VARIANCE_PRESERVING.prediction_types)
def test_parametrisations_convert_there_and_back(kind):
    a, b = 0.6, 0.8
    x0, noise = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    x = a * x0 + b * noise
    output = {"sample": x0, "epsilon": noise, "v_prediction": a * noise - b * x0}[kind]
    torch.testing.assert_close(to_x0(output, kind, x, a, b), x0)
    torch.testing.assert_close(from_x0(x0, kind, x, a, b), output)
    moved = to_x0(output + 1, kind, x, a, b) - x0
    per_output = VARIANCE_PRESERVING.x0_per_output(kind, b / a)
    torch.testing.assert_close(moved.abs(), torch.full_like(moved, per_output))


@pytest.mark.parametrize(
    ("path", "kind", "message"),
    [
        (RECTIFIED_FLOW, "v_prediction", "unknown on the path rectified_flow; known types: sample, epsilon, flow_pred"),
        (VARIANCE_PRESERVING, "flow_prediction", "unknown on the path variance_preserving; known types: sample, eps"),
        (VARIANCE_PRESERVING, "score", "prediction type 'score' is unknown"),
    ],
)
def test_a_type_that_a_path_has_not_is_refused_with_those_that_it_has(path, kind, message):
    x = torch.zeros(SHAPE)
    for convert in (path.to_x0, path.from_x0):
        with pytest.raises(ValueError, match=message):
            convert(x, kind, x, 1.0)


def test_paths_are_read_without_torch():
    code = "import sys, pipeline.networks.noise_path; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
