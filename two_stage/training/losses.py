"""What stage two minimises: one loss a row, from logits and a target distribution over ordered labels.

A gold label is a target of one 1 and else 0; annotators' shares are a target as they are. So each loss takes soft
labels too. Weights and means are not here: the rows' weights have mean 1, and a step's sum is divided by its rows.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from two_stage.command_line.exits import Refusal

Loss = Callable[[Tensor, Tensor], Tensor]


def cross_entropy(logits: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy with the target distribution: the field's default, blind to the order of the labels.

    Args:
        logits: float (rows, labels).
        targets: float (rows, labels), each row sums to 1.
        label_smoothing: the share of each target that is spread over all labels alike (Szegedy et al. 2016, section 7).

    Returns:
        Nats: float32 (rows,).
    """
    return F.cross_entropy(logits.float(), targets, label_smoothing=label_smoothing, reduction="none")


def focal(logits: Tensor, targets: Tensor, gamma: float = 2.0) -> Tensor:
    """Cross-entropy in which what is known already counts little: -(1 - p)^gamma log p (Lin et al. 2017, section 3.2).

    Args:
        logits: float (rows, labels).
        targets: float (rows, labels), each row sums to 1.
        gamma: 0 is cross-entropy; at 2, a label given 0.9 counts a hundredth.

    Returns:
        Nats, discounted: float32 (rows,).
    """
    log_shares = F.log_softmax(logits.float(), dim=-1)
    # above 0: the power of a gamma below 1 has no slope there
    rest = (-log_shares.expm1()).clamp(min=torch.finfo(torch.float32).tiny)
    return -(targets * rest**gamma * log_shares).sum(dim=-1)


def ordinal(logits: Tensor, targets: Tensor, fall: float = 1.5) -> Tensor:
    """Cross-entropy with soft ordinal labels (Díaz and Marathe 2019, section 3.1): a near miss is not all wrong.

    The gold shade's neighbours get a share of the target, softmax(-fall × shades away), so that mass beside the gold
    shade costs less than mass far off. It needs no more than the K logits of an ordinary classifier, so the model stays
    loadable as one, where CORAL and CORN (Cao et al. 2020, Shi et al. 2021) have K - 1 outputs that no stock class
    reads; and its gradient does not die where the model is surely wrong, as that of the squared earth mover's distance
    does (Hou et al. 2016), which did no better in benchmarks/README.md.

    Args:
        logits: float (rows, labels), the labels in their order.
        targets: float (rows, labels), each row sums to 1; soft ones are softened further.
        fall: how fast the shares fall; at 1.5, of seven shades an inner one keeps 0.64 and each neighbour gets 0.14.

    Returns:
        Nats: float32 (rows,); the least is the entropy of the softened target, not 0.
    """
    shades = torch.arange(logits.shape[-1], device=logits.device)
    away = (shades[:, None] - shades).abs().float()
    return cross_entropy(logits, targets @ torch.softmax(-fall * away, dim=-1))


def squared_error(logits: Tensor, targets: Tensor) -> Tensor:
    """The squared distance of one predicted number from the score: (rows, 1) and (rows, 1) → float32 (rows,)."""
    return (logits.float() - targets).square().squeeze(-1)


LOSSES = {"cross_entropy": cross_entropy, "focal": focal, "ordinal": ordinal, "regression": squared_error}


def check_focal(name: str, focal_gamma: float | None) -> None:
    """Refuse a --focal_gamma that the chosen loss does not have."""
    if focal_gamma is not None and name != "focal":
        raise Refusal(f"--focal_gamma {focal_gamma}: only --loss focal has it")


def chosen_loss(name: str, label_smoothing: float, focal_gamma: float | None) -> Loss:
    """The loss of the flags: logits and targets (rows, outputs) → (rows,).

    Raises:
        Refusal: label smoothing asked of a loss that has none.
    """
    if label_smoothing and name != "cross_entropy":
        raise Refusal(f"--label_smoothing_factor {label_smoothing}: only --loss cross_entropy has it")
    options: dict[str, dict[str, float]] = {"cross_entropy": {"label_smoothing": label_smoothing}}
    if focal_gamma is not None:
        options["focal"] = {"gamma": focal_gamma}
    return partial(LOSSES[name], **options.get(name, {}))


def class_weights(asked: list[str] | None, labels: int, gold: np.ndarray) -> np.ndarray:
    """How much an item of each label counts: float (labels,), of mean 1 over the items.

    `balanced` gives each label that occurs the same weight in all: items / (labels × items of the label), as
    scikit-learn has it.

    Args:
        asked: --class_weights.
        labels: how many there are.
        gold: the label of every item that is trained on: int (items,).

    Raises:
        Refusal: neither `balanced` nor one positive number a label.
    """
    counts = np.bincount(gold, minlength=labels)
    weights = np.ones(max(labels, 1))
    if asked == ["balanced"]:
        weights = len(gold) / ((counts > 0).sum() * np.maximum(counts, 1))
    elif asked is not None:
        try:
            weights = np.array([float(weight) for weight in asked])
        except ValueError:
            weights = np.zeros(0)
        if len(weights) != labels or not (np.isfinite(weights) & (weights > 0)).all():
            raise Refusal(f"--class_weights: `balanced`, or {labels} numbers above 0, one a label in their order")
    return weights / weights[gold].mean() if len(gold) else weights
