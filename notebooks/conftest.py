"""Make plain `pytest --nbval notebooks/` run as `make test` does: in batch, without a window."""

import os

os.environ |= {"KIT_QUIET": "1", "MPLBACKEND": "Agg"}
