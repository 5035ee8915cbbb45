"""The loss around a model: on a plane through its weights, along two directions of equal scale."""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call, vmap

from kit.base import checks, device
from kit.base import seed as seeds
from kit.base.modes import evaluating
from kit.base.results import Result, result, short
from kit.train.losses import Loss, loss_for

WHERE = "tune.landscape"
AT_ONCE = 32  # points of the plane that are asked together
NEAR = 1.1  # a point is as good as the centre up to this many times its loss

Direction = dict[str, Tensor]


@result
class Landscape(Result):
    """Hold the loss on a plane; `table` has one row a point: along_a, along_b, loss."""

    losses: Float[np.ndarray, "b a"]  # rows go along b, columns along a
    steps: Float[np.ndarray, " a"]  # of both axes, in norms of the weights
    at_centre: float
    flat_frac: float  # of the plane, where the loss is within 10 % of the centre's

    def facts(self) -> dict[str, str]:
        """Return the loss of the model, the lowest and highest near it, and how flat it is."""
        return {
            "at_centre": short(self.at_centre),
            "lowest": short(float(self.losses.min())),
            "highest": short(float(self.losses.max())),
            "flat": f"{100 * self.flat_frac:.0f} % within 10 % of the centre",
        }


def landscape(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    span: float = 1.0,
    points: int = 21,
    seed: int = 0,
    directions: Sequence[Direction] | None = None,
    loss: Loss | None = None,
) -> Landscape:
    """Measure the loss on a plane through the weights, the model in its centre.

    Random directions are scaled so that every row of a weight matrix is as long as the model's
    own: a net whose weights are ten times as large is not for that reason ten times as flat.
    Biases and other vectors stay where they are.

    Args:
        model: any module; it is not changed, and asked in eval mode.
        batches: inputs and targets; the loss is their mean, weighted by rows.
        span: how far to go each way, in lengths of the weights.
        points: on each axis, an odd number, so that the model itself is one of them.
        seed: of the directions.
        directions: two of your own instead, name of a weight -> step, such as from these weights
            to another model's; they are not scaled.
        loss: of outputs and targets; None goes by the type of the targets.

    Raises:
        ValueError: a span or points out of range, no batches, or directions that do not fit.

    Source:
        Li, Xu, Taylor, Studer, Goldstein: Visualizing the Loss Landscape of Neural Nets, 2018, §4.
    """
    if not span > 0:
        raise _bad("span > 0", span, "Pass span=1.0.")
    if points < 3 or points % 2 == 0:
        raise _bad("an odd number of points, 3 or more", points, "Pass points=21.")
    if directions is not None and len(directions) != 2:
        raise _bad("two directions", checks.Described(f"{len(directions)}"), "Pass [a, b].")
    where = device.of(model)
    given = [(xb.to(where), yb.to(where)) for xb, yb in batches]
    if not given:
        raise _bad("one batch at least", checks.Described("none"), "Pass train.batches(X, y, …).")
    weights = {name: weight.detach() for name, weight in model.named_parameters()}
    a, b = directions or [_random(weights, seed, axis) for axis in range(2)]
    for direction in (a, b):
        _check_fits(direction, weights)
    steps = torch.linspace(-span, span, points, dtype=torch.float64)
    plane = torch.cartesian_prod(steps, steps)  # b first: rows of the picture
    losses = _losses(model, given, weights, (a, b), plane, loss).reshape(points, points)
    table = pd.DataFrame(plane.flip(1).numpy(), columns=["along_a", "along_b"])
    table["loss"] = losses.flatten()
    centre = float(losses[points // 2, points // 2])
    return Landscape(
        table=table,
        losses=losses,
        steps=steps.numpy(),
        at_centre=centre,
        flat_frac=float((losses <= NEAR * centre).mean()),
    )


def _random(weights: Direction, seed: int, axis: int) -> Direction:
    generator = seeds.generator(seed, axis)
    steps = {}
    for name, weight in weights.items():
        step = torch.randn(weight.shape, generator=generator).to(weight)
        if weight.ndim < 2:
            steps[name] = torch.zeros_like(weight)
            continue
        rows = tuple(range(1, weight.ndim))
        length = step.norm(dim=rows, keepdim=True)
        steps[name] = step * weight.norm(dim=rows, keepdim=True) / length
    return steps


@torch.no_grad()
def _losses(
    model: nn.Module,
    batches: Sequence[tuple[Tensor, Tensor]],
    weights: Direction,
    directions: tuple[Direction, Direction],
    plane: Tensor,
    loss: Loss | None,
) -> np.ndarray:
    """Return the mean loss over all rows at every point of the plane."""
    a, b = directions

    def at(point: Tensor, xb: Tensor, yb: Tensor) -> Tensor:
        moved = {
            name: weight + point[1].to(weight) * a[name] + point[0].to(weight) * b[name]
            for name, weight in weights.items()
        }
        return (loss or loss_for(yb))(functional_call(model, moved, (xb,)), yb)

    total = torch.zeros(len(plane), dtype=torch.float64)
    with evaluating(model):
        for xb, yb in batches:
            each = vmap(at, in_dims=(0, None, None), chunk_size=AT_ONCE)
            total += len(xb) * each(plane.to(xb.device), xb, yb).cpu()
    return (total / sum(len(xb) for xb, _ in batches)).numpy()


def _check_fits(direction: Direction, weights: Direction) -> None:
    own = {name: tuple(weight.shape) for name, weight in weights.items()}
    theirs = {name: tuple(step.shape) for name, step in direction.items()}
    for name in sorted(own.keys() | theirs.keys()):
        if own.get(name) != theirs.get(name):
            expected = f"{name} of shape {own[name]}" if name in own else f"no {name}"
            got = f"shape {theirs[name]}" if name in theirs else "none"
            raise _bad(
                f"directions with {expected}, as the model has it",
                checks.Described(got),
                "Take the differences of two models' named_parameters().",
            )


def _bad(expected: str, got: object, remedy: str) -> ValueError:
    return checks.bad_value(WHERE, expected=expected, got=got, remedy=remedy)
