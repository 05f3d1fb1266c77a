"""`MusicTranslator`: the whole of Figure 1 in one module."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from umtlib import mulaw
from umtlib.classifier import Classifier
from umtlib.config import ModelConfig
from umtlib.decoder import Decoder
from umtlib.encoder import Encoder
from umtlib.errors import ConfigError


class MusicTranslator(nn.Module):
    """One shared encoder, one decoder per domain, one domain classifier.

    ``model.decoders[b](codes, model.encode(codes))`` predicts, sample by sample, how the music in
    ``codes`` would sound in domain ``b``.

    Raises
    ------
    ConfigError
        If a domain has the name of a method of torch's containers, such as ``keys``.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        if taken := [name for name in config.domains if hasattr(nn.ModuleDict(), name)]:
            raise ConfigError(f"a domain cannot be called {taken[0]!r}: torch uses that name itself"
                              "; call it otherwise")  # fmt: skip
        self.config = config
        latent = config.encoder.latent
        self.encoder = Encoder(config.encoder)
        self.decoders = nn.ModuleDict(
            {name: Decoder(config.decoder, latent, config.encoder.pool) for name in config.domains}
        )
        self.classifier = Classifier(config.classifier, latent, len(config.domains))

    @property
    def domains(self) -> tuple[str, ...]:
        """Names of the domains, in the order of the classifier's outputs."""
        return self.config.domains

    def encode(self, codes: Tensor) -> Tensor:
        """Return the latent, shape (B, latent, F), of mu-law codes, shape (B, T); see `Encoder`."""
        return self.encoder(codes)

    def to_codes(self, waveform: Tensor) -> Tensor:
        """Compand a waveform in [-1, 1] with this model's mu-law pair."""
        return mulaw.encode(waveform, self.config.mulaw)

    def to_waveform(self, codes: Tensor) -> Tensor:
        """Expand mu-law codes to a waveform in [-1, 1] with this model's mu-law pair."""
        return mulaw.decode(codes, self.config.mulaw)

    def parameter_counts(self) -> dict[str, int]:
        """Return how many parameters the encoder, one decoder and the classifier have."""
        decoder = next(iter(self.decoders.values()))
        parts = {"encoder": self.encoder, "decoder": decoder, "classifier": self.classifier}
        return {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()}


def with_domain(model: MusicTranslator, name: str) -> MusicTranslator:
    """Return a copy of a translator with one more decoder, to be trained on its own (section 3.4).

    It starts as a copy of the first one. Raises ConfigError if the name is taken or not allowed.
    """
    grown = build(replace(model.config, domains=(*model.domains, name)))
    weights = grown.state_dict()
    for key, value in model.state_dict().items():
        weights[key][: len(value)] = value  # the classifier's last layer has one row more
    grown.decoders[name].load_state_dict(model.decoders[model.domains[0]].state_dict())
    return grown


def build(config: ModelConfig, seed: int = 0) -> MusicTranslator:
    """Return a translator with random weights that depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return MusicTranslator(config)
