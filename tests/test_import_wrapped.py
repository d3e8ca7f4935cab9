"""Modules as users hold them: wrapped, compiled, pruned, in other precisions; they give the plain one's program."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn.utils import prune  # noqa: E402

import reverb_fpga as rf  # noqa: E402
from reverb_fpga.hw.errors import InputError  # noqa: E402

IMAGES = torch.randint(0, 256, (40, 2, 8, 8), generator=torch.Generator().manual_seed(1)).float() / 255


def plain() -> nn.Sequential:
    """Weights that need no rounding, and that every float format holds."""
    torch.manual_seed(3)
    net = nn.Sequential(nn.Conv2d(2, 6, 3, 2, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(54, 5))
    for part in net:
        if isinstance(part, nn.Conv2d | nn.Linear):
            part.weight.data = torch.randint(-3, 4, part.weight.shape) / 8.0
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.data = torch.randint(-4, 5, part.running_mean.shape) / 16.0
            part.num_batches_tracked.data = torch.tensor(7)
    net[4].bias.data = torch.randint(-8, 8, (5,)) / 8.0
    return net


def compiled_part(net: nn.Sequential) -> nn.Module:
    return nn.Sequential(*(torch.compile(part) if isinstance(part, nn.Conv2d) else part for part in net))


def compiled_in_place(net: nn.Sequential) -> nn.Module:
    net.compile()
    net[0].compile()
    return net


WRAPPERS: dict[str, Callable[[nn.Sequential], nn.Module]] = {
    "DataParallel": nn.DataParallel,
    "torch.compile": torch.compile,
    "DataParallel of torch.compile": lambda net: nn.DataParallel(torch.compile(net)),
    "a layer compiled": compiled_part,
    "compiled in place": compiled_in_place,
    "bfloat16": lambda net: net.bfloat16(),
    "float16": lambda net: net.half(),
    "float64": lambda net: net.double(),
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_a_wrapped_module_gives_the_program_of_the_plain_one(wrapper: str) -> None:
    net = plain()
    wanted = rf.compile(net, IMAGES, target="tiny")
    wrapped = WRAPPERS[wrapper](copy.deepcopy(net)).train()
    before = {name: tensor.clone() for name, tensor in wrapped.state_dict().items()}
    model = rf.compile(wrapped, IMAGES, target="tiny")
    assert [layer.name for layer in model.program.layers] == [layer.name for layer in wanted.program.layers]
    np.testing.assert_array_equal(model.logits(IMAGES), wanted.logits(IMAGES))
    assert model.program.name == "Sequential"
    assert model.agreement is not None
    assert model.agreement.agree >= 39
    assert all(part.training for part in wrapped.modules())
    after = wrapped.state_dict()
    assert list(after) == list(before)
    assert all(
        after[name].dtype == tensor.dtype and torch.equal(after[name], tensor) for name, tensor in before.items()
    )


def test_pruned_weights_are_those_of_the_next_call() -> None:
    """torch.nn.utils.prune makes ``weight`` in a hook before every call: it is stale until then."""
    net = plain()
    prune.random_unstructured(net[4], "weight", amount=0.5)
    net[4].weight_orig.data = torch.randint(-3, 4, (5, 54)) / 4.0  # as an optimiser's step does
    model = rf.compile(net, IMAGES, target="tiny")
    net.eval()
    same = torch.tensor(model.logits(IMAGES)).argmax(1) == net(IMAGES).argmax(1)
    assert int(same.sum()) >= 39
    assert not [note for note in model.notes if "layer 4: float weights" in note]


def test_hooks_that_change_what_a_layer_returns_are_followed() -> None:
    net = plain()
    net[2].register_forward_hook(lambda module, args, result: result * 0.5)
    net[3].register_forward_pre_hook(lambda module, args: (args[0] * 4,))
    model = rf.compile(net, IMAGES, target="tiny")
    assert model.agreement is not None
    assert model.agreement.agree >= 39
    assert model.agreement.difference < 0.05 * model.agreement.spread


def test_a_module_of_one_precision_that_casts_to_another_is_told_so() -> None:
    class Casting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = plain()

        def forward(self, x: Any) -> Any:
            return self.net(x.bfloat16())

    with pytest.raises(InputError, match=r"the module fails on samples of shape \(32, 2, 8, 8\): RuntimeError"):
        rf.compile(Casting(), IMAGES, target="tiny")


def test_a_lazy_layer_without_weights_is_told_so() -> None:
    net = nn.Sequential(nn.Flatten(), nn.LazyLinear(3))
    with pytest.raises(InputError, match=r"1\.weight of the module has no values yet"):
        rf.compile(net, IMAGES, target="tiny")
