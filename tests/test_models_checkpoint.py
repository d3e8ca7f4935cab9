"""Checkpoints: round trip, and whatever a stranger may hand us in their place."""

from __future__ import annotations

import json
import os
import pickle
import struct
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from safetensors import safe_open

from reverb_fpga.hw.errors import InputError
from reverb_fpga.models.checkpoint import STATE_KEY, load_checkpoint, read_checkpoint, save_checkpoint, write_tensors
from reverb_fpga.models.description import InputSpec, NetworkSpec
from reverb_fpga.models.network import Network
from reverb_fpga.models.testing import randomise
from reverb_fpga.models.zoo import DatasetSpec, Options, build

DATA = DatasetSpec("toy", InputSpec(1, 28, 28, (73,), (90.0,)), tuple("abc"))


@pytest.fixture(scope="module")
def network() -> Network:
    return randomise(build("fmnist", DATA, Options(act_bits=8, timesteps=2, v_th=0.25, width=0.125)), seed=1)


@pytest.fixture
def saved(network: Network, tmp_path: Path) -> Path:
    return save_checkpoint(network, tmp_path / "net.safetensors", {"accuracy": 92.5})


def test_round_trip(network: Network, saved: Path) -> None:
    checkpoint = read_checkpoint(saved)
    assert checkpoint.spec == network.spec
    assert checkpoint.info == {"accuracy": 92.5}
    again = load_checkpoint(saved)
    images = torch.randint(0, 256, (3, 1, 28, 28))
    with torch.no_grad():
        assert torch.equal(again(images), network(images))
    assert [file.name for file in saved.parent.iterdir()] == [saved.name]  # no temporary file is left


def test_reading_needs_no_torch(saved: Path) -> None:
    code = (
        "import sys; from reverb_fpga.models.checkpoint import read_checkpoint; import reverb_fpga.models.data;"
        f"read_checkpoint({str(saved)!r}); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


class _Bomb:
    def __reduce__(self) -> Any:
        return (print, ("executed",))


def test_pickles_are_refused_unread(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain, zipped = tmp_path / "a.pt", tmp_path / "b.pt"
    plain.write_bytes(pickle.dumps(_Bomb()))
    torch.save({"x": torch.zeros(2)}, zipped)
    for path in (plain, zipped):
        with pytest.raises(InputError, match="pickle checkpoint"):
            read_checkpoint(path)
    assert capsys.readouterr().out == ""


def test_every_truncation_is_one_clear_error(saved: Path) -> None:
    data = saved.read_bytes()
    header = 8 + struct.unpack("<Q", data[:8])[0]
    for size in {0, 1, 7, 8, 9, header - 1, header, header + 1, len(data) - 1}:
        saved.write_bytes(data[:size])
        with pytest.raises(InputError):
            read_checkpoint(saved)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        read_checkpoint(tmp_path / "nothing.safetensors")
    with pytest.raises(InputError, match="cannot be read"):
        read_checkpoint(tmp_path)


def _rewrite(path: Path, network: Network, change: Any) -> None:
    state = network.state_dict()
    tensors = {name: state[name].numpy().copy() for name in network.spec.tensor_shapes()}
    metadata = {"reverb_fpga": network.spec.to_json()}
    change(tensors, metadata)
    write_tensors(path, tensors, metadata)


def _set(name: str, value: Any) -> Any:
    def change(tensors: dict[str, Any], metadata: dict[str, str]) -> None:
        tensors[name] = value(tensors[name])

    return change


def _replace_number(old: str, new: str) -> Any:
    def change(tensors: dict[str, Any], metadata: dict[str, str]) -> None:
        text = metadata["reverb_fpga"].replace(" ", "")
        assert old in text
        metadata["reverb_fpga"] = text.replace(old, new, 1)

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t, m: t.pop("layers.conv1.weight"), "layers.conv1.weight is missing"),
        (lambda t, m: t.update(extra=np.zeros(1, np.float32)), "'extra' does not belong"),
        (_set("tensors.conv1.alpha", lambda a: a[:-1]), "tensors.conv1.alpha is F32"),
        (_set("tensors.conv1.alpha", lambda a: a.astype(np.int64)), "tensors.conv1.alpha is I64"),
        (_set("tensors.conv1.alpha", lambda a: a.astype(np.int16)), "has type 'I16', expected F32, BF16, F16 or F64"),
        (_set("tensors.conv1.alpha", lambda a: a.astype(np.float64) * 1e300), "not finite"),
        (lambda t, m: t.update({"module.layers.conv1.weight": t["layers.conv1.weight"]}), "is there twice"),
        (lambda t, m: t.update({"x.num_batches_tracked": np.zeros(3, np.int64)}), "does not belong"),
        (_set("layers.conv2.weight", lambda a: a * np.float32("nan")), "not finite"),
        (_set("tensors.conv1.scale", lambda a: a * 0), "scale must be positive"),
        (_set("layers.conv2.bn.running_var", lambda a: a - 1e9), "running_var must not be negative"),
        (lambda t, m: m.pop("reverb_fpga"), "without a reverb-fpga description"),
        (lambda t, m: m.update(reverb_fpga="{"), "not valid JSON"),
        (lambda t, m: m.update(reverb_fpga="[" * 100_000), "not valid JSON"),
        (lambda t, m: m.update(reverb_fpga_info="[1]"), "training notes"),
        (lambda t, m: m.update(reverb_fpga_info='{"accuracy": 1e999}'), "training notes"),
        (lambda t, m: m.update(reverb_fpga_info='{"accuracy": NaN}'), "training notes"),
        (lambda t, m: m.update(reverb_fpga_info=f'{{"epochs": {10**400}}}'), "training notes"),
        (lambda t, m: m.update(reverb_fpga_info='{"accuracy": 255}'), "an accuracy of 255 is no percentage"),
        (lambda t, m: m.update(reverb_fpga_info='{"accuracy": "high"}'), "is no percentage"),
        (_replace_number('"v_th":0.25', f'"v_th":{10**400}'), "network description"),
    ],
)
def test_every_tensor_is_checked(network: Network, tmp_path: Path, change: Any, message: str) -> None:
    path = tmp_path / "bad.safetensors"
    _rewrite(path, network, change)
    with pytest.raises(InputError) as error:
        read_checkpoint(path)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


