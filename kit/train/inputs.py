"""What `fit` and `fit_language` ask of their inputs, checked before a step is taken."""

import math
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Shaped, UInt8
from torch import Tensor, nn

from kit.base import checks
from kit.train import optimizers, processes

PRECISIONS = ("auto", "float32", "bfloat16")
BYTES = 256
BLOCKS, BLOCK = 64, 4096  # bytes of a text that are read to tell it by: 256 KiB


def check_rows(where: str, inputs: Any, targets: Any) -> None:
    """Refuse what is no tensor, no rows, or another number of targets."""
    for given in (inputs, targets):
        if not isinstance(given, Tensor):
            raise checks.bad_type(
                where,
                expected="tensors",
                got=checks.Described(type(given).__name__),
                remedy="Encode the table first: encoder.X(frame), encoder.y(frame).",
            )
    if len(inputs) != len(targets) or len(inputs) == 0:
        raise checks.bad_value(
            where,
            expected="as many targets as rows, at least one",
            got=checks.Described(f"{len(inputs)} rows and {len(targets)} targets"),
            remedy="Pass X and y of the same rows.",
        )


def check_finite(where: str, **tensors: Tensor) -> None:
    """Refuse NaN and infinities: one of them would make every weight NaN."""
    for what, tensor in tensors.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            n_bad = int((~torch.isfinite(tensor)).sum())
            raise checks.bad_value(
                where,
                expected=f"finite {what}",
                got=checks.Described(f"{n_bad} NaN or infinite cells"),
                remedy="Fill the gaps first: data.Encoder does.",
            )


