"""ExactTrainer: the same loss, gradient and scores whatever per-device batch × accumulation × process count.

Stock Trainer takes every BERT head for one that divides its loss by the items of the whole step, which none does, so
that the loss and its gradient grow with accumulation steps and with processes (huggingface/transformers#47688).
Here the loss is a sum over items divided by the items of the whole global step, and every draw that decides what a
step sees (the order of rows, the masks) is keyed by (seed, epoch, row), never by a worker, a process or a batch.
"""

import copy
import math
import resource
import time
from collections.abc import Iterator, Sized
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np
import torch
from accelerate.utils import gather_object
from datasets import Dataset
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, Sampler
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState, PrinterCallback
from transformers.trainer_utils import IntervalStrategy, SaveStrategy

from two_stage.recipe import Refusal, check_range, say

ArgumentsT = TypeVar("ArgumentsT", bound="ExactTrainingArguments")
TIMED_STEPS = 6  # the first warms up and has no time
POOL_STEPS = 50  # rows are sorted by length within pools of 50 steps: little padding, and still a random order

LEAST_IS_BEST = ("loss", "error", "error_score", "likelihood", "brier", "perplexity")  # endings of scores' names

# Fields of TrainingArguments that these scripts have another way for, at their stock values
NO_EFFECT = {
    "do_train": False,  # the file given is the switch
    "do_eval": False,
    "do_predict": False,
    "resume_from_checkpoint": None,  # the same command resumes
    "train_sampling_strategy": "random",  # EpochSampler
    "label_smoothing_factor": 0.0,
    "batch_eval_metrics": False,
    "prediction_loss_only": False,
    "auto_find_batch_size": False,
    "eval_do_concat_batches": True,
}


@dataclass
class ExactTrainingArguments(TrainingArguments):
    """TrainingArguments with this project's defaults, which every script refines."""

    bf16: bool = field(default=False, metadata={"help": "use --precision instead"})
    fp16: bool = field(default=False, metadata={"help": "use --precision instead"})
    precision: Literal["auto", "fp32", "bf16", "fp16"] = field(
        default="auto", metadata={"help": "auto: bf16 on a GPU that computes in it, else fp32"}
    )
    head_learning_rate: float | None = field(
        default=None, metadata={"help": "of everything outside the encoder; default: learning_rate"}
    )
    layer_decay: float = field(
        default=1.0, metadata={"help": "each layer's rate over that of the layer above it; 0.95 spares the lower ones"}
    )
    freeze_layers: int = field(default=0, metadata={"help": "the embeddings and so many layers stay as they are"})
    weight_decay: float = field(default=0.01, metadata={"help": "on weights only, not on LayerNorm and biases"})
    warmup_steps: float = field(default=0.1, metadata={"help": "steps, or below 1 the share of all steps"})
    logging_nan_inf_filter: bool = field(default=False, metadata={"help": "stock True shows 0.0 for a NaN loss"})
    remove_unused_columns: bool = field(default=False, metadata={"help": "the data sets hold what the model takes"})
    include_num_input_tokens_seen: str = field(
        default="non_padding", metadata={"help": "count tokens for train_tokens_per_second"}
    )
    ddp_timeout: int = field(default=24 * 3600, metadata={"help": "seconds; others wait while one reads a corpus"})
    ddp_find_unused_parameters: bool | None = field(default=False, metadata={"help": "every parameter is used"})
    takes_no_effect: ClassVar[dict[str, Any]] = NO_EFFECT

    def __post_init__(self) -> None:
        """Let the precision follow the device, then let transformers check the rest.

        Raises:
            Refusal: half precision asked for on a CPU, which emulates it hundreds of times slower or runs no faster;
                a field of TrainingArguments that would do nothing here.
        """
        check_range(self, 0, 1, "layer_decay")
        check_range(self, 1, math.inf, "per_device_train_batch_size", "per_device_eval_batch_size")
        check_range(self, 1, math.inf, "gradient_accumulation_steps")
        check_range(self, 0, math.inf, "freeze_layers")
        check_range(self, 0, 2**32 - 1, "seed", "data_seed")
        if self.metric_for_best_model and getattr(self, "greater_is_better", None) is None:
            # transformers knows no more than "loss"
            self.greater_is_better = not self.metric_for_best_model.endswith(LEAST_IS_BEST)
        for name, stock in self.takes_no_effect.items():
            if getattr(self, name) != stock:
                raise Refusal(f"--{name} {getattr(self, name)}: has no effect in these scripts; leave it out")
        on_gpu = torch.cuda.is_available() and not self.use_cpu
        if not on_gpu and (self.bf16 or self.fp16 or self.precision in ("bf16", "fp16")):
            raise Refusal("half precision needs a GPU here; leave precision at auto")
        if self.precision != "auto":
            self.bf16, self.fp16 = self.precision == "bf16", self.precision == "fp16"
        elif on_gpu and not self.fp16:
            self.bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        self.dataloader_pin_memory &= on_gpu
        super().__post_init__()
        # One process drives one GPU: torch's DataParallel, which Trainer would fall into, has no exact counts.
        self._n_gpu = min(self.n_gpu, 1)

    def check_metric(self, scores: list[str]) -> None:
        """Refuse a --metric_for_best_model that evaluation does not give, before anything is trained."""
        name = (self.metric_for_best_model or "loss").removeprefix("eval_")
        if name not in scores:
            raise Refusal(f"--metric_for_best_model {name}: is none of {', '.join(scores)}")

    @property
    def rows_a_step(self) -> int:
        """Rows that one optimizer step sees, over accumulation and all processes."""
        return self.train_batch_size * self.gradient_accumulation_steps * self.world_size


