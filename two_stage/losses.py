"""What stage two minimises: one loss a row, from logits and a target distribution over ordered labels.

A gold label is a target of one 1 and else 0; annotators' shares are a target as they are. So each loss takes soft
labels too. Weights and means are not here: the rows' weights have mean 1, and a step's sum is divided by its rows.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


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
    return -(targets * (1 - log_shares.exp()).clamp(min=0) ** gamma * log_shares).sum(dim=-1)


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
