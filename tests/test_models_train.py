"""Training on a toy data set: it learns, resumes exactly, and repeats itself."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from pictures import write_idx
from PIL import Image

from reverb_fpga.hw.errors import InputError
from reverb_fpga.models.activity import STEEPER, activity_penalty, expected_density, set_initial_density
from reverb_fpga.models.augment import Augmentation, TrainingSet
from reverb_fpga.models.checkpoint import load_checkpoint, read_checkpoint, read_tensors
from reverb_fpga.models.curve import draw_curve
from reverb_fpga.models.data import ImageSet, load_split
from reverb_fpga.models.description import InputSpec
from reverb_fpga.models.distillation import Lessons, answers, load_teacher
from reverb_fpga.models.evaluation import Evaluation, evaluate
from reverb_fpga.models.network import LayerTrace
from reverb_fpga.models.run_folder import RunFolder
from reverb_fpga.models.settings import TrainSettings
from reverb_fpga.models.train import Progress, Trainer
from reverb_fpga.models.zoo import DatasetSpec, Options, build


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of 28x28 pictures: a bright patch whose place tells the class, as idx files."""
    folder = tmp_path_factory.mktemp("data") / "mnist"
    folder.mkdir()
    rng = np.random.default_rng(1)
    for stem, count in (("train", 400), ("t10k", 100)):
        labels = rng.integers(0, 3, count).astype(np.uint8)
        images = rng.integers(0, 90, (count, 28, 28)).astype(np.uint8)
        for image, label in zip(images, labels, strict=True):
            image[4 + 7 * label : 11 + 7 * label, 8:20] += 120
        write_idx(folder, stem, images, labels)
    return folder.parent


@pytest.fixture(scope="module")
def settings(data_dir: Path) -> TrainSettings:
    options = Options(act_bits=8, width=0.125)
    return TrainSettings(
        "scnn5", "mnist", str(data_dir), options, Augmentation(1, False), epochs=4, batch_size=32, lr=5e-3,
        activity_penalty=0.5, qat_start=0.5, seed=3,
    )  # fmt: skip


def test_learns_and_leaves_what_it_promises(settings: TrainSettings, tmp_path: Path) -> None:
    seen: list[Progress] = []
    result = Trainer(settings, tmp_path / "run", progress=seen.append).run()
    assert result.accuracy > 90
    assert 0 < result.density < 1
    assert {file.name for file in (tmp_path / "run").iterdir()} == {
        "best.safetensors", "last.safetensors", "metrics.jsonl", "curve.png", "settings.json", "result.json",
    }  # fmt: skip
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [line["quantised"] for line in lines] == [False, False, True, True]
    assert set(lines[0]["densities"]) == {"conv2", "conv3", "conv4", "fc1"}
    assert len(seen) == 4 * seen[0].steps
    checkpoint = read_checkpoint(tmp_path / "run/best.safetensors")
    assert checkpoint.info["accuracy"] == pytest.approx(result.accuracy, abs=1e-3)
    again = evaluate(load_checkpoint(tmp_path / "run/best.safetensors"), load_split("mnist", settings.data_dir, "test"))
    assert again == result


@pytest.mark.parametrize("average", [0, 1.5])
def test_resumed_equals_uninterrupted(settings: TrainSettings, tmp_path: Path, average: float) -> None:
    settings = replace(settings, average=average)
    Trainer(settings, tmp_path / "whole").run()

    class Interrupted(Exception):
        pass

    for stop in (1, 2, 3):  # in the float phase, in the epoch in which rounding begins, and after it

        def interrupt(state: Progress, stop: int = stop) -> None:
            if state.epoch == stop and state.step == 2:
                raise Interrupted

        with pytest.raises(Interrupted):
            Trainer(settings, tmp_path / "parts", resume=stop > 1, progress=interrupt).run()
    Trainer(settings, tmp_path / "parts", resume=True).run()
    for file in ("best.safetensors", "last.safetensors"):
        whole, notes = read_tensors(tmp_path / "whole" / file)
        parts, others = read_tensors(tmp_path / "parts" / file)
        assert notes == others
        assert all(np.array_equal(whole[name], parts[name]) for name in whole | parts)


def test_resume_refuses_other_settings_and_nothing(settings: TrainSettings, tmp_path: Path) -> None:
    short = replace(settings, epochs=1)
    with pytest.raises(InputError, match="nothing to resume"):
        Trainer(short, tmp_path, resume=True)
    Trainer(short, tmp_path).run()
    with pytest.raises(InputError, match="already holds a run"):
        Trainer(short, tmp_path)
    with pytest.raises(InputError, match="differ"):
        Trainer(replace(short, lr=1e-4), tmp_path, resume=True)


