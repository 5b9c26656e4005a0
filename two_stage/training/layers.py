"""Which part of a model learns, from when on, and at which rate."""

from typing import Any

from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from two_stage.command_line.exits import Refusal
from two_stage.training.training_arguments import ExactTrainingArguments, FineTuningArguments


def freeze_layers(model: nn.Module, count: int) -> None:
    """Keep the embeddings and the first `count` layers of `model.bert` as they are; 0 keeps nothing.

    Raises:
        Refusal: the encoder has fewer layers.
    """
    layers = model.bert.encoder.layer
    check_freezing(count, len(layers))
    for part in [model.bert.embeddings, *layers[:count]] if count else []:
        part.requires_grad_(False)


def check_freezing(count: int, layers: int) -> None:
    """Refuse to freeze more layers than there are."""
    if count > layers:
        raise Refusal(f"--freeze_layers {count}: the encoder has {layers} layers")


def check_unfreezing(rows: int, training: FineTuningArguments) -> None:
    """Refuse a --max_steps that ends before the last part has joined.

    Args:
        rows: of an epoch.
        training: of the run.
    """
    epochs = training.max_steps * training.rows_a_step / max(rows, 1)
    if 0 < epochs <= training.unfreeze_epochs:
        raise Refusal(
            f"--unfreeze_epochs {training.unfreeze_epochs:g}: --max_steps {training.max_steps} ends after {epochs:.3g} "
            "epochs, and the embeddings would never learn; to keep them as they are, --freeze_layers"
        )


class UnfreezingCallback(TrainerCallback):
    """Lets the head learn alone, then one more part after the other from the top (Howard and Ruder 2018, section 3.3).

    Their one layer an epoch would take twelve epochs; here the parts join evenly over `unfreeze_epochs`.
    """

    def __init__(self, model: nn.Module, args: "FineTuningArguments") -> None:
        layers = len(model.bert.encoder.layer)
        self.epochs = args.unfreeze_epochs
        self.joins: list[tuple[float, nn.Parameter]] = []  # share of those epochs, and what learns from then on
        for name, parameter in model.named_parameters():
            part, below = encoder_part(name, layers)
            if part != "head" and parameter.requires_grad:
                self.joins.append(((below + 1) / (layers + 1), parameter))

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Open what is due. Data-parallel training is set up with all parts, so it knows those that join later."""
        progress = (state.epoch or 0.0) / self.epochs + 1e-9
        for share, parameter in self.joins:
            parameter.requires_grad_(share <= progress)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Leave the model as it came."""
        for _share, parameter in self.joins:
            parameter.requires_grad_(True)


def parameter_groups(model: nn.Module, decayed: set[str], args: ExactTrainingArguments) -> list[dict[str, Any]]:
    """Every trainable parameter in exactly one group: encoder or head, decayed or not; with a layer_decay, by layer.

    The top layer and the pooler learn at learning_rate, each layer below at layer_decay of the one above it, and the
    embeddings slowest (Howard and Ruder 2018, section 3.1, "discriminative fine-tuning").

    Args:
        model: a BERT with an attribute `bert`; everything outside of it is head.
        decayed: names of the parameters under weight decay.
        args: learning_rate for the encoder; head_learning_rate, or learning_rate where it is None, for the head.

    Returns:
        The groups that are not empty, as a torch optimizer takes them, each with a `name`.
    """
    layers = len(model.bert.encoder.layer)
    head_rate = args.learning_rate if args.head_learning_rate is None else args.head_learning_rate
    groups: dict[str, dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            part, below = encoder_part(name.removeprefix("module."), layers)
            rate = head_rate if part == "head" else args.learning_rate * args.layer_decay**below
            part = "encoder" if part != "head" and args.layer_decay == 1 else part
            decay = name in decayed
            key = part if decay else f"{part}, no decay"
            new: dict[str, Any] = {
                "params": [],
                "lr": rate,
                "weight_decay": args.weight_decay if decay else 0.0,
                "name": key,
            }
            groups.setdefault(key, new)["params"].append(parameter)
    return list(groups.values())


def spoken_groups(groups: list[dict[str, Any]]) -> str:
    """One line that says which part learns at which rate, weights with and without decay together."""
    parts: dict[str, list[float]] = {}  # name → rate, numbers that learn
    for group in groups:
        part = parts.setdefault(group["name"].removesuffix(", no decay"), [group["lr"], 0])
        part[1] += sum(parameter.numel() for parameter in group["params"])
    return "Learning rates: " + ", ".join(f"{name} {rate:.3g} ({count:,})" for name, (rate, count) in parts.items())


def encoder_part(name: str, layers: int) -> tuple[str, int]:
    """Of which part of the model a parameter is, and how many layers lie between it and the top layer."""
    if not name.startswith("bert."):
        return "head", 0
    if name.startswith("bert.embeddings."):
        return "embeddings", layers
    if name.startswith("bert.encoder.layer."):
        layer = int(name.split(".")[3])
        return f"layer {layer}", layers - 1 - layer
    return "pooler", 0
