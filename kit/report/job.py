"""What was asked for: a notebook and its parameters, apart from what it takes to run it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kit.base import params


@dataclass(frozen=True)
class Job:
    """A notebook with the parameters that were asked for."""

    path: Path
    given: Mapping[str, params.Value]

    @property
    def name(self) -> str:
        """Return the name of the notebook's file, without its ending."""
        return self.path.stem

    def parameters(self) -> dict[str, params.Value]:
        """Return every parameter of the notebook: as given, else its default."""
        return {each.name: each.default for each in params.read(self.path)} | dict(self.given)
