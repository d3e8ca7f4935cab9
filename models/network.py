"""The trainable network of a :class:`~reverb_fpga.models.description.NetworkSpec`.

Time is the leading dimension between layers, (T, N, C, H, W); a tensor that is the same at every step has T = 1 and is
computed once. With a current that does not change and ``v_th = 0`` (or ``tau = 0``) a neuron's spikes are the same at
every step (each step either fires and resets, or the membrane only sinks), so a still image runs through such a network
once: exact, not an approximation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F  # noqa: N812 - its customary name
from torch import Tensor, nn

from reverb_fpga.hw.errors import InputError
from reverb_fpga.models.activation import Activation, Encoded, per_channel
from reverb_fpga.models.description import BN_EPS, INPUT, LayerSpec, NetworkSpec, TensorSpec
from reverb_fpga.models.gate import rounded_sigmoid
from reverb_fpga.models.neuron import lif
from reverb_fpga.models.pooling import bordered, pooled, running_average
from reverb_fpga.models.quant import code_of, effective_weight

__all__ = ["Layer", "LayerTrace", "Network"]

Observe = Callable[[str, Tensor], None]


@dataclass(frozen=True)
class LayerTrace:
    """What one layer computed in one forward pass, for density, calibration and comparison.

    Attributes
    ----------
    name : str
        The layer.
    events : Tensor or None
        What its map reads before pooling, (T, N, ...): scaled, rounded where the tensor is; None for the image.
    current : Tensor
        What the neuron receives, shortcuts included, or the logits of each step.
    """

    name: str
    events: Tensor | None
    current: Tensor


class Layer(nn.Module):
    """One layer of a network; parameters as in ``NetworkSpec.tensor_shapes``.

    Parameters
    ----------
    spec : LayerSpec
    fires : TensorSpec or None
        The tensor that it fires.
    steps : int
        Time steps of the network.
    """

    def __init__(self, spec: LayerSpec, fires: TensorSpec | None, steps: int) -> None:
        super().__init__()
        self.spec, self.steps = spec, steps
        self.quantised = True  # as of Activation
        self.binary_spikes = fires is not None and fires.binary
        self.weight = nn.Parameter(torch.empty(spec.weight_shape)) if spec.kind != "pool" else None
        self.bias = nn.Parameter(torch.zeros(spec.out_channels)) if spec.bias else None
        self.gate = nn.Parameter(torch.zeros(steps)) if spec.gate is not None else None
        self.bn: nn.Module | None = None
        if spec.bn != "none":
            kind = nn.BatchNorm2d if spec.kind == "conv" else nn.BatchNorm1d
            self.bn = kind(spec.out_channels, eps=BN_EPS, affine=spec.bn == "affine")
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Latent weights uniform: +-0.1 where their signs count, He's bound for the others."""
        if self.weight is not None:
            bound = 0.1 if self.spec.weight.signs else (6.0 / self.weight[0].numel()) ** 0.5
            nn.init.uniform_(self.weight, -bound, bound)

    def effective_weight(self) -> Tensor:
        """The weights that the map uses: signs, or quantised values; without alpha. A pool layer has none."""
        if self.weight is None:
            raise ValueError(f"layer {self.spec.name}: a pool layer has no weights")
        return effective_weight(self.weight, self.spec.weight)

    def current(self, source: Encoded) -> Tensor:
        """Pool the source, map, pool, add the bias, normalise, gate: (T or 1, N, ...), without shortcuts."""
        times = source.values.shape[:2]
        x = source.values.flatten(0, 1)
        if x.dim() == 2:
            x = x[:, :, None, None]  # what a linear layer fired is a map of one pixel
        if source.codes and self.reads_averages:
            # bfloat16 holds codes of 8 bits, but not their averages: those would be rounded by up to half a code
            with torch.autocast(x.device.type, enabled=False):
                y = self._map(pooled(x.float() if x.dtype is torch.bfloat16 else x, self.spec.pool_before), source)
        else:
            y = self._map(pooled(x, self.spec.pool_before), source)
        if self.bn is not None:
            y = self.bn(y)
        y = y.unflatten(0, times)
        return y if self.gate is None else self._gated(y, self.gate)

    @property
    def reads_averages(self) -> bool:
        """Whether the convolution or linear map reads averages of what its source holds."""
        return self.spec.pool_before is not None and self.spec.pool_before.kind == "avg"

    @property
    def _pools_by_weight(self) -> bool:
        """Whether the pool of the current goes into the kernel (see `_convolve`)."""
        pool = self.spec.pool_after
        if pool is None or pool.kind != "avg" or self.spec.stride != (1, 1) or self.spec.dilation != (1, 1):
            return False
        return pool.padding == (0, 0)

    def _map(self, x: Tensor, source: Encoded) -> Tensor:
        if self.spec.kind == "pool":
            return x if source.identity is None else x * source.identity.reshape(-1, 1, 1)
        weight, gain = self.effective_weight(), source.gain
        if self.spec.kind == "linear":
            if gain is not None:
                weight = weight * gain.repeat_interleave(weight.shape[1] // gain.numel())
            return F.linear(x.flatten(1), weight, self.bias)
        if gain is not None:
            weight = weight * gain.reshape(1, -1, 1, 1)
        return self._convolve(x, weight)

    def _convolve(self, x: Tensor, weight: Tensor) -> Tensor:
        spec, pool = self.spec, self.spec.pool_after
        if pool is None or not self._pools_by_weight:
            y = pooled(F.conv2d(x, weight, None, spec.stride, spec.padding, spec.dilation), pool)
            return y if self.bias is None else y + self.bias[:, None, None]
        # The average of a convolution at stride 1 is one convolution, with the stride of the pool and the kernel spread
        # by the window: for 3x3 and pool 2, 16 products an output, not 36, and no pass over the activations.
        spread = running_average(bordered(weight, (pool.window[0] - 1, pool.window[1] - 1)), pool.window)
        return F.conv2d(x, spread, self.bias, pool.stride, spec.padding)

    def _gated(self, y: Tensor, gate: Tensor) -> Tensor:
        """Times ``sigmoid(a[t] * mean)``; every step has its own ``a``, so a static `y` becomes T steps."""
        spec = self.spec.gate
        over = tuple(range(2 if spec is not None and spec.mean == "layer" else 3, y.dim()))
        # of bfloat16 a mean would be rounded more coarsely than the gate's argument is
        mean = y.mean(over, keepdim=True, dtype=torch.promote_types(y.dtype, torch.float32)) if over else y
        argument = gate.reshape(-1, *([1] * (y.dim() - 1))) * mean
        rounds = self.quantised and spec is not None and spec.rounds
        return y * (rounded_sigmoid(argument) if rounds else torch.sigmoid(argument))

    def redundant(self, current: Tensor) -> bool:
        """Whether every step would fire the same: a current without time, and ``v_th = 0`` or ``tau = 0``."""
        neuron = self.spec.neuron
        return neuron is not None and current.shape[0] == 1 and (neuron.v_th == 0 or neuron.tau == 0 or self.steps == 1)

    def clips(self, current: Tensor) -> bool:
        """Whether firing only sets to zero what is negative, as rounding to codes does too."""
        neuron = self.spec.neuron
        return neuron is not None and neuron.v_th == 0 and not self.binary_spikes and self.redundant(current)

    def fire(self, current: Tensor) -> Tensor:
        """Spikes (T or 1, N, ...) of a current (T or 1, N, ...)."""
        neuron = self.spec.neuron
        if neuron is None:
            return current
        if self.clips(current):
            # without the dimension of time the gradient keeps the memory order of the current (channels-last)
            return torch.relu(current.squeeze(0)).unsqueeze(0)
        steps = 1 if self.redundant(current) else self.steps
        return lif(current, steps, neuron.tau, neuron.v_th, self.binary_spikes)


class _Named(nn.Module):
    """Modules by any name: ``nn.ModuleDict`` refuses those of its own methods, which a stranger's layer may have."""

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self._modules.update(modules)

    def __getitem__(self, name: str) -> nn.Module:
        module = self._modules[name]
        assert module is not None
        return module


class Network(nn.Module):
    """A network ready to train or evaluate.

    Attributes
    ----------
    spec : NetworkSpec
        Its description.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        self.spec = spec
        self.layers = _Named({s.name: Layer(s, spec.tensor(s.name), spec.timesteps) for s in spec.layers})
        channels = {layer.name: shapes.out[0] for layer, shapes in zip(spec.layers, spec.shapes(), strict=True)}
        self.tensors = _Named(
            {t.name: Activation(t, channels[t.name], spec.divided(t.name), spec.grid(t.name)) for t in spec.tensors}
        )
        self._last_use = {name: layer.name for layer in spec.layers for name in (layer.source, *layer.shortcuts)}
        self.register_buffer("mean", torch.tensor(spec.input.mean, dtype=torch.float32), persistent=False)
        self.register_buffer("std", torch.tensor(spec.input.std, dtype=torch.float32), persistent=False)

    def layer(self, name: str) -> Layer:
        """The layer of that name."""
        return cast(Layer, self.layers[name])

    def tensor(self, name: str) -> Activation:
        """The tensor that the layer of that name fires."""
        return cast(Activation, self.tensors[name])

    def stages(self) -> list[Layer]:
        """The layers in order."""
        return [self.layer(layer.name) for layer in self.spec.layers]

    def activations(self) -> list[Activation]:
        """The tensors in order."""
        return [self.tensor(tensor.name) for tensor in self.spec.tensors]

    def set_quantised(self, on: bool) -> None:
        """Switch the rounding of activations, where the description has ``bits``, and of gates on or off."""
        for tensor in self.activations():
            tensor.quantised = on
        for layer in self.stages():
            layer.quantised = on

    def count_events(self, on: bool) -> None:
        """Have every tensor count the events of a few images of each batch (:attr:`Activation.density`), or not."""
        for tensor in self.activations():
            tensor.counts = on

    def forward(self, pixels: Tensor, traces: list[LayerTrace] | None = None) -> Tensor:
        """Logits (N, classes), the mean over time.

        Parameters
        ----------
        pixels : Tensor
            Pixel codes 0..255 in any type: (N, C, H, W), the same at every step, or (N, T, C, H, W).
        traces : list of LayerTrace, optional
            Filled with one entry per layer.
        """
        return self._run(pixels, traces)

    def _run(self, pixels: Tensor, traces: list[LayerTrace] | None = None, observe: Observe | None = None) -> Tensor:
        """`observe` is called with every tensor's name and spikes (or the current that stands for them) in order."""
        encoded = {INPUT: Encoded(self._normalise(pixels))}
        currents: dict[str, Tensor] = {}
        events: dict[str, Tensor] = {}
        for stage in self.stages():
            name, source = stage.spec.name, stage.spec.source
            current = stage.current(encoded[source])
            for shortcut in stage.spec.shortcuts:
                current = _added(current, currents.get(shortcut), encoded.get(shortcut))
            if traces is not None:
                traces.append(LayerTrace(name, events.get(source), current))
            if stage.spec.neuron is None:
                currents[name] = current
            else:
                tensor = self.tensor(name)
                x = current if tensor.rounds and stage.clips(current) else stage.fire(current)
                if observe is not None:
                    observe(name, x)
                if traces is not None:
                    events[name] = tensor.events(x)
                encoded[name] = tensor.encode(x)
            for done in (source, *stage.spec.shortcuts):
                if self._last_use[done] == name:  # evaluation must not hold every tensor of a deep network
                    encoded.pop(done, None)
                    currents.pop(done, None)
                    events.pop(done, None)
        return current.mean(dim=0)

    def _normalise(self, pixels: Tensor) -> Tensor:
        """(T or 1, N, C, H, W), normalised."""
        timed = pixels.dim() == 5
        expected = (self.spec.timesteps, *self.spec.input.shape) if timed else self.spec.input.shape
        if pixels.dim() not in (4, 5) or tuple(pixels.shape[1:]) != expected:
            raise InputError(f"network {self.spec.arch}: images of shape {tuple(pixels.shape[1:])}, not {expected}")
        x = (pixels.float() - self.mean[:, None, None]) / self.std[:, None, None]
        return x.transpose(0, 1) if timed else x.unsqueeze(0)

    @torch.no_grad()
    def constrain(self) -> None:
        """After an optimiser's step: steps positive, alphas in ratio, latent signs where their gradient passes."""
        for layer in self.stages():
            if layer.weight is not None and layer.spec.weight.signs:
                layer.weight.clamp_(-1.0, 1.0)
        for tensor in self.activations():
            tensor.constrain()

    @torch.no_grad()
    def initialise_scales(self, pixels: Tensor) -> None:
        """Set the step of every tensor's codes from one batch, each with the codes of those before it."""
        self._run(pixels, observe=lambda name, x: self.tensor(name).initialise(x))

    @torch.no_grad()
    def codes(self, pixels: Tensor) -> dict[str, Tensor]:
        """Integer codes (T or 1, N, C, H, W) of every tensor that training rounds or that is binary, by name."""
        result: dict[str, Tensor] = {}

        def observe(name: str, x: Tensor) -> None:
            tensor = self.tensor(name)
            if tensor.scale is not None and tensor.spec.bits is not None:
                result[name] = code_of(tensor.scaled(x), tensor.scale, tensor.spec.bits).to(torch.int64)
            elif tensor.spec.binary:
                result[name] = x.to(torch.int64)

        self._run(pixels, observe=observe)
        return result


def _added(current: Tensor, shortcut: Tensor | None, tensor: Encoded | None) -> Tensor:
    """`current` plus the current of a layer without neuron, or the spikes of a tensor; either may lack time."""
    if shortcut is not None:
        return current + _shaped_like(shortcut, current)
    assert tensor is not None
    values = _shaped_like(tensor.values, current)
    if tensor.identity is None:
        return current + values
    return torch.addcmul(current, values, per_channel(tensor.identity, values))


def _shaped_like(x: Tensor, current: Tensor) -> Tensor:
    """(T, N, C) and (T, N, C, 1, 1) are the same thing."""
    if x.dim() == current.dim():
        return x
    return x.flatten(2) if x.dim() > current.dim() else x[..., None, None]
