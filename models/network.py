"""The trainable network of a :class:`~reverb_fpga.models.description.NetworkSpec`.

Time is the leading dimension between layers, (T, N, C, H, W); a tensor that is the same at every step has T = 1 and is
computed once. With a static image and ``v_th = 0`` a neuron's spikes are the same at every step (each step either
fires and resets, or the membrane only sinks), so the whole network then runs once: exact, not an approximation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - its customary name
from torch import Tensor, nn

from reverb_fpga.hw.errors import InputError
from reverb_fpga.models.description import BN_EPS, LayerShapes, LayerSpec, NetworkSpec
from reverb_fpga.models.neuron import lif
from reverb_fpga.models.quant import (
    activation_codes,
    binarise,
    code_of,
    multibit_ste,
    scaled_gradient,
    sign_plus,
    step_factor,
)

__all__ = ["Layer", "LayerTrace", "Network", "running_average"]


@dataclass(frozen=True)
class LayerTrace:
    """What one layer computed in one forward pass, for density, calibration and comparison.

    Attributes
    ----------
    name : str
        The layer.
    events : Tensor or None
        What the map reads before pooling, (T, N, ...): scaled, quantised where ``in_bits``; None for the first layer.
    current : Tensor
        After pooling, bias and normalisation: what the neuron receives, or the logits of each step.
    """

    name: str
    events: Tensor | None
    current: Tensor


class Layer(nn.Module):
    """One layer of a network; parameters as in ``NetworkSpec.tensor_shapes``."""

    def __init__(self, spec: LayerSpec, shapes: LayerShapes, producer: LayerSpec | None, binary_spikes: bool) -> None:
        super().__init__()
        self.spec = spec
        self.pool_input = producer.pool if producer is not None and producer.pool_mode == "spike" else 1
        self.binary_spikes = binary_spikes
        self.quantised = True  # training may start without rounding; a checkpoint is always evaluated with it
        self.weight = nn.Parameter(torch.empty(spec.weight_shape))
        self.alpha = nn.Parameter(torch.ones(shapes.fired[0])) if spec.alpha else None
        self.in_scale = nn.Parameter(torch.ones(())) if spec.in_bits is not None else None
        self.bias = nn.Parameter(torch.zeros(spec.out_channels)) if spec.neuron is None else None
        self.bn: nn.Module | None = None
        if spec.bn:
            kind = nn.BatchNorm2d if spec.kind == "conv" else nn.BatchNorm1d
            self.bn = kind(spec.out_channels, eps=BN_EPS)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Latent weights uniform: +-0.1 for binary ones (only signs count), He's bound for the others."""
        bound = 0.1 if self.spec.weight.kind == "binary" else (6.0 / self.weight[0].numel()) ** 0.5
        nn.init.uniform_(self.weight, -bound, bound)

    def effective_weight(self) -> Tensor:
        """The weights that the map uses: signs, or quantised values; without alpha."""
        if self.spec.weight.kind == "binary":
            return binarise(self.weight)
        if self.spec.weight.kind == "multibit":
            return multibit_ste(self.weight, self.spec.weight.bits)
        return self.weight

    def scaled(self, x: Tensor) -> Tensor:
        """`x` (N, C, ...) times ``|alpha|``: what is quantised; `x` itself without alpha."""
        return x if self.alpha is None else x * _per_channel(self.alpha.abs(), x)

    def events(self, x: Tensor) -> Tensor:
        """What the map reads, before pooling: scaled and, where ``in_bits``, quantised. No gradient."""
        with torch.no_grad():
            x = self.scaled(x)
            if self.rounds and self.in_scale is not None and self.spec.in_bits is not None:
                x = code_of(x, self.in_scale, self.spec.in_bits) * self.in_scale
        return x

    @property
    def rounds(self) -> bool:
        """Whether the input is rounded to codes at present."""
        return self.quantised and self.in_scale is not None

    def map(self, x: Tensor) -> Tensor:
        """Scale and quantise the spikes, pool them, convolve, pool the current, add the bias, normalise.

        The map runs on codes, and the scalar step and the signs of alpha (without quantisation alpha itself) go into
        the weights: the same numbers with fewer passes over the activations. Quantising clips at zero, so `x` may also
        be the current of a neuron with ``v_th = 0`` and no time.
        """
        x, gain = self._codes(x)
        if not self.reads_averages:
            return self._mapped(x, gain)
        # bfloat16 holds codes of 8 bits, but not their averages: those would be rounded by up to half a code
        with torch.autocast(x.device.type, enabled=False):
            return self._mapped(x.float(), gain)

    @property
    def reads_averages(self) -> bool:
        """Whether the convolution or linear map reads averages of codes and not codes (see `_convolve`)."""
        spec = self.spec
        averages = spec.pool > 1 and spec.pool_mode == "current" and spec.stride == 1
        return self.rounds and (self.pool_input > 1 or averages)

    def _mapped(self, x: Tensor, gain: Tensor | None) -> Tensor:
        if self.pool_input > 1:
            x = F.avg_pool2d(x, self.pool_input)
        weight = self.effective_weight()
        if self.spec.kind == "linear":
            x = x.flatten(1)
            if gain is not None:
                weight = weight * gain.repeat_interleave(weight.shape[1] // gain.numel())
            y = F.linear(x, weight, self.bias)
        else:
            if gain is not None:
                weight = weight * gain.reshape(1, -1, 1, 1)
            y = self._convolve(x, weight)
        return y if self.bn is None else self.bn(y)

    def _codes(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """What the convolution reads, and the gain per input channel (C or 1) that its weights carry."""
        if not self.rounds or self.in_scale is None or self.spec.in_bits is None:
            return x, self.alpha
        step = scaled_gradient(self.in_scale, step_factor(x.numel(), self.spec.in_bits))
        if self.alpha is None:
            return activation_codes(x, 1 / step, self.spec.in_bits), step.reshape(1)
        signs = sign_plus(self.alpha)
        gain = _per_channel(self.alpha * signs / step, x)
        return activation_codes(x, gain, self.spec.in_bits), step * signs

    def _convolve(self, x: Tensor, weight: Tensor) -> Tensor:
        spec = self.spec
        pool = spec.pool if spec.pool_mode == "current" else 1
        if pool == 1:
            return F.conv2d(x, weight, stride=spec.stride, padding=spec.padding)
        if spec.stride > 1:
            return F.avg_pool2d(F.conv2d(x, weight, stride=spec.stride, padding=spec.padding), pool)
        # Averaging and convolving commute: the average of a convolution at stride 1 is a convolution, with stride
        # `pool`, of the running average of its padded input: for 3x3 and pool 2, 9 products an output instead of 36.
        return F.conv2d(running_average(_bordered(x, spec.padding), pool), weight, stride=pool)

    def redundant(self, current: Tensor) -> bool:
        """Whether every step would fire the same: a current without time and ``v_th = 0``. Spikes are ``relu``."""
        neuron = self.spec.neuron
        return neuron is not None and current.shape[0] == 1 and neuron.v_th == 0 and not self.binary_spikes

    def fire(self, current: Tensor, steps: int) -> Tensor:
        """Spikes (steps or 1, N, ...) of a current (T or 1, N, ...)."""
        neuron = self.spec.neuron
        if neuron is None:
            return current
        if self.redundant(current):
            # without the dimension of time the gradient keeps the memory order of the current (channels-last)
            return torch.relu(current.squeeze(0)).unsqueeze(0)
        return lif(current, steps, neuron.tau, neuron.v_th, self.binary_spikes)


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
        producers: list[LayerSpec | None] = [None, *spec.layers[:-1]]
        binary = spec.system == "snn"
        self.layers = nn.ModuleList(
            Layer(layer, shapes, producer, binary)
            for layer, shapes, producer in zip(spec.layers, spec.shapes(), producers, strict=True)
        )
        self.register_buffer("mean", torch.tensor(spec.input.mean, dtype=torch.float32), persistent=False)
        self.register_buffer("std", torch.tensor(spec.input.std, dtype=torch.float32), persistent=False)

    def stages(self) -> list[Layer]:
        """The layers, typed."""
        return [layer for layer in self.layers if isinstance(layer, Layer)]

    def set_quantised(self, on: bool) -> None:
        """Switch the rounding of activations, where the description has ``in_bits``, on or off."""
        for layer in self.stages():
            layer.quantised = on

    def forward(self, pixels: Tensor, traces: list[LayerTrace] | None = None) -> Tensor:
        """Logits (N, classes), the mean over time.

        Parameters
        ----------
        pixels : Tensor
            Pixel codes 0..255 in any type: (N, C, H, W), the same at every step, or (N, T, C, H, W).
        traces : list of LayerTrace, optional
            Filled with one entry per layer.
        """
        x = self._normalise(pixels)
        stages = self.stages()
        for index, layer in enumerate(stages):
            steps, batch = x.shape[:2]
            flat = x.flatten(0, 1)
            current = layer.map(flat).unflatten(0, (steps, batch))
            if traces is not None:
                events = layer.events(flat).unflatten(0, (steps, batch)) if index else None
                traces.append(LayerTrace(layer.spec.name, events, current))
            clipped = index + 1 < len(stages) and stages[index + 1].rounds and layer.redundant(current)
            x = current if clipped else layer.fire(current, self.spec.timesteps)
        return x.mean(dim=0)

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
        """After an optimiser's step: every ``in_scale`` positive, latent binary weights where their gradient passes."""
        for layer in self.stages():
            if layer.spec.weight.kind == "binary":
                layer.weight.clamp_(-1.0, 1.0)
            if layer.in_scale is not None:
                layer.in_scale.clamp_(min=1e-6)

    @torch.no_grad()
    def initialise_scales(self, pixels: Tensor) -> None:
        """Set every ``in_scale`` from one batch, layer by layer, each with the codes of those before it.

        The step is ``2 * mean(x > 0) / sqrt(top)`` (the LSQ start), widened until at most 0.1 % of events clip.
        """
        x = self._normalise(pixels)
        for layer in self.stages():
            steps, batch = x.shape[:2]
            flat = x.flatten(0, 1)
            if layer.in_scale is not None and layer.spec.in_bits is not None:
                layer.in_scale.copy_(_step_of(layer.scaled(flat), layer.spec.in_bits))
            x = layer.fire(layer.map(flat).unflatten(0, (steps, batch)), self.spec.timesteps)

    @torch.no_grad()
    def codes(self, pixels: Tensor) -> dict[str, Tensor]:
        """Integer input codes (T or 1, N, C, H, W) of every layer trained with ``in_bits``, by layer name."""
        traces: list[LayerTrace] = []
        self(pixels, traces)
        result: dict[str, Tensor] = {}
        for layer, trace in zip(self.stages(), traces, strict=True):
            if layer.in_scale is not None and layer.spec.in_bits is not None and trace.events is not None:
                result[trace.name] = code_of(trace.events, layer.in_scale, layer.spec.in_bits).to(torch.int64)
        return result


class _RunningAverage(torch.autograd.Function):
    """Its backward is the running average of the gradient with a border of zeros: torch's own scatters."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, side: int) -> Tensor:
        ctx.side = side
        return F.avg_pool2d(x, side, stride=1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        if ctx.side == 2:
            return F.avg_pool2d(grad, 2, stride=1, padding=1), None
        return F.avg_pool2d(_bordered(grad, ctx.side - 1), ctx.side, stride=1), None


def running_average(x: Tensor, side: int) -> Tensor:
    """Average over every `side` x `side` window of (N, C, H, W): (N, C, H - side + 1, W - side + 1)."""
    return _RunningAverage.apply(x, side)


def _bordered(x: Tensor, border: int) -> Tensor:
    return F.pad(x, (border, border, border, border)) if border else x


def _per_channel(values: Tensor, like: Tensor) -> Tensor:
    """(C,) shaped to multiply (N, C, ...)."""
    return values.reshape(1, -1, *([1] * (like.dim() - 2)))


def _step_of(x: Tensor, bits: int) -> Tensor:
    top = 2**bits - 1
    live = x[x > 0]
    if live.numel() == 0:
        return torch.ones(())
    start = 2 * live.mean() / top**0.5
    count = min(live.numel(), 1 << 20)
    clip = live[torch.linspace(0, live.numel() - 1, count).long()].kthvalue(max(1, int(0.999 * count))).values
    return torch.maximum(start, clip / top) if bits >= 6 else start
