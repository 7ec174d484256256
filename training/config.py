"""training/: the configuration of a training, read from one YAML file per shipped model.

Small frozen dataclasses by concern. May import hardware and models, never torch, so that `--help`
and errors are quick. Every problem of a file is reported together.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal

from hardware.errors import UsageError
from hardware.typed_yaml import Rule, TypedYamlError, YamlMapping, to_plain
from models.manifest import Quantisation  # noqa: TC001 - read by get_type_hints
from models.preprocess import PreprocessSpec  # noqa: TC001 - read by get_type_hints

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    """Size of a ScentFormer."""

    d_model: int = 256
    """Width of a token, D."""
    layers: int = 3
    """Encoder layers: the paper says 4, its code 3."""
    heads: int = 8
    """Attention heads."""
    ffn: int = 4
    """Width of the feed-forward layer, as a multiple of D."""
    dropout: float = 0.1
    """Share of activations dropped in training."""
    patch: int = 1
    """Rows in one token; divides the window. 1 is the published network."""
    stem: Literal["patch", "statistics"] = "patch"
    """Tokens from patches of rows, as published, or one token per lag from window statistics."""
    bins: int = 16
    """Soft bins per statistic (statistics stem)."""


@dataclass(frozen=True, slots=True)
class AugmentConfig:
    """How training windows are augmented. Gains act on log-conductance differences."""

    gain_common: float = 0.3
    """Standard deviation of the log of a gain shared by all channels: concentration, distance."""
    gain_channel: float = 0.15
    """The same per channel: sensors differ from board to board."""
    level_common: float = 0.0
    """Standard deviation of a shift of all levels (lag 0), in log-conductance: another day."""
    level_channel: float = 0.0
    """The same per channel."""
    drift: float = 0.0
    """Standard deviation, per channel, of a steady drift of the log-conductance in 50 samples."""
    noise: float = 0.0
    """Standard deviation of noise on the standardised features."""
    channel_dropout: float = 0.1
    """Probability that a channel is missing from a window; at least one stays."""
    out_of_order: float = 1.0
    """How often a recording with rows out of time order is drawn, as a multiple of others."""
    session: float = 0.0
    """Share of windows that are changed into those of another rig (`sampling.other_rigs`)."""
    session_gain: float = 0.3
    """Standard deviation of the log of a channel's gain there: other load resistors, R0."""
    session_offset: float = 0.02
    """Standard deviation of a channel's zero there, as a share of its reading."""
    fickle: tuple[str, ...] = ()
    """Channels that were dead in all recordings of some label. In those windows another window's
    readings replace them: otherwise the dead channel would identify the label."""
    fickle_dropout: float = 0.5
    """Probability that a fickle channel is missing from a window, whatever its label."""
    warp: float = 0.1
    """The window is replayed up to this much faster or slower."""
    partial: float = 0.3
    """Share of windows that are short and start right after a reset, as live windows do."""
    from_start: float = 0.0
    """Share of windows that begin with the recording: the first minute of an exposure differs from
    the rest, and a uniform draw hardly ever includes it."""
    from_onset: float = 0.0
    """Share of windows that begin where the nose notices the exposure, long or short: those that
    the first announcement depends on. Recordings without a noticed exposure begin as others."""
    mix: float = 0.0
    """Share of windows convexly mixed with others of the batch."""
    mix_alpha: float = 0.4
    """Dirichlet concentration of the mixing weights."""
    mix_parts: int = 2
    """Largest number of windows that are mixed."""
    mix_kind: Literal["average", "power_law"] = "average"
    """Average the windows, or mix log-conductances as a sensor does (`sampling.mixing`)."""
    mix_of: Literal["any", "singles"] = "any"
    """Which recordings are mixed: any, or only those of single substances, so that every
    combination is equally likely."""
    mix_where: Literal["readings", "encoding"] = "readings"
    """Average the windows' features, or the stem's encodings of them (average only)."""


