"""Every number of the network and of the paper's training, in frozen dataclasses.

A preset is a complete configuration; a variant is `dataclasses.replace` of one. A field's type says
what it may be, and `check` holds every configuration to that. An unknown field is an error, so that
a typing mistake never trains silently.

Source of the numbers: Mor et al. 2018, sections 3 and 4, and the authors' released training script
(preset ``official``). Notebook: ``03_the_network``.
"""

import dataclasses
import re
import reprlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, TypeVar, get_args, get_origin

from umtlib import files
from umtlib.errors import ConfigError

Config = TypeVar("Config")


class Range(NamedTuple):
    """The least and the greatest value of a number, or length of a text; both are allowed."""

    least: float
    most: float


Count = Annotated[int, Range(0, 10**9)]
Some = Annotated[int, Range(1, 10**9)]
Size = Annotated[int, Range(1, 4_096)]
Depth = Annotated[int, Range(1, 20)]  # blocks, or their layers: dilations up to 2**19
Seed = Annotated[int, Range(0, 2**63 - 1)]  # what torch takes
Share = Annotated[float, Range(0, 1)]
Weight = Annotated[float, Range(0, 10**6)]  # of a loss, or a norm
Text = Annotated[str, Range(0, 64)]

SIX_DOMAINS = (
    "mozart_orchestra",
    "haydn_quartet",
    "bach_cantata",
    "bach_organ",
    "beethoven_piano",
    "bach_harpsichord",
)


class Checked:
    """A dataclass of which every field is held to its type when it is made; see `check`."""

    def __post_init__(self):
        check(self)


@dataclass(frozen=True)
class EncoderConfig(Checked):
    """The shared encoder (section 3.1): audio to a latent sequence, the same for every domain."""

    front_end: Literal["waveform", "filterbank"] = "waveform"  # paper: the waveform itself
    blocks: Depth = 3  # each block restarts the dilations at 1
    layers: Depth = 10  # per block; dilations 1, 2, 4, ...
    channels: Size = 128
    latent: Size = 64  # channels of the latent
    pool: Size = 800  # samples per latent frame: 50 ms at 16 kHz
    first_relu: bool = True  # ReLU before the dilated convolution; the official code has none
    # Only for front_end = "filterbank": quadrature pairs of band-pass filters, which stay fixed.
    filters: Size = 96
    filter_taps: Size = 2_048
    filter_stride: Size = 50

    @property
    def stride(self) -> int:
        """Samples per step of the dilated layers."""
        return self.filter_stride if self.front_end == "filterbank" else 1


@dataclass(frozen=True)
class DecoderConfig(Checked):
    """A domain's WaveNet decoder (section 3.2)."""

    input: Literal["scalar", "codes"] = "scalar"  # one number per sample, or a table of 256 rows
    input_kernel: Size = 1  # previous samples that the first layer sees
    guide: Text = "latent"  # what it is told besides its past: a name in `umtlib.guide.GUIDES`
    blocks: Depth = 4
    layers: Depth = 10
    channels: Size = 128  # residual channels
    skip_channels: Size = 128
    condition_head: bool = False  # the official code also conditions the output head


@dataclass(frozen=True)
class ClassifierConfig(Checked):
    """The domain classifier that the encoder learns to fool (section 3.3)."""

    layers: Depth = 2  # hidden convolutions with ELU, before the one that projects to the domains
    channels: Size = 100
    kernel: Size = 3


@dataclass(frozen=True)
class ModelConfig:
    """The whole translator: one encoder, one classifier, one decoder per domain.

    Raises ConfigError if a value is out of its range, or two do not go together.
    """

    domains: tuple[Text, ...] = SIX_DOMAINS
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    classifier: ClassifierConfig = field(default_factory=ClassifierConfig)
    mulaw: Literal["torchaudio", "official"] = "torchaudio"  # "official" only for imported weights

    def __post_init__(self):
        check(self)
        if len(set(self.domains)) != len(self.domains):
            raise ConfigError(f"domains {reprlib.repr(self.domains)} must be different names")
        for name in self.domains:
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name) or name == "all":
                raise ConfigError(f"domain {name!r}: use letters, digits, '_', '-', and not 'all'")
        pool, stride = self.encoder.pool, self.encoder.stride
        if pool % stride:
            raise ConfigError(f"pool {pool} must be a multiple of the filter stride {stride}")


@dataclass(frozen=True)
class TrainingConfig:
    """How the paper trains a model (sections 3.4 and 4).

    Raises ConfigError if a value is out of its range, or a batch has not so many parts.
    """

    name: ClassVar[str] = "paper"  # in `umtlib.runs.TRAININGS`
    on_gpu: ClassVar[bool] = True  # it can be trained there

    seed: Seed = 0
    crop: Some = 16_000  # samples per training segment: 1 s
    batch: Some = 16  # segments per step, all of one domain
    learning_rate: Weight = 1e-3  # of Adam
    decay: Share = 0.98  # factor on the learning rate ...
    decay_every: Some = 10_000  # ... after so many segments ("samples" in the paper)
    clip: Weight = 0.0  # largest norm of the gradient of each network; 0: any
    confusion_weight: Weight = 1e-2  # lambda
    augment: bool = True  # pitch modulation of the encoder's input
    precision: Literal["float32", "tf32", "bfloat16", "float16"] = "float32"  # of the products
    recompute: bool = False  # keep what enters a layer only: less memory, a third more work
    micro_batches: Some = 1  # a batch goes through the network in so many parts, one by one
    only: Text = ""  # train this domain's decoder alone, everything else is frozen

    def __post_init__(self):
        check(self)
        batch, parts = self.batch, self.micro_batches
        if batch % parts:
            raise ConfigError(f"micro_batches = {parts} must divide the batch of {batch}")


