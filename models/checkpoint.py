"""Checkpoints: one safetensors file with the weights, and the network's description as JSON in its metadata.

Reading one executes nothing, whatever the file holds; every tensor is checked against the description.
:func:`read_checkpoint` needs no torch.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from reverb_fpga.hw.errors import EnvironmentMissing, InputError
from reverb_fpga.models.description import NetworkSpec
from reverb_fpga.models.files import write_whole
from reverb_fpga.models.version1 import renamed

if TYPE_CHECKING:
    from reverb_fpga.models.network import Network

__all__ = [
    "STATE_KEY",
    "Checkpoint",
    "load_checkpoint",
    "read_checkpoint",
    "read_tensors",
    "save_checkpoint",
    "write_tensors",
]

STATE_KEY = "reverb_fpga_run"
"""Metadata of a file that holds the state of a run and is no checkpoint (:mod:`reverb_fpga.models.state`)."""

_KEY = "reverb_fpga"
_INFO = "reverb_fpga_info"
_MAX_HEADER = 16 << 20
_MAX_FILE = 4 << 30
_DTYPES: dict[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "I64": np.dtype("<i8")}

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint in numpy.

    Attributes
    ----------
    spec : NetworkSpec
        The description.
    tensors : mapping of str to float32 array
        Exactly the names and shapes of ``spec.tensor_shapes()``, all finite, scales and variances in range.
    info : mapping of str to number or str
        What training noted: ``accuracy`` (percent, test split), ``density``, ``epochs``, ``seed``; may be empty.
    """

    spec: NetworkSpec
    tensors: Mapping[str, Array]
    info: Mapping[str, float | int | str] = field(default_factory=dict)


