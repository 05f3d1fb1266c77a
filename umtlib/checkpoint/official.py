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
        Names for the decoders, in the order of their numbers; by default the names of the training
        folders in ``args.pth``.
    weights : {"last", "best"}
        Which files; the authors' own script samples from the last ones.

    Raises
    ------
    CheckpointError
        If a file is missing, truncated, no such file or not of this network, or if the files do
        not belong together.
    """
    folder = Path(folder)
    config = _config(folder, domains)
    files = [folder / f"{weights}model_{i}.pth" for i in range(len(config.domains))]
    _check_all_there(files, config)
    tensors: dict[str, Tensor] = {}
    for number, (path, name) in enumerate(zip(files, config.domains, strict=True)):
        states = _read_states(path, number)
        shared, own = _translate_names(states, config, path)
        if number and any(not torch.equal(tensors[key], shared[key]) for key in shared):
            raise CheckpointError(
                f"{path.name} and {files[0].name} in {folder} have different encoders, so they are "
                "of different steps; take the files of one step, usually weights 'last'"
            )
        tensors |= shared | {f"decoders.{name}.{key}": tensor for key, tensor in own.items()}
        if not number:
            classifier = states["discriminator_state"]
            tensors |= {f"classifier.{key}": tensor for key, tensor in classifier.items()}
    with torch.device("meta"):  # sizes only: a lie in args.pth costs no memory
        model = MusicTranslator(config)
    try:
        model.load_state_dict(tensors, assign=True)
    except RuntimeError as error:
        reason = str(error).split("\n")[1].strip()[:300]
        raise CheckpointError(
            f"the weights in {folder} do not fit its args.pth: {reason}"
        ) from error
    return model.eval().requires_grad_(False)


def _config(folder: Path, domains: Sequence[str] | None) -> ModelConfig:
    path = folder / "args.pth"
    content = _unpickle(path)
    args = content[0] if isinstance(content, list) and content else None
    if not isinstance(args, argparse.Namespace):
        raise CheckpointError(f"{path} is not the authors' args.pth: it holds no Namespace")
    try:
        return _sizes(args, domains)
    except (AttributeError, ConfigError) as error:
        raise CheckpointError(
            f"{path}: {error}; if a name is wrong, name the domains yourself"
        ) from error


def _sizes(args: argparse.Namespace, domains: Sequence[str] | None) -> ModelConfig:
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


def _names(args: argparse.Namespace) -> list[str]:
    """Return the names of the training folders, or numbers, as a configuration allows them."""
    stems = [re.split(r"[/\\]", str(path).rstrip("/\\"))[-1] for path in args.data]
    clean = [re.sub(r"[^A-Za-z0-9-]+", "_", stem).strip("_-").lower() for stem in stems]
    return [name or f"domain_{number}" for number, name in enumerate(clean)]


def _check_all_there(files: list[Path], config: ModelConfig) -> None:
    missing = [i for i, path in enumerate(files) if not path.is_file()]
    if not missing:
        return
    message = (f"{files[missing[0]]} with the decoder of {config.domains[missing[0]]!r} is missing "
               f"({len(missing)} of {len(files)} are)")  # fmt: skip
    if missing == list(range(1, len(files))):
        message += ("; trained on one node, the authors' code makes a single decoder for all "
                    "domains, which cannot translate")  # fmt: skip
    raise CheckpointError(message)


def _read_states(path: Path, number: int) -> dict[str, dict[str, Tensor]]:
    content = _unpickle(path)
    if not isinstance(content, dict) or not content.keys() >= set(_PARTS):
        raise CheckpointError(f"{path} is not of the authors' code: it lacks {', '.join(_PARTS)}")
    if (dataset := content.get("dataset", number)) != number:
        raise CheckpointError(
            f"{path} holds the decoder of domain {dataset}: give it its own name back"
        )
    for part in _PARTS:
        for key, value in content[part].items():
            if not (isinstance(value, Tensor) and value.isfinite().all()):
                raise CheckpointError(f"{path}: {part}[{key!r}] holds no finite weights")
    return {part: {k: v.float() for k, v in content[part].items()} for part in _PARTS}


def _unpickle(path: Path) -> Any:
    """Read a file of `torch.save` without running anything that is in it."""
    if not path.is_file():
        raise CheckpointError(f"{path} is missing; name the folder with the authors' .pth files")
    try:
        with torch.serialization.safe_globals(_ALLOWED), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch, about pickles that it then refuses
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged or hostile pickle provokes in the reader
        reason = str(error).split("WeightsUnpickler error: ")[-1].split("\n")[0].split(". ")[0]
        raise CheckpointError(
            f"{path} is truncated, or no file of the authors' code, and was not read: {reason:.200}"
        ) from error


def _translate_names(
    states: dict[str, dict[str, Tensor]], config: ModelConfig, path: Path
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the encoder's and the decoder's tensors under this library's names."""
    rest = [dict(states[part]) for part in _PARTS[:2]]
    try:
        encoder = _encoder(rest[0], config.encoder.blocks * config.encoder.layers)
        decoder = _decoder(rest[1], config.decoder.blocks * config.decoder.layers)
    except (KeyError, IndexError, RuntimeError) as error:
        raise CheckpointError(f"{path}: {error} is not as args.pth says") from error
    if left := [*rest[0], *rest[1]]:
        raise CheckpointError(f"{path} has weights that args.pth does not foresee: {left[0]}")
    return encoder, decoder


def _encoder(state: dict[str, Tensor], layers: int) -> dict[str, Tensor]:
    names = {"start": "front_end.conv", "conv_1x1": "project"}
    for n in range(layers):
        names[f"dilated_convs.{n}.dilated_conv"] = f"layers.{n}.dilated"
        names[f"dilated_convs.{n}.conv_1x1"] = f"layers.{n}.out"
    return {f"encoder.{new}.{kind}": state.pop(f"{old}.{kind}")
            for old, new in names.items() for kind in ("weight", "bias")}  # fmt: skip


def _decoder(state: dict[str, Tensor], layers: int) -> dict[str, Tensor]:
    """A convolution of kernel 2 becomes one product on [earlier, now]; two biases become one."""

    def linear(name: str) -> tuple[Tensor, Tensor]:
        weight = state.pop(f"{name}.weight")  # (out, in, kernel)
        joined = torch.cat([weight[:, :, tap] for tap in range(weight.shape[2])], dim=1)
        return joined, state.pop(f"{name}.bias")

    new: dict[str, Tensor] = {}

    def put(name: str, weight: Tensor, bias: Tensor) -> None:
        new[f"{name}.weight"], new[f"{name}.bias"] = weight, bias

    put("input.taps", *linear("first_conv"))
    put("input_skip", *linear("skip_conv"))
    for n in range(layers):
        weight, bias = linear(f"layers.{n}.causal")
        new[f"layers.{n}.condition.weight"], extra = linear(f"layers.{n}.condition")
        put(f"layers.{n}.taps", weight, bias + extra)
        pair = zip(linear(f"layers.{n}.residual"), linear(f"layers.{n}.skip"), strict=True)
        put(f"layers.{n}.out", *(torch.cat(tensors) for tensors in pair))
    weight, bias = linear("fc")
    new["head_condition.weight"], extra = linear("condition")
    put("head", weight, bias + extra)
    put("logits", *linear("logits"))
    return new