@dataclass(frozen=True)
class Preset:
    """A model and the way to train it: the paper's, or that of another `umtlib.runs.TRAININGS`.

    Raises ConfigError if the domain that is to be trained alone is not the model's.
    """

    model: ModelConfig
    training: Any

    def __post_init__(self):
        only, known = self.training.only, self.model.domains
        if only and only not in known:
            raise ConfigError(f"only = {only!r} must be a domain of the model: {', '.join(known)}")


def check(config: Any) -> None:
    """Raise ConfigError, which says what a field must be, if its type does not allow its value."""
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if expected := _misfit(item.type, value):
            raise ConfigError(f"{item.name} = {reprlib.repr(value)} must be {expected}")


_WORDS = {int: "an integer", float: "a number", bool: "true or false", str: "text"}


def _misfit(kind: Any, value: Any) -> str:
    """Say what a value must be; nothing, if it is that."""
    kind, bounds = get_args(kind) if get_origin(kind) is Annotated else (kind, None)
    kind, inside = get_origin(kind) or kind, get_args(kind)
    if kind is Literal:
        return "" if value in inside else f"one of {inside}"
    if kind is tuple:
        more = inside[-1] is Ellipsis
        if not isinstance(value, tuple) or not (value if more else len(value) == len(inside)):
            return "a list"
        wrong = map(_misfit, inside[:1] * len(value) if more else inside, value)
        return next((f"a list of which each is {one}" for one in wrong if one), "")
    # bool is an int in Python; here neither may stand for the other.
    right = isinstance(value, (int, float) if kind is float else kind)
    right = right and isinstance(value, bool) == (kind is bool)
    size = len(value) if right and kind is str else value
    if right and (bounds is None or bounds.least <= size <= bounds.most):  # NaN is in no range
        return ""
    between = f" of {bounds.least:,} to {bounds.most:,}" if bounds else ""
    return _WORDS.get(kind, f"a {kind.__name__}") + between


PRESETS = {
    "paper": Preset(ModelConfig(), TrainingConfig()),
    "official": Preset(
        ModelConfig(
            encoder=EncoderConfig(first_relu=False),
            decoder=DecoderConfig(input_kernel=2, layers=14, condition_head=True),
            classifier=ClassifierConfig(layers=3, kernel=1),
            mulaw="official",
        ),
        TrainingConfig(crop=12_000, batch=32, decay=0.995, decay_every=32_000),
    ),
    "tiny": Preset(
        ModelConfig(
            encoder=EncoderConfig(blocks=1, layers=4, channels=16, latent=8, pool=200),
            decoder=DecoderConfig(blocks=1, layers=6, channels=16, skip_channels=16),
            classifier=ClassifierConfig(channels=16),
        ),
        TrainingConfig(crop=2_000, batch=2, learning_rate=3e-3),
    ),
}


def preset(
    name: str, domains: Iterable[str] = SIX_DOMAINS, presets: Mapping[str, Preset] = PRESETS
) -> Preset:
    """Return a preset with these names for its decoders, or raise ConfigError if there is none."""
    if name not in presets:
        raise ConfigError(f"unknown preset {name!r}; choose one of {', '.join(presets)}")
    return replace(presets[name], model=replace(presets[name].model, domains=tuple(domains)))


def changed(preset: Preset, settings: Iterable[str]) -> Preset:
    """Replace fields of a preset's training, each by ``NAME=VALUE``: JSON, or else text.

    Raises ConfigError if one is not of this form, or names no field or a value that it cannot have.
    """
    values = dataclasses.asdict(preset.training)
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals:
            raise ConfigError(f"--set {setting!r} must be NAME=VALUE, as learning_rate=1e-3")
        try:
            values[name] = files.parse_json(value)
        except ValueError:
            values[name] = value
    return replace(preset, training=from_values(type(preset.training), values))


def to_json(config: Any) -> str:
    """Return a configuration as JSON, with every field written out."""
    return files.to_json(dataclasses.asdict(config), indent=2) + "\n"


def from_values(kind: type[Config], values: Any) -> Config:
    """Make a configuration of what JSON holds, or raise ConfigError."""
    if not isinstance(values, dict):
        raise ConfigError(f"{kind.__name__} must be a JSON object, not {reprlib.repr(values)}")
    fields = {item.name: item for item in dataclasses.fields(kind)}
    if unknown := values.keys() - fields.keys():
        raise ConfigError(f"{kind.__name__} has no field {reprlib.repr(min(unknown))}")
    for name, item in fields.items():
        needed = item.default is item.default_factory is dataclasses.MISSING
        if needed and name not in values:
            raise ConfigError(f"{kind.__name__} lacks the field {name!r}")
    return kind(**{name: _convert(fields[name].type, value) for name, value in values.items()})


def _convert(kind: Any, value: Any) -> Any:
    if dataclasses.is_dataclass(kind):
        return from_values(kind, value)
    return tuple(value) if get_origin(kind) is tuple and isinstance(value, list) else value
