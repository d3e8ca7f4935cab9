"""Where a map reads its source: one definition for the float, the folded and the integer form."""

from __future__ import annotations

import dataclasses

from reverb_fpga.hw.errors import InputError

__all__ = ["NO_POOL", "Beyond", "Geometry", "Pair", "Pool"]

Pair = tuple[int, int]  # vertical, horizontal


@dataclasses.dataclass(frozen=True)
class Pool:
    """Sum over windows, as torch's average pooling times the window's size (zeros beyond the border are counted).

    Windows that do not fit are dropped.
    """

    window: Pair = (1, 1)
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)

    @property
    def size(self) -> int:
        """Values of one window."""
        return self.window[0] * self.window[1]

    def out(self, side: int, axis: int) -> int:
        """Windows along an axis of ``side`` values; 0 or less where none fits."""
        return (side + 2 * self.padding[axis] - self.window[axis]) // self.stride[axis] + 1


NO_POOL = Pool()


@dataclasses.dataclass(frozen=True)
class Beyond:
    """What one padded window of a current covers beyond the map, along an axis.

    Parameters
    ----------
    window : int
        Which of the windows.
    first : int
        The first position of the current, negative or behind its last.
    number : int
    """

    window: int
    first: int
    number: int


@dataclasses.dataclass(frozen=True)
class Geometry:
    """A convolution between two poolings.

    Parameters
    ----------
    stride, padding, dilation : (int, int)
        Of the convolution, in coordinates of the pooled source. Padding is zeros, or the input's pad codes where the
        map reads the image.
    in_pool : Pool
        Sum over windows of the source, before the convolution.
    out_pool : Pool
        Sum over windows of the current, after it.
    continued : bool
        Beyond the map a padded window finds the convolution continued there, which is what a walk gathers, not zeros.
    beyond : (Beyond or None, Beyond or None)
        Only that part of only that window along an axis; the others get nothing. Only where it is continued.
    """

    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    in_pool: Pool = NO_POOL
    out_pool: Pool = NO_POOL
    continued: bool = False
    beyond: tuple[Beyond | None, Beyond | None] = (None, None)

    @property
    def pooled(self) -> int:
        """Source values that share one weight, for one output value."""
        return self.in_pool.size * self.positions(0) * self.positions(1)

    def positions(self, axis: int) -> int:
        """Positions of the current that a window has along an axis."""
        part = self.beyond[axis]
        return self.out_pool.window[axis] if part is None else part.number

    @property
    def padded(self) -> bool:
        """Whether anything beyond the border of its source is read."""
        return any((*self.padding, *self.in_pool.padding, *self.out_pool.padding))

    def sides(self, side: int, kernel: int, axis: int) -> tuple[int, int, int]:
        """Lengths along an axis after pooling the source, after the convolution, and after pooling the current."""
        pooled = self.in_pool.out(side, axis)
        reach = (kernel - 1) * self.dilation[axis] + 1
        convolved = (pooled + 2 * self.padding[axis] - reach) // self.stride[axis] + 1 if pooled >= 1 else 0
        return pooled, convolved, self.out_pool.out(convolved, axis) if convolved >= 1 else 0

    def out_shape(self, where: str, sides: Pair, kernel: Pair) -> Pair:
        """Rows and columns of the result. Raises InputError if nothing is left of a source of ``sides``."""
        rows, cols = (self.sides(sides[axis], kernel[axis], axis)[2] for axis in range(2))
        if rows < 1 or cols < 1:
            raise InputError(
                f"{where}: its input of {sides[0]} x {sides[1]} positions is too small for its kernel and pooling"
            )
        return rows, cols
