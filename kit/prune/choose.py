"""Choose the units that stay, and blank the others in a working copy of the model."""

import math
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float64, Int64
from torch import Tensor, fx, nn

from kit.prune import obs
from kit.prune.families import Family
from kit.prune.gram import Gram, exact
from kit.prune.lockstep import Lockstep
from kit.prune.rules import Use

METHODS = ("obs", "magnitude", "activation")
NONE = torch.tensor([-1])  # the unit of places that belong to none
Kept = dict[Family, Tensor]  # the units that stay, in order


def largest(model: nn.Module, counts: Mapping[Family, int], side: Lockstep | None = None) -> Kept:
    """Keep the units with the largest weights, or those that add most to what reads them.

    Args:
        model: the working copy; the others are blanked in place.
        counts: how many units each family keeps.
        side: what is to be watched for activity; without it, the weights alone decide.
    """
    weights = dict(model.named_parameters())
    uses = [use for family in counts for use in family.uses]
    grams = side.grams(uses) if side else {}
    kept = {}
    for family, n in counts.items():
        scores = _activity(family, weights, grams) if side else _norms(family, weights)
        kept[family] = scores.topk(n).indices.sort().values
    blank(model, kept)
    return kept


def blank(model: nn.Module, kept: Mapping[Family, Tensor]) -> None:
    """Write zeros, in place, where units that go are read."""
    weights = dict(model.named_parameters())
    for family, units in kept.items():
        for use in family.uses:
            _blank(weights[use.weight], family, use, units)


class Surgeon:
    """Remove units by optimal brain surgeon, and let what is left make up for them, in place.

    What reads a family is refitted when it has lost units, and so is every later product: what it
    is given has changed, and it is to come as near as it can to what the original returns.
    """

    def __init__(self, model: nn.Module, counts: Mapping[Family, int], side: Lockstep) -> None:
        """Begin.

        Args:
            model: the working copy.
            counts: how many units each family keeps.
            side: the copy and the original.
        """
        self.weights, self.counts, self.side = dict(model.named_parameters()), counts, side
        self.owners = {use: family for family in counts for use in family.uses}
        self.kept: Kept = {}
        self.short: list[int] = []  # columns of products that were given fewer rows than that

    def operate(self, uses: Sequence[Use]) -> None:
        """Go through all products of the model, in order."""
        by_node: dict[fx.Node, list[Use]] = {}
        for use in uses:
            by_node.setdefault(use.node, []).append(use)

        def at(node: fx.Node) -> None:
            for use in by_node.get(node, []):
                self._meet(use)

        if self.counts:
            self.side.run(at, last=list(by_node)[-1])

    def _meet(self, use: Use) -> None:
        family = self.owners.get(use)
        if family is None and not self.kept:
            return  # whatever comes before is as it was
        if not self.side.alone(self.weights[use.weight]):
            if family is not None:
                units = self._units(family, {})
                _blank(self.weights[use.weight], family, use, units)
            return
        pairs = self.side.pairs(use)
        self.short += [pairs.columns] if pairs.short else []
        moments = _moments(pairs, use)
        cross = pairs.cross_covariance() if use.bias else pairs.cross_moments()
        matrix = obs.best(_matrix(self.weights[use.weight], use), moments, cross)
        if family is not None:
            reader = obs.Reader(matrix, _columns(family, use, like=matrix), moments)
            matrix = obs.refit(reader, self._units(family, {use: reader}).to(matrix.device))
        _matrix(self.weights[use.weight], use, write=matrix)
        if use.bias:
            level = pairs.means_out() - matrix @ pairs.means()
            self.weights[use.bias].data.copy_(level)

    def _units(self, family: Family, known: Mapping[Use, obs.Reader]) -> Tensor:
        """Return the units that stay; chosen where the family is met first."""
        if family not in self.kept:
            rest = [use for use in _once(family.uses) if use not in known]
            readers = [*known.values(), *self._as_they_are(family, rest)]
            n = self.counts[family]
            self.kept[family] = obs.order(readers, units=family.units, keep=n).cpu()
        return self.kept[family]

    def _as_they_are(self, family: Family, uses: Sequence[Use]) -> list[obs.Reader]:
        """Return readers that stand elsewhere in the model, with the weights that they have now."""
        grams = self.side.grams(uses)
        matrices = [_matrix(self.weights[use.weight], use) for use in uses]
        return [
            obs.Reader(each, _columns(family, use, like=each), _moments(grams[use.weight], use))
            for use, each in zip(uses, matrices, strict=True)
        ]


def _norms(family: Family, weights: Mapping[str, Tensor]) -> Float64[Tensor, " units"]:
    """Return the sum of squares of all weights that go with each unit: L2 of the group."""
    scores = torch.zeros(family.units + 1, dtype=torch.float64)  # the last for no unit
    for (name, axis), units in family.axes.items():
        if name in weights:
            squares = weights[name].detach().double().movedim(axis, 0).square()
            squares = squares.reshape(len(squares), -1).sum(1)
            scores.index_add_(0, units % (family.units + 1), squares.cpu())
    return scores[:-1]


def _activity(
    family: Family, weights: Mapping[str, Tensor], grams: Mapping[str, Gram]
) -> Float64[Tensor, " units"]:
    """Return how much each unit adds to what its readers return: ‖W column‖² · mean of x²."""
    scores = torch.zeros(family.units + 1, dtype=torch.float64)
    for use in _once(family.uses):
        share = _matrix(weights[use.weight], use).square().sum(0)
        share = share * grams[use.weight].second_moments().diagonal()
        units = _columns(family, use, like=scores)
        scores.index_add_(0, units % (family.units + 1), share.cpu())
    return scores[:-1]


def _blank(weight: Tensor, family: Family, use: Use, units: Tensor) -> None:
    gone = ~torch.isin(family.axes[use.columns], torch.cat([units.cpu(), NONE]))
    weight.data.movedim(use.columns[1], 0)[gone.to(weight.device)] = 0


def _matrix(weight: Tensor, use: Use, write: Tensor | None = None) -> Float64[Tensor, "out in"]:
    """Return a weight as outputs x inputs, whichever way it is stored; or write it so."""
    turned = weight.data.movedim(use.rows[1], 0)
    if write is not None:
        turned.copy_(write.view(turned.shape))
    return exact(turned.flatten(1))


def _moments(gram: Gram, use: Use) -> Float64[Tensor, "columns columns"]:
    """Return how inputs vary together: about their means where a bias makes up for those."""
    return gram.covariance() if use.bias else gram.second_moments()


def _columns(family: Family, use: Use, *, like: Tensor) -> Int64[Tensor, " columns"]:
    """Return the unit of each column of a matrix: a channel has one for each place of a window."""
    places = math.prod(use.window.size) if use.window else 1
    return family.axes[use.columns].repeat_interleave(places).to(like.device)


def _once(uses: Sequence[Use]) -> list[Use]:
    """Return one use of each weight."""
    return list({use.weight: use for use in uses}.values())
