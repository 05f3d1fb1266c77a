"""Every number of the network and of its training, in frozen dataclasses.

A preset is a complete configuration; a variant is `dataclasses.replace` of one. JSON in and out is
strict: an unknown field is an error, so that a typing mistake never trains silently.

Source of the numbers: Mor et al. 2018, sections 3 and 4, and the authors' released training script
(preset ``official``). Notebook: ``02_the_network``.
"""

import dataclasses
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, get_args, get_origin

from umtlib.errors import ConfigError

Config = TypeVar("Config")

SIX_DOMAINS = (
    "mozart_orchestra",
    "haydn_quartet",
    "bach_cantata",
    "bach_organ",
    "beethoven_piano",
    "bach_harpsichord",
)


@dataclass(frozen=True)
class EncoderConfig:
    """The shared encoder (section 3.1): audio to a latent sequence, the same for every domain."""

    front_end: Literal["waveform", "filterbank"] = "waveform"  # paper: the waveform itself
    blocks: int = 3  # each block restarts the dilations at 1
    layers: int = 10  # per block; dilations 1, 2, 4, ...
    channels: int = 128
    latent: int = 64  # channels of the latent
    pool: int = 800  # samples per latent frame: 50 ms at 16 kHz
    first_relu: bool = True  # ReLU before the dilated convolution; the official code has none
    # Only for front_end = "filterbank": quadrature pairs of learnable band-pass filters.
    filters: int = 96
    filter_taps: int = 2_048
    filter_stride: int = 50

    @property
    def stride(self) -> int:
        """Samples per step of the dilated layers."""
        return self.filter_stride if self.front_end == "filterbank" else 1


@dataclass(frozen=True)
class DecoderConfig:
    """A domain's WaveNet decoder (section 3.2)."""

    input: Literal["scalar", "codes"] = "scalar"  # one number per sample, or a table of 256 rows
    input_kernel: int = 1  # previous samples that the first layer sees
    guide: Literal["latent", "frames"] = "latent"  # what it is told: the latent; see umtlib.guide
    blocks: int = 4
    layers: int = 10
    channels: int = 128  # residual channels
    skip_channels: int = 128
    condition_head: bool = False  # the official code also conditions the output head


@dataclass(frozen=True)
class ClassifierConfig:
    """The domain classifier that the encoder learns to fool (section 3.3)."""

    layers: int = 2  # hidden convolutions with ELU, before the one that projects to the domains
    channels: int = 100
    kernel: int = 3


@dataclass(frozen=True)
class ModelConfig:
    """The whole translator: one encoder, one classifier, one decoder per domain."""

    domains: tuple[str, ...] = SIX_DOMAINS
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    classifier: ClassifierConfig = field(default_factory=ClassifierConfig)
    mulaw: Literal["torchaudio", "official"] = "torchaudio"  # "official" only for imported weights

    def __post_init__(self):
        if not self.domains or len(set(self.domains)) != len(self.domains):
            raise ConfigError(f"domains {self.domains} must be one or more different names")
        for name in self.domains:
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name) or name == "all":
                raise ConfigError(
                    f"domain {name!r}: use letters, digits, '_' and '-' only, and not 'all'"
                )
        _check_positive(self)
        if self.encoder.pool % self.encoder.stride:
            raise ConfigError(
                f"pool {self.encoder.pool} must be a multiple of the filter stride "
                f"{self.encoder.stride}"
            )


@dataclass(frozen=True)
class TrainingConfig:
    """How a model is trained (section 3.4 and 4)."""

    seed: int = 0
    crop: int = 16_000  # samples per training segment: 1 s
    batch: int = 16  # segments per step, all of one domain
    learning_rate: float = 1e-3  # of Adam
    decay: float = 0.98  # factor on the learning rate ...
    decay_every: int = 10_000  # ... after so many segments ("samples" in the paper)
    warmup_steps: int = 0  # linear rise of the learning rate
    cooldown_steps: int = 0  # linear fall to zero over the last so many steps
    clip_norm: float = 0.0  # 0: no clipping
    confusion_weight: float = 1e-2  # lambda of the paper; in pretraining, of `losses.confusion`
    augment: bool = True  # pitch modulation of the encoder's input
    # Below: what training on few cores asks for; all off in the paper.
    equalise: float = 0.0  # decibels; random smooth filter on the encoder's input
    pretraining_steps: int = 0  # of encoder, classifier and envelopes; they then stay as they are
    pretraining_segments: int = 3_600  # the audio for that, in segments three times as long
    conversion: float = 0.0  # share of segments that the encoder hears converted to another domain
    shared_steps: int = 0  # steps in which the decoders share all but biases; then a copy for each
    input_noise: tuple[float, ...] = (
        0.0,
    )  # codes; a crop's teacher-forced input gets one of these
    input_silence: float = 0.0  # share of crops whose input is silent up to a random sample
    envelope_weight: float = 1e-2  # of regressing the domain's spectrum, without a pretraining
    average: float = 0.0  # decay of the exponential average of the weights; 0: none
    bf16: bool = False  # autocast, where the processor computes in bfloat16
    only: str = ""  # train this domain's decoder alone, everything else is frozen

    def __post_init__(self):
        if self.crop < 1 or self.batch < 1:
            raise ConfigError(f"crop {self.crop} and batch {self.batch} must be at least 1")


