"""The sizes that a GPT can have."""

from kit.base import checks


def check_shape(shape: dict[str, int], head: int | None) -> None:
    """Refuse sizes below 1, and those that do not divide one another.

    Args:
        shape: sizes by their names in `models.GPT`.
        head: width of a head; None is the width by the heads.
    """
    width, heads, groups = (max(1, shape[name]) for name in ("width", "heads", "groups"))
    whole = head is not None or width % heads == 0
    rules = [
        *((f"{name} >= 1", size >= 1, size) for name, size in shape.items()),
        (f"heads that divide the width of {width}", whole, heads),
        ("heads of even width", (head or width // heads) % 2 == 0, head or width // heads),
        (f"groups that divide the heads of {heads}", heads % groups == 0, groups),
    ]
    for expected, holds, got in rules:
        if not holds:
            remedy = "Pass GPT(depth=4), which sets the rest, or sizes that fit."
            raise checks.bad_value("models.GPT", expected=expected, got=got, remedy=remedy)
