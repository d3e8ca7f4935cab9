"""Forwards, weights and samples of every odd kind: each compiles right, or is refused in one line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402, N812

import reverb_fpga as rf  # noqa: E402
from reverb_fpga.hw.errors import InputError  # noqa: E402

PIXELS = np.random.default_rng(0).integers(0, 256, (24, 2, 8, 8))
IMAGES = (PIXELS / 255).astype(np.float32)
Forward = Callable[[Any, Any], Any]


class Net(nn.Module):
    """Two convolutions and a linear layer of four-bit weights, used as a forward wants."""

    def __init__(self, forward: Forward) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.c, self.d, self.f = nn.Conv2d(2, 4, 3), nn.Conv2d(4, 4, 3, padding=1), nn.Linear(144, 3)
        self.p = nn.Conv2d(2, 4, 3, padding=1)
        for part in (self.c, self.d, self.f, self.p):
            part.weight.data = torch.randint(-7, 8, part.weight.shape, generator=generator) / 16
            part.bias.data = torch.randn(part.bias.shape, generator=generator) / 4
        self.run = forward

    def forward(self, x: Any) -> Any:
        return self.run(self, x)


def head(net: Any, x: Any) -> Any:
    return net.f(x.flatten(1))


def aliased(net: Any, x: Any) -> Any:
    x = net.c(x)
    y = x
    x += 1
    return head(net, F.relu(y))


def relu_in_place(net: Any, x: Any) -> Any:
    x = net.c(x)
    y = F.relu(x, inplace=True)
    return head(net, F.relu(net.d(y) + x))


def torch_relu_(net: Any, x: Any) -> Any:
    x = net.c(x)
    torch.relu_(x)
    return head(net, x)


def looks_at_shapes(net: Any, x: Any) -> Any:
    count, channels, *sides = x.shape
    assert channels == 2
    assert x.size(2) == sides[0] == 8
    assert x.dim() == x.ndim == 4
    assert len(x) == count
    return net.f(F.relu(net.c(x)).view(count, -1))


COMPILES: dict[str, Forward] = {
    "an alias changed in place": aliased,
    "relu in place, its input read later": relu_in_place,
    "torch.relu_": torch_relu_,
    "x.data": lambda net, x: head(net, F.relu(net.c(x.data))),
    "keywords": lambda net, x: net.f(input=F.relu(input=net.c(input=x)).flatten(start_dim=1)),
    "view(-1, n)": lambda net, x: net.f(F.relu(net.c(x)).view(-1, 144)),
    "reshape": lambda net, x: net.f(F.relu(net.c(x)).reshape(x.shape[0], -1)),
    "unsqueeze and squeeze": lambda net, x: head(net, F.relu(net.c(x)).unsqueeze(0).squeeze(0)),
    "shapes": looks_at_shapes,
    "clamp(min=0)": lambda net, x: head(net, net.c(x).clamp(min=0)),
    "constants added and multiplied": lambda net, x: head(net, 2 * (F.relu(net.c(x - 0.5)) + 0.5) / 3),
    "normalised by channel": lambda net, x: head(net, F.relu(net.c((x - torch.tensor([[[0.3]], [[0.4]]])) / 0.2))),
    "x + x": lambda net, x: (lambda y: head(net, y + y))(F.relu(net.c(x))),
    "one layer twice": lambda net, x: head(net, F.relu(net.d(F.relu(net.d(F.relu(net.c(x))))))),
    "a loop of the same": lambda net, x: sum(head(net, F.relu(net.c(x))) for _ in range(3)) / 3,
    "weights times two": lambda net, x: F.linear(F.relu(net.c(x)).flatten(1), 2 * net.f.weight, net.f.bias),
    "matmul": lambda net, x: F.relu(net.c(x)).flatten(1) @ net.f.weight.T + net.f.bias,
    "zeros plus": lambda net, x: head(net, F.relu(torch.zeros(len(x), 4, 6, 6) + net.c(x))),
    "gradients switched on": lambda net, x: torch.enable_grad()(lambda: head(net, F.relu(net.c(x))))(),
    "overlapping maxima": lambda net, x: head(net, F.max_pool2d(F.relu(net.c(x)), 3, 1, 1)),
    "the largest of the largest": lambda net, x: F.linear(
        F.max_pool2d(F.max_pool2d(F.relu(net.c(x)), 2), 3).flatten(1), net.f.weight[:, :4]),
}  # fmt: skip


@pytest.mark.parametrize("name", COMPILES)
def test_a_forward_is_followed(name: str) -> None:
    """The import equals the module before rounding (checked by the importer), and little is lost after."""
    given = IMAGES.copy()
    model = rf.compile(Net(COMPILES[name]), given, target="large")
    np.testing.assert_array_equal(given, IMAGES)
    agreed = model.agreement
    assert agreed is not None
    assert agreed.difference <= 0.02 * agreed.spread, str(agreed)
    assert not [note for note in model.notes if "float weights" in note]


def changed_view(net: Any, x: Any) -> Any:
    x = net.c(x)
    y = x.flatten(1)
    x *= -1
    return net.f(F.relu(y))


def set_item(net: Any, x: Any) -> Any:
    x = net.c(x)
    x[:, 0] = 0
    return head(net, F.relu(x))


def counted(net: Any, x: Any) -> Any:
    net.calls = getattr(net, "calls", 0) + 1
    return head(net, F.relu(net.c(x) * net.calls))


def in_bfloat16(net: Any, x: Any) -> Any:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return head(net, F.relu(net.c(x)))


NOT_FOLLOWED = "the module computes something that could not be followed"
REFUSED: dict[str, tuple[Forward, str]] = {
    "a view of what is changed in place": (changed_view, NOT_FOLLOWED),
    "state of its own": (counted, NOT_FOLLOWED),
    "autocast": (in_bfloat16, NOT_FOLLOWED),
    "a part written": (set_item, "layer Net: writes into a part of a tensor"),
    "numpy": (lambda net, x: head(net, F.relu(net.c(torch.from_numpy(x.numpy())))), r"torch\.numpy has no counterpart"),
    "values looked at": (lambda net, x: head(net, net.c(x)) if (x > -1).all() else 0, r"torch\.gt has no"),
    "mean over the batch": (lambda net, x: head(net, net.c(x) - net.c(x).mean(0)), "averages over something else"),
    "dropout that never ends": (lambda net, x: head(net, F.dropout(F.relu(net.c(x)))), "drops values at random"),
    "permuted": (lambda net, x: head(net, F.relu(net.c(x)).permute(0, 2, 3, 1)), r"torch\.permute has no counterpart"),
    "a power": (lambda net, x: head(net, F.relu(net.c(x)) ** 2), r"torch\.pow has no counterpart"),
    "its own square": (lambda net, x: (lambda y: head(net, y * y))(F.relu(net.c(x))), "multiplies one traced tensor"),
    "clamped at both ends": (lambda net, x: head(net, net.c(x).clamp(0, 1)), r"clamps to 0 \.\.\. 1"),
    "an image added": (lambda net, x: head(net, F.relu(net.c(x) + torch.ones(4, 6, 6))), "one number per channel"),
    "a reciprocal": (lambda net, x: head(net, F.relu(1 / (net.c(x) + 99))), "divides by a traced tensor"),
    "channels left out": (lambda net, x: head(net, F.relu(net.c(x))[:, [0, 1, 2, 2]]), "takes a part of a tensor"),
    "a border with a bias": (lambda net, x: F.relu(net.p(x - 0.5)).mean((2, 3)), "normalise the samples, not the"),
    "weights of the input": (lambda net, x: F.conv2d(x, net.c.weight * x.mean()), "averages over something else"),
    "a constant": (lambda net, x: torch.zeros(len(x), 3), "returns nothing that was computed from its input"),
    "a table": (lambda net, x: {"logits": head(net, net.c(x))}, "returns a dict; a tensor of logits"),
    "nothing": (lambda net, x: None, "returns a NoneType; a tensor of logits"),
    "maps": (lambda net, x: F.relu(net.c(x)), r"returns maps of shape \(4, 6, 6\)"),
    "classes": (lambda net, x: head(net, net.c(x)).argmax(1), r"returns a tensor of shape \(24,\)"),
    "an error of its own": (lambda net, x: net.f(x), "the module fails on samples of shape .*: RuntimeError: mat1"),
    "not finite": (lambda net, x: head(net, net.c(x) / 0.0), "numbers that are not finite"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_forward_is_refused_in_one_line(name: str) -> None:
    forward, message = REFUSED[name]
    with pytest.raises(InputError, match=message) as caught:
        rf.compile(Net(forward), IMAGES, target="large")
    assert "\n" not in str(caught.value)


def plain(*before: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(*before, nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))


def test_names_that_the_compiler_uses_itself() -> None:
    net = nn.Sequential()
    for name, part in zip(("c", "input", "f", "l", "output"), [*plain(), nn.ReLU()], strict=True):
        net.add_module(name, part)
    model = rf.compile(net, IMAGES, target="large")
    assert [layer.name for layer in model.program.layers] == ["input_", "output_", "output"]
    assert model.agreement is not None
    assert model.agreement.difference < 0.02 * model.agreement.spread


MODULES: dict[str, tuple[Callable[[], Any], str]] = {
    "torch.jit": (lambda: torch.jit.script(plain()), "a module of torch.jit cannot be followed"),
    "complex": (lambda: nn.Sequential(nn.Linear(2, 4, dtype=torch.complex64)), r"0\.weight of the module is complex"),
    "meta": (lambda: nn.Sequential(nn.Conv2d(2, 4, 3, device="meta")), r"lies on meta: give module\.cpu\(\)"),
    "a class": (lambda: nn.Linear, "a type cannot be compiled"),
    "a state dict": (lambda: plain().state_dict(), "a OrderedDict cannot be compiled"),
    "ReLU of the image": (lambda: plain(nn.ReLU(inplace=True)), "layer 0: the input itself is a summand"),
    "reflected": (lambda: nn.Sequential(nn.ReflectionPad2d(1), nn.Conv2d(2, 3, 10)), r"nn\.ReflectionPad2d has no"),
}  # fmt: skip


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_what_is_no_module_to_compile_is_told(name: str) -> None:
    make, message = MODULES[name]
    with pytest.raises(InputError, match=message):
        rf.compile(make(), IMAGES, target="large")


def test_an_exported_graph_is_refused_in_one_line() -> None:
    exported = torch.export.export(plain(), (torch.tensor(IMAGES[:1]),)).module()
    with pytest.raises(InputError, match="give the one that it was made from"):
        rf.compile(exported, IMAGES, target="large")


def test_a_traced_graph_is_a_module() -> None:
    model = rf.compile(torch.fx.symbolic_trace(plain()), IMAGES, target="large")
    assert model.agreement is not None
    assert model.agreement.difference < 0.02 * model.agreement.spread


SAMPLES: dict[str, tuple[Any, str]] = {
    "none": (IMAGES[:0], r"samples of shape \(0, 2, 8, 8\); \(N, channels, height, width\)"),
    "not a number": (np.where(IMAGES > 0.9, np.nan, IMAGES), "not finite"),
    "beyond float32": (IMAGES.astype(np.float64) * 1e300, "not finite"),
    "complex": (IMAGES + 1j, "no array of real numbers"),
    "ragged": ([[1, 2], [3]], "no array of real numbers"),
    "dates": (np.zeros(IMAGES.shape, dtype="datetime64[s]"), "no array of real numbers"),
    "masked": (np.ma.masked_greater(IMAGES, 0.5), "no array of real numbers"),
    "beyond any float": (np.full(IMAGES.shape, 10**400, dtype=object), "no array of real numbers"),
    "text": ("abc", "no array of real numbers"),
    "one without its batch": (IMAGES[0], r"samples of shape \(2, 8, 8\)"),
    "channels last": (np.moveaxis(IMAGES, 1, -1), "the module fails on samples of shape"),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_samples_that_are_none_are_one_line(name: str) -> None:
    samples, message = SAMPLES[name]
    with pytest.raises(InputError, match=message) as caught:
        rf.compile(plain(), samples, target="large")
    assert "\n" not in str(caught.value)


ODD = {
    "one sample": (IMAGES[:1], True),
    "large": (IMAGES * 1e30, True),
    "small": (IMAGES * 1e-30, True),
    "far from zero": (IMAGES + 100, True),
    "one channel of zeros": (IMAGES * np.array([1, 0])[:, None, None], True),
    "channels of other sizes": (IMAGES * np.array([1, 1000])[:, None, None], True),
    "pixels": (PIXELS.astype(np.uint8), True),
    "true and false": (IMAGES > 0.5, True),
    "half precision": (torch.tensor(IMAGES).half(), False),
    "normal numbers": (np.random.default_rng(1).normal(size=IMAGES.shape), False),
    "lists": (IMAGES.tolist(), True),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_samples_are_exact_or_noted(name: str) -> None:
    samples, exact = ODD[name]
    model = rf.compile(plain(), samples, target="large")
    assert model.agreement is not None
    assert model.agreement.difference <= 0.03 * model.agreement.spread, str(model.agreement)
    assert bool([note for note in model.notes if note.startswith("input: rounded to 256 levels")]) != exact


WRONG: dict[str, tuple[Any, str]] = {
    "complex": (IMAGES + 1j, "no array of real numbers"),
    "dates": (np.zeros(IMAGES.shape, dtype="datetime64[s]"), "no array of real numbers"),
    "masked": (np.ma.masked_greater(IMAGES, 0.5), "no array of real numbers"),
    "beyond any float": (np.full(IMAGES.shape, 10**400, dtype=object), "no array of real numbers"),
    "not a number": (np.where(IMAGES > 0.9, np.nan, IMAGES), "not finite"),
    "channels last": (np.moveaxis(IMAGES, 1, -1), r"takes float \(N, 2, 8, 8\)"),
    "none": (IMAGES[:0], r"takes float \(N, 2, 8, 8\)"),
}


def test_inputs_that_are_none_are_one_line(own: rf.Model) -> None:
    for x, message in WRONG.values():
        with pytest.raises(InputError, match=message):
            own.logits(x)
    for clock in (0, -5.0, float("nan"), float("inf"), "50"):
        with pytest.raises(InputError, match="clock_mhz"):
            own.report(IMAGES[:1], clock_mhz=clock)  # type: ignore[arg-type]
    np.testing.assert_array_equal(own.logits(IMAGES.astype(object)), own.logits(IMAGES))


@pytest.fixture(scope="module")
def own() -> rf.Model:
    return rf.compile(plain(), IMAGES, target="large")


def test_an_outlier_is_noted() -> None:
    samples = IMAGES.copy()
    samples[3] = 1e4
    notes = rf.compile(plain(), samples, target="large").notes
    assert [note for note in notes if note.startswith("input: rounded to 256 levels from 0 to 10000")]


def test_steps_of_timed_samples() -> None:
    """A module of one step is called with one step after the other; one of all steps, once."""
    layers = pytest.importorskip("spikingjelly.activation_based.layer")
    neuron = pytest.importorskip("spikingjelly.activation_based.neuron")
    torch.manual_seed(0)
    parts = [layers.Conv2d(2, 4, 3), neuron.IFNode(), layers.Flatten(), layers.Linear(144, 3)]
    parts[0].weight.data *= 3
    net, timed = nn.Sequential(*parts), np.stack([IMAGES, IMAGES * 0.5, IMAGES * 0.2])
    stepped = rf.compile(net, timed, timesteps=3, target="large")
    for part in parts:
        part.step_mode = "m"
    whole = rf.compile(net, timed, target="large")
    assert stepped.input == whole.input == rf.Input("array", (2, 8, 8), 3)
    np.testing.assert_allclose(stepped.logits(timed), whole.logits(timed) / 3, atol=1e-6)
    np.testing.assert_array_equal(stepped.logits(timed[:, 0]), stepped.logits(timed[:, :1]))  # one input, no N
    for part in parts:
        part.step_mode = "s"
    with pytest.raises(InputError, match=r"the module fails on .*; if it takes one time step a call, say timesteps=3"):
        rf.compile(net, timed, target="large")
    with pytest.raises(InputError, match="timesteps 4, but the samples have 3 time steps"):
        rf.compile(net, timed, timesteps=4, target="large")


def membrane_again(net: Any, x: Any) -> Any:
    start, total = net.n.reset_mem(), 0
    for _ in range(3):
        spikes, _ = net.n(net.c(x), start)
        total = total + head(net, spikes)
    return total


def membrane_halved(net: Any, x: Any) -> Any:
    membrane, total = net.n.reset_mem(), 0
    for _ in range(3):
        spikes, membrane = net.n(net.c(x), membrane)
        membrane = membrane * 0.5
        total = total + head(net, spikes)
    return total


def some_steps(net: Any, x: Any) -> Any:
    membrane, found = net.n.reset_mem(), []
    for _ in range(3):
        spikes, membrane = net.n(net.c(x), membrane)
        found.append(head(net, spikes))
    return found[1] + found[2]


def two_layers_of_one(net: Any, x: Any) -> Any:
    membrane = net.n.reset_mem()
    spikes, membrane = net.n(net.c(x), membrane)
    spikes, membrane = net.n(net.d(spikes), membrane)
    return head(net, spikes)


STATES: dict[str, tuple[Forward, str]] = {
    "a membrane that starts again": (
        membrane_again,
        "layer n: is given the membrane of its start again",
    ),
    "a membrane that is changed": (membrane_halved, "computes with the membrane of a neuron"),
    "a sum over some steps": (some_steps, "the module returns a sum over 2 of 3 time steps"),
    "neurons of two layers": (
        two_layers_of_one,
        "layer n: is called for the 2. time .* one layer, once a time step",
    ),
}


@pytest.mark.parametrize("name", STATES)
def test_state_that_the_target_does_not_have_is_refused(name: str) -> None:
    snn = pytest.importorskip("snntorch")
    forward, message = STATES[name]
    net = Net(forward)
    net.n = snn.Leaky(beta=0.5)
    with pytest.raises(InputError, match=message):
        rf.compile(net, IMAGES, target="large")


SETTINGS: dict[str, tuple[dict[str, Any], str]] = {
    "steps 0": ({"timesteps": 0}, "timesteps 0; a whole number of at least 1"),
    "steps 2.0": ({"timesteps": 2.0}, r"timesteps 2\.0; a whole number"),
    "steps true": ({"timesteps": True}, "timesteps True; a whole number"),
    "too many steps": ({"timesteps": 99}, "needs 99 time steps"),
    "a target": ({"target": "xilinx"}, "no configuration 'xilinx'; there are: tiny"),
    "dt": ({"dt": 0}, "dt 0; a length of time above 0"),
    "dt of no kind": ({"dt": "1"}, "dt '1'; a length of time above 0"),
    "a board": ({"target": "icepi-zero"}, "icepi-zero is a board; it has the configuration target='ulx3s-12f'"),
    "a name of two lines": ({"name": "a\nb"}, "printable text of at most 200 characters"),
    "a long name": ({"name": "a" * 201}, "printable text of at most 200 characters"),
    "few labels": ({"labels": ["a"]}, "1 labels for 3 classes"),
    "labels in one text": ({"labels": "abc"}, "labels 'abc'; one printable text for each of 3 classes"),
    "labels that are numbers": ({"labels": [1, 2, 3]}, "one printable text for each of 3 classes"),
    "truth of others": ({"truth": [1, 2]}, r"truth of shape \(2,\) and int64; integers \(24,\)"),
    "truth of floats": ({"truth": np.zeros(24)}, "truth of shape .* and float64"),
    "truth out of range": ({"truth": np.full(24, 7)}, "truth from 7 to 7 of 3 classes"),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_that_are_none_are_one_line(name: str) -> None:
    settings, message = SETTINGS[name]
    module: nn.Module = plain()
    if name == "too many steps":
        module = nn.Sequential(*list(module)[:-1], nn.Linear(144, 3), pytest.importorskip(
            "spikingjelly.activation_based.neuron").LIFNode())  # fmt: skip
    with pytest.raises(InputError, match=message):
        rf.compile(module, IMAGES, **({"target": "large"} | settings))
