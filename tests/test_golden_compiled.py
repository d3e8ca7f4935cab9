"""The golden model's compiled kernels: the same numbers as numpy's, and no one waits for them in vain."""

from __future__ import annotations

import collections
import errno
import os
import subprocess
import sys
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from strategies import compiled as compile_case
from strategies import examples, specs
from test_random_programs import schedule_features

from reverb_fpga.compiler.random_networks import Case, NetworkSpec, Profile, build
from reverb_fpga.hw.config import preset
from reverb_fpga.hw.errors import EnvironmentMissing
from reverb_fpga.sim.golden import GoldenModel, model

caching = pytest.importorskip("numba.core.caching")
TINY = preset("tiny")


class Counting:
    """The kernels, and how often each was called."""

    def __init__(self) -> None:
        kernels = model.load_kernels()
        assert kernels is not None
        self.calls: collections.Counter[str] = collections.Counter()
        self.gather, self.codes_of = (self._counted(name, getattr(kernels, name)) for name in ("gather", "codes_of"))

    def _counted(self, name: str, kernel: Callable[..., None]) -> Callable[..., None]:
        def call(*arguments: Any) -> None:
            self.calls[name] += 1
            kernel(*arguments)

        return call


def both(case: Case) -> tuple[set[str], collections.Counter[str]]:
    """Run a case on kernels and on numpy; what its program is like, and how often the kernels were called."""
    program = compile_case(case, TINY)
    plain, quick = (GoldenModel(program, TINY, compiled=value) for value in (False, True))
    counting: Any = Counting()
    quick._kernels = counting
    codes = np.concatenate([case.codes] * 3)
    layers, logits = plain.run_layers(codes)
    for _ in range(2):  # the second time on memory that has been used
        found, found_logits = quick.run_layers(codes)
        for one, other in zip(layers, found, strict=True):
            np.testing.assert_array_equal(other, one)
        np.testing.assert_array_equal(found_logits, logits)
    features = schedule_features(program)
    for index in range(1, program.n_descriptors - 1):
        _, fields = program.descriptor(index)
        features |= {f"steps {min(fields.get('timesteps', 1), 2)}"}
        features |= {name for name in ("gate", "static_input") if fields.get(name) and fields["timesteps"] > 1}
        features |= {"small codes"} if 0 < fields.get("code_max", 0) < 255 else set()
    return features, counting.calls


def test_random_programs_are_the_same_on_kernels_and_numpy() -> None:
    seen: collections.Counter[str] = collections.Counter()

    for profile in Profile:

        @examples(20)
        @given(specs(profile))
        def check(spec: NetworkSpec) -> None:
            features, calls = both(build(spec))
            seen.update(features | {f"kernel {name}" for name in calls})

        check()
    wanted = (
        "kernel gather", "kernel codes_of", "steps 1", "steps 2", "static_input", "gate", "add_skip = 1",
        "pooled gather", "pad_record = 1", "soft reset", "leaks in part", "small codes", "rounding shift 0",
    )  # fmt: skip
    assert {name: seen[name] for name in wanted if seen[name] < 5} == {}


def test_what_float32_does_not_hold_goes_numpys_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reverb_fpga.sim.golden.gather._FLOAT32_EXACT", 1)

    @examples(5)
    @given(specs())
    def check(spec: NetworkSpec) -> None:
        assert not both(build(spec))[1]

    check()


def _any_model(**options: Any) -> tuple[GoldenModel, Case]:
    found: list[Case] = []

    @examples(1)
    @given(specs())
    def one(spec: NetworkSpec) -> None:
        found.append(build(spec))

    one()
    return GoldenModel(compile_case(found[0], TINY), TINY, **options), found[0]


def test_kernels_are_loaded_once_there_is_enough_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[int] = []
    golden, case = _any_model()
    never, _ = _any_model(compiled=False)
    work = len(case.codes) * sum(unit.gather.bytes_per_image for unit in golden._units)
    monkeypatch.setattr(model, "load_kernels", lambda: loaded.append(1))
    monkeypatch.setattr(model, "_WORTH", 3 * work)
    for number in (0, 0, 1, 1):
        golden.run(case.codes)
        never.run(case.codes)
        assert len(loaded) == number


def test_without_numba_numpy_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numba", None)
    monkeypatch.delitem(sys.modules, "reverb_fpga.sim.golden.compiled", raising=False)
    monkeypatch.delattr("reverb_fpga.sim.golden.compiled", raising=False)
    monkeypatch.setattr(model, "_WORTH", 0)
    golden, case = _any_model()
    assert golden.run(case.codes).shape[0] == len(case.codes)
    assert golden._kernels is None
    with pytest.raises(EnvironmentMissing, match=r"reverb-fpga\[fast\]"):
        _any_model(compiled=True)


def _python(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | environment, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_nothing_imports_numba_before_it_pays() -> None:
    code = (
        "import sys; import numpy as np; import reverb_fpga as rf\n"
        "model = rf.load('fashion-mnist')\n"
        "model.logits(np.zeros((20, *model.input.shape), dtype=np.uint8)); print('numba' in sys.modules)"
    )
    assert _python(code) == "False"


def test_kernels_that_would_be_interpreted_are_none() -> None:
    code = "from reverb_fpga.sim.golden.model import load_kernels; print(load_kernels())"
    assert _python(code, NUMBA_DISABLE_JIT="1") == "None"


@pytest.mark.parametrize("method", ["_CacheLocator.ensure_cache_path", "IndexDataCacheFile.save"])
def test_kernels_that_cannot_be_kept_are_compiled_again(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No folder may be written, or the disk is full."""
    kernels = model.load_kernels()
    assert isinstance(kernels, types.ModuleType)

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no room")

    monkeypatch.setattr(f"numba.core.caching.{method}", fail)

    def double(values: Any) -> None:
        for index in range(len(values)):
            values[index] *= 2

    values = np.arange(3, dtype=np.uint8)
    kernels._kernel(kernels.uint8[::1])(double)(values)
    assert values.tolist() == [0, 2, 4]