def test_a_run_of_an_older_version_is_gone_on_with(settings: TrainSettings, tmp_path: Path) -> None:
    Trainer(replace(settings, epochs=1), tmp_path).run()
    file = tmp_path / "settings.json"
    kept = json.loads(file.read_text())
    del kept["average"]
    file.write_text(json.dumps(kept))
    Trainer(replace(settings, epochs=2), tmp_path, resume=True).run()
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 2
    file.write_text(json.dumps(kept))
    with pytest.raises(InputError, match="they differ in average"):
        Trainer(replace(settings, epochs=3, average=2.0), tmp_path, resume=True)


def test_a_run_may_become_longer_or_shorter(settings: TrainSettings, tmp_path: Path) -> None:
    class Interrupted(Exception):
        pass

    def interrupt(state: Progress) -> None:
        if state.epoch == 1:
            raise Interrupted

    with pytest.raises(Interrupted):
        Trainer(settings, tmp_path, progress=interrupt).run()
    with pytest.raises(InputError, match="1 epochs are done, none of them rounded; --epochs must be more"):
        Trainer(replace(settings, epochs=1), tmp_path, resume=True)
    Trainer(replace(settings, epochs=2), tmp_path, resume=True).run()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2]
    assert json.loads((tmp_path / "settings.json").read_text())["epochs"] == 2


def test_start_from_a_checkpoint_with_time_added(settings: TrainSettings, tmp_path: Path) -> None:
    first = Trainer(settings, tmp_path / "one").run()
    options = replace(settings.options, timesteps=2, v_th=0.25)
    init = str(tmp_path / "one/best.safetensors")
    tuned = replace(settings, options=options, init=init, epochs=1, lr=1e-3, qat_start=0.0)
    again = Trainer(tuned, tmp_path / "two")
    assert not again.notes
    assert again.run().accuracy > min(90.0, first.accuracy) - 5
    (note,) = Trainer(replace(tuned, seed=4), tmp_path / "four").notes
    assert "trained with --seed 3, which held out other images" in note
    with pytest.raises(InputError, match="does not fit"):
        Trainer(replace(tuned, options=replace(options, width=0.25)), tmp_path / "three")


def test_batches_follow_from_seed_and_epoch() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (50, 8, 6, 3), dtype=np.uint8)
    data = ImageSet(images, np.arange(50), tuple(map(str, range(50))))
    training = TrainingSet(data, Augmentation(2, True, 3), (1, 2, 3))
    one, two = list(training.epoch(16, 5, 0)), list(training.epoch(16, 5, 0))
    assert len(one) == 3
    assert all(torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) for a, b in zip(one, two, strict=True))
    assert not torch.equal(one[0][1], next(training.epoch(16, 5, 1))[1])
    assert one[0][0].shape == (16, 3, 8, 6)


def test_without_augmentation_images_are_unchanged() -> None:
    images = np.random.default_rng(0).integers(0, 256, (20, 5, 5, 1), dtype=np.uint8)
    training = TrainingSet(ImageSet(images, np.arange(20), tuple("x" * 20)), Augmentation(0, False), (0,))
    for batch, labels, positions in training.epoch(10, 0, 0):
        assert torch.equal(labels, torch.from_numpy(positions))
        assert torch.equal(batch, torch.from_numpy(images[labels]).permute(0, 3, 1, 2))


@pytest.mark.parametrize("v_th", [0.0, 0.25])
def test_expected_density_is_the_measured_one(v_th: float) -> None:
    shape = DatasetSpec("toy", InputSpec(1, 28, 28, (128,), (70.0,)), tuple("abc"))
    network = build("fmnist", shape, Options(act_bits=8, v_th=v_th), seed=1)
    set_initial_density(network, 0.3)
    pixels = torch.randint(0, 256, (32, 1, 28, 28), generator=torch.Generator().manual_seed(0))
    network.initialise_scales(pixels)
    traces: list[LayerTrace] = []
    with torch.no_grad():
        network.train()
        network(pixels, traces)
    for layer, tensor, trace in zip(network.stages(), network.activations(), traces[1:], strict=False):
        assert trace.events is not None
        measured = float((trace.events != 0).float().mean())
        assert expected_density(layer, tensor).item() == pytest.approx(measured, abs=0.05)
    assert activity_penalty(network, 1.0).item() == 0
    near, far = (activity_penalty(network, target).item() for target in (0.2, 0.1))
    assert 0 < 2 * near < far  # steeper than the distance