@dataclass
class FineTuningArguments(ExactTrainingArguments):
    """Stage two's defaults: the middle of the ranges of Devlin et al. 2019, appendix A.3, and a faster head."""

    learning_rate: float = field(default=2e-5, metadata={"help": "of the encoder"})
    head_learning_rate: float | None = field(default=5e-5, metadata={"help": "of the head, which starts from nothing"})
    per_device_train_batch_size: int = field(default=16, metadata={"help": "rows a process and forward pass"})
    per_device_eval_batch_size: int = field(default=64, metadata={"help": "rows a process"})
    num_train_epochs: float = field(default=4.0, metadata={"help": "passes over the labelled rows"})
    logging_steps: float = field(default=10, metadata={"help": "steps between two lines of the learning curve"})
    eval_strategy: str = field(default="epoch", metadata={"help": "when to score the validation rows"})
    save_strategy: str = field(default="epoch", metadata={"help": "when to save a checkpoint to resume from"})
    save_total_limit: int | None = field(default=1, metadata={"help": "checkpoints to keep"})
    label_smoothing_factor: float = field(
        default=0.0, metadata={"help": "share of each target that is spread over all labels"}
    )
    unfreeze_epochs: float = field(
        default=0.0, metadata={"help": "the head learns first, and layer after layer joins from the top over so many"}
    )
    freeze_encoder: bool = field(
        default=False, metadata={"help": "the encoder and its pooler stay as they are, and the head alone learns"}
    )
    min_steps: int = field(
        default=0, metadata={"help": "train at least so many steps: few rows are gone over more often an epoch"}
    )
    takes_no_effect: ClassVar[dict[str, Any]] = {k: v for k, v in NO_EFFECT.items() if k != "label_smoothing_factor"}

    def __post_init__(self) -> None:
        """Check the ranges of stage two's own fields, then what every script's are."""
        check_range(self, 0, math.inf, "unfreeze_epochs", "min_steps")
        check_range(self, 0, 1, "label_smoothing_factor")
        if self.max_steps <= 0 and 0 < self.num_train_epochs <= self.unfreeze_epochs:
            raise Refusal(
                f"--unfreeze_epochs {self.unfreeze_epochs:g}: the embeddings would never learn in "
                f"--num_train_epochs {self.num_train_epochs:g}; to keep them as they are, --freeze_layers"
            )
        for name in ("freeze_layers", "unfreeze_epochs"):
            if self.freeze_encoder and getattr(self, name):
                raise Refusal(f"--freeze_encoder and --{name}: no layer learns at all, so give one or the other")
        if self.min_steps and self.max_steps > 0:
            raise Refusal("--min_steps and --max_steps: give one or the other")
        super().__post_init__()


