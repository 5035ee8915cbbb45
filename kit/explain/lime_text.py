"""LIME for texts: ridge regression on which units are there, as an operator for each length."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Float64

NEIGHBOURS = 4999  # lime_text's perturbations beside the text: they say what its ridge weighs
KERNEL_WIDTH = 0.25  # in cosine distance
RIDGE = 1.0
KEPT = 8  # operators in memory


@dataclass(frozen=True)
class Operator:
    """The regression of scores on the units that are there; everything but the scores is known."""

    members: Bool[np.ndarray, "sets units"]  # the last one is the whole text
    weights: Float64[np.ndarray, " sets"]
    coefficients: Float64[np.ndarray, "units sets"]
    is_exact: bool  # every set of units is there

    def fit(self, y: Float64[np.ndarray, "sets outputs"]) -> dict[str, np.ndarray]:
        """Return values (units, K), their standard errors, intercepts and the fits' R² (K,)."""
        values = self.coefficients @ y
        share = self.weights / self.weights.sum()
        centred = self.members - share @ self.members
        rest = y - share @ y - centred @ values
        total = share @ (y - share @ y) ** 2
        # errors of each set are its own (a sandwich): spread around a line is not equal everywhere
        error_std = np.sqrt(self.coefficients**2 @ rest**2) * (not self.is_exact)
        return {
            "values": values,
            "error_std": error_std,
            "base_values": share @ y - share @ self.members @ values,
            "r2": 1 - np.divide(share @ rest**2, total, out=np.zeros_like(total), where=total > 0),
        }


@lru_cache(maxsize=KEPT)
def operator(d: int, samples: int, seed: int) -> Operator:
    """Return lime_text's regression for a text of `d` units.

    Sets of units are drawn as there: first how many are taken out, any number from 1 to all being
    as likely, then which. Here the numbers come in equal shares; where there are no more than
    `samples` sets, each comes once with its probability.
    """
    if 2**d <= samples:
        members = (np.arange(2**d - 1)[:, None] >> np.arange(d)) & 1 == 1  # all but the whole
    else:
        rng = np.random.default_rng((seed, d))
        order = rng.random((samples, d)).argsort(axis=1)
        members = order >= 1 + np.arange(samples)[:, None] % d
    n_out = d - members.sum(1)
    likely = 1.0 / np.bincount(n_out)[n_out]  # every number of units as likely, any set of it too
    distance = 1 - np.sqrt(1 - n_out / d)  # cosine, to the text itself
    kernel = np.exp(-(distance**2) / (2 * KERNEL_WIDTH**2))
    weights = np.append(NEIGHBOURS * likely / likely.sum() * kernel, 1.0)
    members = np.vstack([members, np.ones(d, bool)])
    centred = members - weights @ members / weights.sum()
    gram = centred.T @ (weights[:, None] * centred) + RIDGE * np.eye(d)
    return Operator(
        members, weights, np.linalg.solve(gram, (weights[:, None] * centred).T), 2**d <= samples
    )