WRAPPED = {
    "DataParallel": lambda name: f"module.{name}",
    "torch.compile": lambda name: f"_orig_mod.{name}",
    "both": lambda name: f"module._orig_mod.{name}",
    "a layer compiled by itself": lambda name: name.replace("layers.conv1.", "layers.conv1._orig_mod."),
    "none": lambda name: name,
}


@pytest.mark.parametrize("wrapper", WRAPPED)
def test_the_state_dict_of_a_wrapped_network_is_read(network: Network, tmp_path: Path, wrapper: str) -> None:
    """With everything that torch puts into it, the batch counters of BatchNorm included."""
    state = {WRAPPED[wrapper](name): value.numpy() for name, value in network.state_dict().items()}
    assert any(name.endswith("num_batches_tracked") for name in state)
    path = tmp_path / "wrapped.safetensors"
    write_tensors(path, state, {"reverb_fpga": network.spec.to_json()})
    found, own = read_checkpoint(path).tensors, network.state_dict()
    assert list(found) == list(network.spec.tensor_shapes())
    assert all(np.array_equal(found[name], own[name].numpy()) for name in found)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_floats_of_other_widths_are_read(network: Network, tmp_path: Path, dtype: torch.dtype) -> None:
    from safetensors.torch import save_file

    kept = {name: network.state_dict()[name].to(dtype).contiguous() for name in network.spec.tensor_shapes()}
    path = tmp_path / "other.safetensors"
    save_file(kept, path, {"reverb_fpga": network.spec.to_json()})
    found = read_checkpoint(path).tensors
    for name, tensor in kept.items():
        assert found[name].dtype == np.float32
        assert np.array_equal(found[name], tensor.float().numpy()), name


def test_offsets_outside_the_file(saved: Path) -> None:
    data = saved.read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + size])
    for offsets, shape in (([0, 1 << 39], [1 << 37]), ([-4, 0], [1]), ([0, 4], [-1]), ([0, 4], [1.0]), ([4, 0], [1])):
        header["tensors.conv1.scale"] = {"dtype": "F32", "shape": shape, "data_offsets": offsets}
        text = json.dumps(header).encode()
        saved.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + size :])
        with pytest.raises(InputError, match="damaged checkpoint"):
            read_checkpoint(saved)


def _leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(value, dict):
        return [leaf for key, entry in value.items() for leaf in _leaves(entry, (*path, key))] + [path]
    if isinstance(value, list):
        return [leaf for key, entry in enumerate(value) for leaf in _leaves(entry, (*path, key))] + [path]
    return [path]


@pytest.mark.parametrize("junk", [None, True, -1, 1e400, "x" * 300, [], {}, 10**30, "\x1b[31m"])
def test_no_field_of_a_description_is_trusted(network: Network, junk: Any) -> None:
    """Any field replaced by junk gives InputError, or another valid description."""
    text = network.spec.to_json()
    for path in _leaves(json.loads(text)):
        value = json.loads(text)
        place = value
        for key in path[:-1]:
            place = place[key]
        if path:
            place[path[-1]] = junk
        else:
            value = junk
        message = ""
        try:
            NetworkSpec.from_json(json.dumps(value))
        except InputError as error:
            message = str(error)
        assert "\n" not in message
        assert "\x1b" not in message


def test_unknown_and_missing_fields_are_named(network: Network) -> None:
    value = json.loads(network.spec.to_json())
    value["layers"][1]["colour"] = "red"
    with pytest.raises(InputError, match=r"layers\[1\]: has unknown fields: colour"):
        NetworkSpec.from_json(json.dumps(value))
    del value["layers"][1]["colour"], value["layers"][1]["pool_after"]
    with pytest.raises(InputError, match=r"layers\[1\]: lacks pool_after"):
        NetworkSpec.from_json(json.dumps(value))
    value["format"] = 99
    with pytest.raises(InputError, match="version 99 is not supported"):
        NetworkSpec.from_json(json.dumps(value))


