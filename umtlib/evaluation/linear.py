"""Logistic regression, for the probes: what a weighted sum can read from a latent."""

from dataclasses import dataclass

import numpy as np
import scipy.optimize
import scipy.special

from umtlib.errors import EvaluationError


@dataclass(frozen=True, eq=False)
class Linear:
    """A fitted model: inputs are centred by ``mean``, divided by ``scale``, weighted and summed."""

    mean: np.ndarray  # (D,)
    scale: np.ndarray  # (D,)
    weight: np.ndarray  # (D, K)
    bias: np.ndarray  # (K,)

    def scores(self, inputs: np.ndarray) -> np.ndarray:
        """Return logits, shape (n, K), of inputs, shape (n, D)."""
        return (inputs - self.mean) / self.scale @ self.weight + self.bias


def fit(inputs: np.ndarray, targets: np.ndarray, *, decay: float = 1e-3) -> Linear:
    """Fit by L-BFGS from zero, so that the result depends on the data alone.

    Parameters
    ----------
    inputs : np.ndarray
        Shape (n, D).
    targets : np.ndarray
        Either the class of each, int, shape (n,); or whether each of K labels applies, bool, (n,
        K).
    decay : float
        Weight of the squared weights.

    Raises
    ------
    EvaluationError
        If there is nothing to fit, or the shapes do not match.
    """
    if np.ndim(inputs) != 2 or not len(inputs) or len(inputs) != len(targets):
        raise EvaluationError(
            f"inputs {np.shape(inputs)} and targets {np.shape(targets)} do not fit"
        )
    mean, scale = inputs.mean(axis=0), inputs.std(axis=0) + 1e-6
    x, y = (inputs - mean) / scale, np.asarray(targets)
    labels = y.ndim == 2
    y = y.astype(float) if labels else np.eye(int(y.max()) + 1)[y]
    penalty = decay * len(x)
    shape = (x.shape[1] + 1, y.shape[1])

    def loss(flat):
        weight = flat.reshape(shape)
        logits = x @ weight[:-1] + weight[-1]
        if labels:
            value, chance = np.logaddexp(0, logits) - y * logits, scipy.special.expit(logits)
        else:
            value = scipy.special.logsumexp(logits, axis=1, keepdims=True) - logits
            value, chance = value * y, scipy.special.softmax(logits, axis=1)
        slope = np.concatenate([x.T @ (chance - y), (chance - y).sum(axis=0, keepdims=True)])
        slope[:-1] += penalty * weight[:-1]
        return value.sum() + penalty / 2 * (weight[:-1] ** 2).sum(), slope.ravel()

    start = np.zeros(shape).ravel()
    options = {"maxiter": 200, "ftol": 1e-7}
    found = scipy.optimize.minimize(loss, start, jac=True, method="L-BFGS-B", options=options)
    weight = found.x.reshape(shape)
    return Linear(mean, scale, weight[:-1], weight[-1])
