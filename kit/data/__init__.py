"""Tables, from the file to the tensors: read or bundled, split honestly, encoded for a model."""

from kit.data.encode import Encoder
from kit.data.flights import flights
from kit.data.pick import pick
from kit.data.read import Table, read
from kit.data.soil import Soiled, soil
from kit.data.split import Split, split

__all__ = ["Encoder", "Soiled", "Split", "Table", "flights", "pick", "read", "soil", "split"]
