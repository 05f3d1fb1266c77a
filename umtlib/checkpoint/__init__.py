"""A model on disk: a folder that is complete and verified, or that is not there.

::

    six-domains-small/
        config.json         the `ModelConfig`
        model.safetensors   the weights
        checksums.json      sha256 of the files above, written last

A folder is written under a temporary name, flushed and renamed, so that a crash at any moment
leaves the previous state. Nothing is ever unpickled.
"""

import hashlib
import os
import warnings
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from umtlib import files
from umtlib.config import Config, ModelConfig, from_values, to_json
from umtlib.errors import CheckpointError, ConfigError
from umtlib.translator import MusicTranslator

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
CHECKSUMS = "checksums.json"
PRETRAINED = Path(__file__).parents[1] / "pretrained"
STEP = "step-{:08d}"
REAL = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
UNIT = "/unit"  # behind the name of a matrix of integers: what one is worth, per row


def pretrained() -> tuple[str, ...]:
    """Return the names of the models that ship with umtlib."""
    return tuple(sorted(path.parent.name for path in PRETRAINED.glob(f"*/{CONFIG}")))


def load(model: str | os.PathLike = "six-domains-small") -> MusicTranslator:
    """Load a translator: in evaluation mode, on the CPU, in float32.

    Parameters
    ----------
    model : str or path
        The name of a shipped model, a model folder, or the folder of a training run, of which the
        newest intact checkpoint is taken.

    Raises
    ------
    CheckpointError
        If there is no such model, or a file of it is missing, altered or no model of ours.
    ConfigError
        If it has a domain of a name that cannot be.
    """
    folder = Path(model)
    if not folder.is_dir() and str(model) in pretrained():
        folder = PRETRAINED / folder
    if not folder.is_dir():
        raise CheckpointError(
            f"no model {str(model)!r}: it is neither a folder nor one of the "
            f"shipped models ({', '.join(pretrained()) or 'none'})"
        )
    if checkpoints(folder):
        folder = newest(folder)
    else:
        verify(folder)
    translator = MusicTranslator(read_as(ModelConfig, folder / CONFIG))
    restore(translator, _from_int8(read_tensors(folder / WEIGHTS)), folder)
    return translator.eval().requires_grad_(False)


def save(
    model: MusicTranslator, folder: str | os.PathLike, dtype: torch.dtype | None = None
) -> None:
    """Write a translator to a model folder, which must not exist yet.

    With the ``dtype`` ``torch.float16`` the file has half the size, with ``torch.int8`` a quarter:
    a matrix is then kept as 8-bit integers, each row in units of its own.

    Raises
    ------
    CheckpointError
        If the folder exists or cannot be written.
    """
    weights = model.state_dict()
    if dtype == torch.int8:
        weights = _to_int8(weights)
    elif dtype is not None:
        weights = {name: tensor.to(dtype) for name, tensor in weights.items()}
    write(folder, {CONFIG: to_json(model.config).encode(), WEIGHTS: weights})


def _to_int8(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    found = {}
    for name, tensor in weights.items():
        if tensor.ndim < 2:
            found[name] = tensor.half()
            continue
        rows = tensor.flatten(1)
        unit = (rows.abs().amax(dim=1) / 127).clamp(min=1e-12)
        found[name] = (rows / unit[:, None]).round().to(torch.int8).view_as(tensor)
        found[name + UNIT] = unit
    return found


def _from_int8(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    found = {name: tensor for name, tensor in stored.items() if not name.endswith(UNIT)}
    for name, tensor in found.items():
        if tensor.dtype == torch.int8 and (unit := stored.get(name + UNIT)) is not None:
            found[name] = tensor * unit.view(-1, *[1] * (tensor.ndim - 1))
    return found


def read_as(kind: type[Config], path: Path) -> Config:
    """Return a file of JSON as a dataclass of `umtlib.config`, or raise CheckpointError."""
    try:
        return from_values(kind, files.read_json(path))
    except (OSError, ValueError, ConfigError) as error:
        mend = "if another version of umtlib wrote it, use that one, or train the model anew"
        raise CheckpointError(f"{path} cannot be read: {error}; {mend}") from error


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file by name, or raise CheckpointError."""
    try:
        return safetensors.torch.load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error


def restore(module: torch.nn.Module, tensors: Mapping[str, Tensor], where: Path) -> None:
    """Copy tensors into a module; every name and shape must match.

    Raises CheckpointError if one does not, or a tensor holds anything but finite real numbers.
    """
    for name, tensor in tensors.items():
        if tensor.dtype not in REAL or not tensor.isfinite().all():
            raise CheckpointError(
                f"{name!r} in {where} holds NaN, infinity, or {tensor.dtype}, which is no format "
                "of weights; use another checkpoint"
            )
    try:
        module.load_state_dict(tensors)
    except RuntimeError as error:
        reason = f"the weights in {where} do not fit its {CONFIG}: {error}"
        raise CheckpointError(" ".join(reason.split())[:400]) from error


def write(folder: str | os.PathLike, content: Mapping[str, bytes | Mapping[str, Tensor]]) -> None:
    """Write a folder of files with their checksums: all of it, or nothing.

    Its content is, by file name, bytes or the tensors of a safetensors file. Raises CheckpointError
    if the folder exists or cannot be written; a full disk leaves no trace.
    """
    with files.new_folder(folder, CheckpointError) as part:
        sums = {name: _write_file(part / name, one) for name, one in content.items()}
        _write_file(part / CHECKSUMS, (files.to_json(sums, indent=2) + "\n").encode())


def _write_file(path: Path, content: bytes | Mapping[str, Tensor]) -> str:
    if not isinstance(content, bytes):
        content = safetensors.torch.save({k: v.detach().contiguous() for k, v in content.items()})
    path.write_bytes(content)
    files.flush(path)
    return hashlib.sha256(content).hexdigest()


def verify(folder: Path) -> None:
    """Compare every file of a folder with its checksum.

    Raises CheckpointError naming the first file that is missing, truncated, altered or without a
    checksum.
    """
    path = folder / CHECKSUMS
    if not path.exists():
        raise CheckpointError(f"{folder} holds no model; a run has one after its first save")
    try:
        sums = dict(files.read_json(path))
        for name in [CONFIG, WEIGHTS, *sums]:
            path = folder / name
            with files.open_regular(path) as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
            if found != sums.get(name):
                raise CheckpointError(f"{path} is truncated or altered; use another checkpoint")
    except (OSError, ValueError, TypeError) as error:
        text = f"{path} is missing or cannot be read; restore it or use another checkpoint"
        raise CheckpointError(text) from error


def checkpoints(run: Path) -> list[Path]:
    """Return the checkpoints of a training run, oldest first."""
    return sorted(path for path in run.glob("step-*") if path.name[5:].isdigit())


def newest(run: Path) -> Path:
    """Return the newest intact checkpoint of a training run; a `RuntimeWarning` names damage.

    Raises CheckpointError if none is intact.
    """
    problems = []
    for folder in reversed(checkpoints(run)):
        try:
            verify(folder)
        except CheckpointError as error:
            problems.append(str(error))
            continue
        if problems:
            text = f"{'; '.join(problems)}. Using {folder.name}, the newest that is intact"
            warnings.warn(text, RuntimeWarning, stacklevel=2)
        return folder
    raise CheckpointError("; ".join(problems) or f"{run} holds no checkpoint")
