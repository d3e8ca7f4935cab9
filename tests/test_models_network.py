"""The network against a plain reading of its description, and what time may and may not change."""

from __future__ import annotations

import dataclasses
from typing import Literal

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - its customary name

from reverb_fpga.models.description import InputSpec, NetworkSpec
from reverb_fpga.models.network import LayerTrace, Network, running_average
from reverb_fpga.models.neuron import lif
from reverb_fpga.models.quant import quantise_multibit, sign_plus
from reverb_fpga.models.testing import randomise
from reverb_fpga.models.zoo import ARCHITECTURES, DatasetSpec, Options, build

DATA = DatasetSpec("toy", InputSpec(3, 36, 36, (120, 5, 200), (60.0, 70.5, 50.0)), tuple("abcde"))


def pixels(count: int = 4, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, (count, *DATA.input.shape), generator=torch.Generator().manual_seed(seed))


def plain_forward(network: Network, images: torch.Tensor) -> torch.Tensor:
    """Step by step in the order of models/description.py, in float64, nothing shared, fused or skipped."""
    spec, state = network.spec, {name: value.double() for name, value in network.state_dict().items()}
    mean, std = torch.tensor(spec.input.mean).double(), torch.tensor(spec.input.std).double()
    x = ((images - mean[:, None, None]) / std[:, None, None]).expand(spec.timesteps, *images.shape)
    producer = None
    for index, layer in enumerate(spec.layers):
        tensors = {name.split(".", 2)[2]: v for name, v in state.items() if name.startswith(f"layers.{index}.")}
        signs = torch.ones(x.shape[2]).double()
        if layer.alpha:
            signs = sign_plus(tensors["alpha"])
            x = x * tensors["alpha"].abs().reshape(-1, *([1] * (x.dim() - 3)))
        if layer.in_bits is not None:
            step = tensors["in_scale"]
            x = step * torch.floor(x / step + 0.5).clamp(0, 2**layer.in_bits - 1)
        weight = tensors["weight"]
        if layer.weight.kind == "binary":
            weight = sign_plus(weight)
        elif layer.weight.kind == "multibit":
            integers, scale = quantise_multibit(weight.float(), layer.weight.bits)
            weight = integers.double() * scale.double().reshape(-1, *([1] * (weight.dim() - 1)))
        steps = []
        for spikes in x:
            if producer is not None and producer.pool > 1 and producer.pool_mode == "spike":
                spikes = F.avg_pool2d(spikes, producer.pool)
            if layer.kind == "linear":
                repeated = signs.repeat_interleave(weight.shape[1] // len(signs))
                y = F.linear(spikes.flatten(1), weight * repeated, tensors.get("bias"))
            else:
                full = weight * signs[:, None, None]
                y = F.conv2d(spikes, full, stride=layer.stride, padding=layer.padding)
                if layer.pool > 1 and layer.pool_mode == "current":
                    y = F.avg_pool2d(y, layer.pool)
            if layer.bn:
                mean_, var, gamma, beta = (
                    tensors[f"bn.{name}"].reshape(-1, *([1] * (y.dim() - 2)))
                    for name in ("running_mean", "running_var", "weight", "bias")
                )
                y = (y - mean_) / torch.sqrt(var + 1e-5) * gamma + beta
            steps.append(y)
        x = torch.stack(steps)
        if layer.neuron is not None:
            x = lif(x, spec.timesteps, layer.neuron.tau, layer.neuron.v_th, spec.system == "snn")
        producer = layer
    return x.mean(0)


@pytest.mark.parametrize("system", ["reverb", "reverb-learnable", "snn"])
@pytest.mark.parametrize("pool_mode", ["current", "spike"])
@pytest.mark.parametrize("v_th", [0.0, 0.25])
@pytest.mark.parametrize("arch", sorted(ARCHITECTURES))
def test_forward_equals_the_description(arch: str, v_th: float, pool_mode: str, system: str) -> None:
    options = Options(system=system, timesteps=3, v_th=v_th, pool_mode=pool_mode, width=0.125)  # type: ignore[arg-type]
    network = randomise(build(arch, DATA, options, seed=1), seed=2).double()
    torch.testing.assert_close(network(pixels()).double(), plain_forward(network, pixels()), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("bits", [4, 6, 8])
@pytest.mark.parametrize("v_th", [0.0, 0.25])
@pytest.mark.parametrize("pool_mode", ["current", "spike"])
def test_codes_are_integers_that_reproduce_the_input_of_the_map(bits: int, v_th: float, pool_mode: str) -> None:
    options = Options(timesteps=2, v_th=v_th, act_bits=bits, width=0.125, pool_mode=pool_mode)  # type: ignore[arg-type]
    network = randomise(build("fmnist", DATA, options), seed=4)
    traces: list[LayerTrace] = []
    with torch.no_grad():
        logits = network(pixels(), traces)
        codes = network.codes(pixels())
    assert list(codes) == [layer.name for layer in network.spec.layers[1:]]
    for layer, trace in zip(network.stages(), traces, strict=True):
        if trace.events is not None:
            code = codes[trace.name]
            assert int(code.min()) >= 0
            assert int(code.max()) <= 2**bits - 1
            torch.testing.assert_close(trace.events, code * layer.in_scale.detach())
    with torch.no_grad():
        assert torch.equal(logits, network(pixels()))  # tracing changes nothing


@pytest.mark.parametrize("v_th", [0.0, 0.25])
def test_quantised_layers_follow_the_description_one_by_one(v_th: float) -> None:
    """Each layer fed the network's own events, so that a rounding tie cannot spread."""
    network = randomise(build("cnv", DATA, Options(timesteps=2, v_th=v_th, act_bits=8, width=0.125)), seed=5)
    traces: list[LayerTrace] = []
    with torch.no_grad():
        network(pixels(), traces)
        for layer, trace in zip(network.stages()[1:], traces[1:], strict=True):
            layer.quantised = False
            events = trace.events.flatten(0, 1)
            alpha = layer.alpha
            if alpha is not None:  # events already carry |alpha|: only its signs are left to apply
                layer.alpha = torch.nn.Parameter(sign_plus(alpha))
            current = layer.map(events).unflatten(0, trace.current.shape[:2])
            torch.testing.assert_close(current, trace.current, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("arch", sorted(ARCHITECTURES))
def test_time_changes_nothing_without_threshold(arch: str) -> None:
    one = randomise(build(arch, DATA, Options(width=0.125)), seed=3)
    four = Network(dataclasses.replace(one.spec, timesteps=4))
    four.load_state_dict(one.state_dict())
    four.eval()
    with torch.no_grad():
        assert torch.equal(one(pixels()), four(pixels()))
        stacked = pixels()[:, None].expand(-1, 4, -1, -1, -1)
        torch.testing.assert_close(four(stacked), one(pixels()))  # every step computed


def test_events_that_change_over_time_reach_the_membrane() -> None:
    network = randomise(build("scnn5", DATA, Options(timesteps=3, v_th=0.25, width=0.125)), seed=3)
    frames = torch.stack([pixels(2, seed) for seed in range(3)], dim=1)
    with torch.no_grad():
        forward, backward = network(frames), network(frames.flip(1))
    assert not torch.allclose(forward, backward)


def test_every_parameter_gets_a_finite_gradient() -> None:
    for bits in (None, 8):
        network = build("cnv", DATA, Options(timesteps=2, v_th=0.25, act_bits=bits, width=0.125))
        network.initialise_scales(pixels(16))
        F.cross_entropy(network(pixels(16)), torch.arange(16) % 5).backward()
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name
            assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("bits", [None, 8])
def test_gradients_without_time_equal_those_of_one_step_through_the_neuron(bits: int | None) -> None:
    """The fused path (clipping codes is the neuron) against the same network with its spikes computed."""
    network = build("cnv", DATA, Options(act_bits=bits, width=0.125), seed=7)
    network.initialise_scales(pixels(16))
    gradients = []
    for traced in (False, True):
        network.zero_grad()
        if traced:
            for layer in network.stages():
                layer.redundant = lambda current: False  # type: ignore[method-assign]
        F.cross_entropy(network(pixels(16)), torch.arange(16) % 5).backward()
        gradients.append({name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], rtol=1e-3, atol=1e-5, msg=name)


def test_description_names_the_layer_that_does_not_fit() -> None:
    from reverb_fpga.hw.errors import InputError

    spec = build("cnv", DATA, Options(width=0.125)).spec
    wrong = (*spec.layers[:2], dataclasses.replace(spec.layers[2], in_channels=9), *spec.layers[3:])
    with pytest.raises(InputError, match=r"conv3.*in_channels is 9"):
        dataclasses.replace(spec, layers=wrong)
    assert NetworkSpec.from_json(spec.to_json()) == spec


@pytest.mark.parametrize("side", [2, 3, 4])
def test_running_average_has_the_gradient_of_average_pooling(side: int) -> None:
    generator = torch.Generator().manual_seed(side)
    own = torch.randn(2, 3, 9, 8, generator=generator, dtype=torch.float64).requires_grad_()
    other = own.detach().clone().requires_grad_()
    ours, theirs = running_average(own, side), F.avg_pool2d(other, side, stride=1)
    grad = torch.randn(ours.shape, generator=generator, dtype=torch.float64)
    ours.backward(grad)
    theirs.backward(grad)
    assert torch.equal(ours, theirs)
    torch.testing.assert_close(own.grad, other.grad)


@pytest.mark.parametrize("mode", ["current", "spike"])
def test_averages_of_codes_are_exact_in_bfloat16(mode: Literal["current", "spike"]) -> None:
    """The maps of a network on a GPU read the very averages that the hardware adds up."""
    grey = dataclasses.replace(DATA, input=InputSpec(1, 28, 28, (73,), (90.0,)))
    network = randomise(build("fmnist", grey, Options(act_bits=8, pool_mode=mode, width=0.125)), 0)
    pooled = [layer for layer in network.stages() if layer.pool_input > 1 or (mode, layer.spec.pool) == ("current", 2)]
    assert len(pooled) == 2
    for layer in pooled:
        assert layer.alpha is not None
        side = 2 * layer.pool_input * layer.spec.pool + layer.spec.kernel
        generator = torch.Generator().manual_seed(1)
        codes = torch.randint(0, 256, (4, layer.spec.in_channels, side, side), generator=generator)
        spikes = codes / layer.alpha.abs().clamp(min=0.1).reshape(1, -1, 1, 1) * layer.in_scale
        expected = layer.map(spikes)
        with torch.autocast("cpu", torch.bfloat16):
            found = layer.map(spikes)
        assert torch.equal(found, expected)
