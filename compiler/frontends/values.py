"""What a tensor of somebody's module stands for: a sum of linear maps of spikes, and a bias per channel.

Pure numpy. Whatever cannot be written like that is refused here, with the reason; the layer's name is added by the
tracer.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from reverb_fpga.compiler.geometry import NO_POOL, Pair, Pool
from reverb_fpga.compiler.intnet import INPUT
from reverb_fpga.hw.errors import InputError

__all__ = ["EVERY", "OUTPUT", "SEQUENCE", "Largest", "Linear", "Term", "Time", "Total", "Value", "tensor_value"]

Reals = NDArray[np.float64]
Shape = tuple[int, int, int]


@dataclasses.dataclass(frozen=True)
class Total:
    """The sum over some time steps."""

    steps: frozenset[int]


OUTPUT = "output"
"""Name of the layer that sums the logits, where no linear layer does."""

EVERY, SEQUENCE = "every step the same", "all steps, the first dimension"
Time = str | int | Total
"""``EVERY``; ``SEQUENCE``; the number of a step; or a :class:`Total`."""


@dataclasses.dataclass(frozen=True, eq=False)
class Linear:
    """A convolution; a linear layer is one whose kernel covers its source.

    Parameters
    ----------
    name : str
        The layer it comes from.
    weight : float64 array (C_out, C_in, K_h, K_w)
    """

    name: str
    weight: Reals
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)

    def same(self, other: Linear) -> bool:
        geometry = (self.name, self.stride, self.padding, self.dilation)
        equal = geometry == (other.name, other.stride, other.padding, other.dilation)
        return equal and np.array_equal(self.weight, other.weight)


@dataclasses.dataclass(frozen=True, eq=False)
class Term:
    """``scale * out_pool(linear(in_pool(source)))``, poolings as averages; ``scale`` (C_out,) per channel."""

    source: str
    scale: Reals
    linear: Linear | None = None
    in_pool: Pool = NO_POOL
    out_pool: Pool = NO_POOL

    def same(self, other: Term) -> bool:
        if (self.source, self.in_pool, self.out_pool) != (other.source, other.in_pool, other.out_pool):
            return False
        if (self.linear is None) != (other.linear is None) or not np.array_equal(self.scale, other.scale):
            return False
        return self.linear is None or other.linear is None or self.linear.same(other.linear)


@dataclasses.dataclass(frozen=True, eq=False)
class Value:
    """A sum of terms and ``bias`` (C,), at some time.

    Parameters
    ----------
    shape : (C, H, W)
        What a linear layer before it made is (features, 1, 1).
    flat : bool
        The tensor has C*H*W features instead of three dimensions.
    binary : bool
        Spikes of 0 and 1 and nothing else.
    """

    terms: tuple[Term, ...]
    bias: Reals
    shape: Shape
    time: Time
    flat: bool = False
    binary: bool = False

    def same(self, other: Value) -> bool:
        """Equal but for the time."""
        alike = self.shape == other.shape and len(self.terms) == len(other.terms)
        return (
            alike
            and np.array_equal(self.bias, other.bias)
            and all(a.same(b) for a, b in zip(self.terms, other.terms, strict=True))
        )

    def at(self, time: Time) -> Value:
        """The same at another time."""
        return dataclasses.replace(self, time=time)

    def flattened(self, flat: bool) -> Value:
        """With its features in one dimension, or in three."""
        return dataclasses.replace(self, flat=flat)

    def scaled(self, factor: Reals | float) -> Value:
        """Times a number, or one per channel."""
        factor = np.broadcast_to(np.asarray(factor, dtype=np.float64), self.bias.shape)
        terms = tuple(dataclasses.replace(term, scale=term.scale * factor) for term in self.terms)
        binary = self.binary and bool(np.all(factor == 1))
        return dataclasses.replace(self, terms=terms, bias=self.bias * factor, binary=binary)

    def shifted(self, amount: Reals | float) -> Value:
        """Plus a number, or one per channel."""
        bias = self.bias + np.asarray(amount, dtype=np.float64) / self._summands
        return dataclasses.replace(self, bias=bias, binary=self.binary and bool(np.all(bias == 0)))

    def plus(self, other: Value) -> Value:
        """The sum with another tensor of the same shape."""
        if self.shape != other.shape or self.flat != other.flat:
            raise InputError(f"adds tensors of shapes {self.shape} and {other.shape}: broadcasting is not supported")
        if isinstance(self.time, int | Total) and isinstance(other.time, int | Total):
            first, second = _steps(self.time), _steps(other.time)
            if isinstance(self.time, Total) or isinstance(other.time, Total) or first != second:
                return self._over_time(other, first, second)
        terms = _joined((*self.terms, *other.terms))
        time = _both(self.time, other.time)
        return dataclasses.replace(self, terms=terms, bias=self.bias + other.bias, time=time, binary=False)

    def _over_time(self, other: Value, first: frozenset[int], second: frozenset[int]) -> Value:
        if first & second or not self.same(other):
            raise InputError("adds different tensors of different time steps: only sums of one tensor over time are")
        return dataclasses.replace(self, time=Total(first | second), binary=False)

    def convolved(self, linear: Linear, shape: Shape, bias: Reals) -> Value:
        """Through a convolution or linear layer."""
        terms = []
        for term in self.terms:
            if term.linear is not None:
                raise InputError(
                    f"follows {term.linear.name} with no neurons between them; only a spiking layer may follow a "
                    "convolution or linear layer"
                )
            weight = linear.weight * term.scale[None, :, None, None]
            own = linear if np.all(term.scale == 1) else dataclasses.replace(linear, weight=weight)
            terms.append(Term(term.source, np.ones(shape[0]), own, term.in_pool))
        if self.bias.any() and any(linear.padding):
            hint = "; normalise the samples, not the module's input" if self.of_input else ""
            raise InputError(f"reads a biased tensor through a padded convolution: the border has no bias{hint}")
        bias = bias / self._summands + np.einsum("oikl,i->o", linear.weight, self.bias)
        return Value(tuple(terms), bias, shape, self.time, flat=False)

    @property
    def of_input(self) -> bool:
        """Whether it is the input and nothing else."""
        return all(term.source == INPUT and term.linear is None for term in self.terms)

    @property
    def _summands(self) -> int:
        """Steps that are added up: the bias is that of each of them."""
        return len(self.time.steps) if isinstance(self.time, Total) else 1

    def pooled(self, pool: Pool, shape: Shape) -> Value:
        """Averages over windows (padding counts as zeros)."""
        if any(pool.padding) and self.bias.any():
            raise InputError("pools a biased tensor with padding: the border has no bias")
        terms = []
        for term in self.terms:
            if term.linear is None:
                terms.append(dataclasses.replace(term, in_pool=_merged(term.in_pool, pool)))
            else:
                terms.append(dataclasses.replace(term, out_pool=_merged(term.out_pool, pool)))
        return dataclasses.replace(self, terms=tuple(terms), shape=shape, binary=False)


@dataclasses.dataclass(frozen=True, eq=False)
class Largest:
    """The largest current of every window of `value`: what only neurons that commute with it may read."""

    value: Value
    pool: Pool


def tensor_value(source: str, shape: Shape, time: Time, *, flat: bool, binary: bool) -> Value:
    """A tensor that a layer fires, or the input."""
    one = Term(source, np.ones(shape[0]))
    return Value((one,), np.zeros(shape[0]), shape, time, flat, binary)


def _steps(time: Time) -> frozenset[int]:
    return time.steps if isinstance(time, Total) else frozenset([time] if isinstance(time, int) else [])


def _both(first: Time, second: Time) -> Time:
    if first == second or second == EVERY:
        return first
    if first == EVERY:
        return second
    raise InputError("adds a sum over time to a tensor of one step, or a sequence to one of its steps")


def _joined(terms: tuple[Term, ...]) -> tuple[Term, ...]:
    """Terms that differ in their scale alone are one."""
    found: list[Term] = []
    for term in terms:
        for index, other in enumerate(found):
            if term.same(dataclasses.replace(other, scale=term.scale)):
                found[index] = dataclasses.replace(other, scale=other.scale + term.scale)
                break
        else:
            found.append(term)
    return tuple(found)


def _merged(first: Pool, second: Pool) -> Pool:
    """One pooling after another as one."""
    if first == NO_POOL or second == NO_POOL:
        return first if second == NO_POOL else second
    if any(first.padding) or any(second.padding) or first.window != first.stride:
        raise InputError("pools twice with padding or overlapping windows")
    window = (first.window[0] * second.window[0], first.window[1] * second.window[1])
    return Pool(window, (first.stride[0] * second.stride[0], first.stride[1] * second.stride[1]))
