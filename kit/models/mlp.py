"""The table model of the lessons: the textbook network, for numbers and categories."""

from collections.abc import Sequence
from itertools import accumulate, pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from kit.base import checks


class MLP(nn.Module):
    """The textbook network: Linear, ReLU, Linear, of any widths, for numbers and categories.

    It takes one tensor, the numeric columns first and one column of codes for each category after
    them, as `data.Encoder` makes it. Every code has a learned vector that stands in its place.
    """

    starts: Tensor  # where the codes of each category begin in the one table of vectors

    def __init__(
        self,
        n_numeric: int,
        n_outputs: int,
        *,
        hidden: Sequence[int] = (64, 64),
        cardinalities: Sequence[int] = (),
        embedding: int = 8,
        dropout: float = 0.0,
    ) -> None:
        """Build the network with PyTorch's default initial weights.

        Args:
            n_numeric: numeric columns, the first ones of the input.
            n_outputs: 1 for a quantity or a yes/no question, else one a class.
            hidden: width of each hidden layer; none makes it a linear model.
            cardinalities: number of codes of each category, the last columns of the input.
            embedding: length of the vector that stands for a code.
            dropout: fraction of each hidden layer dropped while training, 0 <= dropout < 1.

        Raises:
            ValueError: no input columns, a width below 1, or a dropout out of range.
        """
        super().__init__()
        _check_sizes(
            n_numeric,
            len(cardinalities),
            dropout,
            n_outputs=[n_outputs],
            hidden=hidden,
            cardinalities=cardinalities,
            embedding=[embedding],
        )
        self.n_numeric, self.n_columns = n_numeric, n_numeric + len(cardinalities)
        if cardinalities:
            # one table for all categories: one lookup a batch, however many columns there are
            starts = list(accumulate(cardinalities[:-1], initial=0))
            self.register_buffer("starts", torch.tensor(starts), persistent=False)
            self.embed = nn.Embedding(sum(cardinalities), embedding)
        widths = [n_numeric + len(cardinalities) * embedding, *hidden]
        layers: list[nn.Module] = []
        for n_in, n_out in pairwise(widths):
            layers += [nn.Linear(n_in, n_out), nn.ReLU()]
            layers += [nn.Dropout(dropout)] if dropout else []
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], n_outputs))

    def forward(self, x: Float[Tensor, "batch columns"]) -> Float[Tensor, "batch outputs"]:
        """Return the logits of each row, or its quantity."""
        if (
            x.ndim != 2 or x.shape[1] != self.n_columns
        ):  # one code for three categories would broadcast
            raise checks.bad_value(
                "models.MLP",
                expected=f"rows of {self.n_columns} columns",
                got=x,
                remedy="Encode them with the encoder that the model was built for.",
            )
        if self.n_columns > self.n_numeric:
            numbers, codes = x[:, : self.n_numeric], x[:, self.n_numeric :]
            vectors = self.embed(codes.long() + self.starts)  # (B, G, embedding)
            x = torch.cat([numbers, vectors.flatten(1)], dim=1)
        return self.layers(x)


def _check_sizes(n_numeric: int, n_categories: int, dropout: float, **sizes: Sequence[int]) -> None:
    for name, values in sizes.items():
        if any(value < 1 for value in values):
            raise checks.bad_value(
                "models.MLP",
                expected=f"{name} of 1 or more",
                got=min(values),
                remedy=f"Pass {name}={'(64, 64)' if name == 'hidden' else '1 or more'}.",
            )
    if n_numeric < 0 or n_numeric + n_categories == 0:
        raise checks.bad_value(
            "models.MLP",
            expected="at least one input column",
            got=n_numeric,
            remedy="Pass n_numeric=encoder.n_numeric, cardinalities=encoder.cardinalities.",
        )
    if not 0 <= dropout < 1:
        raise checks.bad_value(
            "models.MLP", expected="0 <= dropout < 1", got=dropout, remedy="Pass dropout=0.1."
        )
