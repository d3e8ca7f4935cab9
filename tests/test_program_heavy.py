"""Small files that name much work: verifying and decoding one takes memory and time that the configuration bounds.

Both kinds were accepted once; one took 7.2 GB, the other 52 seconds.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from reverb_fpga.compiler import rvb
from reverb_fpga.compiler.program import INPUT_TENSOR, InputTransform, LayerInfo, MapInfo, Program, sections_crc32
from reverb_fpga.hw.config import preset
from reverb_fpga.hw.contract import (
    CONTRACT_VERSION,
    CRC_WORD,
    DESCRIPTOR_FIELDS,
    DESCRIPTOR_WORDS,
    PARAM_FIELDS,
    PARAM_WORDS,
    SLOT_FIELDS,
    Opcode,
    pack,
)

CONFIG = preset("ulx3s-85f")
LAYERS = CONFIG.descriptors - 2
MEGABYTES, SECONDS = 400, 20

LOAD = """
import resource, sys, time
from reverb_fpga.compiler import rvb
from reverb_fpga.hw.config import preset
from reverb_fpga.hw.errors import InputError
from reverb_fpga.sim.golden import GoldenModel
used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (int(sys.argv[2]) << 20),) * 2)
try:
    GoldenModel(rvb.load(sys.argv[1]), preset("ulx3s-85f"))
    print("loaded")
except InputError as error:
    print(error)
print(resource.getrusage(resource.RUSAGE_SELF).ru_utime)
"""


def tall(number: int) -> dict[str, int]:
    """A column of a thousand positions, each of which reads 63 rows around it."""
    last, height, taps = number == LAYERS - 1, 1000, 63
    rows = 1 if last else height
    return {
        "rows": rows, "in_height": height, "iy0": 0 if last else -31, "n_tap_y": taps, "src_ring": height,
        "src_cnt_base": height * (number % 2), "src_act_base": 4 * height * (number % 2), "src_slots": 4,
        "src_row0": 0 if last else height - 31, "src_row_step": 1, "src_row_tap": 1, "dst_ring": rows,
        "dst_cnt_base": height * ((number + 1) % 2), "dst_act_base": 4 * height * ((number + 1) % 2), "dst_slots": 4,
        "n_passes": 1,
    }  # fmt: skip


def wide(number: int) -> dict[str, int]:
    """Every layer multiplies with the same rows again and again: matrices of 28,672 x 1,024 from nothing."""
    return {
        "rows": 1, "in_height": 1, "n_tap_y": 28, "src_ring": 1, "src_cnt_base": number % 2,
        "src_act_base": 256 * (number % 2), "src_slots": 256, "dst_ring": 1, "dst_cnt_base": (number + 1) % 2,
        "dst_act_base": 256 * ((number + 1) % 2), "dst_slots": 256, "n_passes": 16, "src_row_tap": 0,
    }  # fmt: skip


SHAPES = {"tall": (tall, 16, 1000, 1), "wide": (wide, 1024, 1, 64)}


def heavy(kind: str) -> Program:
    make, channels, height, groups = SHAPES[kind]
    layers = []
    for number in range(LAYERS):
        last = number == LAYERS - 1
        common = dict.fromkeys(
            ("cols", "in_width", "timesteps", "t_src", "n_pool_y", "n_pool_x", "n_tap_x", "y_step", "y_tap"), 1
        )
        common |= {"opcode": Opcode.LAYER, "layer": number, "spiking": int(not last), "code_max": 255, "tau_q": 256}
        layers.append(common | {"dst_row_stride": 1} | make(number))
    passes = layers[0]["n_passes"]
    slots = [
        pack(SLOT_FIELDS, {"group": group, "first": 1, "final": 1, "valid": int(group < groups)}, 1)[0]
        for group in range(passes * CONFIG.slots)
    ]
    low, high = pack(PARAM_FIELDS, {"gain": 1, "threshold": 1}, PARAM_WORDS)
    param = np.repeat(np.tile(np.array([low, high], dtype=np.uint32), groups), CONFIG.neuron_lanes)
    weight_rows = layers[0]["n_tap_y"] * layers[0]["src_slots"]
    weight = np.ones(weight_rows * CONFIG.banks * CONFIG.weight_words, dtype=np.uint32)
    head = {
        "opcode": Opcode.PROGRAM, "version": CONTRACT_VERSION, "in_channels": channels, "in_records": height,
        "in_slots": channels // CONFIG.banks, "n_outputs": channels, "n_descriptors": LAYERS + 2,
        "n_slot_entries": len(slots), "n_param_words": len(param), "n_weight_words": len(weight),
        "config_low": CONFIG.digest & 0xFFFFFFFF, "config_high": CONFIG.digest >> 32,
    }  # fmt: skip
    words = []
    for fields in (head, *layers, {"opcode": Opcode.END}):
        words += pack(DESCRIPTOR_FIELDS[Opcode(fields["opcode"])], fields, DESCRIPTOR_WORDS)
    desc, none = np.array(words, dtype=np.uint32), np.zeros(0, dtype=np.uint32)
    table = tuple(
        LayerInfo(f"l{n}", (channels, layer["rows"], 1), 1, bool(layer["spiking"]), ((n + 1, 0, layer["rows"]),),
                  (MapInfo(n - 1 if n else INPUT_TENSOR, 1),))
        for n, layer in enumerate(layers)
    )  # fmt: skip
    transform = InputTransform(channels, height, 1, (1.0,) * channels, (0.0,) * channels)
    program = Program(
        name=kind, arch="x", system="reverb", dataset="none", timesteps=1, accuracy=None,
        labels=tuple(map(str, range(channels))), input=transform, layers=table, logit_scale=1.0,
        config_name=CONFIG.name, config_digest=CONFIG.digest, desc=desc, slot=np.array(slots, dtype=np.uint32),
        param=param, weight=weight, act=none, count=none,
    )  # fmt: skip
    desc[CRC_WORD] = sections_crc32(program.sections())
    return program


@pytest.mark.parametrize("kind", SHAPES)
def test_a_small_file_costs_little(kind: str, tmp_path: Path) -> None:
    path = rvb.save(heavy(kind), tmp_path / f"{kind}.rvb")
    assert path.stat().st_size < 40_000
    done = subprocess.run(
        [sys.executable, "-c", LOAD, path, str(MEGABYTES)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-300:]
    outcome, seconds = done.stdout.strip().splitlines()
    print(outcome, seconds, done.stdout)
    assert float(seconds) < SECONDS
    assert re.search("weight rows are read by more than 4 passes each" if kind == "wide" else "loaded", outcome)