@dataclass(frozen=True)
class Preset:
    """A model and the way to train it."""

    model: ModelConfig
    training: TrainingConfig


def _check_positive(config: Any) -> None:
    for name, value in _leaves(config):
        if isinstance(value, int) and not isinstance(value, bool) and value < 1:
            raise ConfigError(f"{name} = {value} must be at least 1")


def _leaves(config: Any, prefix: str = ""):
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if dataclasses.is_dataclass(value):
            yield from _leaves(value, f"{prefix}{item.name}.")
        else:
            yield prefix + item.name, value


_PAPER = Preset(ModelConfig(), TrainingConfig())

_OFFICIAL = Preset(
    ModelConfig(
        encoder=EncoderConfig(first_relu=False),
        decoder=DecoderConfig(input_kernel=2, layers=14, condition_head=True),
        classifier=ClassifierConfig(layers=3, kernel=1),
        mulaw="official",
    ),
    TrainingConfig(crop=12_000, batch=32, decay=0.995, decay_every=32_000),
)

_SMALL = Preset(
    ModelConfig(
        encoder=EncoderConfig(front_end="filterbank", blocks=1, layers=5),
        decoder=DecoderConfig(
            input="codes",
            input_kernel=2,
            guide="frames",
            blocks=2,
            channels=64,
            skip_channels=64,
        ),
    ),
    TrainingConfig(
        crop=6_400,
        batch=1,
        learning_rate=2e-3,
        decay=1.0,
        warmup_steps=200,
        cooldown_steps=10_000,
        clip_norm=1.0,
        confusion_weight=0.5,
        pretraining_steps=2_000,
        conversion=0.5,
        equalise=12.0,
        shared_steps=4_000,
        input_noise=(0.0, 0.0, 0.0, 1.0, 2.0, 4.0),
        input_silence=0.05,
        average=0.999,
        bf16=True,
    ),
)

_TINY = Preset(
    ModelConfig(
        encoder=EncoderConfig(blocks=1, layers=4, channels=16, latent=8, pool=200),
        decoder=DecoderConfig(blocks=1, layers=6, channels=16, skip_channels=16),
        classifier=ClassifierConfig(channels=16),
    ),
    TrainingConfig(crop=2_000, batch=2, learning_rate=3e-3),
)

PRESETS: Mapping[str, Preset] = {
    "paper": _PAPER,
    "official": _OFFICIAL,
    "small": _SMALL,
    "tiny": _TINY,
}


def preset(name: str, domains: tuple[str, ...] = SIX_DOMAINS) -> Preset:
    """Return a preset for the given domains.

    Parameters
    ----------
    name : str
        ``"paper"``, ``"official"``, ``"small"`` or ``"tiny"``.
    domains : tuple of str
        Names of the decoders, in order.

    Raises
    ------
    ConfigError
        If there is no such preset.
    """
    if name not in PRESETS:
        raise ConfigError(f"unknown preset {name!r}; choose one of {', '.join(PRESETS)}")
    found = PRESETS[name]
    return dataclasses.replace(
        found, model=dataclasses.replace(found.model, domains=tuple(domains))
    )


def to_json(config: Any) -> str:
    """Return a configuration as JSON, with every field written out."""
    return json.dumps(dataclasses.asdict(config), indent=2) + "\n"


def from_json(kind: type[Config], text: str) -> Config:
    """Read a configuration of the given dataclass.

    Raises
    ------
    ConfigError
        If the text is not JSON, or a field is unknown or of the wrong type.
    """
    try:
        return _build(kind, json.loads(text))
    except json.JSONDecodeError as error:
        raise ConfigError(f"the configuration is not JSON: {error}") from error


def _build(kind: type, values: Any) -> Any:
    if not isinstance(values, dict):
        raise ConfigError(f"{kind.__name__} must be a JSON object, not {values!r}")
    fields = {item.name: item for item in dataclasses.fields(kind)}
    if unknown := values.keys() - fields.keys():
        raise ConfigError(f"{kind.__name__} has no field {sorted(unknown)[0]!r}")
    return kind(**{name: _convert(fields[name], value) for name, value in values.items()})


def _convert(item: dataclasses.Field, value: Any) -> Any:
    if dataclasses.is_dataclass(item.type):
        return _build(item.type, value)
    if get_origin(item.type) is Literal and value not in get_args(item.type):
        raise ConfigError(f"{item.name} = {value!r} must be one of {get_args(item.type)}")
    default = item.default
    if isinstance(default, tuple) and isinstance(value, list):
        return tuple(value)
    expected = (int, float) if isinstance(default, float) else type(default)
    # bool is an int in Python; here neither may stand for the other.
    if not isinstance(value, expected) or isinstance(value, bool) != isinstance(default, bool):
        raise ConfigError(f"{item.name} = {value!r} must be {type(default).__name__}")
    return value
