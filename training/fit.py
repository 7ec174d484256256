"""training/: the training loop: seeded, resumable, averaged weights out.

Torch lives here. Knows data sets and configurations; nothing of ONNX or of how
a bundle is written.
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
from torch import Tensor

from hardware.errors import ScentdError
from training.config import INT8_TOLERANCE
from training.data.substance_tables import SubstanceTables, read_substance_tables
from training.network.cross_modal import CrossModalNet
from training.network.cross_modal_objective import CrossModalObjective, build_cross_modal_network
from training.network.losses import mixture_loss, substance_loss
from training.network.scentformer import MixtureNet, ScentFormer, build_network
from training.network.stem import StatisticsStem
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
    from training.config import OptimiserConfig, TeacherConfig, TrainConfig
    from training.data.dataset import Dataset

CHECKPOINT = "checkpoint.pt"
SAVE_EVERY_STEPS = 250

MEASURED_WINDOWS = 4000
"""Windows whose statistics set the bins of a statistics stem."""


class TrainingError(ScentdError):
    """A training cannot go on; the message says what to change."""


@dataclass(frozen=True, slots=True)
class TrainedNetwork:
    """A trained network and the preprocessing it was trained behind.

    Attributes
    ----------
    network: with averaged weights, in evaluation mode, on the CPU.
    spec: the configuration's preprocessing with the scale measured on the training data.
    loss: mean training loss over the last tenth of the steps.
    knowledge: what a cross-modal training knew of the substances.
    objective: what was trained beside the network and is not exported; None without cross_modal.
    """

    network: ScentFormer
    spec: PreprocessSpec
    loss: float
    knowledge: SubstanceTables = field(default_factory=SubstanceTables)
    objective: CrossModalObjective | None = None


def train_network(
    config: TrainConfig,
    data: Dataset,
    *,
    folder: Path | None = None,
    device: str = "cpu",
    on_step: Callable[[int, float], None] = lambda _step, _loss: None,
) -> TrainedNetwork:
    """Train one network.

    Parameters
    ----------
    config: everything that decides the result, the seed included.
    data: recordings to train on, at the model's rate.
    folder: where checkpoints go; a checkpoint there of the same configuration and data is resumed.
    device: torch device; "cuda" trains in bfloat16 unless the configuration says otherwise.
    on_step: called after each step with its number (from 1, teachers' steps included) and its loss.

    Raises
    ------
    TrainingError: the loss is not finite, or the checkpoint belongs to another training.
    """
    done = 0
    teachers = []
    for number, teacher in enumerate(config.teachers):
        place = folder / f"teacher-{number}" if folder else None
        lesson = Trainer(_teacher(config, teacher), data, device)
        teachers.append(_run(lesson, place, _later(on_step, done)).network.to(device))
        done += teacher.steps
    trainer = Trainer(config, data, device, teachers)
    return _run(trainer, folder, _later(on_step, done))


def _run(
    trainer: Trainer, folder: Path | None, on_step: Callable[[int, float], None]
) -> TrainedNetwork:
    """Go on from the folder's checkpoint, if there is one, to the last step."""
    path = folder / CHECKPOINT if folder else None
    if path and path.exists():
        trainer.restore(path)
    while trainer.step < trainer.steps:
        loss = trainer.advance()
        on_step(trainer.step, loss)
        if path and (trainer.step % SAVE_EVERY_STEPS == 0 or trainer.step == trainer.steps):
            trainer.save(path)
    return trainer.result()


def _teacher(config: TrainConfig, teacher: TeacherConfig) -> TrainConfig:
    return dataclasses.replace(
        config,
        teachers=(),
        cross_modal=None,
        seed=teacher.seed,
        augment=teacher.augment,
        optimiser=dataclasses.replace(config.optimiser, steps=teacher.steps),
    )


def _later(on_step: Callable[[int, float], None], done: int) -> Callable[[int, float], None]:
    """Count on from the steps that earlier trainings took."""
    return lambda step, loss: on_step(done + step, loss)


class Trainer:
    """One training's whole state, so that it can be saved and go on bit for bit."""

    def __init__(
        self, config: TrainConfig, data: Dataset, device: str, teachers: Sequence[ScentFormer] = ()
    ) -> None:
        self.config, self.device, self.teachers = config, device, teachers
        self.steps = steps_without_teachers(config, data)
        self.knowledge = (
            read_substance_tables(config.cross_modal, data)
            if config.cross_modal
            else SubstanceTables()
        )
        self.identity = _identity(config, data, self.knowledge)
        torch.manual_seed(config.seed)
        measure = measure_window_scale if config.standardise == "windows" else measure_rms_scale
        self.spec = measure(config.preprocessing, data, config.max_samples)
        self.sampler = _sampler(config, data, self.spec, device)
        self.network: ScentFormer
        self.objective: CrossModalObjective | None = None
        if config.cross_modal:
            trained = data.targets.sum(axis=0) > 0
            self.network = build_cross_modal_network(
                config, self.spec, self.knowledge, len(data.labels)
            )
            self.objective = CrossModalObjective(config, self.spec, self.knowledge, trained).to(
                device
            )
        else:
            self.network = build_network(
                config.task,
                config.network,
                window=self.spec.window,
                n_features=self.spec.n_features,
                n_labels=len(data.labels),
                n_lags=len(self.spec.lags),
            )
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
            self._parameters(self.network, self.objective),
            lr=config.optimiser.learning_rate,
            weight_decay=config.optimiser.weight_decay,
        )
        self.step = 0
        self.losses: list[float] = []

    def advance(self) -> float:
        """Do one step and return its loss."""
        settings = self.config.optimiser
        for group in self.optimiser.param_groups:
            group["lr"] = settings.learning_rate * _schedule(self.step, self.steps, settings)
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
        parameters = self._parameters(self.network, self.objective)
        torch.nn.utils.clip_grad_norm_(parameters, settings.clip_norm)
        self.optimiser.step()
        self.step += 1
        self._average_weights()
        self.losses.append(float(loss.detach()))
        return self.losses[-1]

    def result(self) -> TrainedNetwork:
        """Return the averaged network."""
        tail = self.losses[-max(1, self.steps // 10) :]
        network = copy.deepcopy(self.average).cpu().eval()
        objective = copy.deepcopy(self.average_objective)
        return TrainedNetwork(
            network,
            self.spec,
            float(np.mean(tail)) if tail else math.nan,
            self.knowledge,
            objective.cpu().eval() if objective else None,
        )

    def save(self, path: Path) -> None:
        """Write the whole state, whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        state = {
            "identity": self.identity,
            "step": self.step,
            "losses": self.losses,
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "torch_rng": torch.get_rng_state(),
            "sampler_rng": self.sampler.generator.get_state(),
        }
        if self.objective is not None and self.average_objective is not None:
            state["objective"] = self.objective.state_dict()
            state["average_objective"] = self.average_objective.state_dict()
            state["objective_rng"] = self.objective.generator.get_state()
        partial = path.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(path)

    def restore(self, path: Path) -> None:
        """Go on from a saved state."""
        state: dict[str, Any] = torch.load(path, map_location=self.device, weights_only=True)
        if state["identity"] != self.identity:
            raise TrainingError(
                f"{path} belongs to a training with another configuration or other data. "
                "Name another --run folder, or remove this one to start anew."
            )
        self.step, self.losses = state["step"], state["losses"]
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        if self.objective is not None and self.average_objective is not None:
            self.objective.load_state_dict(state["objective"])
            self.average_objective.load_state_dict(state["average_objective"])
            self.objective.generator.set_state(state["objective_rng"].cpu())
        torch.set_rng_state(state["torch_rng"].cpu())
        if isinstance(self.sampler, EpochSampler):
            self.sampler.seek(self.step)
        else:
            self.sampler.generator.set_state(state["sampler_rng"].cpu())

    def _loss(self, x: Tensor, mask: Tensor, target: Tensor) -> Tensor:
        if isinstance(self.network, MixtureNet):
            proportions, presence, _ = self.network.logits(x, mask, self.sampler.blend)
            return mixture_loss(
                proportions.float(),
                presence.float(),
                target,
                miss_weight=self.config.optimiser.miss_weight,
            )
        if isinstance(self.network, CrossModalNet) and self.objective is not None:
            loss: Tensor = self.objective(
                self.network,
                x,
                mask,
                target,
                self.step / self.steps,
                blend=self.sampler.blend,
                taught=self._taught(x, mask),
            )
            return loss
        logits, _ = self.network(x, mask, self.sampler.blend)
        taught = self._taught(x, mask)
        if taught is not None:
            return substance_loss(logits.float(), taught, label_smoothing=0.0)
        return substance_loss(
            logits.float(), target, label_smoothing=self.config.optimiser.label_smoothing
        )

    def _taught(self, x: Tensor, mask: Tensor) -> Tensor | None:
        """Return what the teachers agree on of the same blended windows; None without teachers.

        The mean of log-probabilities asks for agreement: a teacher that knows the rig's own
        signals and one that knows other rigs' both have a veto. The student sees what they see,
        blends included (a consistent teacher: Beyer et al., CVPR 2022).
        """
        if not self.teachers:
            return None
        with torch.no_grad():
            said = [
                network(x, mask, self.sampler.blend)[0].float().log_softmax(dim=1)
                for network in self.teachers
            ]
            return torch.stack(said).mean(dim=0).softmax(dim=1)

    def _average_weights(self) -> None:
        # A young average forgets its random start quickly; without one it is the last weights.
        decay = min(self.config.optimiser.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            averages = self._parameters(self.average, self.average_objective)
            for mean, current in zip(
                averages, self._parameters(self.network, self.objective), strict=True
            ):
                mean.lerp_(current, 1 - decay)

    @staticmethod
    def _parameters(
        network: ScentFormer, objective: CrossModalObjective | None
    ) -> list[torch.nn.Parameter]:
        return [*network.parameters(), *(objective.parameters() if objective else ())]


def _sampler(
    config: TrainConfig, data: Dataset, spec: PreprocessSpec, device: str
) -> WindowSampler | EpochSampler:
    if config.optimiser.epochs:
        return EpochSampler(
            data,
            spec,
            batch=config.optimiser.batch,
            seed=config.seed,
            max_samples=config.max_samples,
            device=device,
        )
    return WindowSampler(
        data, spec, config.augment, seed=config.seed, max_samples=config.max_samples, device=device
    )


def _schedule(step: int, steps: int, settings: OptimiserConfig) -> float:
    """Linear rise, then constant or a cosine to zero, as a share of the peak rate."""
    warmup = settings.warmup
    if step < warmup:
        return (step + 1) / warmup
    if settings.schedule == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def _identity(config: TrainConfig, data: Dataset, knowledge: SubstanceTables) -> str:
    """Tell trainings apart by their data and by every setting that is not the default.

    So an option that is added later does not cut off trainings that never knew it.
    """
    # How the network is quantised afterwards, and how well, is no part of its training.
    trained = dataclasses.replace(config, quantisation="dynamic", tolerance=INT8_TOLERANCE)
    parts = [non_default_settings(trained), data.sha256]
    if config.cross_modal:
        parts.append(knowledge.sha256)
    text = json.dumps(parts, sort_keys=True, default=list)
    return hashlib.sha256(text.encode()).hexdigest()


def non_default_settings(config: object) -> dict[str, Any]:
    """Return the settings of a configuration that are not the defaults, nested as they are."""
    chosen: dict[str, Any] = {}
    for item in dataclasses.fields(config):  # type: ignore[arg-type]
        value = getattr(config, item.name)
        if dataclasses.is_dataclass(value):
            chosen[item.name] = non_default_settings(value)
        elif isinstance(value, tuple) and value and dataclasses.is_dataclass(value[0]):
            chosen[item.name] = [non_default_settings(part) for part in value]
        elif value != item.default:
            chosen[item.name] = value
    return chosen