@dataclass(frozen=True, slots=True)
class OptimiserConfig:
    """How the weights are trained."""

    steps: int = 5000
    """Number of batches; not used with `epochs`."""
    epochs: int = 0
    """Passes over the protocol's windows, each in another order, as published; 0 draws `steps`
    batches of random, augmented windows instead."""
    batch: int = 64
    """Windows in one batch, drawn evenly over labels (substances) or component sets (mixtures)."""
    learning_rate: float = 1e-3
    """Peak rate, after `warmup` steps; a cosine takes it to zero."""
    kind: Literal["adamw", "adam"] = "adamw"
    """AdamW, or Adam as published."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """Course of the rate after `warmup`."""
    warmup: int = 200
    """Steps of linear rise."""
    weight_decay: float = 0.05
    """Decoupled (AdamW); Adam adds it to the gradient."""
    label_smoothing: float = 0.1
    """Share of the target spread over all labels (substances only)."""
    miss_weight: float = 0.0
    """Weight of the softened share of components that are more than 0.1 off (mixtures only); 0 is
    the published loss."""
    ema: float = 0.998
    """Decay per step of the averaged weights that are exported; 0 exports the last weights."""
    clip_norm: float = 1.0
    """Largest norm of the gradient."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Of the matrix products in training: auto is bfloat16 on CUDA and float32 on the CPU, where
    bfloat16 is faster only on processors with instructions for it."""


_NEARLY = 1e-6

Weight = Annotated[float, Rule("a weight must not be negative", minimum=0)]


@dataclass(frozen=True, slots=True)
class CrossModalConfig:
    """What a substance network learns besides its labels; each is off at 0.

    The second modality is GC-MS element counts, odour descriptions and odour descriptors of the
    substances (`training.network.cross_modal`). None of it is an input of the exported network.
    """

    gcms: Weight = 0.0
    """Weight of the symmetric InfoNCE between windows and GC-MS vectors (the published way)."""
    similarity: Weight = 0.0
    """Weight of the regression of embeddings' similarities onto those of the substances."""
    signed: Weight = 0.0
    """Weight of matching windows with odour descriptions by signed pairs."""
    masked: Weight = 0.0
    """Weight of the prediction of masked channels and spans of a window."""
    pretrain: Annotated[
        float, Rule("this must lie in 0..1 (1 left out)", minimum=0, exclusiveMaximum=1)
    ] = 0.0
    """Share of the steps, at the start, that train the masked prediction only."""
    balancer: bool = False
    """Train two views of a window, each on a random half of the labels per step."""
    descriptors: Weight = 0.0
    """Weight of the odour descriptors; above 0 the network has an output `descriptors`."""
    temperature: Annotated[float, Rule("this must be positive", exclusiveMinimum=0)] = 0.07
    """Of the InfoNCE; the published value."""
    gcms_file: str = ""
    """CSV of element counts; empty looks for gcms_elements.csv in the data folder or above it."""
    text_file: str = ""
    """JSON of descriptions; empty looks for text_description.json there."""
    descriptors_file: str = ""
    """CSV of odour descriptors; empty uses the table that comes with scentd."""


@dataclass(frozen=True, slots=True)
class TeacherConfig:
    """A network of the ensemble that is distilled; other settings are those of the exported one."""

    seed: int
    """Of its initial weights and its windows."""
    steps: int
    """Number of batches."""
    augment: AugmentConfig
    """How its windows are augmented."""


@dataclass(frozen=True, slots=True)
class MixingConfig:
    """The mixing law of the sensors as an expert beside the network (`network.mixture_product`)."""

    inflation: Annotated[float, Rule("this must be positive", exclusiveMinimum=0)] = 4.0
    """Factor on the spread between exposures: with 1, presences of .63 were true in .23 of cases on
    another day."""
    sizes: tuple[float, float, float] = (0.2, 0.6, 0.2)
    """Probability of one, two and three components before anything is measured."""
    network_weight: Weight = 0.25
    """Weight of the network's log-proportions in the product: an inflation of four divides the
    law's log-likelihoods by four, and the network's are divided alike."""