def test_penalty_goes_by_counted_events() -> None:
    """Shortcuts add to the current, so that the formula alone would be wrong about their tensors."""
    shape = DatasetSpec("toy", InputSpec(1, 16, 16, (128,), (70.0,)), tuple("abc"))
    network = build("resnet20-classic", shape, Options(act_bits=8, width=0.25), seed=1).train()
    pixels = torch.randint(0, 256, (16, 1, 16, 16), generator=torch.Generator().manual_seed(0))
    network.initialise_scales(pixels)
    network.count_events(True)
    traces: list[LayerTrace] = []
    network(pixels, traces)
    counted = {tensor.spec.name: tensor.density for tensor in network.activations()}
    for trace in traces[1:]:
        assert trace.events is not None
        density = counted[network.layer(trace.name).spec.source]
        assert density is not None
        assert density.item() == pytest.approx(float((trace.events != 0).float().mean()), abs=1e-6)
    excess = sum(max(0.0, float(density) - 0.3) for density in counted.values() if density is not None)
    squares = sum(max(0.0, float(density) - 0.3) ** 2 for density in counted.values() if density is not None)
    penalty = activity_penalty(network, 0.3)
    assert penalty.item() == pytest.approx(excess + STEEPER * squares, rel=1e-5)
    penalty.backward()
    norm = network.layer("b11b").bn  # adds a shortcut
    assert norm is not None
    assert float(norm.bias.grad.sum()) > 0


def test_penalty_on_the_network_goes_by_the_density_of_all_its_neurons() -> None:
    shape = DatasetSpec("toy", InputSpec(1, 28, 28, (128,), (70.0,)), tuple("abc"))
    network = build("fmnist", shape, Options(act_bits=8, width=0.25), seed=1).train()
    pixels = torch.randint(0, 256, (16, 1, 28, 28), generator=torch.Generator().manual_seed(0))
    network.initialise_scales(pixels)
    network.count_events(True)
    traces: list[LayerTrace] = []
    network(pixels, traces)
    events = [trace.events for trace in traces[1:] if trace.events is not None]
    density = sum(int((some != 0).sum()) for some in events) / sum(some.numel() for some in events)
    assert activity_penalty(network, density + 1e-3, "network").item() == 0
    penalty = activity_penalty(network, density - 0.1, "network")
    assert penalty.item() == pytest.approx(0.1 + STEEPER * 0.01, rel=1e-4)
    penalty.backward()
    pulls = []
    for name in ("conv1", "conv5"):
        norm = network.layer(name).bn
        assert norm is not None
        pulls.append(float(norm.bias.grad.sum()))
    assert pulls[0] > 3 * pulls[1] > 0  # conv1 has four times the neurons


def test_nothing_is_written_for_data_that_is_missing(settings: TrainSettings, tmp_path: Path) -> None:
    with pytest.raises(InputError):
        Trainer(replace(settings, data_dir=str(tmp_path / "none")), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_log_has_every_epoch_once(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    figures = ("loss", "train_loss", "accuracy", "train_accuracy", "density")
    line = {"quantised": True, "densities": {"conv2": 0.5}, **dict.fromkeys(figures, 1.0)}
    for epoch in (1, 2, 3, 2):  # the second again, as after a run that was killed before its state was saved
        folder.log({"epoch": epoch, **line})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('\n{"epoch": 7}\n[]\n{"epoch": 3, "lo')  # and what a cut in power leaves
    folder.log({"epoch": 3, **line})
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(entry)["epoch"] for entry in lines] == [1, 2, 3]
    folder.draw()
    assert (tmp_path / "curve.png").stat().st_size > 1000


def test_a_curve_of_one_epoch_shows_its_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: drawn.append(figure))
    figures = {"loss": 0.82, "train_loss": 1.3, "accuracy": 71.2, "train_accuracy": 60.1, "density": 0.21}
    draw_curve([{"epoch": 1, "quantised": True, "densities": {"conv2": 0.3}, **figures}], tmp_path / "curve.png", "run")
    shown = [[text.get_text() for text in axes.texts] for axes in drawn[0].axes]
    assert shown == [["0.82", "1.3"], ["71.2", "60.1"], ["0.21", "0.3"]]
    assert all(axes.get_xticks().tolist() == [1] for axes in drawn[0].axes)
    assert all(line.get_marker() not in ("None", "") for line in drawn[0].axes[2].get_lines())


