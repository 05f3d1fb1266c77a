"""The authors' own weights, read into a `MusicTranslator`.

The released folder holds ``args.pth`` (a list: an `argparse.Namespace`, an epoch) and, for domain
number i, ``lastmodel_i.pth`` and ``bestmodel_i.pth``, each with the encoder, that domain's decoder
and the classifier. They are pickles, so they are read with an allow-list of two harmless classes
and never executed. Notebook: ``03_the_network``.
"""

import argparse
import os
import pathlib
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from umtlib.config import ClassifierConfig, DecoderConfig, EncoderConfig, ModelConfig
from umtlib.errors import CheckpointError, ConfigError
from umtlib.translator import MusicTranslator

# Names in the files, and what they become: pure paths touch no disk and exist on every system.
_ALLOWED = [
    (argparse.Namespace, "argparse.Namespace"),
    *((getattr(pathlib, f"Pure{kind}"), f"{module}.{kind}")
      for module in ("pathlib", "pathlib._local") for kind in ("PosixPath", "WindowsPath")),
]  # fmt: skip
_PARTS = ("encoder_state", "decoder_state", "discriminator_state")
_ENCODER = {  # changes of its names, one after the other
    "dilated_convs.": "layers.", ".dilated_conv.": ".dilated.", ".conv_1x1.": ".out.",
    "conv_1x1.": "project.", "start.": "front_end.conv.",
}  # fmt: skip


def load_official(
    folder: str | os.PathLike,
    domains: Sequence[str] | None = None,
    weights: Literal["last", "best"] = "last",
) -> MusicTranslator:
    """Load the weights that the authors released, or that their code has trained.

    Parameters
    ----------
    folder : path
        With ``args.pth`` and one ``{weights}model_{i}.pth`` per domain.
    domains : sequence of str, optional
        Names for the decoders, by number; by default those of the training folders in ``args.pth``.
    weights : {"last", "best"}
        Which files; the authors' own script samples from the last ones.

    Raises
    ------
    CheckpointError
        If a file is missing, damaged or of another network, or if they do not belong together.
    """
    folder = Path(folder)
    config = _config(folder / "args.pth", domains)
    files = [folder / f"{weights}model_{i}.pth" for i in range(len(config.domains))]
    first, tensors = {}, {}
    for number, (path, name) in enumerate(zip(files, config.domains, strict=True)):
        encoder, decoder, classifier = _read(path, number, config)
        first = first or encoder
        if first.keys() != encoder.keys() or any(not encoder[k].equal(first[k]) for k in first):
            raise CheckpointError(f"{path} has another encoder than {files[0].name}: take files "
                                  "of one step, usually 'last'")  # fmt: skip
        parts = {"encoder": encoder, f"decoders.{name}": decoder, "classifier": classifier}
        named = {f"{part}.{key}": x for part, state in parts.items() for key, x in state.items()}
        tensors = named | tensors  # the classifier is the first file's
    with torch.device("meta"):  # sizes only: a lie in args.pth costs no memory
        model = MusicTranslator(config)
    try:
        model.load_state_dict(tensors, assign=True)
    except RuntimeError as error:
        reason = str(error).split("\n")[1].strip()[:300]
        raise CheckpointError(f"{folder}: the weights do not fit args.pth: {reason}") from error
    return model.eval().requires_grad_(False)


def _config(path: Path, domains: Sequence[str] | None) -> ModelConfig:
    args = _unpickle(path)
    args = args[0] if isinstance(args, list) and args else args
    if not isinstance(args, argparse.Namespace):
        raise CheckpointError(f"{path} is not the authors' args.pth: it holds no Namespace")
    try:
        if getattr(args, "encoder_func", "relu") != "relu" or args.kernel_size != 2:
            raise ConfigError("only encoder_func relu and kernel_size 2 can be imported")
        names = tuple(domains or _names(args))
        if len(names) != args.n_datasets:
            raise ConfigError(f"it has {args.n_datasets} domains, not {len(names)}")
        encoder = EncoderConfig(
            blocks=args.encoder_blocks, layers=args.encoder_layers, channels=args.encoder_channels,
            latent=args.latent_d, pool=getattr(args, "encoder_pool", 800), first_relu=False,
        )  # fmt: skip
        decoder = DecoderConfig(
            blocks=args.blocks, layers=args.layers, channels=args.residual_channels,
            skip_channels=args.skip_channels, input_kernel=2, condition_head=True,
        )  # fmt: skip
        classifier = ClassifierConfig(layers=args.d_layers, channels=args.d_channels, kernel=1)
        return ModelConfig(names, encoder, decoder, classifier, mulaw="official")
    except (AttributeError, TypeError, ConfigError) as error:
        text = f"{path}: {error}; if a name is wrong, name the domains yourself"
        raise CheckpointError(text) from error


