"""Gradient descent one can watch: the path, and why it arrived or flew off."""

import math
from collections.abc import Callable, Sequence

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from kit.base import checks
from kit.base.results import Result, result, short

WHERE = "tune.descend"
LOOKS = 16  # points of the path at which the curvature is measured
DIRECTIONS = 30  # of the space in which it is sought; exact up to as many dimensions
FLAT = 1e-4  # an arrival: the gradient is this much of what it was at the start
METHODS = ("gd", "momentum", "adagrad", "adam")

Objective = Callable[[Tensor], Tensor]


@result
class Path(Result):
    """Hold the way of a descent; `table` has one row a point: step, loss, grad_norm, curvature."""

    points: Float[Tensor, "points ..."]  # the start first
    method: str
    lr: float
    curvature: float  # L, the largest of the path: how fast the slope can change
    limit: float  # of lr, from which the steepest direction grows; NaN where none is known
    outcome: str  # "converged", "on the way" or "diverged"
    why: str  # in a sentence

    def facts(self) -> dict[str, str]:
        """Return how it ended, the last loss, and lr against its limit."""
        facts = {"outcome": self.outcome, "loss": f"{self.table['loss'].iloc[-1]:.3g}"}
        facts["lr"] = short(self.lr)
        if math.isfinite(self.limit):
            facts["limit"] = short(self.limit)
        return facts | {"why": self.why}


def descend(
    objective: Objective,
    start: Tensor | Sequence[float],
    *,
    lr: float,
    steps: int,
    method: str = "gd",
) -> Path:
    """Walk downhill from `start`, keep every point, and tell why it arrived or not.

    Gradient descent multiplies the error along a direction of curvature h by 1 - lr·h at every
    step: it shrinks while lr < 2/h, so the largest curvature L sets the limit 2/L. With momentum
    b the limit is 2(1 + b)/L. Adagrad and Adam rescale every direction, and have no such line.

    Args:
        objective: a function of torch from a point to one number.
        start: the first point, of any shape; numbers become float64.
        lr: learning rate.
        steps: steps at most; it ends early where the loss is no longer finite.
        method: "gd", "momentum" (0.9), "adagrad" or "adam" (0.9, 0.999).

    Returns:
        The path, with the largest curvature met and the limit it sets.

    Raises:
        ValueError: a setting out of range, or an objective whose value is no finite number at
            the start, or does not depend on the point.

    Example:
        >>> path = descend(lambda x: (x**2).sum(), [1.0], lr=1.1, steps=20)
        >>> path.outcome, path.limit
        ('diverged', 1.0)
    """
    if method not in METHODS:
        raise checks.unknown_name(WHERE, "method", got=method, known=METHODS)
    if not 0 < lr < math.inf:
        raise _bad("a finite lr > 0", lr, "Pass lr=0.1.")
    if steps < 1:
        raise _bad("steps >= 1", steps, "Pass steps=50.")
    point = torch.as_tensor(start).detach().clone()
    if not (isinstance(start, Tensor) and start.is_floating_point()):
        point = point.double()
    points, losses, slopes = _walk(objective, point, lr=lr, steps=steps, method=method)
    table = pd.DataFrame({"step": range(len(losses)), "loss": losses, "grad_norm": slopes})
    table["curvature"] = _curvatures(objective, points)
    largest = float(table["curvature"].max())
    limit = _limit(method, largest)
    outcome = _outcome(losses, slopes, safe=lr < limit)
    return Path(
        table=table,
        points=torch.stack(points),
        method=method,
        lr=lr,
        curvature=largest,
        limit=limit,
        outcome=outcome,
        why=_why(outcome, method, lr, largest, limit),
    )


def _walk(
    objective: Objective, point: Tensor, *, lr: float, steps: int, method: str
) -> tuple[list[Tensor], list[float], list[float]]:
    move = _mover(method, point, lr)
    points: list[Tensor] = []
    losses: list[float] = []
    slopes: list[float] = []
    for step in range(steps + 1):
        loss, slope = _slope(objective, point)
        if step and not math.isfinite(loss):
            break
        points.append(point)
        losses.append(loss)
        slopes.append(float(slope.norm()))
        point = move(point, slope)
    return points, losses, slopes


def _slope(objective: Objective, point: Tensor) -> tuple[float, Tensor]:
    leaf = point.clone().requires_grad_()
    loss = objective(leaf)
    if not isinstance(loss, Tensor) or loss.numel() != 1 or not loss.requires_grad:
        expected = "an objective that returns one number, computed by torch from the point"
        raise _bad(expected, loss, "Return for example (point**2).sum().")
    (slope,) = torch.autograd.grad(loss.sum(), leaf)
    return float(loss.detach()), slope


