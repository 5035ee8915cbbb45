"""Ask a model about texts of which some units are hidden: masked in place, or really taken out."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from kit.explain import game
from kit.explain.scorer import Scorer
from kit.explain.units import Text

MASKS = ("token", "delete")
TOKENS = {"cpu": 1 << 11, "cuda": 1 << 17}  # in one batch: what a CPU's cache or a GPU holds
HELD = 1 << 22  # tokens of sequences that wait


@dataclass(frozen=True)
class Hider:
    """Scores texts without some of their units; those asked about together have as many."""

    where: str
    ask: Scorer
    texts: list[Text]
    mask: str
    mask_id: int | None
    pad_id: int | None

    def odd(
        self, rows: Int64[np.ndarray, " texts"], members: Bool[np.ndarray, "pairs units"]
    ) -> Float64[np.ndarray, "texts pairs outputs"]:
        """Return half of what each set of units is worth more than all others, for each text."""
        worth = self.worths(rows, np.concatenate([members, ~members]))
        n = len(members)
        return (worth[:, :n] - worth[:, n:]) / 2

    def worths(
        self, rows: Int64[np.ndarray, " texts"], members: Bool[np.ndarray, "sets units"]
    ) -> Float64[np.ndarray, "texts sets outputs"]:
        """Return the scores of each text with these units alone."""
        width = max(len(self.texts[i].ids) for i in rows)
        together = max(1, HELD // (width * len(members)))
        parts = [rows[i : i + together] for i in range(0, len(rows), together)]
        found = np.concatenate([self._worths(part, members, width) for part in parts])
        game.finite(self.where, found, on="texts with units hidden")
        return found

    def _worths(self, rows: np.ndarray, members: np.ndarray, width: int) -> np.ndarray:
        ids = np.full((len(rows), len(members), width), self.pad_id or 0)
        lengths = np.empty(ids.shape[:2], np.int64)
        # one column more, which the -1 of tokens without a unit points to: those are always there
        kept = np.column_stack([members, np.ones(len(members), bool)])
        for place, i in enumerate(rows):
            text = self.texts[i]
            shown = kept[:, text.owner]  # (sets, T)
            if self.mask == "token":
                ids[place, :, : len(text.ids)] = np.where(shown, text.ids, self.mask_id)
                lengths[place] = len(text.ids)
                continue
            n_shown = shown.sum(1)
            ids[place][np.arange(width) < n_shown[:, None]] = text.ids[np.nonzero(shown)[1]]
            # an attention over padding alone is not a number: something has to be there
            ids[place, n_shown == 0, 0] = self.pad_id if self.mask_id is None else self.mask_id
            lengths[place] = np.maximum(n_shown, 1)
        scores = self._score(ids.reshape(-1, width), lengths.ravel())
        return scores.reshape(len(rows), len(members), -1)

    def _score(
        self, ids: Int64[np.ndarray, "sequences width"], lengths: Int64[np.ndarray, " sequences"]
    ) -> Float64[np.ndarray, "sequences outputs"]:
        """Score sequences in batches of like lengths, the longest first."""
        order = np.argsort(-lengths, kind="stable")
        at_once = TOKENS.get(self.ask.device.type, TOKENS["cuda"])
        found, start = [], 0
        while start < len(order):
            length = lengths[order[start]]
            stop = start + max(1, at_once // length)
            if self.pad_id is None:  # then only sequences of one length can go together
                stop = min(stop, np.searchsorted(-lengths[order], -length, side="right"))
            batch = ids[order[start:stop], :length]
            found.append(self.ask.scores(batch, at_once=len(batch)))
            start = stop
        scores = np.concatenate(found)
        return scores[np.argsort(order)]
