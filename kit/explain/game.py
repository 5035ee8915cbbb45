"""The game that a prediction is: what each coalition of features is worth, for many rows at once.

A coalition's features come from the row, all others from the background, and the worth is the mean
score over the background: v(S) = mean over b of f(x on S, b elsewhere). Where the model begins with
a Linear, S @ (x W) + (1 - S) @ (b W) is the first layer, whose background half serves every row;
where it ends in one, the mean is taken before it. Both are exact, and either may be absent.
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from kit.base import checks
from kit.base.memory import halved
from kit.explain.chain import Rooms
from kit.explain.scorer import Scorer

# numbers of the widest layer held at once: a CPU's second-level cache, or a slice of a GPU
AT_ONCE = {"cpu": 240_000, "cuda": 1 << 26, "mps": 1 << 24, "function": 1 << 22}
OWN = 1 << 20  # numbers of rows' own halves of the first layer


@dataclass
class Game:
    """Plays coalitions of players, which are groups of features, against a background."""

    where: str  # the public function that was called, for errors
    scorer: Scorer
    background: Tensor  # (B, F)
    players: Tensor  # (P, F), one where the feature belongs to the player
    given: Tensor  # (F,), one for features that no player owns: they are the row's own
    at_once: int
    rooms: Rooms = field(default_factory=Rooms)

    def odd(
        self, X: np.ndarray, members: Bool[np.ndarray, "pairs players"]
    ) -> Float64[np.ndarray, "rows pairs outputs"]:
        """Return (v(S) - v(not S)) / 2 of each pair for each row of `X`.

        Where a GPU runs out of memory, half as much is held at once from then on.
        """
        rows, width = self.scorer.tensor(X), self._width(X.shape[1])
        found, self.at_once = halved(
            lambda at_once: self._odd(rows, members, at_once),
            self.at_once,
            self.scorer.device,
            least=width,
        )
        finite(self.where, found, on="rows that are part background")
        return found

    def _odd(self, rows: Tensor, members: np.ndarray, at_once: int) -> np.ndarray:
        if at_once < self.at_once:
            self.rooms = Rooms()  # what is kept was for more, and in the way
        inside = torch.as_tensor(members).to(self.players) @ self.players  # (n, F)
        B, n = len(self.background), len(inside)
        width = self._width(rows.shape[1])
        n_back = max(1, min(B, at_once // (2 * width)))
        n_pairs = max(1, min(n, at_once // (2 * n_back * width)))
        n_rows = max(1, min(len(rows), at_once // (2 * n_pairs * n_back * width)))
        worths = self._by_rows if self.scorer.chain is None else self._by_layers
        found: np.ndarray | None = None
        for b in self.background.split(n_back):
            done = 0
            for S in inside.split(n_pairs):
                # a coalition and its complement side by side; what no player owns is always in
                both = torch.cat([S + self.given, 1 - S])  # (2k, F)
                worth = worths(rows, both, b, n_rows).cpu().double().numpy()
                k = len(S)
                if found is None:
                    found = np.zeros((len(rows), n, worth.shape[2]))
                part = (worth[:, :k] - worth[:, k:]) / 2
                found[:, done : done + k] += part * (len(b) / B)
                done += k
        assert found is not None
        return found

    def _by_rows(self, rows: Tensor, S: Tensor, b: Tensor, n_rows: int) -> Tensor:
        """Return the mean score over `b` of each row and coalition, (rows, k, K)."""
        known, k, B = S[:, None] > 0, len(S), len(b)  # (k, 1, F)
        found = []
        for x in rows.split(n_rows):
            z = torch.where(known, x[:, None, None], b)  # (r, k, B, F)
            scores = self.scorer(z.flatten(0, 2))
            found.append(scores.view(len(x), k, B, -1).mean(2))
        return torch.cat(found)

    def _by_layers(self, rows: Tensor, S: Tensor, b: Tensor, n_rows: int) -> Tensor:
        """Return the same through the chain of layers, whose numbers lie as (H, r, k, B)."""
        chain = self.scorer.chain
        assert chain is not None
        known = S.t()  # (F, k)
        k, B, F = len(S), len(b), rows.shape[1]
        rest = chain.first((b.t()[:, None] * (1 - known)[:, :, None]).flatten(1))
        rest = rest.view(-1, 1, k, B)  # (H, 1, k, B), the same for every row
        even = rest.new_full((B,), 1 / B)
        means = []
        for some in rows.split(max(n_rows, OWN // (k * max(F, len(rest))))):
            own = chain.first.weight @ (some.t()[:, :, None] * known[:, None]).flatten(1)
            own = own.view(-1, len(some), k, 1)  # (H, R, k, 1)
            for x in own.split(n_rows, dim=1):
                room = self.rooms.take(0, (len(x), x.shape[1], k, B), like=rest)
                z = torch.add(x, rest, out=room).flatten(1)  # (H, r k B)
                z = chain.body(z, self.rooms)
                means.append(torch.mv(z.reshape(-1, B), even).view(len(z), -1))
        scores = chain.finish(torch.cat(means, dim=1))  # (K, N k)
        return scores.view(-1, len(rows), k).permute(1, 2, 0)

    def _width(self, n_features: int) -> int:
        """Return how many numbers one row of the background takes at the widest."""
        if self.scorer.chain is None:
            return max(self.scorer.width, n_features)
        # inputs are formed for the background alone, once for all rows: they may take more
        return max(self.scorer.chain.width, n_features // 8)


def make(
    where: str,
    scorer: Scorer,
    background: np.ndarray,
    players: list[list[int]],
) -> Game:
    """Set up a game whose players own columns of the rows.

    Args:
        where: the public function that was called, for errors.
        scorer: the model.
        background: rows (B, F) that stand for what is not known.
        players: the columns of each player; columns of no player keep the row's own value.
    """
    owned = torch.zeros(len(players), background.shape[1], dtype=torch.float32)
    for player, columns in enumerate(players):
        owned[player, columns] = 1
    kind = "function" if scorer.width == 0 else scorer.device.type
    return Game(
        where=where,
        scorer=scorer,
        background=scorer.tensor(background),
        players=scorer.tensor(owned.numpy()),
        given=scorer.tensor((1 - owned.sum(0)).numpy()),
        at_once=AT_ONCE.get(kind, AT_ONCE["cpu"]),
    )


def finite(where: str, scores: np.ndarray, *, on: str = "these rows") -> None:
    """Refuse scores that are NaN or infinite.

    Raises:
        ValueError: some score is not finite.
    """
    if not np.isfinite(scores).all():
        n_bad = int((~np.isfinite(scores)).sum())
        raise checks.bad_value(
            where,
            expected=f"finite outputs of the model on {on}",
            got=checks.Described(f"{n_bad} NaN or infinite of {scores.size}"),
            remedy="Look for a log, a root or a division in the model.",
        )