def planned_steps(rows: int, training: ExactTrainingArguments) -> int:
    """Optimizer steps of a whole run over so many rows an epoch."""
    steps_an_epoch = -(-rows // training.rows_a_step)
    return training.max_steps if training.max_steps > 0 else math.ceil(training.num_train_epochs * steps_an_epoch)


def repeated_rows(rows: Dataset, training: FineTuningArguments) -> Dataset:
    """The rows of an epoch: each once, or as often as --min_steps asks for, which is said.

    On few rows, runs of the usual epochs end before they have learned, and differ by luck (Mosbach et al. 2021, On the
    stability of fine-tuning BERT, section 6). All that goes by epochs or by shares of the run keeps its meaning.

    Args:
        rows: to train on.
        training: its num_train_epochs over what is returned make min_steps optimizer steps at least.

    Returns:
        `rows` itself where they are enough; else whole copies of it, one behind the other, by number alone.
    """
    if training.num_train_epochs <= 0 or planned_steps(len(rows), training) >= training.min_steps:
        return rows
    copies = next(n for n in count(2) if planned_steps(n * len(rows), training) >= training.min_steps)
    steps = planned_steps(copies * len(rows), training)
    say(f"--min_steps {training.min_steps}: an epoch goes over the rows {copies:,} times, which makes {steps:,} steps")
    return rows.select(np.tile(np.arange(len(rows)), copies))


class EpochSampler(Sampler[int]):
    """The order of one epoch's rows: shuffled by (seed, epoch), rows of like length in one step.

    The order knows only the rows of a whole global step, not how they are cut into batches, so every way to cut them
    sees the same rows in the same step. The last step is filled up with rows from the epoch's start.
    """

    def __init__(self, dataset: Sized, step_rows: int, seed: int) -> None:
        self.dataset, self.step_rows, self.seed, self.epoch = dataset, step_rows, seed, 0

    def __len__(self) -> int:
        return -(-len(self.dataset) // self.step_rows) * self.step_rows

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng([self.seed, self.epoch])
        yield from grouped_order(row_lengths(self.dataset), self.step_rows, rng).tolist()


def grouped_order(lengths: np.ndarray, step_rows: int, rng: np.random.Generator) -> np.ndarray:
    """A random order of rows in which those of a step are of like length.

    Args:
        lengths: tokens of each row: int (rows,).
        step_rows: rows of one step.
        rng: of the order.

    Returns:
        Row numbers: int (steps × step_rows,); the last step is filled up with rows from the order's start.
    """
    steps = -(-len(lengths) // step_rows)
    order = np.resize(rng.permutation(len(lengths)), steps * step_rows)
    pool = np.arange(len(order)) // (POOL_STEPS * step_rows)
    order = order[np.lexsort((-lengths[order], pool))]  # by pool, and longest first within it
    return rng.permutation(order.reshape(-1, step_rows)).ravel()


def stream_positions(checkpoint: str) -> dict[str, list[int]]:
    """Where each lane of a streamed data set stood when `checkpoint` was saved.

    Raises:
        Refusal: the checkpoint is of a run that did not stream.
    """
    state = TrainerState.load_from_json(str(Path(checkpoint) / "trainer_state.json"))
    kept = state.stateful_callbacks.get("StreamCallback")
    if kept is None:
        raise Refusal(f"{checkpoint}: does not say where its stream stood; give another --output_dir")
    return kept["attributes"]["positions"]


def row_lengths(dataset: Any) -> np.ndarray:
    """The number of tokens of each row, without reading the tokens."""
    if hasattr(dataset, "lengths"):
        return np.asarray(dataset.lengths)
    import pyarrow.compute

    table = dataset.select_columns("input_ids").with_format("arrow")[:]
    return pyarrow.compute.list_value_length(table["input_ids"]).to_numpy()


class ExactCallback(TrainerCallback):
    """Tells the sampler and the data set which epoch begins, and keeps the logged losses true."""

    def __init__(self, trainer: "ExactTrainer") -> None:
        self.trainer = trainer

    def on_epoch_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Set the epoch; accelerate's own `set_epoch` does not reach the sampler after a resume in mid-epoch."""
        if self.trainer.is_streaming:
            return  # a stream keeps its own place
        epoch = int((state.epoch or 0) + 1e-6)
        self.trainer.sampler.epoch = epoch
        if hasattr(self.trainer.train_dataset, "set_epoch"):
            self.trainer.train_dataset.set_epoch(epoch)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Log the last step: what Trainer adds to train_loss after it is one process's share, not the mean."""
        if state.global_step >= state.max_steps:
            control.should_log = True

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **logged: Any) -> None:
        """Stop where a logged loss is no number any more, rather than finish with what is left of the model."""
        loss = logged["logs"].get("loss", 0.0)
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"the loss is {loss} by step {state.global_step}; a checkpoint saved since the last logged loss "
                f"may be broken too; try a lower --learning_rate than {args.learning_rate:g}, or --precision fp32"
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


class StreamCallback(TrainerCallback, ExportableState):
    """Keeps in trainer_state.json where each lane of a streamed data set stands, over all processes."""

    def __init__(self, trainer: "ExactTrainer | None" = None, positions: dict[str, list[int]] | None = None) -> None:
        self.trainer, self.positions = trainer, positions or {}

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Gather the places before a checkpoint is saved; every process comes here alike."""
        if control.should_save and self.trainer is not None:
            gathered = gather_object([self.trainer.stream_positions])
            self.positions = {lane: place for one in gathered for lane, place in one.items()}

    on_epoch_end = on_step_end

    def state(self) -> dict[str, Any]:
        """What trainer_state.json keeps."""
        return {"args": {}, "attributes": {"positions": self.positions}}


class ExactTrainer(Trainer):
    """Trainer whose loss is a sum over items divided by the items of the whole global step.

    A subclass says what an item is (`count_items`), what a batch's loss is (`compute_loss`, which divides sums by
    `self.step_mean`), and what evaluation keeps of a row (`row_results`).
    """

    # compute_loss already divides by the items of the whole step: Trainer must not divide by accumulation steps again
    loss_is_scaled_for_ga = True
    sampler: EpochSampler
    optimizer: torch.optim.Optimizer | None

    def __init__(self, args: ExactTrainingArguments, eval_dataset: Any = None, **kwargs: Any) -> None:
        if eval_dataset is None or not len(eval_dataset):
            args.eval_strategy, args.eval_on_start, eval_dataset = IntervalStrategy.NO, False, None
        freeze_layers(kwargs["model"], args.freeze_layers)
        if isinstance(args, FineTuningArguments) and args.freeze_encoder:
            kwargs["model"].bert.requires_grad_(False)
        unfreezes = isinstance(args, FineTuningArguments) and args.unfreeze_epochs > 0
        args.ddp_find_unused_parameters = unfreezes or args.ddp_find_unused_parameters
        super().__init__(args=args, eval_dataset=eval_dataset, **kwargs)
        self.add_callback(ExactCallback(self))
        if unfreezes:
            self.add_callback(UnfreezingCallback(self.model, args))
        self.is_streaming = isinstance(self.train_dataset, IterableDataset)
        self.evaluation_seconds = 0.0
        self.stream_positions: dict[str, list[int]] = {}  # lane → where it stands, of this process's lanes
        if self.is_streaming:
            args.ignore_data_skip = True  # the stream goes on from its own place, and nothing is read twice
            self.add_callback(StreamCallback(self))

    def train_and_evaluate(self, checkpoint: str | None = None) -> dict[str, float]:
        """Train if there are rows to train on, and score the validation rows, once more only if need be.

        Args:
            checkpoint: the folder to resume from; None starts anew.

        Returns:
            train_…: loss, seconds, rows and tokens (without padding) a second, and `train_tokens`, all of them over
            all processes; eval_…: see `compute_metrics`.
        """
        scores: dict[str, float] = {}
        if checkpoint and self.is_trained(checkpoint):
            self._load_from_checkpoint(checkpoint)
            if self.args.load_best_model_at_end and self.state.best_model_checkpoint:
                self._load_best_model()
        elif self.train_dataset is not None:
            if checkpoint and self.is_streaming:
                self.stream_positions = self.train_dataset.go_on_from(stream_positions(checkpoint))
            say(spoken_groups(parameter_groups(self.model, set(self.get_decay_parameter_names(self.model)), self.args)))
            scores = self.train(resume_from_checkpoint=checkpoint).metrics
            tokens = self.state.num_input_tokens_seen - self._initial_num_input_tokens_seen
            scores["train_tokens_per_second"] = tokens / max(scores["train_runtime"] - self.evaluation_seconds, 1e-9)
        if self.train_dataset is not None and self.args.include_num_input_tokens_seen == "non_padding":
            scores["train_tokens"] = self.state.num_input_tokens_seen  # of the whole run, also where it was cut off
        if self.eval_dataset is not None:
            last = self.state.log_history[-2] if len(self.state.log_history) > 1 else {}
            is_current = "eval_loss" in last and last["step"] == self.state.global_step
            evaluated = last if is_current and not self.args.load_best_model_at_end else self.evaluate()
            scores |= {name: value for name, value in evaluated.items() if name.startswith("eval_")}
        return scores

    def is_trained(self, checkpoint: str) -> bool:
        """Whether a checkpoint is of the run's last step; Trainer would train one step more from it.

        It then becomes this trainer's state.
        """
        state = TrainerState.load_from_json(str(Path(checkpoint) / "trainer_state.json"))
        if state.global_step < state.max_steps:
            return False
        self.state = state
        return True

    def count_items(self, batch: dict[str, Tensor]) -> Tensor:
        """How many items of each kind a batch's loss is a mean over: shape (kinds,)."""
        raise NotImplementedError("a subclass says what its loss counts")

    def row_results(self, model: nn.Module, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """What `compute_metrics` gets of each row of a batch as `predictions` and `label_ids`: (rows, …) each.

        A second axis may differ between batches; the shorter ones are filled up with -100.
        """
        raise NotImplementedError("a subclass says what its scores are made of")

    def get_batch_samples(
        self, epoch_iterator: Iterator[dict[str, Tensor]], num_batches: int, device: torch.device
    ) -> tuple[list[dict[str, Tensor]], Tensor | None]:
        """The batches of one optimizer step, and its items over all of them and over all processes."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        if not batches:
            return batches, None
        for batch in batches:
            for lane, *place in batch.pop("stream_position", torch.empty(0)).tolist():
                self.stream_positions[str(lane)] = place
        counts = torch.stack([self.count_items(batch) for batch in batches]).sum(0).to(device)
        return batches, self.accelerator.reduce(counts, "sum")

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> None:
        """Trainer's own count of label tokens, which `get_batch_samples` replaces."""

    def step_mean(self, sums: Tensor, items: Tensor) -> Tensor:
        """Turn sums over this batch's items into this batch's share of the mean over the whole step.

        Args:
            sums: shape (kinds,), summed losses of this batch.
            items: shape (kinds,), items of the whole step, which Trainer passes as `num_items_in_batch`.

        Returns:
            A scalar: the kinds' means, added up. It is multiplied by the process count because data-parallel training
            averages the processes' gradients where these shares have to be added.
        """
        return (sums / items.clamp(min=1)).sum() * self.accelerator.num_processes

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[None, Tensor, Tensor]:
        """No loss of a batch, which depends on how rows are batched, but each row's results, gathered in order."""
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            return None, *self.row_results(model, inputs)

    def get_train_dataloader(self) -> DataLoader:
        """The batches of this process; of a stream as it gives them, for it has dealt its rows out already."""
        if not self.is_streaming:
            return super().get_train_dataloader()
        return DataLoader(
            self.train_dataset,
            batch_size=self.args.train_batch_size,
            collate_fn=self.data_collator,
            num_workers=min(1, self.args.dataloader_num_workers),  # a second would read the same rows again
            pin_memory=self.args.dataloader_pin_memory,
            generator=torch.Generator(),  # its draw would else move dropout's
        )

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader:
        """A loader of its own for every data set: with lasting workers Trainer would keep the first one for all."""
        lasting, self.args.dataloader_persistent_workers = self.args.dataloader_persistent_workers, False
        try:
            return super().get_eval_dataloader(eval_dataset)
        finally:
            self.args.dataloader_persistent_workers = lasting

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Score, and keep apart the time that training waits for it."""
        began = time.perf_counter()
        scores = super().evaluate(*args, **kwargs)
        self.evaluation_seconds += time.perf_counter() - began if self.is_in_train else 0.0
        return scores

    def _get_train_sampler(self, train_dataset: Any = None) -> EpochSampler:
        """One order of rows for every way to cut a step into batches."""
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        self.sampler = EpochSampler(self.train_dataset, self.args.rows_a_step, seed)
        return self.sampler

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """AdamW over the encoder's and the head's parameters, each at its own learning rate, under one schedule."""
        if self.optimizer is None:
            model = self.model if model is None else model
            decayed = set(self.get_decay_parameter_names(model))
            groups = parameter_groups(model, decayed, self.args)
            optimizer, options = self.get_optimizer_cls_and_kwargs(self.args, model)
            self.optimizer = optimizer(groups, **options)
        return self.optimizer

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """Save without training_args.bin, which is a pickle; recipe.yaml says the same in the open."""
        super()._save(output_dir, state_dict)
        if self.args.should_save:
            (Path(output_dir or self.args.output_dir) / "training_args.bin").unlink(missing_ok=True)


def arguments_aside(training: ArgumentsT, steps: int) -> ArgumentsT:
    """The run's arguments for some steps that are not part of it: nothing is saved, scored or reported."""
    arguments = copy.copy(training)
    arguments.max_steps, arguments.save_strategy, arguments.report_to = steps, SaveStrategy.NO, []
    arguments.eval_on_start = arguments.load_best_model_at_end = arguments.push_to_hub = False
    arguments.logging_steps = max(1, steps // 5)
    return arguments


class StepTimer(TrainerCallback):
    """Notes when each step ends."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Wait for the device, then look at the clock."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.ends.append(time.perf_counter())


def time_steps(
    trainer_class: type["ExactTrainer"], model: nn.Module, training: ExactTrainingArguments, **parts: Any
) -> dict[str, float]:
    """The time and memory that a step takes here, measured on a few; they spoil `model`.

    Args:
        trainer_class: whose steps.
        model: to be thrown away.
        training: the run's arguments.
        parts: what the trainer is given besides.

    Returns:
        seconds_a_step, the median; memory_gb, the peak of this process in 10^9 bytes: of its GPU, if it has one, else
        of all that it holds.
    """
    timer = StepTimer()
    arguments = arguments_aside(training, TIMED_STEPS)
    arguments.disable_tqdm, arguments.logging_strategy = True, IntervalStrategy.NO
    with TemporaryDirectory() as arguments.output_dir:
        trainer = trainer_class(model=model, args=arguments, callbacks=[timer], **parts)
        trainer.remove_callback(PrinterCallback)  # it would print the run's last line of figures
        trainer.train()
    on_gpu = torch.cuda.is_available() and not training.use_cpu
    peak = torch.cuda.max_memory_allocated() if on_gpu else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"seconds_a_step": float(np.median(np.diff(timer.ends))), "memory_gb": peak / 1e9}


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


def pad_rows(rows: list[dict[str, Any]], padding: dict[str, int], fixed: tuple[str, ...] = ()) -> dict[str, Tensor]:
    """Stack rows into a batch as long as its longest row.

    Args:
        rows: each maps a name to a list or tensor of that row's tokens, or, for names in `fixed`, to one number or to a
            list as long in every row.
        padding: for each token-long name the value that fills it up.
        fixed: names of one number a row, or of so many.

    Returns:
        Tensors of shape (rows, longest), `attention_mask` among them, and (rows,) or (rows, so many) for the names in
        `fixed`.
    """
    batch = {
        name: nn.utils.rnn.pad_sequence(
            [torch.as_tensor(row[name], dtype=torch.long) for row in rows], batch_first=True, padding_value=value
        )
        for name, value in padding.items()
    }
    lengths = torch.tensor([len(row["input_ids"]) for row in rows])
    batch["attention_mask"] = (torch.arange(int(lengths.max())) < lengths[:, None]).long()
    return batch | {name: torch.tensor([row[name] for row in rows]) for name in fixed}
