"""When legs meet: every word of skip memory that is read was written for it, and none that is written is lost."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from reverb_fpga.hw.config import Config
from reverb_fpga.hw.contract import Gate
from reverb_fpga.hw.errors import InputError

__all__ = ["LegChecks"]

_SHAPE = ("layer", "rows", "cols", "timesteps", "skip_groups")


@dataclasses.dataclass(frozen=True)
class _Gates:
    """Sums or gates of a layer that lie in the skip memory."""

    kind: Gate
    base: int
    timesteps: int
    groups: int

    @property
    def end(self) -> int:
        return self.base + self.timesteps * self.groups


class LegChecks:
    """Follows the LAYER descriptors of a schedule.

    A leg writes all words of its strip: those of every group of every position and step; and the words of legs of one
    strip are the same. So it is enough that the leg that adds comes right after the one that stores, with the same
    shape. Gates stay until words of another leg take their place.

    Parameters
    ----------
    config : Config
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._before: Mapping[str, int] | None = None
        self._gates: dict[int, _Gates] = {}

    def take(self, f: Mapping[str, int], groups: int, where: str) -> None:
        """The next descriptor, whose slot program has ``groups`` groups.

        Raises
        ------
        InputError
            If it reads what no leg has left for it, or would lose what one has.
        """
        gate = Gate(f["gate"])
        self._check_flags(f, groups, where)
        pending = self._before if self._pending else None
        _require(
            bool(f["add_skip"]) == (pending is not None),
            where,
            "adds what no leg has stored"
            if f["add_skip"]
            else "does not add what the leg before it has stored in the skip memory",
        )
        if pending is not None:
            for name in _SHAPE:
                _require(
                    f[name] == pending[name], where, f"{name} is {f[name]}, of the leg that it adds {pending[name]}"
                )
        if gate is not Gate.NONE:
            self._take_gate(f, gate, where)
        if f["store_skip"] and gate in (Gate.NONE, Gate.APPLY):
            self._take_words(f, gate, where)
        self._before = f

    def end(self, where: str) -> None:
        """The schedule is over. Raises InputError if something was stored that nothing adds."""
        _require(not self._pending, where, "ends with a leg that stores what nothing adds")

    @property
    def _pending(self) -> bool:
        """What the descriptor before has stored is to be added by the next."""
        before = self._before
        return before is not None and bool(before["store_skip"]) and before["gate"] in (Gate.NONE, Gate.APPLY)

    def _check_flags(self, f: Mapping[str, int], groups: int, where: str) -> None:
        if not (f["store_skip"] or f["add_skip"] or f["gate"]):
            _require(f["skip_groups"] == 0, where, f"skip_groups = {f['skip_groups']} without a shortcut")
            return
        _require(not (f["store_skip"] and f["spiking"]), where, "a leg that goes to the skip memory fires")
        _require(
            f["gate"] == Gate.NONE or bool(f["store_skip"] and not f["add_skip"]),
            where,
            "a leg with a gate must store and not add",
        )
        _require(
            f["skip_groups"] == groups, where, f"skip_groups = {f['skip_groups']}, its slot program has {groups} groups"
        )

    def _take_words(self, f: Mapping[str, int], gate: Gate, where: str) -> None:
        """Words from 0 on are written: one of every position, step and group."""
        words = f["rows"] * f["cols"] * f["timesteps"] * f["skip_groups"]
        self._require_room(words, where)
        _require(gate is Gate.NONE or words <= f["gate_base"], where, "stores where the gates lie that it applies")
        self._gates = {layer: gates for layer, gates in self._gates.items() if gates.base >= words}

    def _take_gate(self, f: Mapping[str, int], gate: Gate, where: str) -> None:
        gates = _Gates(gate, f["gate_base"], f["timesteps"], f["skip_groups"])
        self._require_room(gates.end, where)
        if gate is Gate.SUM:
            others = {
                layer: other
                for layer, other in self._gates.items()
                if other.end <= gates.base or other.base >= gates.end
            }
            self._gates = {**others, f["layer"]: gates}
            return
        made = Gate.SUM if gate is Gate.SIGMOID else Gate.SIGMOID
        wanted = dataclasses.replace(gates, kind=made)
        _require(
            self._gates.get(f["layer"]) == wanted, where, f"reads what no leg {made.name} of its layer has left for it"
        )
        if gate is Gate.SIGMOID:
            _require(f["rows"] == f["cols"] == 1, where, "makes gates at more than one position")
            self._gates[f["layer"]] = gates

    def _require_room(self, words: int, where: str) -> None:
        _require(
            words <= self._config.skip_words,
            where,
            f"needs {words} words of skip memory, there are {self._config.skip_words}",
        )


def _require(ok: bool, where: str, what: str) -> None:
    if not ok:
        raise InputError(f"{where}: {what}")
