"""Look after models: clean, train, tune, explain, prune, serve and watch them, from notebooks."""

import importlib
from types import ModuleType

__all__ = [
    "augment",
    "base",
    "clean",
    "data",
    "doctor",
    "explain",
    "infer",
    "lesson",
    "models",
    "prune",
    "report",
    "select",
    "show",
    "text",
    "train",
    "tune",
    "widgets",
]
__version__ = "0.1.0"


def __getattr__(name: str) -> ModuleType:
    # modules load on first use: `import kit` stays instant and pulls in neither torch nor pandas
    if name in __all__:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module 'kit' has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted(__all__)