def test_an_epoch_is_kept_before_it_is_drawn(
    settings: TrainSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(folder: RunFolder) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(RunFolder, "draw", interrupt)
    trainer = Trainer(settings, tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    assert trainer.state.epoch == 1
    assert Trainer(settings, tmp_path / "run", resume=True).state.epoch == 1


def test_resume_names_the_option_that_differs(settings: TrainSettings, tmp_path: Path) -> None:
    Trainer(replace(settings, epochs=1), tmp_path).run()
    changed = replace(
        settings, epochs=1, options=replace(settings.options, v_th=0.1), augmentation=Augmentation(2, False)
    )
    with pytest.raises(InputError, match=r"differ in shift, v_th$"):
        Trainer(changed, tmp_path, resume=True)
    (tmp_path / "last.safetensors").unlink()
    with pytest.raises(InputError, match="already holds a run"):
        Trainer(settings, tmp_path)


@pytest.mark.parametrize("changes", [{"epochs": 1}, {"epochs": 2, "qat_start": 0.0}])
def test_rounding_from_the_first_epoch_learns(
    changes: dict[str, float], settings: TrainSettings, tmp_path: Path
) -> None:
    result = Trainer(replace(settings, batch_size=8, density_target=0.3, **changes), tmp_path / "run").run()
    assert result.accuracy > 60  # three classes
    assert all(0.02 < density < 0.9 for density in result.densities.values())


def test_the_penalty_can_start_late(settings: TrainSettings, tmp_path: Path) -> None:
    densities = {}
    for name, start in (("early", 0.0), ("late", 0.75), ("never", 1.0)):
        changed = replace(settings, activity_penalty=20.0, density_target=0.05, penalty_start=start)
        Trainer(changed, tmp_path / name).run()
        lines = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        densities[name] = [json.loads(line)["density"] for line in lines]
    assert densities["late"][:3] == densities["never"][:3]
    assert densities["early"][2] < densities["late"][2]
    assert densities["late"][3] < densities["never"][3]


def test_the_best_epoch_has_the_density_asked_for(
    settings: TrainSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A denser one before it may be more accurate; without a penalty accuracy alone decides."""
    monkeypatch.setattr(RunFolder, "draw", lambda folder: None)
    for name, penalty in (("penalty", 1.0), ("none", 0.0)):
        trainer = Trainer(replace(settings, activity_penalty=penalty, density_target=0.2), tmp_path / name)
        trainer.state = replace(trainer.state, quantised=True)
        kept = []
        for epoch, (accuracy, density) in enumerate([(90.0, 0.3), (80.0, 0.205), (85.0, 0.22), (81.0, 0.19)], start=1):
            trainer._record({"epoch": epoch}, Evaluation(100, accuracy, 1.0, density, {}))
            kept.append(trainer.state.best)
        assert kept == ([90.0, 80.0, 80.0, 81.0] if penalty else [90.0] * 4)
        assert read_checkpoint(tmp_path / name / "best.safetensors").info["epoch"] == (4 if penalty else 1)


def test_two_runs_do_not_share_a_folder(settings: TrainSettings, tmp_path: Path) -> None:
    first = Trainer(replace(settings, epochs=1), tmp_path / "run")
    before = (tmp_path / "run/settings.json").read_bytes()
    for resume in (False, True):
        (tmp_path / "run/last.safetensors").write_bytes(b"")  # as after an epoch of the first
        with pytest.raises(InputError, match="another run is writing there"):
            Trainer(replace(settings, lr=1e-4), tmp_path / "run", resume)
    assert (tmp_path / "run/settings.json").read_bytes() == before
    first.run()
    with pytest.raises(InputError, match="already holds a run"):
        Trainer(settings, tmp_path / "run")


def _pictures(root: Path, **counts: int) -> str:
    """A folder data set with so many pictures per class: `train_a=3`."""
    rng = np.random.default_rng(0)
    for key, count in counts.items():
        place = root.joinpath(*key.split("_"))
        place.mkdir(parents=True)
        for number in range(count):
            Image.fromarray(rng.integers(0, 256, (28, 28), np.uint8)).save(place / f"{number}.png")
    return str(root)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_an_epoch_of_one_image_is_not_left(settings: TrainSettings, tmp_path: Path, seed: int) -> None:
    data = _pictures(tmp_path / "data", train_a=3, train_b=3, test_a=1, test_b=1)
    few = replace(
        settings, arch="fmnist", dataset="folder", data_dir=data, epochs=12, batch_size=2, prune_ratio=0.9, seed=seed,
        options=Options(act_bits=8, width=0.05), augmentation=Augmentation(0, False),
    )  # fmt: skip
    Trainer(few, tmp_path / "run").run()
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert len(lines) == 12
    assert min(line["images"] for line in lines) >= 2


def test_classes_of_one_side_are_named(settings: TrainSettings, tmp_path: Path) -> None:
    data = _pictures(tmp_path / "data", train_a=6, train_b=6, train_c=6, test_a=1, test_c=1, test_d=1)
    with pytest.raises(InputError, match="different classes: only train has b; only test has d"):
        Trainer(replace(settings, dataset="folder", data_dir=data), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_pictures_are_brought_to_the_size_asked_for(settings: TrainSettings, tmp_path: Path) -> None:
    data = _pictures(tmp_path / "data", train_a=6, train_b=6, test_a=1, test_b=1)
    Image.new("RGB", (90, 70)).save(tmp_path / "data/test/a/odd.png")
    folder = replace(settings, arch="fmnist", dataset="folder", data_dir=data)
    assert Trainer(folder, tmp_path / "own").network.spec.input.shape == (1, 28, 28)
    trainer = Trainer(replace(folder, image_size=36), tmp_path / "run")
    assert trainer.network.spec.input.shape == (1, 36, 36)
    assert trainer.test.images.shape == (3, 36, 36, 1)
    with pytest.raises(InputError, match="has images of one size"):
        Trainer(replace(settings, image_size=36), tmp_path / "no")


@pytest.fixture(scope="module")
def teacher(settings: TrainSettings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A float network that knows the toy data set."""
    out = tmp_path_factory.mktemp("teacher") / "run"
    options = Options(system="float", width=0.25)
    result = Trainer(replace(settings, options=options, epochs=3, activity_penalty=0.0), out).run()
    assert result.accuracy > 90
    return out / "best.safetensors"


def test_a_teacher_is_learned_from(settings: TrainSettings, teacher: Path, tmp_path: Path) -> None:
    """Only the teacher's answers count here: the labels have no share of the loss."""
    taught = replace(settings, teacher=str(teacher), teacher_weight=1.0, temperature=2.0)
    result = Trainer(taught, tmp_path / "whole").run()
    assert result.accuracy > 55  # of three classes: 33 by chance
    Trainer(replace(taught, epochs=2), tmp_path / "cut").run()
    Trainer(taught, tmp_path / "cut", resume=True)  # the settings of a run hold its teacher
    with pytest.raises(InputError, match="differ in teacher_weight"):
        Trainer(replace(taught, teacher_weight=0.5), tmp_path / "cut", resume=True)


def test_what_a_teacher_says(settings: TrainSettings, teacher: Path) -> None:
    data = load_split("mnist", settings.data_dir, "test")
    network = load_checkpoint(teacher)
    plain = answers(network, data, False, torch.device("cpu"))
    both = answers(network, data, True, torch.device("cpu"))
    pixels = torch.from_numpy(data.images.transpose(0, 3, 1, 2).copy())
    with torch.no_grad():
        expected = network(pixels)
        mirrored = network(pixels.flip(-1))
    torch.testing.assert_close(plain, expected, rtol=0.05, atol=0.3)  # bfloat16, where the processor has it
    torch.testing.assert_close(both, (expected + mirrored) / 2, rtol=0.05, atol=0.3)
    positions, labels = torch.arange(20, 40), torch.from_numpy(data.labels[20:40])
    losses = torch.nn.functional.cross_entropy(plain[20:40], labels, reduction="none")
    lessons = Lessons(plain, 0.7, 4.0)
    torch.testing.assert_close(lessons.mix(losses, plain[20:40], positions), 0.3 * losses)  # says what the teacher says
    other = lessons.mix(losses, plain[20:40] + torch.arange(plain.shape[1]), positions)
    assert bool((other > 0.3 * losses).all())
    renamed = ImageSet(data.images, data.labels, ("up", "down", "left"))
    with pytest.raises(InputError, match="knows other classes"):
        load_teacher(str(teacher), renamed)


def test_a_teacher_that_is_of_no_use_leaves_no_run_behind(
    settings: TrainSettings, teacher: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        Trainer(replace(settings, teacher=str(tmp_path / "none.safetensors")), tmp_path / "run")
    larger = _pictures(tmp_path / "data", train_a=6, train_b=6, test_a=1, test_b=1)
    folder = replace(settings, arch="fmnist", dataset="folder", data_dir=larger, teacher=str(teacher))
    with pytest.raises(InputError, match="knows other classes"):
        Trainer(folder, tmp_path / "run")
    data = load_split("mnist", settings.data_dir, "test")
    wide = ImageSet(np.pad(data.images, ((0, 0), (0, 0), (2, 2), (0, 0))), data.labels, data.classes)
    with pytest.raises(InputError, match=r"teacher takes other images .* \(1, 28, 32\), not \(1, 28, 28\)"):
        load_teacher(str(teacher), wide)
    assert not (tmp_path / "run").exists()
