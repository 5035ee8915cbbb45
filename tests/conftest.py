"""Settings that must hold before anything is imported: no display, no bars, no network."""

import os
import sys
from pathlib import Path

OFFLINE = Path(__file__).parent / "offline"
os.environ |= {"KIT_QUIET": "1", "MPLBACKEND": "Agg"}
if (
    "sitecustomize" not in sys.modules
    or OFFLINE not in Path(sys.modules["sitecustomize"].__file__ or "").parents
):
    # pytest was started by hand: guard this process, and those that it starts
    os.environ["PYTHONPATH"] = os.pathsep.join(
        filter(None, [str(OFFLINE), os.environ.get("PYTHONPATH")])
    )
    sys.modules.pop("sitecustomize", None)
    sys.path.insert(0, str(OFFLINE))
    import sitecustomize  # noqa: F401

import torch  # noqa: E402

# two processes of two threads each on two cores wait for one another: tests are small, one is best
torch.set_num_threads(1)

from hypothesis import settings  # noqa: E402

# on a busy machine a first example, which imports, takes longer than any deadline
settings.register_profile("kit", deadline=None)
settings.load_profile("kit")