def _version1(spec: NetworkSpec) -> tuple[str, dict[str, str]]:
    """The description of a chain as version 1 wrote it, and the old name of every tensor."""
    layers, names = [], {}
    for index, layer in enumerate(spec.layers):
        names |= {
            name: name.replace(layer.name, str(index))
            for name in spec.tensor_shapes()
            if name.startswith(f"layers.{layer.name}.")
        }
        source, following = spec.tensor(layer.source), spec.layers[index + 1 : index + 2]
        if source is not None:
            names[f"tensors.{layer.source}.alpha"] = f"layers.{index}.alpha"
            names[f"tensors.{layer.source}.scale"] = f"layers.{index}.in_scale"
        spikes = following[0].pool_before if following else None
        pool = layer.pool_after or spikes
        layers.append(
            {
                **{key: getattr(layer, key) for key in ("name", "kind", "in_channels", "out_channels")},
                **{key: getattr(layer, key)[0] for key in ("kernel", "stride", "padding")},
                **{key: asdict(value) if (value := getattr(layer, key)) else None for key in ("weight", "neuron")},
                "alpha": source is not None and source.alpha,
                "in_bits": source.bits if source is not None and not source.binary else None,
                "bn": layer.bn == "affine",
                "pool": pool.window[0] if pool else 1,
                "pool_mode": "spike" if spikes else "current",
            }
        )
    kept = {key: getattr(spec, key) for key in ("arch", "system", "dataset", "labels", "timesteps")}
    return json.dumps({"format": 1, **kept, "input": asdict(spec.input), "layers": layers}), names


@pytest.mark.parametrize("system", ["reverb", "reverb-learnable", "snn"])
@pytest.mark.parametrize("pool_mode", ["current", "spike"])
def test_version_1_is_read(system: str, pool_mode: Literal["current", "spike"], tmp_path: Path) -> None:
    bits = None if system == "snn" else 8
    options = Options(system=system, act_bits=bits, timesteps=2, v_th=0.25, width=0.125, pool_mode=pool_mode)
    network = randomise(build("fmnist", DATA, options), seed=1)
    text, names = _version1(network.spec)
    state = network.state_dict()
    tensors = {names[name]: state[name].numpy() for name in network.spec.tensor_shapes()}
    assert NetworkSpec.from_json(text) == network.spec
    path = tmp_path / "old.safetensors"
    write_tensors(path, tensors, {"reverb_fpga": text})
    images = torch.randint(0, 256, (3, 1, 28, 28))
    with torch.no_grad():
        assert torch.equal(load_checkpoint(path)(images), network(images))
    broken = json.loads(text)
    for change in ({"alpha": 1}, {"pool": 0}, {"bn": "affine"}, {"in_bits": 9}, {"kernel": [3, 3]}, {"name": 7}):
        broken["layers"][1] = json.loads(text)["layers"][1] | change
        with pytest.raises(InputError, match=rf"layers\[1\]\.{next(iter(change))}: expected"):
            NetworkSpec.from_json(json.dumps(broken))


def test_the_same_network_gives_the_same_bytes(network: Network, tmp_path: Path) -> None:
    files = [save_checkpoint(network, tmp_path / name, {"seed": 1, "epochs": 2}) for name in "abcdefgh"]
    assert len({file.read_bytes() for file in files}) == 1
    name = "layers.conv2.weight"
    read = safe_open(files[0], "numpy").get_tensor(name)  # the library still finds everything in its place
    assert np.array_equal(read, network.state_dict()[name].numpy())


def test_files_that_are_no_checkpoints_are_named(network: Network, tmp_path: Path) -> None:
    program = tmp_path / "net.rvb"
    program.write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(InputError, match="a compiled program"):
        read_checkpoint(program)
    state = tmp_path / "last.safetensors"
    write_tensors(state, {"a": np.zeros(1, np.float32)}, {STATE_KEY: "{}"})
    with pytest.raises(InputError, match=r"best\.safetensors beside it"):
        read_checkpoint(state)


def test_tensors_fill_the_file_and_nothing_is_read_before_they_do(saved: Path) -> None:
    data = saved.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + length])
    name = "layers.conv2.bn.bias"
    start, end = header[name]["data_offsets"]
    for offsets in ([0, end - start], [start + 4, end + 4]):  # on another tensor; over the next
        text = json.dumps(header | {name: header[name] | {"data_offsets": offsets}}).encode()
        saved.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])
        with pytest.raises(InputError, match="damaged checkpoint"):
            read_checkpoint(saved)
    saved.write_bytes(data + b"more")
    with pytest.raises(InputError, match="4 bytes after its tensors"):
        read_checkpoint(saved)
    saved.unlink()
    os.mkfifo(saved)
    with pytest.raises(InputError, match="a FIFO"):
        read_checkpoint(saved)
