"""Nets of one hidden layer, as the recogniser and the transcriber are: fitted, kept and read."""

import json
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from umtlib import files
from umtlib.errors import EvaluationError

CARD = "card.json"


@dataclass(frozen=True, eq=False)
class Net:
    """The weights, float32.

    Attributes
    ----------
    mean, scale : np.ndarray
        Of what it sees, in training, shape (D,).
    hidden, hidden_bias : np.ndarray
        Shapes (H, D) and (H,).
    output, output_bias : np.ndarray
        Shapes (K, H) and (K,).
    """

    mean: np.ndarray
    scale: np.ndarray
    hidden: np.ndarray
    hidden_bias: np.ndarray
    output: np.ndarray
    output_bias: np.ndarray


def fitted(
    net: Any, seen: np.ndarray, wanted: Any, mean: np.ndarray, scale: np.ndarray
) -> dict[str, np.ndarray]:
    """Fit scikit-learn's net and return the weights of a `Net`.

    Parameters
    ----------
    net : sklearn.neural_network.MLPClassifier
        With one hidden layer. It may stop before it has converged.
    seen : np.ndarray
        What it sees, brought to mean 0 and scale 1, shape (n, D).
    wanted : array
        The answers, as `net` takes them.
    mean, scale : np.ndarray
        By which that was done, shape (D,).
    """
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        net.fit(seen, wanted)
    (hidden, output), (hidden_bias, output_bias) = net.coefs_, net.intercepts_
    arrays = mean, scale, hidden.T, hidden_bias, output.T, output_bias
    return {name: array.astype(np.float32) for name, array in zip(_names(), arrays, strict=True)}


def keep(path: Path, net: Net, card: Mapping, dtype: type = np.float32) -> None:
    """Write the weights to a file, as numbers of a type, and the card beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: np.ascontiguousarray(getattr(net, name), dtype) for name in _names()}
    with files.replacing(path) as part:
        save_file(tensors, part)
    with files.replacing(path.with_name(CARD)) as part:
        part.write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")


def read(path: str | os.PathLike, what: str) -> dict[str, np.ndarray]:
    """Return the weights of a `Net` from a file; ``what`` it is, for the message.

    Raises
    ------
    EvaluationError
        If there is none, or it does not hold them and nothing else.
    """
    try:
        files.open_regular(path).close()
        found = load_file(path)
    except (OSError, SafetensorError) as error:
        raise EvaluationError(f"no {what} can be read from {path}: {error}") from error
    if {*found} != {*_names()}:
        raise EvaluationError(f"{path} does not hold {', '.join(_names())}; train it again")
    return {name: array.astype(np.float32) for name, array in found.items()}


def _names() -> list[str]:
    return [field.name for field in fields(Net)]
