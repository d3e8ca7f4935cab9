"""The settings of a training run."""

from __future__ import annotations

from dataclasses import dataclass, field

from reverb_fpga.hw.errors import InputError
from reverb_fpga.models.augment import Augmentation
from reverb_fpga.models.description import BINARY_SPIKES, EVENTS, DensityOver
from reverb_fpga.models.zoo import Options

__all__ = ["TrainSettings"]


@dataclass(frozen=True)
class TrainSettings:
    """Everything that determines a run.

    Attributes
    ----------
    arch, dataset, data_dir
        The network and its data.
    options : Options
        System, time, threshold, activation bits, width.
    lr : float
        Peak of AdamW's rate: warm-up over `warmup` of the steps, then a cosine to zero.
    holdout : int
        Training images kept for choosing the best epoch; the test split is read once, at the end.
    activity_penalty, density_target : float
        Weight of the penalty, and the density above which it acts.
    density_over : str
        Of what that density is: of every ``"layer"``, or of the ``"network"`` (:mod:`~reverb_fpga.models.activity`).
    penalty_start : float
        Share of the epochs before the penalty acts.
    qat_start : float
        Share of the epochs after which activations are rounded (with ``options.act_bits``); the last one always does.
    latent_rate : float
        Learning rate of the latent binary weights, times that of everything else.
    weight_decay : float
        AdamW's decay of the weights that do not count by their signs, in units of the rate.
    average : float
        Epochs over which weights are averaged, exponentially (:mod:`~reverb_fpga.models.averaging`); 0: none. A run is
        then judged by the average, and gives it.
    small_side, small_until : int, float
        Side of the images in the first epochs (0: their own), and the share of the epochs that have such
        (:mod:`~reverb_fpga.models.resizing`).
    prune_ratio : float
        Share of the well-known training images that an epoch leaves out (:mod:`~reverb_fpga.models.pruning`).
    init : str
        Checkpoint to start from ('' : random weights).
    teacher, teacher_weight, temperature : str, float, float
        Checkpoint whose answers are learned too ('' : none), their share of the loss, and what logits are divided by
        (:mod:`~reverb_fpga.models.distillation`).
    limit : int
        Use only the first `limit` training and test images (0: all).
    image_size : int
        Side that the pictures of data set ``folder`` are brought to (0: their own; where they differ, a usual one).
    strict : bool
        Stop at a picture of data set ``folder`` that cannot be read, instead of leaving it out.
    """

    arch: str
    dataset: str
    data_dir: str
    options: Options = field(default_factory=Options)
    augmentation: Augmentation = field(default_factory=Augmentation)
    epochs: int = 12
    batch_size: int = 128
    lr: float = 3e-3
    latent_rate: float = 4.0
    weight_decay: float = 0.0
    label_smoothing: float = 0.05
    warmup: float = 0.08
    seed: int = 0
    holdout: int = 2000
    activity_penalty: float = 0.0
    density_target: float = 0.2
    density_over: DensityOver = "layer"
    penalty_start: float = 0.0
    initial_density: float = 0.35
    qat_start: float = 0.6
    average: float = 0.0
    small_side: int = 0
    small_until: float = 0.5
    prune_ratio: float = 0.0
    init: str = ""
    teacher: str = ""
    teacher_weight: float = 0.7
    temperature: float = 4.0
    limit: int = 0
    image_size: int = 0
    strict: bool = False

    def check(self, processes: int) -> None:
        """Raises InputError for values that no run of so many `processes` can have."""
        if self.batch_size % processes or self.batch_size < 2 * processes:
            raise InputError(f"batch size {self.batch_size} cannot be shared evenly by {processes} processes")
        if self.epochs < 1:
            raise InputError(f"epochs must be at least 1, got {self.epochs}")
        if not 0 < self.lr < 10:
            raise InputError(f"the learning rate must lie between 0 and 10, got {self.lr}")
        if not 0 < self.initial_density < 1:
            raise InputError(f"the initial density must lie between 0 and 1, got {self.initial_density}")
        if not 0 <= self.penalty_start <= 1:
            raise InputError(f"the share of epochs before the penalty must lie in 0..1, got {self.penalty_start}")
        if not 0 <= self.prune_ratio < 1:
            raise InputError(f"the share of images left out must lie in 0..1 (1 excluded), got {self.prune_ratio}")
        if not 0 < self.latent_rate < 1000:
            raise InputError(f"the rate of the latent weights must lie between 0 and 1000, got {self.latent_rate}")
        if not 0 <= self.average <= 1000:
            raise InputError(f"weights can be averaged over 0 to 1000 epochs, got {self.average}")
        if not 0 <= self.small_until <= 1:
            raise InputError(f"the share of epochs with smaller images must lie in 0..1, got {self.small_until}")
        if not 0 <= self.weight_decay <= 100:
            raise InputError(f"the weight decay must lie between 0 and 100, got {self.weight_decay}")
        if self.image_size and self.dataset not in ("folder", "imagenet", EVENTS):
            raise InputError(
                f"{self.dataset} has images of one size; another can be chosen for folder, imagenet and events"
            )
        options = self.options
        if options.system in BINARY_SPIKES and not options.v_th > 0:
            raise InputError(f"system {options.system} has spikes of 0 and 1: its threshold (--v-th) must be above 0")
        if options.weight_bits is not None and options.system != "snn":
            raise InputError(f"--weight-bits is for system snn; {options.system} has other weights")
