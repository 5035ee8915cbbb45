"""Language models from a file: code-gpt, which ships, and any that was saved with its shape."""

from pathlib import Path

from kit.base import checks, storage
from kit.models.gpt import GPT

WHERE = "models.load_gpt"


def load_gpt(path: str | Path = "") -> GPT:
    """Return a saved GPT in float32, ready to answer; nothing in the file is executed.

    Args:
        path: a file of `python -m kit.train … --out`, or of train.save with
            about={"model": "GPT", "shape": model.shape}; "" is code-gpt, which ships.

    Raises:
        ValueError: the file is missing, damaged or no GPT, or its weights have another shape.

    Example:
        >>> load_gpt().shape["context"]
        256
    """
    path = Path(path or _folder() / "code-gpt.safetensors")
    weights, about = storage.load(path)
    if about.get("model") != "GPT" or not isinstance(about.get("shape"), dict):
        raise checks.bad_value(
            WHERE,
            expected='a GPT saved with about={"model": "GPT", "shape": model.shape}',
            got=path.name,
            remedy="Build the model yourself, and read its weights with train.load.",
        )
    try:
        model = GPT(**about["shape"])
    except TypeError as error:
        raise checks.bad_value(
            WHERE,
            expected="a shape that models.GPT knows",
            got=checks.Described(f"{about['shape']}: {error}"),
            remedy="Save the model anew: about={'shape': model.shape}.",
        ) from None
    own = {name: tuple(weight.shape) for name, weight in model.state_dict().items()}
    saved = {name: tuple(weight.shape) for name, weight in weights.items()}
    odd = sorted(name for name in own.keys() | saved.keys() if own.get(name) != saved.get(name))
    if odd:
        raise checks.bad_value(
            WHERE,
            expected=f"{odd[0]} of shape {own.get(odd[0])}, as the file says",
            got=checks.Described(f"{saved.get(odd[0])} in {path.name}"),
            remedy="Save the model anew: train.save writes weights and shape together.",
        )
    model.load_state_dict(weights)
    return model.eval()


def _folder() -> Path:
    """Return the project's data folder, or say that the kit was installed without it."""
    here = Path(__file__).parents[2] / "data"
    if not here.is_dir():
        raise checks.bad_value(
            WHERE,
            expected="the project's data folder",
            got=str(here),
            remedy="Clone the project and install it from there: pip install -e .",
        )
    return here
