"""From what a trace found to the compiler's float graph."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from reverb_fpga.compiler.frontends.alphas import find_alphas, without_alpha
from reverb_fpga.compiler.frontends.grid import Grid
from reverb_fpga.compiler.frontends.neurons import Neuron
from reverb_fpga.compiler.frontends.values import EVERY, OUTPUT, SEQUENCE, Linear, Shape, Term, Total, Value
from reverb_fpga.compiler.frontends.weights import Integers, exact_integers, integers_of, unrounded
from reverb_fpga.compiler.frontends.windows import averages, codes_of_averages, merged, window
from reverb_fpga.compiler.geometry import NO_POOL, Geometry, Pool
from reverb_fpga.compiler.intnet import INPUT, WeightKind
from reverb_fpga.compiler.passes.graph import FloatLayer, FloatMap, FloatNetwork, FloatTensor, Norm
from reverb_fpga.compiler.passes.largest import largest
from reverb_fpga.hw.errors import InputError

__all__ = ["Found", "Imported", "assemble"]

Reals = NDArray[np.float64]
_LEAST_SHARE = 1 / 8  # of the codes' range that a channel of the input may be left with


@dataclasses.dataclass(frozen=True, eq=False)
class Found:
    """What a trace found.

    Parameters
    ----------
    fired : mapping of str to (current, neuron)
        Layers of neurons in order; neuron None: the largest of a pooling window.
    output : Value
        What the module returns.
    input_shape : (C, H, W)
    static : bool
        Every step sees the same input.
    """

    fired: Mapping[str, tuple[Value, Neuron | None]]
    output: Value
    timesteps: int
    input_shape: Shape
    static: bool


@dataclasses.dataclass(frozen=True, eq=False)
class Imported:
    """The float graph.

    Parameters
    ----------
    notes : tuple of str
        What is not exact, layer by layer.
    unrounded : FloatNetwork
        The same with its weights as they were.
    """

    network: FloatNetwork
    notes: tuple[str, ...]
    unrounded: FloatNetwork


def assemble(found: Found, grid: Grid, positions: int) -> Imported:
    """The float graph of a trace; only what the output depends on.

    Parameters
    ----------
    grid : Grid
        Codes of the input's channels.
    positions : int
        Source positions that a linear layer can gather; an input that linear layers alone read, and that has more, is
        arranged as more channels.

    Raises
    ------
    InputError
        What the target cannot express; names the layer.
    """
    builder = _Builder(found, grid, positions, integers_of)
    network = builder.network()
    return Imported(network, tuple(builder.notes), _Builder(found, grid, positions, unrounded).network())


def _needed(found: Found) -> set[str]:
    """Layers that the output reads, directly or not."""
    needed: set[str] = set()
    waiting = [term.source for term in found.output.terms]
    while waiting:
        name = waiting.pop()
        if name != INPUT and name not in needed:
            needed.add(name)
            waiting += [term.source for term in found.fired[name][0].terms]
    return needed


class _Builder:
    """Layers of one network."""

    def __init__(self, found: Found, grid: Grid, positions: int, rounding: Callable[[Reals], Integers]) -> None:
        self.notes: list[str] = []
        self._found, self._rounding = found, rounding
        self._integers: dict[tuple[str, str, int], Integers] = {}
        self._shapes = {INPUT: found.input_shape} | {name: value.shape for name, (value, _) in found.fired.items()}
        self.shape, self.grid = found.input_shape, grid
        self._positions = positions
        self._pending: list[FloatLayer] = []  # layers that the one in work reads
        self._pools: dict[tuple[str, Pool], str] = {}
        self._codes: dict[str, FloatTensor] = {}
        self._arranged = self._arrange(positions)
        self._shares = self._steps_in_weights()
        self._alphas = find_alphas(found.fired, self._terms()) if rounding is integers_of else {}

    def network(self) -> FloatNetwork:
        """All layers that the output depends on."""
        found, needed = self._found, _needed(self._found)
        layers: list[FloatLayer] = []
        for name, (current, neuron) in found.fired.items():
            if name in needed:
                made = self.largest(name, current) if neuron is None else [self.layer(name, current, neuron)]
                layers += self._with_pending(made)
        layers += self._with_pending([self.output(found.output)])
        return FloatNetwork(
            height=self.shape[1],
            width=self.shape[2],
            mean=tuple(self.grid.zero.tolist()),
            std=tuple((self._shares / self.grid.step).tolist()),
            layers=tuple(layers),
            tensors=self._tensors(layers),
            timesteps=found.timesteps,
            static_input=found.static,
        )

    def _with_pending(self, layers: list[FloatLayer]) -> list[FloatLayer]:
        before, self._pending = self._pending, []
        return before + layers

    def _steps_in_weights(self) -> Reals:
        """What each channel of the input adds to the weights that read it, (C,): 1, or the ratio of its step to the
        largest. Steps that differ go into weights that are rounded anyway, and into exact ones only where the codes of
        some channel would lose more.
        """
        share = self.grid.step / self.grid.step.max()
        read = [term.linear.weight for term in self._terms() if term.source == INPUT and term.linear is not None]
        exact = all(exact_integers(weight) is not None for weight in read)
        return np.ones_like(share) if self._arranged or (exact and share.min() > _LEAST_SHARE) else share

    def _tensors(self, layers: list[FloatLayer]) -> dict[str, FloatTensor]:
        """Alpha where there is one; the layers that max pooling is made of have that of what they fire."""
        pooled = {layer.name: layer.codes_of for layer in layers if layer.codes_of is not None}
        names = {layer.name: pooled.get(layer.name, layer.name) for layer in layers}
        alphas = {name: FloatTensor(alpha=self._alphas[of]) for name, of in names.items() if of in self._alphas}
        return alphas | self._codes

    def _arrange(self, positions: int) -> bool:
        """An input of many positions that only linear layers read becomes one of more channels."""
        terms = [term for term in self._terms() if term.source == INPUT]
        shape = self._found.input_shape
        whole = all(term.linear is not None and term.linear.weight.shape[1:] == shape for term in terms)
        pooled = any(term.in_pool.size * term.out_pool.size > 1 for term in terms)
        if shape[1] * shape[2] <= positions or not whole or pooled:
            return False
        if len(set(self.grid.step)) > 1 or len(set(self.grid.zero)) > 1:
            return False
        features = math.prod(shape)
        rows = max(side for side in range(1, positions + 1) if features % side == 0)
        self.shape = (features // rows, 1, rows)
        grid = self.grid
        self.grid = Grid(np.full(self.shape[0], grid.step[0]), np.full(self.shape[0], grid.zero[0]), grid.exact)
        return True

    def _terms(self) -> Iterator[Term]:
        needed = _needed(self._found)
        for name, (value, _) in self._found.fired.items():
            if name in needed:
                yield from value.terms
        yield from self._found.output.terms

    def largest(self, name: str, current: Value) -> list[FloatLayer]:
        """Max pooling of what one layer fires."""
        (term,), steps = current.terms, self._found.timesteps
        if not self._binary(term.source):
            return largest(term.source, current.shape[0], term.in_pool, name, steps)
        # spikes of 0 and 1: the mean over a window is 0, or at least one over its size
        maps = self._maps(name, current)
        return [FloatLayer(name, maps, 0.0, 0.5 / term.in_pool.size, True, True, steps)]

    def _binary(self, name: str) -> bool:
        current, neuron = self._found.fired[name]
        return self._binary(current.terms[0].source) if neuron is None else neuron.binary

    def layer(self, name: str, current: Value, neuron: Neuron) -> FloatLayer:
        """A layer of neurons; their threshold becomes 1 where their spikes are."""
        steps = self._found.timesteps
        threshold = _per_channel(neuron.v_th, current.shape, name, "its threshold")
        unit = threshold if neuron.binary else np.ones_like(threshold)
        if neuron.binary and threshold.min() <= 0:
            raise InputError(f"layer {name}: a threshold of {threshold.min():g}; above 0 is supported")
        if not neuron.binary and not np.all(threshold == threshold[0]):
            raise InputError(f"layer {name}: thresholds per channel of real-valued spikes")
        reset = None
        if neuron.reset is not None:
            amounts = _per_channel(neuron.reset, current.shape, name, "its reset") / unit
            if not np.allclose(amounts, amounts[0], rtol=1e-6):
                raise InputError(
                    f"layer {name}: a soft reset that is not in one ratio to the thresholds of all channels"
                )
            reset = float(amounts[0])
        v_th = 1.0 if neuron.binary else float(threshold[0])
        maps = self._maps(name, current.scaled(neuron.gain / unit))
        return FloatLayer(name, maps, neuron.tau, v_th, True, neuron.binary, steps, reset=reset, strict=neuron.strict)

    def output(self, value: Value) -> FloatLayer:
        """The logits: the sum over time that the module returns, as a mean times the number of steps."""
        steps = self._found.timesteps
        if isinstance(value.time, Total):
            if value.time.steps != frozenset(range(steps)):
                raise InputError(f"the module returns a sum over {len(value.time.steps)} of {steps} time steps")
            # the bias of every step was summed as well
            value = value.scaled(float(steps))
        elif value.time == SEQUENCE:
            value = value.scaled(float(steps))  # logits of every step: their sum
        elif value.time != EVERY and steps > 1:
            raise InputError(
                f"the module returns one of its {steps} time steps; return the sum or the mean over all of them"
            )
        if math.prod(value.shape[1:]) != 1:
            raise InputError(f"the module returns maps of shape {value.shape}; one number per class is supported")
        names = [term.linear.name for term in value.terms if term.linear is not None]
        name = names[-1] if names and names[-1] not in self._found.fired else OUTPUT
        return FloatLayer(name, self._maps(name, value), 1.0, 0.0, False, False, steps)

    def _maps(self, name: str, value: Value) -> tuple[FloatMap, ...]:
        """One map per term, those without weights first; the bias belongs to the last."""
        terms = sorted(value.terms, key=lambda term: term.linear is not None)
        if not terms:
            raise InputError(f"layer {name}: reads nothing that comes from the input")
        legs = [self._map(name, term) for term in terms]
        last = legs[-1]
        assert last.norm is not None
        legs[-1] = dataclasses.replace(last, norm=dataclasses.replace(last.norm, beta=value.bias))
        return tuple(legs)

    def _narrowed(self, term: Term) -> Term:
        """With a window that can be gathered, if there is a way."""
        if term.linear is None or window(term) <= self._positions:
            return term
        if term.out_pool != NO_POOL and exact_integers(term.linear.weight) is None:
            term = merged(term)
        if term.in_pool == NO_POOL or term.source == INPUT or window(term) <= self._positions:
            return term
        key = (term.source, term.in_pool)
        if key not in self._pools:
            self._pools[key] = f"{term.source}.mean{len(self._pools) + 1}"
            self._add_averages(term, self._pools[key])
        return dataclasses.replace(term, source=self._pools[key], in_pool=NO_POOL)

    def _add_averages(self, term: Term, name: str) -> None:
        channels = self._shapes[term.source][0]
        self._pending.append(averages(term.source, channels, term.in_pool, name, self._found.timesteps))
        codes = codes_of_averages(term.in_pool) if self._binary(term.source) else None
        if codes is not None:
            self._codes[name] = codes
        else:
            self.notes.append(f"layer {name}: the averages of what {term.source} fires are rounded to 8 bits")
        if term.source in self._alphas:
            self._alphas[name] = self._alphas[term.source]

    def _map(self, name: str, term: Term) -> FloatMap:
        channels, term = len(term.scale), self._narrowed(term)
        if term.linear is None:
            if term.source == INPUT:
                raise InputError(
                    f"layer {name}: the input itself is a summand; a convolution or linear layer must read it"
                )
            kind = WeightKind.UNIT if np.all(term.scale >= 0) else WeightKind.TERNARY
            weight = np.eye(channels, dtype=np.int64)[:, :, None, None]
            found = Integers(weight, np.ones(channels), kind, 1, exact=True)
            geometry = Geometry(in_pool=term.in_pool, out_pool=term.out_pool)
        else:
            linear = self._fitted(term, term.linear)
            found = self._quantised(linear, term)
            geometry = Geometry(linear.stride, linear.padding, linear.dilation, term.in_pool, term.out_pool)
            self._note_border(term, linear)
        zeros, ones = np.zeros(channels), np.ones(channels)
        return FloatMap(
            source=term.source,
            weight=found.integers,
            kind=found.kind,
            bits=found.bits,
            weight_scale=found.scale,
            scaled=term.linear is not None,
            geometry=geometry,
            bias=zeros,
            norm=Norm(gamma=term.scale, beta=zeros, mean=zeros, sigma=ones),
        )

    def _fitted(self, term: Term, linear: Linear) -> Linear:
        """Over the input: arranged anew, or with the steps of its channels."""
        if term.source != INPUT:
            return linear
        if self._arranged:
            return dataclasses.replace(linear, weight=linear.weight.reshape(len(linear.weight), *self.shape))
        return dataclasses.replace(linear, weight=linear.weight * self._shares[None, :, None, None])

    def _quantised(self, linear: Linear, term: Term) -> Integers:
        key = (term.source, linear.name, hash(linear.weight.tobytes()))
        if key not in self._integers:
            found = self._rounding(without_alpha(linear.weight, self._alphas.get(term.source)))
            self._integers[key] = found
            if not found.exact:
                self.notes.append(
                    f"layer {linear.name}: float weights are rounded to {found.bits} bits, a scale per output channel "
                    f"({100 * found.error:.2f} % of their size)"
                )
        return self._integers[key]

    def _note_border(self, term: Term, linear: Linear) -> None:
        padded = any(linear.padding) or any(term.in_pool.padding)
        off = np.abs(self.grid.zero - np.rint(self.grid.zero)).max() if term.source == INPUT and padded else 0.0
        if off > 1e-6:
            self.notes.append(
                f"layer {linear.name}: 0 is no level of its input, its border of zeros is {off:.2f} of a level off"
            )


def _per_channel(values: Reals, shape: Shape, name: str, what: str) -> Reals:
    """A number per neuron that is the same all over a channel, as (C,)."""
    if values.size == 1:
        return np.full(shape[0], float(values.reshape(-1)[0]))
    if values.size == math.prod(shape):
        values = values.reshape(shape[0], -1)
    elif values.size == shape[0]:
        values = values.reshape(-1, 1)
    else:
        raise InputError(f"layer {name}: {what} of shape {values.shape} for neurons of shape {shape}")
    if not np.all(values == values[:, :1]):
        raise InputError(f"layer {name}: {what} differs inside a channel; one per channel is supported")
    return values[:, 0].copy()
