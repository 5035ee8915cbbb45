"""The scaling law of language models: how loss falls with parameters and with text."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from jaxtyping import Float
from scipy.optimize import least_squares

from kit.base import checks

SCATTER = 0.01  # of a loss around the law, as a fraction: another seed moves it so much
USUAL = {"alpha": (0.35, 0.15), "beta": (0.35, 0.15)}  # mean and spread over published ladders
FLOORS = (0.1, 0.5, 0.9)  # first guesses, as fractions of the lowest loss
SLOPES = (0.2, 0.5)
LEAST = 4  # runs that can tell the law at all


@dataclass(frozen=True)
class Law:
    """loss = floor + a / parameters^alpha + b / tokens^beta.

    Source:
        Hoffmann et al.: Training Compute-Optimal Large Language Models, 2022.
    """

    floor: float
    a: float
    alpha: float
    b: float
    beta: float

    def loss(self, parameters: float, tokens: float) -> float:
        """Return the loss of a model of so many parameters after so many tokens."""
        return self.floor + self.a / parameters**self.alpha + self.b / tokens**self.beta

    def __str__(self) -> str:
        return (
            f"{self.floor:.3g} + {self.a:.3g} / parameters^{self.alpha:.2f}"
            f" + {self.b:.3g} / tokens^{self.beta:.2f}"
        )


def fit(parameters: Sequence[float], tokens: Sequence[float], losses: Sequence[float]) -> Law:
    """Find the law that runs follow, by least squares of the logarithms of their losses.

    Few runs cannot tell the exponents from the floor, so exponents are drawn, weakly, towards
    those that published ladders found.

    Args:
        parameters: of the model of each run.
        tokens: that it was trained on.
        losses: that it came to.

    Raises:
        ValueError: fewer than four runs, or all of one size or one length.
    """
    n, d, loss = (np.asarray(each, dtype=float) for each in (parameters, tokens, losses))
    if len(loss) < LEAST or len(set(n)) < 2 or len(set(d)) < 2:
        raise checks.bad_value(
            "tune.law",
            expected=f"{LEAST} runs or more, of two sizes and two lengths at least",
            got=checks.Described(f"{len(loss)} of {len(set(n))} and {len(set(d))}"),
            remedy="Train more rungs: depths=(1, 2, 3), lengths=(100_000, 200_000).",
        )
    middle = np.exp(np.log(n).mean()), np.exp(np.log(d).mean())
    x, y = np.log(n / middle[0]), np.log(d / middle[1])

    def misses(guess: Float[np.ndarray, "5"]) -> np.ndarray:
        floor, a, b = np.exp(guess[:3])
        alpha, beta = guess[3:]
        found = np.log(floor + a * np.exp(-alpha * x) + b * np.exp(-beta * y))
        drawn = [(alpha, *USUAL["alpha"]), (beta, *USUAL["beta"])]
        pulls = [(value - mean) / spread for value, mean, spread in drawn]
        return np.concatenate([(found - np.log(loss)) / SCATTER, pulls])

    fits = [least_squares(misses, start) for start in _starts(loss)]
    floor, a, b, alpha, beta = min(fits, key=lambda each: each.cost).x
    return Law(
        floor=float(np.exp(floor)),
        a=float(np.exp(a) * middle[0] ** alpha),
        alpha=float(alpha),
        b=float(np.exp(b) * middle[1] ** beta),
        beta=float(beta),
    )


def _starts(loss: np.ndarray) -> list[np.ndarray]:
    """Return first guesses: the floor at several heights, what is above it shared by both terms."""
    guesses = []
    for floor, alpha, beta in product(FLOORS, SLOPES, SLOPES):
        low = floor * loss.min()
        share = np.log((np.exp(np.log(loss).mean()) - low) / 2)
        guesses.append(np.array([np.log(low), share, share, alpha, beta]))
    return guesses
