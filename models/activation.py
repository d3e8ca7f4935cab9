"""What the readers of a tensor see of it: spikes times ``|alpha|``, rounded to codes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from reverb_fpga.models.description import ALPHA_RATIO, TensorSpec
from reverb_fpga.models.quant import activation_codes, code_of, scaled_gradient, sign_plus, step_factor

__all__ = ["Activation", "Encoded", "per_channel"]

_COUNTED = 16  # images of a batch: a full count would take a twentieth of the time of training
_ALL_BITS = 6  # from so many on the codes reach as far as the events do
_CLIPPED = 1e-4  # share of the events beyond the largest code


@dataclass(frozen=True)
class Encoded:
    """A tensor on its way to its readers.

    Attributes
    ----------
    values : Tensor
        (T or 1, N, C, ...): codes, or where nothing is rounded the spikes themselves.
    gain : Tensor or None
        What a map's weights carry per input channel, (C,) or (1,): step and sign of alpha, or alpha; None: nothing.
    identity : Tensor or None
        What makes `values` the spikes without alpha, (C,) or (1,); None: they are that.
    codes : bool
        Whether `values` are integers.
    """

    values: Tensor
    gain: Tensor | None = None
    identity: Tensor | None = None
    codes: bool = False


class Activation(nn.Module):
    """One tensor: its alpha and the step of its codes.

    Parameters
    ----------
    spec : TensorSpec
    channels : int
        C of the tensor.
    divided : bool
        Whether some reader divides by ``|alpha|``, which is then kept within a factor ``ALPHA_RATIO``.
    grid : float or None
        What all values are multiples of, where that is known: the step of the codes then is that, nothing is rounded.

    Attributes
    ----------
    counts : bool
        Whether :meth:`encode` counts events in training.
    density : Tensor or None
        Share of non-zero events in a few images of what was last encoded, a scalar without gradient.
    """

    def __init__(self, spec: TensorSpec, channels: int, divided: bool, grid: float | None = None) -> None:
        super().__init__()
        self.spec, self.divided, self.grid = spec, divided, grid
        self.counts = False
        self.density: Tensor | None = None
        self.quantised = True  # training may start without rounding; a checkpoint is always evaluated with it
        self.alpha = nn.Parameter(torch.ones(channels)) if spec.alpha else None
        self.scale = nn.Parameter(torch.ones(())) if spec.learned_step else None

    @property
    def rounds(self) -> bool:
        """Whether spikes are rounded to codes at present."""
        return self.quantised and self.scale is not None

    def encode(self, x: Tensor) -> Encoded:
        """`x` (T or 1, N, C, ...) as its readers take it."""
        encoded = self._encode(x)
        if self.counts and self.training:
            sample = encoded.values[:, :_COUNTED].detach()
            self.density = (sample > 0).sum() / sample.numel()  # spikes and codes are not negative
        return encoded

    def _encode(self, x: Tensor) -> Encoded:
        """The tensor on its way.

        The maps run on codes, and the step and the signs of alpha (without rounding alpha itself) go into their
        weights: the same numbers with fewer passes over the activations. Rounding clips at zero, so `x` may also be the
        current of a neuron with ``v_th = 0`` and no time.
        """
        if not self.rounds or self.scale is None or self.spec.bits is None:
            if self.alpha is None:
                return Encoded(x, codes=self.spec.binary)
            live = None if bool((self.alpha != 0).all()) else (self.alpha != 0).to(x.dtype)
            return Encoded(x, self.alpha, live)
        step = scaled_gradient(self.scale, step_factor(x.numel(), self.spec.bits))
        if self.alpha is None:
            step = step.reshape(1)
            return Encoded(activation_codes(x, 1 / step, self.spec.bits), step, step, True)
        signs = sign_plus(self.alpha)
        size = self.alpha * signs
        codes = activation_codes(x, per_channel(size / step, x), self.spec.bits)
        zero = size == 0
        identity = torch.where(zero, torch.zeros_like(size), step / torch.where(zero, torch.ones_like(size), size))
        return Encoded(codes, step * signs, identity, True)

    @torch.no_grad()
    def events(self, x: Tensor) -> Tensor:
        """What `x` is to a map before pooling and without the sign of alpha: scaled, and rounded where that is on."""
        x = self.scaled(x)
        if self.rounds and self.scale is not None and self.spec.bits is not None:
            x = code_of(x, self.scale, self.spec.bits) * self.scale
        return x

    def scaled(self, x: Tensor) -> Tensor:
        """`x` (T, N, C, ...) times ``|alpha|``: what is rounded; `x` itself without alpha."""
        return x if self.alpha is None else x * per_channel(self.alpha.abs(), x)

    @torch.no_grad()
    def initialise(self, x: Tensor) -> None:
        """Set the step from the spikes (or current) `x`: so that one event in 10,000 clips; of fewer than 6 bits
        ``2 * mean(x > 0) / sqrt(top)`` (the LSQ start), where it is cheaper to clip than to round coarsely.

        With 8 bits the LSQ start would leave most codes unused: the events' mean would be code 8 of 255.
        """
        if self.scale is not None and self.spec.bits is not None:
            self.scale.copy_(_step_of(self.scaled(x), self.spec.bits) if self.grid is None else torch.tensor(self.grid))

    @torch.no_grad()
    def constrain(self) -> int:
        """After an optimiser's step: step positive, alpha in its ratio. Returns how many alphas were at the bound."""
        if self.scale is not None:
            self.scale.clamp_(min=1e-6)
            if self.grid is not None:
                self.scale.fill_(self.grid)
        if self.alpha is None or not self.divided:
            return 0
        size = self.alpha.abs()
        floor = size.max() / ALPHA_RATIO
        count = int((size < floor).sum())
        if count:
            self.alpha.copy_(sign_plus(self.alpha) * size.clamp_min(floor))
        return count


def per_channel(values: Tensor, like: Tensor) -> Tensor:
    """(C,) shaped to multiply (T, N, C, ...)."""
    return values.reshape(-1, *([1] * (like.dim() - 3)))


def _step_of(x: Tensor, bits: int) -> Tensor:
    top = 2**bits - 1
    live = x[x > 0]
    if live.numel() == 0:
        return torch.ones(())
    if bits < _ALL_BITS:
        return 2 * live.mean() / top**0.5
    count = min(live.numel(), 1 << 20)
    chosen = live[torch.linspace(0, live.numel() - 1, count).long()]
    return chosen.kthvalue(max(1, int((1 - _CLIPPED) * count))).values / top