@dataclass(frozen=True, slots=True)
class ExpertConfig:
    """A network of the sum that is exported; it is trained by itself, on the labels."""

    seed: int
    """Of its initial weights and its windows."""
    steps: int
    """Number of batches."""
    network: NetworkConfig
    """Its size."""
    augment: AugmentConfig
    """How its windows are augmented."""
    channels: tuple[str, ...]
    """The channels that it gets, among those of the preprocessing."""
    lags: tuple[int, ...]
    """The lags that it gets, among those of the preprocessing."""
    weight: Weight = 1.0
    """Of its log-probabilities in the sum."""
    cross_modal: CrossModalConfig | None = None
    """What it learns besides the labels."""


@dataclass(frozen=True, slots=True)
class LevelConfig:
    """What the levels of a window add to the sum (`training.network.product`)."""

    channels: tuple[str, ...] = ("NO2", "C2H5OH", "VOC", "CO")
    """Channels whose levels speak for labels."""
    weight: Weight = 1.0
    """Of their log-probabilities in the sum."""
    day_common: Weight = 0.3
    """Standard deviation between days, in log-conductance, of a change that they share."""
    day_channel: Weight = 0.3
    """The same per channel."""
    freedom: Annotated[float, Rule("this must be positive", exclusiveMinimum=0)] = 3.0
    """Degrees of freedom of the t distribution: the spread between days is known from few days."""
    shared: tuple[str, ...] = ("NO2", "C2H5OH", "VOC", "CO")
    """Channels whose common change does not make levels unfamiliar: the sensor drifts as one."""
    familiar: Annotated[float, Rule("this must be positive", exclusiveMinimum=0)] = 1.1
    """Distance from the nearest level in training, in spreads within a session, up to which levels
    are familiar."""
    ramp: Annotated[float, Rule("this must be positive", exclusiveMinimum=0)] = 0.15
    """Width of the change from familiar to unfamiliar, in the same unit."""
    unfamiliar: Annotated[float, Rule("this must lie in 0..1", minimum=0, maximum=1)] = 0.3
    """Factor of the sum where levels are unfamiliar; 1 makes no difference."""
    sharpness: Annotated[float, Rule("this must be positive", exclusiveMinimum=0)] = 2.0
    """Temperature at which the labels are weighed whose levels must be familiar."""


