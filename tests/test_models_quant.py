"""Sign, multi-bit weights, activation codes: values and gradients."""

from __future__ import annotations

import pytest
import torch

from reverb_fpga.models.activation import Activation
from reverb_fpga.models.layers import TensorSpec
from reverb_fpga.models.quant import (
    binarise,
    code_of,
    multibit_ste,
    quantise_multibit,
    quantise_ternary,
    sign_plus,
    ternary_ste,
)


def test_sign_of_zero_is_plus_one() -> None:
    values = torch.tensor([0.0, -0.0, 1e-30, -1e-30, 2.0, -2.0])
    assert sign_plus(values).tolist() == [1, 1, 1, -1, 1, -1]
    assert binarise(values).tolist() == [1, 1, 1, -1, 1, -1]


def test_straight_through_only_within_one() -> None:
    weight = torch.tensor([-1.5, -1.0, 0.0, 0.5, 1.0, 1.0001], requires_grad=True)
    binarise(weight).sum().backward()
    assert weight.grad is not None
    assert weight.grad.tolist() == [0, 1, 1, 1, 1, 0]


def test_ternary_weights_pass_the_gradient_alike() -> None:
    weight = torch.tensor([[-1.5, -0.9, 0.01, 0.5, 1.0]], requires_grad=True)
    ternary = ternary_ste(weight)
    assert ternary.tolist() == quantise_ternary(weight).tolist() == [[-1, -1, 0, 0, 1]]
    (ternary * torch.arange(5)).sum().backward()
    assert weight.grad is not None
    assert weight.grad.tolist() == [[0, 1, 2, 3, 4]]


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_multibit_is_symmetric_and_scaled_per_output(bits: int) -> None:
    weight = torch.randn(5, 3, 3, 3, generator=torch.Generator().manual_seed(bits))
    weight[2] = 0
    integers, scale = quantise_multibit(weight, bits)
    top = 2 ** (bits - 1) - 1
    assert torch.equal(integers, integers.round())
    assert integers.abs().amax(dim=(1, 2, 3)).tolist() == [top, top, 0, top, top]
    assert scale.shape == (5,)
    assert (weight - integers * scale[:, None, None, None]).abs().max() <= scale.max() / 2 + 1e-6


def test_multibit_gradient_passes() -> None:
    weight = torch.randn(4, 6, requires_grad=True)
    (multibit_ste(weight, 4) * 3).sum().backward()
    assert weight.grad is not None
    assert (weight.grad == 3).all()


def _activation(scale: float, bits: int) -> Activation:
    activation = Activation(TensorSpec("a", bits), 1, divided=False)
    assert activation.scale is not None
    activation.scale.data.fill_(scale)
    return activation


def _rounded(activation: Activation, x: torch.Tensor) -> torch.Tensor:
    encoded = activation.encode(x)
    assert encoded.codes
    assert encoded.gain is not None
    return encoded.values * encoded.gain


@pytest.mark.parametrize("bits", [4, 6, 8])
def test_codes_round_half_up_and_clip(bits: int) -> None:
    top = 2**bits - 1
    x = torch.tensor([-3.0, -0.1, 0.0, 0.2499, 0.25, 0.75, 1.0, top / 2, 1e9])
    expected = [0, 0, 0, 0, 1, 2, 2, top, top]
    assert code_of(x, torch.tensor(0.5), bits).tolist() == expected
    assert _rounded(_activation(0.5, bits), x).tolist() == [0.5 * code for code in expected]


def test_step_gradients_are_those_of_lsq() -> None:
    x = torch.tensor([-1.0, 0.3, 1.1, 9.0], requires_grad=True)
    activation = _activation(0.5, 2)
    _rounded(activation, x).sum().backward()
    assert activation.scale is not None
    assert x.grad is not None
    assert activation.scale.grad is not None
    assert x.grad.tolist() == pytest.approx([0, 1, 1, 0])
    inside = (1 - 0.6) + (2 - 2.2)
    assert activation.scale.grad.item() == pytest.approx((inside + 3) / (4 * 3) ** 0.5, rel=1e-5)