def check_data(where: str, data: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return training and validation rows, or refuse what is no four tensors that fit."""
    if len(data) != 4 or not all(isinstance(each, Tensor) for each in data):
        raise checks.bad_type(
            where,
            expected="data of four tensors",
            got=checks.Described(checks.listed([type(each).__name__ for each in data], most=6)),
            remedy="Pass (X_train, y_train, X_val, y_val).",
        )
    X, y, X_val, y_val = data
    for rows, targets in ((X, y), (X_val, y_val)):
        check_rows(where, rows, targets)
        check_finite(where, inputs=rows, targets=targets)
    return X, y, X_val, y_val


def check_least(where: str, **values: int | None) -> None:
    """Refuse counts below 1."""
    for name, value in values.items():
        if value is not None and value < 1:
            raise checks.bad_value(
                where, expected=f"{name} >= 1", got=value, remedy=f"Pass {name}=10."
            )


def check_settings(
    has_validation: bool,
    patience: int | None,
    clip: float | None,
    precision: str,
    *,
    epochs: int,
    batch: int,
    lr: float,
) -> None:
    """Refuse settings of `fit` that are out of range or do not go together."""
    where = "train.fit"
    check_least(where, epochs=epochs, batch=batch, patience=patience)
    for name, value, such in [("lr", lr, 1e-3), ("clip", clip, 1.0)]:
        if value is not None and not value > 0:  # NaN is not, either
            raise checks.bad_value(
                where, expected=f"{name} > 0", got=value, remedy=f"Pass {name}={such}."
            )
    if patience is not None and not has_validation:
        raise checks.bad_value(
            where,
            expected="validation rows to be patient with",
            got=checks.Described(f"patience={patience} and no validation"),
            remedy="Pass validation=(X_val, y_val).",
        )
    if precision not in PRECISIONS:
        raise checks.unknown_name(where, "precision", got=precision, known=PRECISIONS)


def check_outputs(
    where: str,
    outputs: Shaped[Tensor, "few ..."],
    few: Shaped[Tensor, "few ..."],
    y: Shaped[Tensor, "rows ..."],
) -> None:
    """Refuse a model whose outputs do not fit the targets, before a step is taken.

    Args:
        where: the function that was called.
        outputs: of the model, for a few rows.
        few: the targets of these rows.
        y: all targets.

    Raises:
        ValueError: another number of outputs than targets, or fewer than there are classes.
    """
    if y.dtype == torch.bool or y.dtype.is_floating_point:
        expected, fits = f"{few[0].numel()} output a row", outputs.numel() == few.numel()
    else:
        low, high = int(y.min()), int(y.max())
        expected = f"an output for each class from {low} to {high}"
        fits = low >= 0 and outputs.ndim > 1 and outputs.shape[1] > high
    if not fits:
        raise checks.bad_value(
            where,
            expected=f"{expected}, as the targets of type {y.dtype} ask for",
            got=outputs,
            remedy="Build the model with n_outputs=encoder.n_outputs, or pass loss=….",
        )


def check_parallel(model: nn.Module, *, where: str = "train.fit", sharded: bool = False) -> None:
    """Refuse a bare model under torchrun: each process would train one of its own.

    Args:
        model: that is to be trained.
        where: the function that was called.
        sharded: whether that function can train what fully_shard has parted.
    """
    is_ddp = isinstance(model, nn.parallel.DistributedDataParallel)
    if processes.world() == 1 or is_ddp or (sharded and processes.is_shared(model)):
        return
    remedy = "Wrap it: torch.nn.parallel.DistributedDataParallel(model)."
    if sharded:
        remedy = f"{remedy[:-1]}, or part it: torch.distributed.fsdp.fully_shard(model)."
    raise checks.bad_value(
        where,
        expected=f"a model that its {processes.world()} processes share",
        got=checks.Described(type(model).__name__),
        remedy=remedy,
    )


def check_language(where: str, settings: Mapping[str, Any], accumulate: int) -> None:
    """Refuse settings of `fit_language` that are out of range or do not go together."""
    for name, known in (("optimizer", optimizers.NAMES), ("precision", PRECISIONS)):
        if settings[name] not in known:
            raise checks.unknown_name(where, name, got=settings[name], known=known)
    lr, weight_decay, clip = (settings[name] for name in ("lr", "weight_decay", "clip"))
    slopes = settings["warmup"], settings["decay"]
    n, shares = processes.world(), processes.world() * accumulate
    # NaN is in none of these ranges
    rules = [
        ("a finite lr > 0", 0 < lr < math.inf, lr, "Pass lr=3e-3."),
        (
            "a finite weight_decay >= 0",
            0 <= weight_decay < math.inf,
            weight_decay,
            "Pass weight_decay=0.1.",
        ),
        ("clip > 0, or None", clip is None or clip > 0, clip, "Pass clip=1.0."),
        (
            "warmup and decay from 0 to 1",
            all(0 <= slope <= 1 for slope in slopes),
            slopes,
            "Pass warmup=0.05, decay=0.5.",
        ),
        (
            f"a batch that {n} processes with {accumulate} parts each can share",
            settings["batch"] % shares == 0,
            settings["batch"],
            f"Pass batch={shares}, or a multiple.",
        ),
    ]
    for expected, holds, got, remedy in rules:
        if not holds:
            raise checks.bad_value(where, expected=expected, got=got, remedy=remedy)


def check_reader(where: str, model: nn.Module) -> None:
    """Refuse a model that does not say how long a text it reads, or has nothing to train."""
    inner = processes.inner(model)
    if not hasattr(inner, "context"):
        raise checks.bad_type(
            where,
            expected="a model with a `context`, the longest text that it reads",
            got=checks.Described(type(inner).__name__),
            remedy="Pass models.GPT(depth=4), or set model.context=256.",
        )
    if not any(weight.requires_grad for weight in model.parameters()):
        raise checks.bad_value(
            where,
            expected="weights to train",
            got=checks.Described("none that wants a gradient"),
            remedy="Thaw the model: model.requires_grad_(True).",
        )


def check_texts(where: str, texts: Sequence[Any], model: nn.Module) -> None:
    """Refuse what is no row of bytes, and bytes beyond a model's vocabulary."""
    for tokens in texts:
        _check_tokens(where, tokens, getattr(processes.inner(model), "vocabulary", BYTES))


def fingerprints(texts: Sequence[UInt8[np.ndarray, " _"]]) -> list[list[int]]:
    """Return the length of each text and a checksum of 64 blocks spread over it, to tell it by."""
    told = []
    for text in texts:
        checksum = 0
        for start in np.linspace(0, max(0, len(text) - BLOCK), BLOCKS).astype(int):
            checksum = zlib.crc32(text[start : start + BLOCK].tobytes(), checksum)
        told.append([len(text), checksum])
    return told


def fingerprint(tensors: Sequence[Tensor]) -> int:
    """Return a checksum of about 1,000 rows of each tensor, to tell other data by."""
    checksum = 0
    for tensor in tensors:
        some = tensor[:: 1 + len(tensor) // 1000].detach().cpu().contiguous()
        shape = repr((tensor.dtype, tuple(tensor.shape))).encode()
        checksum = zlib.crc32(shape + some.view(torch.uint8).numpy().tobytes(), checksum)
    return checksum


def _check_tokens(where: str, tokens: Any, vocabulary: int) -> None:
    if not (isinstance(tokens, np.ndarray) and tokens.dtype == np.uint8 and tokens.ndim == 1):
        raise checks.bad_type(
            where,
            expected="tokens as a row of bytes (np.uint8)",
            got=tokens,
            remedy="Pass text.corpus(…).train, or np.frombuffer(text.encode(), np.uint8).",
        )
    # only where some bytes are unknown has all of the text to be read
    if vocabulary < BYTES and len(tokens) and tokens.max() >= vocabulary:
        raise checks.bad_value(
            where,
            expected=f"tokens below {vocabulary}, the model's vocabulary",
            got=tokens.max(),
            remedy=f"Build the model with vocabulary={BYTES}.",
        )