def _names(args: argparse.Namespace) -> list[str]:
    """Return the names of the training folders, or numbers, as a configuration allows them."""
    stems = [pathlib.PureWindowsPath(path).name for path in args.data]  # knows / and \
    clean = [re.sub(r"[^A-Za-z0-9-]+", "_", stem).strip("_-").lower() for stem in stems]
    return [name or f"domain_{number}" for number, name in enumerate(clean)]


def _unpickle(path: Path) -> Any:
    """Read a file of `torch.save` without running anything that is in it."""
    if not path.is_file():
        raise CheckpointError(f"{path} is missing; name the folder with args.pth and a file for "
                              "each domain: from a training with a process for each")  # fmt: skip
    try:
        with torch.serialization.safe_globals(_ALLOWED), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch, about pickles that it then refuses
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged or hostile pickle provokes in the reader
        reason = str(error).split("WeightsUnpickler error: ")[-1].split("\n")[0].split(". ")[0]
        raise CheckpointError(
            f"{path} is truncated, or not of the authors' code, and was not read: {reason:.200}"
        ) from error


def _read(path: Path, number: int, config: ModelConfig) -> tuple[dict[str, Tensor], ...]:
    """Return the encoder, decoder and classifier of a file, under this library's names."""
    content = _unpickle(path)
    known = content if isinstance(content, dict) else {}
    if not all(isinstance(known.get(part), dict) for part in _PARTS):
        raise CheckpointError(f"{path} is not of the authors' code: it lacks {', '.join(_PARTS)}")
    if (dataset := content.get("dataset", number)) != number:
        raise CheckpointError(f"{path} holds domain {dataset}: give it its own name back")
    for part in _PARTS:
        for key, value in content[part].items():
            if not (isinstance(key, str) and isinstance(value, Tensor) and value.isfinite().all()):
                raise CheckpointError(f"{path}: {part}[{key!r}] holds no finite weights")
    encoder, decoder, classifier = (
        {key: tensor.float() for key, tensor in content[part].items()} for part in _PARTS
    )
    try:
        decoder = _decoder(decoder, config.decoder.blocks * config.decoder.layers)
    except (KeyError, IndexError, RuntimeError) as error:
        raise CheckpointError(f"{path}: {error} is not as args.pth says") from error
    return _encoder(encoder), decoder, classifier


def _encoder(state: dict[str, Tensor]) -> dict[str, Tensor]:
    renamed = {}
    for name, tensor in state.items():
        for old, new in _ENCODER.items():
            name = name.replace(old, new)
        renamed[name] = tensor
    return renamed


def _decoder(state: dict[str, Tensor], layers: int) -> dict[str, Tensor]:
    """A convolution of kernel 2 becomes one product on [earlier, now]; two biases become one."""
    new: dict[str, Tensor] = {}

    def linear(name: str) -> tuple[Tensor, Tensor]:
        weight = state.pop(f"{name}.weight")  # (out, in, kernel)
        return torch.cat(weight.unbind(2), dim=1), state.pop(f"{name}.bias")

    def put(name: str, weight: Tensor, bias: Tensor) -> None:
        new[f"{name}.weight"], new[f"{name}.bias"] = weight, bias

    put("input.taps", *linear("first_conv"))
    put("input_skip", *linear("skip_conv"))
    for n in range(layers):
        weight, bias = linear(f"layers.{n}.causal")
        new[f"layers.{n}.condition.weight"], extra = linear(f"layers.{n}.condition")
        put(f"layers.{n}.taps", weight, bias + extra)
        pair = zip(linear(f"layers.{n}.residual"), linear(f"layers.{n}.skip"), strict=True)
        put(f"layers.{n}.out", *map(torch.cat, pair))
    weight, bias = linear("fc")
    new["head_condition.weight"], extra = linear("condition")
    put("head", weight, bias + extra)
    put("logits", *linear("logits"))
    return new | state  # what is left over fits nowhere, and is refused by its name
