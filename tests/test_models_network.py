"""The network against a plain reading of its description, and what time may and may not change."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - its customary name

from reverb_fpga.models.activation import Encoded
from reverb_fpga.models.description import InputSpec, LayerSpec, NetworkSpec, PoolSpec, TensorSpec, WeightSpec
from reverb_fpga.models.network import Layer, LayerTrace, Network
from reverb_fpga.models.neuron import lif
from reverb_fpga.models.pooling import running_average
from reverb_fpga.models.quant import quantise_multibit, sign_plus
from reverb_fpga.models.testing import randomise
from reverb_fpga.models.zoo import ARCHITECTURES, DatasetSpec, Options, build

DATA = DatasetSpec("toy", InputSpec(3, 36, 36, (120, 5, 200), (60.0, 70.5, 50.0)), tuple("abcde"))


def pixels(count: int = 4, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, (count, *DATA.input.shape), generator=torch.Generator().manual_seed(seed))


def _plain_read(tensor: TensorSpec, tensors: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    if tensor.alpha:
        x = x * tensors["alpha"].abs().reshape(-1, *([1] * (x.dim() - 3)))
    if tensor.bits is not None and tensor.bits > 1:
        step = tensors["scale"]
        x = step * torch.floor(x / step + 0.5).clamp(0, 2**tensor.bits - 1)
    return x


def _plain_pool(x: torch.Tensor, pool: PoolSpec | None) -> torch.Tensor:
    if pool is None:
        return x
    apply = F.avg_pool2d if pool.kind == "avg" else F.max_pool2d
    return apply(x, pool.window, pool.stride, pool.padding)


def _plain_weight(layer: LayerSpec, latent: torch.Tensor) -> torch.Tensor:
    wide = (-1, *([1] * (latent.dim() - 1)))
    if layer.weight.kind == "multibit":
        integers, scale = quantise_multibit(latent.float(), layer.weight.bits)
        return integers.double() * scale.double().reshape(wide)
    if layer.weight.kind == "ternary":
        limit = 0.7 * latent.float().abs().flatten(1).mean(1).reshape(wide)
        return torch.sign(latent) * (latent.float().abs() > limit)
    if layer.weight.kind == "scaled":
        return sign_plus(latent) * latent.abs().flatten(1).mean(1).reshape(wide)
    return sign_plus(latent) if layer.weight.kind == "binary" else latent


def plain_forward(network: Network, images: torch.Tensor) -> torch.Tensor:
    """Step by step in the order of models/description.py, in float64, nothing shared, fused or skipped."""
    spec, state = network.spec, {name: value.double() for name, value in network.state_dict().items()}
    mean, std = torch.tensor(spec.input.mean).double(), torch.tensor(spec.input.std).double()
    normal = (images - mean[:, None, None]) / std[:, None, None]
    read = {"input": normal.transpose(0, 1) if normal.dim() == 5 else normal.expand(spec.timesteps, *images.shape)}

    def parts(prefix: str) -> dict[str, torch.Tensor]:
        return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}

    def undivided(name: str) -> torch.Tensor:
        """Spikes without alpha, or the current of a layer without neuron."""
        alpha = state.get(f"tensors.{name}.alpha")
        if alpha is None:
            return read[name]
        size = alpha.abs().reshape(-1, *([1] * (read[name].dim() - 3)))
        return torch.where(size == 0, torch.zeros(()).double(), read[name] / size)

    for layer in spec.layers:
        tensors = parts(f"layers.{layer.name}.")
        alpha = state.get(f"tensors.{layer.source}.alpha")
        signs = torch.ones(read[layer.source].shape[2]).double() if alpha is None else sign_plus(alpha)
        steps = []
        for time, spikes in enumerate(read[layer.source] if layer.kind != "pool" else undivided(layer.source)):
            y = _plain_pool(spikes.reshape(*spikes.shape, *([1] * (4 - spikes.dim()))), layer.pool_before)
            if layer.kind == "linear":
                weight = _plain_weight(layer, tensors["weight"])
                y = F.linear(y.flatten(1), weight * signs.repeat_interleave(weight.shape[1] // len(signs)))
            elif layer.kind == "conv":
                weight = _plain_weight(layer, tensors["weight"]) * signs[:, None, None]
                y = F.conv2d(y, weight, None, layer.stride, layer.padding, layer.dilation)
            y = _plain_pool(y, layer.pool_after)
            wide = (-1, *([1] * (y.dim() - 2)))
            if layer.bias:
                y = y + tensors["bias"].reshape(wide)
            if layer.bn != "none":
                y = (y - tensors["bn.running_mean"].reshape(wide)) / torch.sqrt(
                    tensors["bn.running_var"].reshape(wide) + 1e-5
                )
            if layer.bn == "affine":
                y = y * tensors["bn.weight"].reshape(wide) + tensors["bn.bias"].reshape(wide)
            if layer.gate is not None:
                over = tuple(range(1 if layer.gate.mean == "layer" else 2, y.dim()))
                average = y.mean(over, keepdim=True) if over else y
                y = y * _plain_gate(tensors["gate"][time] * average, layer.gate.mean == "channel")
            steps.append(y)
        x = torch.stack(steps)
        for name in layer.shortcuts:
            x = x + undivided(name).reshape(-1, *x.shape[1:])
        if layer.neuron is not None:
            tensor = spec.tensor(layer.name)
            x = lif(x, spec.timesteps, layer.neuron.tau, layer.neuron.v_th, tensor.binary)
            x = _plain_read(tensor, parts(f"tensors.{layer.name}."), x)
        read[layer.name] = x
    return x.mean(0)


def _plain_gate(argument: torch.Tensor, rounded: bool) -> torch.Tensor:
    if not rounded:
        return torch.sigmoid(argument)
    middle = (torch.floor(argument * 16).clamp(-128, 127) + 0.5) / 16
    return torch.floor(256 * torch.sigmoid(middle) + 0.5) / 256


def check_forward(network: Network, images: torch.Tensor | None = None) -> None:
    images = pixels() if images is None else images
    got = network.double()(images).double()
    torch.testing.assert_close(got, plain_forward(network, images), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("system", ["reverb", "reverb-learnable", "snn"])
@pytest.mark.parametrize("pool_mode", ["current", "spike"])
@pytest.mark.parametrize("v_th", [0.0, 0.25])
@pytest.mark.parametrize("arch", sorted(ARCHITECTURES))
def test_forward_equals_the_description(arch: str, v_th: float, pool_mode: str, system: str) -> None:
    options = Options(system=system, timesteps=3, v_th=v_th, pool_mode=pool_mode, width=0.125)  # type: ignore[arg-type]
    network = randomise(build(arch, DATA, options, seed=1), seed=2)
    check_forward(network)


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
    assert list(codes) == [layer.name for layer in network.spec.layers[:-1]]
    for layer, trace in zip(network.stages(), traces, strict=True):
        if trace.events is not None:
            code = codes[layer.spec.source]
            assert int(code.min()) >= 0
            assert int(code.max()) <= 2**bits - 1
            torch.testing.assert_close(trace.events, code * network.tensor(layer.spec.source).scale.detach())
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
            alpha = network.tensor(layer.spec.source).alpha
            assert trace.events is not None  # they carry |alpha|: only its signs are left to apply
            current = layer.current(Encoded(trace.events, None if alpha is None else sign_plus(alpha)))
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
                layer.clips = lambda current: False  # type: ignore[method-assign]
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
    ours, theirs = running_average(own, (side, side)), F.avg_pool2d(other, side, stride=1)
    grad = torch.randn(ours.shape, generator=generator, dtype=torch.float64)
    ours.backward(grad)
    theirs.backward(grad)
    assert torch.equal(ours, theirs)
    torch.testing.assert_close(own.grad, other.grad)


def test_averages_of_codes_are_exact_in_bfloat16() -> None:
    """The maps of a network on a GPU read the very averages that the hardware adds up."""
    grey = dataclasses.replace(DATA, input=InputSpec(1, 28, 28, (73,), (90.0,)))
    network = randomise(build("fmnist", grey, Options(act_bits=8, pool_mode="spike", width=0.125)), 0)
    averaging = [layer for layer in network.stages() if layer.reads_averages]
    assert len(averaging) == 2
    for layer in averaging:
        side = 2 + layer.spec.kernel[0]
        generator = torch.Generator().manual_seed(1)
        codes = torch.randint(0, 256, (1, 4, layer.spec.in_channels, 2 * side, 2 * side), generator=generator).float()
        source = Encoded(codes, torch.full((layer.spec.in_channels,), 0.37), codes=True)
        expected = layer.current(source)
        with torch.autocast("cpu", torch.bfloat16):
            found = layer.current(source)
            rounded = layer.current(dataclasses.replace(source, codes=False))
        assert torch.equal(found, expected)
        assert not torch.equal(rounded, expected)


@pytest.mark.parametrize(
    ("window", "padding"), [((2, 2), (0, 0)), ((2, 2), (1, 1)), ((3, 2), (1, 0)), ((1, 4), (0, 2))]
)
def test_the_pool_of_a_current_goes_into_the_kernel(window: tuple[int, int], padding: tuple[int, int]) -> None:
    spec = LayerSpec(
        "conv1", "conv", "input", 3, 5, (3, 3), weight=WeightSpec("binary"), padding=padding, bn="none",
        pool_after=PoolSpec("avg", window, window),
    )  # fmt: skip
    layer = Layer(spec, None, 1).double()
    x = torch.randn(2, 3, 12, 13, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    plain = F.avg_pool2d(F.conv2d(x, layer.effective_weight(), padding=padding), window)
    torch.testing.assert_close(layer.current(Encoded(x.unsqueeze(0)))[0], plain)