def _mover(method: str, like: Tensor, lr: float) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the rule that makes the next point from a point and the slope there."""
    mean, square, n = torch.zeros_like(like), torch.zeros_like(like), 0

    def move(point: Tensor, slope: Tensor) -> Tensor:
        nonlocal mean, square, n
        n += 1
        if method == "gd":
            return point - lr * slope
        if method == "momentum":
            mean = 0.9 * mean + slope
            return point - lr * mean
        if method == "adagrad":
            square = square + slope**2
            return point - lr * slope / (square.sqrt() + 1e-10)
        mean, square = 0.9 * mean + 0.1 * slope, 0.999 * square + 0.001 * slope**2
        # both began at nought and are too small by what is missing from the sum of their weights
        return point - lr * (mean / (1 - 0.9**n)) / ((square / (1 - 0.999**n)).sqrt() + 1e-8)

    return move


def _curvatures(objective: Objective, points: list[Tensor]) -> list[float]:
    """Return the largest eigenvalue of the Hessian at some points of the path, NaN between."""
    looks = set(torch.linspace(0, len(points) - 1, LOOKS).round().int().tolist())
    return [
        _largest(objective, point) if i in looks else math.nan for i, point in enumerate(points)
    ]


def _largest(objective: Objective, point: Tensor) -> float:
    """Find the largest eigenvalue of the Hessian without forming it, by Lanczos' method."""
    leaf = point.clone().requires_grad_()
    (slope,) = torch.autograd.grad(objective(leaf).sum(), leaf, create_graph=True)
    if not slope.requires_grad:
        return 0.0  # a plane
    generator = torch.Generator().manual_seed(0)
    direction = torch.randn(point.numel(), generator=generator, dtype=point.dtype).to(point.device)
    basis: list[Tensor] = []
    bent: list[Tensor] = []
    for _ in range(min(point.numel(), DIRECTIONS)):
        before = direction.norm()
        for each in basis * 2:  # twice: once leaves what rounding did
            direction = direction - (direction @ each) * each
        if not direction.norm() > 1e-10 * before:
            break  # nothing new in it
        basis.append(direction / direction.norm())
        (bend,) = torch.autograd.grad(
            slope, leaf, basis[-1].view_as(leaf), retain_graph=True, materialize_grads=True
        )
        bent.append(bend.flatten())
        direction = bent[-1]
    small = torch.stack(basis) @ torch.stack(bent).T
    return float(torch.linalg.eigvalsh(small)[-1]) if small.isfinite().all() else math.nan


def _limit(method: str, curvature: float) -> float:
    if method not in ("gd", "momentum") or not curvature > 0:
        return math.nan
    return 2 * (1.9 if method == "momentum" else 1.0) / curvature


def _outcome(losses: list[float], slopes: list[float], *, safe: bool) -> str:
    if not math.isfinite(losses[0]):
        raise _bad("a finite loss at the start", losses[0], "Start where the objective is defined.")
    # below the limit a loss may rise at first, while momentum gathers: that is no divergence
    grew = losses[-1] > losses[0] and not safe
    if len(losses) > 1 and (grew or not math.isfinite(slopes[-1])):
        return "diverged"
    return "converged" if slopes[-1] <= FLAT * slopes[0] else "on the way"


def _why(outcome: str, method: str, lr: float, curvature: float, limit: float) -> str:
    if not math.isfinite(limit):
        known = "rescales every direction" if method in ("adagrad", "adam") else "met no curvature"
        return f"{method} {known}: no limit of lr is known"
    rule = "2/L" if method == "gd" else "2(1 + 0.9)/L"
    on_the_edge = math.isclose(lr, limit, rel_tol=1e-6)
    sign = "=" if on_the_edge else ">" if lr > limit else "<"
    told = f"lr {short(lr)} {sign} {rule} = {short(limit)}, L = {short(curvature)}"
    if on_the_edge:
        return f"{told}: the steepest direction neither grows nor shrinks"
    if lr > limit:
        endings = {
            "diverged": "the steepest direction grows",
            "on the way": "it bounces",
            "converged": "it arrived all the same, where it is flatter, or not by the steepest way",
        }
        return f"{told}: {endings[outcome]}"
    if outcome == "diverged":
        return f"{told} where it was measured, but the curvature is not the same everywhere"
    left = "arrived" if outcome == "converged" else "every direction shrinks, the flattest slowly"
    return f"{told}: {left}"


def _bad(expected: str, got: object, remedy: str) -> ValueError:
    return checks.bad_value(WHERE, expected=expected, got=got, remedy=remedy)