INT8_TOLERANCE = 0.10
"""Default of `TrainConfig.tolerance`."""


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """A model: its name, inputs, network and training."""

    name: str
    task: Literal["substance", "mixture"]
    preprocessing: PreprocessSpec
    network: NetworkConfig = field(default_factory=NetworkConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    cross_modal: CrossModalConfig | None = None
    """What is learned besides the labels; None trains without that code."""
    teachers: tuple[TeacherConfig, ...] = ()
    """Networks that are trained first; the exported network then learns their agreement instead of
    the labels (substances only). Empty: it learns the labels."""
    mixing: MixingConfig | None = None
    """The mixing law as an expert beside the network (mixtures only), which then reads the
    differences and not the levels; None: the network alone."""
    experts: tuple[ExpertConfig, ...] = ()
    """Networks whose sum is exported (substances only); `network`, `augment`, `cross_modal` and
    `teachers` are then those of other trainings, of one network. Empty: one network is exported."""
    levels: LevelConfig | None = None
    """What the levels add to the sum of the experts; None: nothing."""
    version: str = "0.1.0"
    seed: int = 0
    standardise: Literal["rms", "windows"] = "rms"
    """How features are scaled: by their root mean square around 0, so that a constant signal stays
    0, or by mean and standard deviation over the protocol's training windows, as published."""
    max_samples: int | None = None
    """Samples used of a recording, from its start; None uses all."""
    in_order_only: bool = False
    """Leave out recordings whose rows are not in the order of time: their lag differences are
    noise."""
    quantisation: Quantisation = "dynamic"
    """How the int8 file is made; `scent-train bench --accuracy` compares the kinds."""
    tolerance: float = INT8_TOLERANCE
    """Largest accepted difference of a probability (or proportion) between int8 and float32 at
    export, over all windows compared; the manifest's `parity` has the figures."""
    required_channels: tuple[str, ...] = ()
    """Channels without which the model reports `fault`."""
    announce_groups: tuple[tuple[str, ...], ...] = ()
    """Components that are announced only as a group, "at least one of them is there" (mixtures
    only); where there are groups, no component is announced by itself."""
    min_channels: int = 1
    """Usable channels below which the model reports `fault`."""
    description: str = ""
    """One sentence for the model card."""

    def __post_init__(self) -> None:
        window, patch = self.preprocessing.window, self.network.patch
        problems = []
        if window % patch:
            problems.append(f"network.patch ({patch}) must divide preprocessing.window ({window})")
        if self.task != "substance":
            problems += [
                f"{name} is for single substances: leave it out, or set task: substance"
                for name in ("teachers", "cross_modal", "experts", "levels")
                if getattr(self, name)
            ]
        problems += [*self._mixing_problems(), *self._expert_problems()]
        if problems:
            raise UsageError("; ".join(problems) + ".")

    def _mixing_problems(self) -> list[str]:
        """Return what is wrong with `mixing`, one sentence each."""
        if self.mixing is None:
            return []
        problems = []
        if self.task != "mixture":
            problems.append("mixing is for mixtures: leave it out, or set task: mixture")
        if not self.preprocessing.n_levels or len(self.preprocessing.lags) == 1:
            problems.append(
                "mixing needs the levels and the network differences: preprocessing.lags must be "
                f"0 and further ones, got {list(self.preprocessing.lags)}"
            )
        if min(self.mixing.sizes) <= 0 or abs(sum(self.mixing.sizes) - 1.0) > _NEARLY:
            problems.append(f"mixing.sizes must be positive and sum to 1, got {self.mixing.sizes}")
        return problems

    def _expert_problems(self) -> list[str]:
        """Return what is wrong with the experts, one sentence each."""
        spec = self.preprocessing
        if self.levels and not self.experts:
            return ["levels add to a sum: name the experts, or leave levels out"]
        return [
            f"experts[{number}].{name} must be among preprocessing.{name} {list(allowed)}"
            for number, expert in enumerate(self.experts)
            for name, chosen, allowed in (
                ("channels", expert.channels, spec.channels),
                ("lags", expert.lags, spec.lags),
            )
            if not chosen or not set(chosen) <= set(allowed)
        ]


class TrainConfigError(UsageError):
    """A training configuration is wrong; every problem is listed."""


def load_train_config(path: Path) -> TrainConfig:
    """Read and check a training configuration.

    Raises
    ------
    TrainConfigError: the file is missing, is not YAML, or has problems, all of which are listed.
    """
    try:
        return YamlMapping(path.read_bytes()).build(TrainConfig)
    except OSError as error:
        raise TrainConfigError(
            f"Expected a training configuration at {path}: {error.strerror}."
        ) from error
    except TypedYamlError as error:
        listed = "\n".join(f"  {problem}" for problem in error.problems)
        raise TrainConfigError(f"{path} has problems:\n{listed}") from error


def config_as_dict(config: Any) -> dict[str, Any]:
    """Return a configuration as plain dictionaries and lists that `load_train_config` reads."""
    result: dict[str, Any] = to_plain(config)
    return result


def non_default_settings(config: object) -> dict[str, Any]:
    """Return the settings of a configuration that are not the defaults, nested as they are."""
    changed: dict[str, Any] = {}
    for item in dataclasses.fields(config):  # type: ignore[arg-type]
        value = getattr(config, item.name)
        if dataclasses.is_dataclass(value):
            changed[item.name] = non_default_settings(value)
        elif isinstance(value, tuple) and value and dataclasses.is_dataclass(value[0]):
            changed[item.name] = [non_default_settings(part) for part in value]
        elif value != item.default:
            changed[item.name] = value
    return changed