def write_tensors(path: Path, tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file beside `path` and rename it into place; never leaves half a file."""
    try:
        from safetensors.numpy import save
    except ImportError:
        raise EnvironmentMissing("safetensors is not installed: pip install 'reverb-fpga[train]'") from None
    path.parent.mkdir(parents=True, exist_ok=True)
    data = save({name: np.asarray(array, order="C") for name, array in tensors.items()}, dict(metadata))
    write_whole(path, _repeatable(data))


def _repeatable(data: bytes) -> bytes:
    """The same file with the texts of its metadata in order, which the library leaves to chance."""
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the tensors stay aligned
    return struct.pack("<Q", len(text)) + text + data[8 + length :]


def read_tensors(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Tensors and metadata of a safetensors file from a stranger.

    Read here and not with the library, which reports some defects late or as panics, and so that describing a model
    needs numpy alone. Raises InputError for whatever is not a well-formed file of float32 and int64 tensors.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(8)
            length = struct.unpack("<Q", head)[0] if len(head) == 8 else 0
            if not 2 <= length <= min(_MAX_HEADER, size - 8) or size > _MAX_FILE:
                raise InputError(_not_a_checkpoint(path, head))
            header_bytes = file.read(length)
            body = file.read()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
    try:
        header = json.loads(header_bytes.decode("utf-8"))
    except (ValueError, RecursionError):
        raise InputError(_not_a_checkpoint(path, head)) from None
    if not isinstance(header, dict):
        raise InputError(_not_a_checkpoint(path, head))
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise InputError(f"{path}: damaged checkpoint: its metadata is not a table of texts")
    return {str(name): _tensor(path, name, entry, body) for name, entry in header.items()}, metadata


def _not_a_checkpoint(path: Path, head: bytes) -> str:
    if path.suffix == ".rvb":
        return f"{path}: a compiled program; give the checkpoint that it was compiled from (best.safetensors of a run)"
    if head[:2] == b"PK" or head[:1] == b"\x80":
        return (
            f"{path}: a pickle checkpoint (torch.save) is refused because loading one runs code from the file; "
            "convert it to safetensors"
        )
    return f"{path}: not a checkpoint, or a truncated one (expected a .safetensors file)"


def _tensor(path: Path, name: str, entry: object, body: bytes) -> NDArray[Any]:
    where = f"{path}: damaged checkpoint: tensor {name!r:.80}"
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise InputError(f"{where} has a malformed header entry")
    dtype = _DTYPES.get(entry["dtype"]) if isinstance(entry["dtype"], str) else None
    if dtype is None:
        raise InputError(f"{where} has type {entry['dtype']!r:.20}, expected F32")
    numbers = [entry["shape"], entry["data_offsets"]]
    for values in numbers:
        if not isinstance(values, list) or not all(type(v) is int and 0 <= v < 1 << 40 for v in values):
            raise InputError(f"{where} has a malformed shape or offsets")
    shape, offsets = numbers
    count = 1
    for side in shape:
        count *= side
    if len(offsets) != 2 or offsets[1] - offsets[0] != count * dtype.itemsize or offsets[1] > len(body):
        raise InputError(f"{where} lies outside the file, which may be truncated")
    return np.frombuffer(body, dtype, count, offsets[0]).reshape(shape)


def read_checkpoint(path: Path | str) -> Checkpoint:
    """Read and check a checkpoint without torch.

    Raises
    ------
    InputError
        Not a checkpoint, a pickle, truncated, a bad description, or a tensor that is missing, extra, of another
        shape or type, not finite or out of range.
    """
    path = Path(path)
    tensors, metadata = read_tensors(path)
    if STATE_KEY in metadata:
        raise InputError(f"{path}: the state of a run, for --resume only; give best.safetensors beside it")
    if _KEY not in metadata:
        raise InputError(f"{path}: a safetensors file without a reverb-fpga description; train one with `train`")
    try:
        spec = NetworkSpec.from_json(metadata[_KEY])
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    if json.loads(metadata[_KEY])["format"] == 1:
        rename = renamed(tuple(layer.name for layer in spec.layers))
        tensors = {rename(name): tensor for name, tensor in tensors.items()}
    return Checkpoint(spec, _checked(path, spec, tensors), _info(path, metadata.get(_INFO, "{}")))


def _checked(path: Path, spec: NetworkSpec, tensors: Mapping[str, NDArray[Any]]) -> dict[str, Array]:
    expected = spec.tensor_shapes()
    for name in tensors:
        if name not in expected:
            raise InputError(f"{path}: tensor {name!r:.80} does not belong to the network described")
    result: dict[str, Array] = {}
    for name, shape in expected.items():
        if name not in tensors:
            raise InputError(f"{path}: tensor {name} is missing")
        tensor = tensors[name]
        if tensor.dtype != np.float32 or tensor.shape != shape:
            raise InputError(
                f"{path}: tensor {name} is {tensor.dtype} {tensor.shape}, its description asks for float32 {shape}"
            )
        if not np.isfinite(tensor).all():
            raise InputError(f"{path}: tensor {name} has entries that are not finite")
        if name.endswith(".scale") and not (tensor > 0).all():
            raise InputError(f"{path}: tensor {name} must be positive")
        if name.endswith("running_var") and not (tensor >= 0).all():
            raise InputError(f"{path}: tensor {name} must not be negative")
        result[name] = tensor
    return result


def _info(path: Path, text: str) -> dict[str, float | int | str]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict) or not all(isinstance(entry, int | float | str) for entry in value.values()):
        raise InputError(f"{path}: damaged checkpoint: its training notes are not a table of numbers and texts")
    return value


def save_checkpoint(network: Network, path: Path | str, info: Mapping[str, float | int | str] | None = None) -> Path:
    """Write `network` to `path` (temporary file, then rename); returns the path."""
    path = Path(path)
    state = network.state_dict()
    tensors = {name: state[name].detach().cpu().float().numpy() for name in network.spec.tensor_shapes()}
    write_tensors(path, tensors, {_KEY: network.spec.to_json(), _INFO: json.dumps(dict(info or {}))})
    return path


def load_checkpoint(path: Path | str) -> Network:
    """The trained network of a checkpoint, in evaluation mode. Errors as :func:`read_checkpoint`."""
    checkpoint = read_checkpoint(path)
    import torch

    from reverb_fpga.models.network import Network

    network = Network(checkpoint.spec)
    state = {name: torch.from_numpy(array.copy()) for name, array in checkpoint.tensors.items()}
    network.load_state_dict(state, strict=False)  # BatchNorm's batch counter is not part of the format
    network.eval()
    return network
