"""training/: the training loop: seeded, resumable, its result the averaged weights.

Imports torch. Knows data sets and configurations; nothing of ONNX or of how a bundle is written.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from hardware.errors import ScentdError
from training.config import INT8_TOLERANCE, non_default_settings
from training.data.substance_tables import SubstanceTables, read_substance_tables
from training.network.cross_modal import CrossModalNet
from training.network.cross_modal_objective import CrossModalObjective, build_cross_modal_network
from training.network.losses import mixture_loss, substance_loss
from training.network.mixture_product import MixingLayer, MixtureProductNet
from training.network.product import LevelExpert, ProductNet, ProductPart
from training.network.scentformer import MixtureNet, ScentFormer, build_network
from training.network.stem import StatisticsStem
from training.progress import learning_rate, write_progress
from training.sampling.epochs import EpochSampler
from training.sampling.measurements import (
    measure_rms_scale,
    measure_window_scale,
    steps_without_teachers,
)
from training.sampling.windows import NO_AUGMENTATION, WindowSampler

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from models.preprocess import PreprocessSpec
    from training.config import ExpertConfig, TeacherConfig, TrainConfig
    from training.data.dataset import Dataset
    from training.progress import Tracker

    OnStep = Callable[[int, float], None]

CHECKPOINT = "checkpoint.pt"
SAVE_EVERY_STEPS = 250

MEASURED_WINDOWS = 4000
"""Windows whose statistics set the bins of a statistics stem."""


class TrainingError(ScentdError):
    """A training cannot continue; the message says what to change."""


@dataclass(frozen=True, slots=True)
class TrainedNetwork:
    """A trained network and the preprocessing that it was trained with.

    Attributes
    ----------
    network: with averaged weights, in evaluation mode, on the CPU.
    spec: the configuration's preprocessing with the scale measured on the training data.
    loss: mean training loss over the last tenth of the steps.
    tables: what a cross-modal training knew of the substances.
    objective: what was trained beside the network and is not exported; None without cross_modal.
    """

    network: ScentFormer | MixtureProductNet | ProductNet
    spec: PreprocessSpec
    loss: float
    tables: SubstanceTables = field(default_factory=SubstanceTables)
    objective: CrossModalObjective | None = None


def train_network(
    config: TrainConfig,
    data: Dataset,
    *,
    folder: Path | None = None,
    device: str = "cpu",
    on_step: OnStep = lambda _step, _loss: None,
    tracker: Tracker | None = None,
) -> TrainedNetwork:
    """Train one network, after its teachers; or the experts, each by itself, and join them.

    Parameters
    ----------
    config: everything that decides the result, the seed included.
    data: recordings to train on, at the model's rate.
    folder: of checkpoints; one of the same configuration and data is resumed.
    device: torch device; "cuda" trains in bfloat16 unless the configuration says otherwise.
    on_step: called after each step with its number (from 1, teachers' steps included) and its loss.
    tracker: receives every step of every part.

    Raises
    ------
    TrainingError: the loss is not finite, or the checkpoint belongs to another training.
    """
    if config.mixing:
        return _train_mixture_product(config, data, folder, device, on_step, tracker)
    if config.experts:
        return _train_experts(config, data, folder, device, on_step, tracker)
    done = 0
    teachers: list[ScentFormer] = []
    for number, teacher in enumerate(config.teachers):
        trainer = Trainer(_teacher_config(config, teacher), data, device)
        trainer.track(tracker, f"teacher-{number}")
        place = folder / f"teacher-{number}" if folder else None
        network = trainer.finish(place, on_step, done)
        teachers.append(network.to(device))
        done += teacher.steps
    trainer = Trainer(config, data, device, teachers)
    trainer.track(tracker)
    return trainer.run(folder, on_step, done)


def _train_mixture_product(
    config: TrainConfig,
    data: Dataset,
    folder: Path | None,
    device: str,
    on_step: OnStep,
    tracker: Tracker | None,
) -> TrainedNetwork:
    """Train the network on differences, fit the mixing law to the levels, and join them."""
    spec = measure_rms_scale(config.preprocessing, data, config.max_samples)
    differences = dataclasses.replace(config.preprocessing, lags=config.preprocessing.lags[1:])
    alone = dataclasses.replace(config, mixing=None, preprocessing=differences)
    trainer = Trainer(alone, data, device)
    trainer.track(tracker)
    trained = trainer.run(folder, on_step)
    if config.mixing is None or not isinstance(trained.network, MixtureNet):
        raise TypeError(f"{config.name} has no mixing law, or its network is none of mixtures")
    layer = MixingLayer(config.mixing, spec, data, config.max_samples)
    joined = MixtureProductNet(layer, trained.network, config.mixing.network_weight).eval()
    return dataclasses.replace(trained, network=joined, spec=spec)


def _teacher_config(config: TrainConfig, teacher: TeacherConfig) -> TrainConfig:
    return dataclasses.replace(
        config,
        teachers=(),
        cross_modal=None,
        seed=teacher.seed,
        augment=teacher.augment,
        optimiser=dataclasses.replace(config.optimiser, steps=teacher.steps),
    )


def expert_config(config: TrainConfig, expert: ExpertConfig) -> TrainConfig:
    """Return the configuration by which an expert is trained by itself."""
    return dataclasses.replace(
        config,
        experts=(),
        levels=None,
        teachers=(),
        cross_modal=expert.cross_modal,
        seed=expert.seed,
        network=expert.network,
        augment=expert.augment,
        optimiser=dataclasses.replace(config.optimiser, steps=expert.steps, epochs=0),
        preprocessing=dataclasses.replace(
            config.preprocessing, channels=expert.channels, lags=expert.lags
        ),
    )


def _train_experts(
    config: TrainConfig,
    data: Dataset,
    folder: Path | None,
    device: str,
    on_step: OnStep,
    tracker: Tracker | None,
) -> TrainedNetwork:
    """Train every expert and return their sum, with what the levels add."""
    spec = _measure_scale(config, data)
    places = [(lag, channel) for lag in spec.lags for channel in spec.channels]
    parts, losses, tables, done = [], [], SubstanceTables(), 0
    for number, expert in enumerate(config.experts):
        trainer = Trainer(expert_config(config, expert), data, device)
        trainer.track(tracker, f"expert-{number}")
        place = folder / f"expert-{number}" if folder else None
        network = trainer.finish(place, on_step, done)
        columns = [places.index((lag, name)) for lag in expert.lags for name in expert.channels]
        parts.append(ProductPart(network, columns, expert.weight))
        losses.append(trainer.result().loss)
        tables = trainer.tables if expert.cross_modal else tables
        done += expert.steps
    levels = None
    if config.levels:
        levels = LevelExpert(config.levels, spec, data, config.max_samples)
    joined = ProductNet(parts, levels).eval()
    return TrainedNetwork(joined, spec, float(np.mean(losses)), tables)


def _measure_scale(config: TrainConfig, data: Dataset) -> PreprocessSpec:
    measure = measure_window_scale if config.standardise == "windows" else measure_rms_scale
    return measure(config.preprocessing, data, config.max_samples)


class Trainer:
    """The whole state of one training, which resumes from a checkpoint bit for bit."""

    def __init__(
        self, config: TrainConfig, data: Dataset, device: str, teachers: Sequence[ScentFormer] = ()
    ) -> None:
        self.config, self.device, self.teachers = config, device, teachers
        self.steps = steps_without_teachers(config, data)
        self.tables = read_substance_tables(config.cross_modal, data)
        self.identity = training_identity(config, data, self.tables)
        torch.manual_seed(config.seed)
        self.spec = _measure_scale(config, data)
        self.sampler = _sampler(config, data, self.spec, device)
        self.network: ScentFormer
        self.objective: CrossModalObjective | None = None
        n_labels = len(data.labels)
        if config.cross_modal:
            self.network = build_cross_modal_network(config, self.spec, self.tables, n_labels)
            trained = data.targets.sum(axis=0) > 0
            objective = CrossModalObjective(config, self.spec, self.tables, trained)
            self.objective = objective.to(device)
        else:
            self.network = build_network(config.task, config.network, self.spec, n_labels)
        if isinstance(self.network.trunk.stem, StatisticsStem):
            plain = WindowSampler(
                data, self.spec, NO_AUGMENTATION, seed=config.seed, max_samples=config.max_samples
            )
            x, mask, _ = plain.batch(MEASURED_WINDOWS)
            self.network.trunk.stem.measure(x, mask)
        self.network.to(device)
        self.average = copy.deepcopy(self.network).eval().requires_grad_(requires_grad=False)
        self.average_objective = copy.deepcopy(self.objective)
        kind = torch.optim.Adam if config.optimiser.kind == "adam" else torch.optim.AdamW
        self.optimiser = kind(
            _parameters(self.network, self.objective),
            lr=config.optimiser.learning_rate,
            weight_decay=config.optimiser.weight_decay,
        )
        self.step = 0
        self.losses: list[float] = []
        self._tracker: Tracker | None = None
        self._part = ""

    def track(self, tracker: Tracker | None, part: str = "network") -> None:
        """Give every further step to a tracker, as one of a part of the training."""
        self._tracker, self._part = tracker, part

    def run(
        self,
        folder: Path | None = None,
        on_step: OnStep = lambda _step, _loss: None,
        earlier_steps: int = 0,
    ) -> TrainedNetwork:
        """Train to the last step, from the checkpoint in `folder` if there is one.

        `on_step` counts the `earlier_steps` of other trainings as well.
        """
        self.finish(folder, on_step, earlier_steps)
        return self.result()

    def finish(
        self,
        folder: Path | None = None,
        on_step: OnStep = lambda _step, _loss: None,
        earlier_steps: int = 0,
    ) -> ScentFormer:
        """Train to the last step, as `run` does, and return the averaged network, on the CPU."""
        path = folder / CHECKPOINT if folder else None
        if path and path.exists():
            self.restore(path)
        while self.step < self.steps:
            loss = self.advance()
            on_step(earlier_steps + self.step, loss)
            if path and (self.step % SAVE_EVERY_STEPS == 0 or self.step == self.steps):
                self.save(path)
        return copy.deepcopy(self.average).cpu().eval()

    def advance(self) -> float:
        """Do one step and return its loss."""
        settings = self.config.optimiser
        rate = learning_rate(self.step, self.steps, settings)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        x, mask, target = self.sampler.batch(settings.batch)
        self.network.train()
        kind = self.device.split(":")[0]
        bf16 = settings.precision == "bf16" or (settings.precision == "auto" and kind == "cuda")
        with torch.autocast(kind, torch.bfloat16, enabled=bf16):
            loss = self._loss(x, mask, target)
        if not bool(torch.isfinite(loss)):
            raise TrainingError(
                f"The loss of {self.config.name} is {float(loss)} at step {self.step}. "
                "Lower optimiser.learning_rate or optimiser.clip_norm."
            )
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        parameters = _parameters(self.network, self.objective)
        nn.utils.clip_grad_norm_(parameters, settings.clip_norm)
        self.optimiser.step()
        self.step += 1
        # The decay grows with the steps, so that the average soon forgets its random start.
        decay = min(settings.ema, (1 + self.step) / (10 + self.step))
        averages = _parameters(self.average, self.average_objective)
        with torch.no_grad():
            for mean, current in zip(averages, parameters, strict=True):
                mean.lerp_(current, 1 - decay)
        self.losses.append(float(loss.detach()))
        if self._tracker is not None:
            self._tracker.add(self._part, self.step, self.losses[-1], rate)
        return self.losses[-1]

    def result(self) -> TrainedNetwork:
        """Return the averaged network."""
        tail = self.losses[-max(1, self.steps // 10) :]
        objective = copy.deepcopy(self.average_objective)
        return TrainedNetwork(
            copy.deepcopy(self.average).cpu().eval(),
            self.spec,
            float(np.mean(tail)) if tail else math.nan,
            self.tables,
            objective.cpu().eval() if objective else None,
        )

    def save(self, path: Path) -> None:
        """Write the whole state; `path` is replaced in one step."""
        path.parent.mkdir(parents=True, exist_ok=True)
        state = {
            "identity": self.identity,
            "step": self.step,
            "losses": self.losses,
            "optimiser": self.optimiser.state_dict(),
            "torch_rng": torch.get_rng_state(),
            "sampler_rng": self.sampler.generator.get_state(),
            **{name: module.state_dict() for name, module in self._modules().items()},
        }
        if self.objective is not None:
            state["objective_rng"] = self.objective.generator.get_state()
        partial = path.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(path)
        write_progress(path.parent, self.losses, self.steps, self.config.optimiser)

    def restore(self, path: Path) -> None:
        """Continue from a saved state."""
        state: dict[str, Any] = torch.load(path, map_location=self.device, weights_only=True)
        if state["identity"] != self.identity:
            raise TrainingError(
                f"{path} belongs to a training with another configuration or other data. "
                "Name another --run folder, or remove this one to start again."
            )
        self.step, self.losses = state["step"], state["losses"]
        self.optimiser.load_state_dict(state["optimiser"])
        for name, module in self._modules().items():
            module.load_state_dict(state[name])
        if self.objective is not None:
            self.objective.generator.set_state(state["objective_rng"].cpu())
        torch.set_rng_state(state["torch_rng"].cpu())
        if isinstance(self.sampler, EpochSampler):
            self.sampler.seek(self.step)
        else:
            self.sampler.generator.set_state(state["sampler_rng"].cpu())

    def _modules(self) -> dict[str, nn.Module]:
        """Return the modules with weights by their names in a checkpoint."""
        modules: dict[str, nn.Module] = {"network": self.network, "average": self.average}
        if self.objective is not None and self.average_objective is not None:
            modules |= {"objective": self.objective, "average_objective": self.average_objective}
        return modules

    def _loss(self, x: Tensor, mask: Tensor, target: Tensor) -> Tensor:
        settings, blend = self.config.optimiser, self.sampler.blend
        if isinstance(self.network, MixtureNet):
            proportions, presence, _ = self.network.logits(x, mask, blend)
            return mixture_loss(
                proportions.float(), presence.float(), target, miss_weight=settings.miss_weight
            )
        label_target, label_smoothing = target, settings.label_smoothing
        if self.teachers:
            label_target, label_smoothing = self._teacher_target(x, mask), 0.0
        if isinstance(self.network, CrossModalNet) and self.objective is not None:
            loss: Tensor = self.objective(
                self.network,
                x,
                mask,
                target,
                self.step / self.steps,
                label_target=label_target,
                label_smoothing=label_smoothing,
                blend=blend,
            )
            return loss
        logits, _ = self.network(x, mask, blend)
        return substance_loss(logits.float(), label_target, label_smoothing=label_smoothing)

    def _teacher_target(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return the normalised geometric mean of the teachers' probabilities [batch, labels].

        It is high only where all teachers agree: one knows the rig's own signals, another those of
        other rigs. The student gets the same windows, blends included (a consistent teacher:
        Beyer et al., CVPR 2022).
        """
        with torch.no_grad():
            log_p = [
                network(x, mask, self.sampler.blend)[0].float().log_softmax(dim=1)
                for network in self.teachers
            ]
            return torch.stack(log_p).mean(dim=0).softmax(dim=1)


def _parameters(network: nn.Module, objective: nn.Module | None) -> list[nn.Parameter]:
    return [*network.parameters(), *(objective.parameters() if objective else ())]


def _sampler(
    config: TrainConfig, data: Dataset, spec: PreprocessSpec, device: str
) -> WindowSampler | EpochSampler:
    common: dict[str, Any] = {
        "seed": config.seed, "max_samples": config.max_samples, "device": device,
    }  # fmt: skip
    if config.optimiser.epochs:
        return EpochSampler(data, spec, batch=config.optimiser.batch, **common)
    return WindowSampler(data, spec, config.augment, **common)


def training_identity(config: TrainConfig, data: Dataset, tables: SubstanceTables) -> str:
    """Hash what decides a training: its data and every setting that is not the default.

    Defaults are left out, so that a setting added later keeps the checkpoints of before valid.
    """
    # Quantisation comes after the training.
    trained = dataclasses.replace(config, quantisation="dynamic", tolerance=INT8_TOLERANCE)
    parts = [non_default_settings(trained), data.sha256]
    if config.cross_modal:
        parts.append(tables.sha256)
    text = json.dumps(parts, sort_keys=True, default=list)
    return hashlib.sha256(text.encode()).hexdigest()
