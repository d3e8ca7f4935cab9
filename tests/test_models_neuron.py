"""LIF against a plain loop, its gradients, and the time that changes nothing."""

from __future__ import annotations

import pytest
import torch

from reverb_fpga.models.neuron import WINDOW, lif


def reference(current: torch.Tensor, steps: int, tau: float, v_th: float, binary: bool) -> torch.Tensor:
    """Element by element, as the equations say."""
    expanded = current.expand(steps, *current.shape[1:])
    result = torch.zeros_like(expanded)
    for index in range(expanded[0].numel()):
        membrane, fired = 0.0, True
        for step in range(steps):
            kept = 0.0 if fired else membrane
            membrane = float(torch.tensor(kept) * tau + expanded[step].flatten()[index])
            fired = membrane >= v_th
            if fired:
                result[step].view(-1)[index] = 1.0 if binary else membrane
    return result


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("v_th", [0.0, 0.25])
@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_spikes_equal_the_plain_loop(steps: int, static: bool, v_th: float, binary: bool) -> None:
    generator = torch.Generator().manual_seed(steps)
    current = torch.randint(-4, 5, (1 if static else steps, 3, 7), generator=generator) / 8
    got = lif(current, steps, 0.25, v_th, binary)
    assert torch.equal(got, reference(current, steps, 0.25, v_th, binary))


def test_threshold_is_reached_not_exceeded() -> None:
    current = torch.tensor([[0.25, 0.2499999]])
    assert lif(current, 2, 0.0, 0.25).tolist() == [[0.25, 0.0], [0.25, 0.0]]


def test_membrane_leaks_and_resets() -> None:
    current = torch.tensor([[0.2], [0.2], [0.2]])
    spikes = lif(current, 3, 0.5, 0.25)
    assert spikes[:, 0].tolist() == pytest.approx([0.0, 0.3, 0.0])


@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("v_th", [0.0, 0.25])
def test_gradient_equals_unrolled_surrogate(v_th: float, binary: bool, static: bool) -> None:
    steps, tau = 4, 0.25
    torch.manual_seed(3)
    current = torch.randn(1 if static else steps, 50, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(steps, 50, dtype=torch.float64)
    (lif(current, steps, tau, v_th, binary) * weights).sum().backward()

    twin = current.detach().clone().requires_grad_()
    expanded, membrane, total = twin.expand(steps, 50), None, torch.zeros((), dtype=torch.float64)
    for step in range(steps):
        u = expanded[step] if membrane is None else expanded[step] + tau * membrane
        fired = (u >= v_th).double()
        near = ((u - v_th).abs() < WINDOW / 2).double()
        slope = (near / WINDOW if binary else fired + v_th * near / WINDOW).detach()
        total = total + (u * slope * weights[step]).sum()
        membrane = u * (1 - fired.detach())
    total.backward()
    assert current.grad is not None
    assert twin.grad is not None
    torch.testing.assert_close(current.grad, twin.grad)
