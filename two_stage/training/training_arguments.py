"""TrainingArguments with this project's defaults, checked before anything is read."""

import copy
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import torch
from torch import nn
from transformers import TrainingArguments
from transformers.trainer_utils import IntervalStrategy, SaveStrategy, SchedulerType
from transformers.training_args import OptimizerNames

from two_stage.checkpointing.hub import check_hub
from two_stage.command_line import launch
from two_stage.command_line.exits import Refusal
from two_stage.command_line.recipe import check_range
from two_stage.command_line.redaction import redacted, redacted_values
from two_stage.training.trackers import check_trackers, keep_local

ArgumentsT = TypeVar("ArgumentsT", bound="ExactTrainingArguments")

LEAST_IS_BEST = ("loss", "error", "error_score", "likelihood", "brier", "perplexity")  # endings of scores' names
WAITING = (SchedulerType.REDUCE_ON_PLATEAU, SchedulerType.GREEDY)  # schedules that go by scores

# Fields of TrainingArguments that these scripts have another way for, or that would break what they promise; at the
# values that they must keep
NO_EFFECT = {
    "restore_callback_states_from_checkpoint": False,  # the same command resumes exactly
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
    "remove_unused_columns": False,
    "bf16_full_eval": False,  # --precision; evaluation would leave a model in half precision
    "fp16_full_eval": False,
    "enable_jit_checkpoint": False,  # a stop is heeded anyway, and a stopped run would look finished
    "ignore_data_skip": False,  # an exact resume
    "dataloader_drop_last": False,  # a training step is always full, and every held-out row is scored
    "dataloader_persistent_workers": False,  # they draw from dropout's generator once, others once an epoch
    "dataloader_in_order": True,
    "save_on_each_node": False,  # machines share the folder, in which the first process alone writes
    "use_liger_kernel": False,  # has no kernel for BERT
}
# Of --accelerator_config what would cut the step, or the rows that are scored, otherwise; at the values to keep
SETTLED = {"split_batches": False, "dispatch_batches": None, "even_batches": True, "num_steps": None}


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
    report_to: list[str] = field(
        default_factory=lambda: ["none"], metadata={"help": "trackers: tensorboard, trackio, wandb, mlflow …"}
    )
    push_to_hub: bool = field(default=False, metadata={"help": "upload the finished folder once, at the end"})
    resume_anyway: bool = field(
        default=False,
        metadata={"help": "go on with a run that was cut off although settings, files or its optimizer changed"},
    )
    takes_no_effect: ClassVar[dict[str, Any]] = NO_EFFECT

    def __post_init__(self) -> None:
        """Let the precision follow the device, then let transformers check the rest.

        Raises:
            Refusal: half precision asked for on a CPU, which emulates it hundreds of times slower or runs no faster;
                FSDP without a GPU; a field of TrainingArguments that would do nothing here; a tracker that is not
                installed; a Hub that cannot be written to.
        """
        self.check_numbers()
        if self.save_strategy == SaveStrategy.BEST:  # by what transformers takes for the other ways to keep the best
            self.metric_for_best_model = vars(self)["metric_for_best_model"] or "loss"
        if self.metric_for_best_model and getattr(self, "greater_is_better", None) is None:
            # transformers knows no more than "loss"
            self.greater_is_better = not self.metric_for_best_model.endswith(LEAST_IS_BEST)
        for name, stock in self.takes_no_effect.items():
            if getattr(self, name) != stock:
                raise Refusal(f"--{name} {getattr(self, name)}: does not go with these scripts; leave it out")
        on_gpu = torch.cuda.is_available() and not self.use_cpu
        launch.check_shared_out(on_gpu)
        for name in ("fsdp", "deepspeed"):
            if getattr(self, name):  # which would pass by what is looked at in a launcher's config
                raise Refusal(f"--{name}: is the launcher's; accelerate launch --config_file, see recipes/accelerate")
        if not on_gpu and (self.bf16 or self.fp16 or self.precision in ("bf16", "fp16")):
            raise Refusal("half precision needs a GPU here; leave precision at auto")
        if self.precision != "auto":
            self.bf16, self.fp16 = self.precision == "bf16", self.precision == "fp16"
        elif on_gpu and not self.fp16:
            self.bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        self.dataloader_pin_memory &= on_gpu
        super().__post_init__()
        self.check_accelerator()
        if self.lr_scheduler_type in WAITING:  # for a score to fall, if nobody tells them otherwise
            mode = {"mode": "max" if self.greater_is_better else "min"}
            self.lr_scheduler_kwargs = mode | (vars(self)["lr_scheduler_kwargs"] or {})
        self.check_made()
        self.settle_reports()
        # One process drives one GPU: torch's DataParallel, which Trainer would fall into, has no exact counts.
        self._n_gpu = min(self.n_gpu, 1)

    def check_numbers(self) -> None:
        """Refuse numbers that are out of range, before transformers reckons with them."""
        check_range(self, 0, 1, "layer_decay")
        check_range(self, 1, math.inf, "per_device_train_batch_size", "per_device_eval_batch_size")
        check_range(self, 1, math.inf, "gradient_accumulation_steps", "eval_accumulation_steps")
        check_range(self, 0, 10**6, "num_train_epochs")  # nor infinitely many
        check_range(self, 0, math.inf, "freeze_layers", "max_grad_norm", "warmup_steps", "dataloader_num_workers")
        check_range(self, 0, math.inf, "learning_rate", "head_learning_rate", "weight_decay")  # nor nan
        check_range(self, 0, 2**32 - 1, "seed", "data_seed")
        if self.max_steps == 0:  # Trainer would take one
            raise Refusal("--max_steps 0: must be at least 1; leave it out to train --num_train_epochs")

    def check_accelerator(self) -> None:
        """Refuse an --accelerator_config that has a step, or the rows to score, cut otherwise than here."""
        asked = dict(vars(self.accelerator_config))
        asked["num_steps"] = (asked["gradient_accumulation_kwargs"] or {}).get("num_steps")
        for name, stock in SETTLED.items():
            if asked[name] != stock:
                raise Refusal(f"--accelerator_config: {name} would cut the step, or the rows to score; leave it out")

    def check_made(self) -> None:
        """Make the optimizer, its schedule and the compiler's options, as Trainer will once all is read and loaded.

        Raises:
            Refusal: a package is missing, a value is out of range, or an option is missing or there is none such.
        """
        from accelerate.utils import TorchDynamoPlugin  # takes seconds, and --help must not wait
        from transformers import Trainer, get_scheduler

        flag = f"optim {OptimizerNames(self.optim).value}"
        try:
            make, options = Trainer.get_optimizer_cls_and_kwargs(self)
            optimizer = make([nn.Parameter()], **options)
            flag = f"lr_scheduler_type {self.lr_scheduler_type.value}"
            options = dict(vars(self)["lr_scheduler_kwargs"] or {})
            get_scheduler(self.lr_scheduler_type, optimizer, 0, 1000, options)
            flag = f"torch_compile_backend {self.torch_compile_backend}"
            TorchDynamoPlugin(backend=self.torch_compile_backend, mode=self.torch_compile_mode)
        except (ImportError, TypeError, ValueError) as error:
            hint = "; see --lr_scheduler_kwargs" if flag.startswith("lr") else ""
            raise Refusal(f"--{flag}: {' '.join(str(error).split())}{hint}") from error

    def settle_reports(self) -> None:
        """Look at trackers and Hub before anything is read, and give the run a name without secrets."""
        trackers = [name for name in self.report_to or [] if name != "kubeflow"]  # which transformers adds by itself
        check_trackers(trackers)
        keep_local(trackers, self.output_dir)
        if trackers:  # by which a tracker knows a run that is gone on with
            self.run_name = redacted(vars(self)["run_name"] or Path(self.output_dir).resolve().name)
        if self.push_to_hub:
            check_hub(self)

    def check_best_model(self, scores: Iterable[str] | None) -> None:
        """Refuse what goes by a score that evaluation does not give, before anything is trained.

        Args:
            scores: what evaluation gives, without "eval_"; None where nothing is held out.

        Raises:
            Refusal: nothing is held out, or it is not scored on the way, or --metric_for_best_model is none of its
                scores.
        """
        keeps_best, waits = self.save_strategy == SaveStrategy.BEST, self.lr_scheduler_type in WAITING
        if scores is None:
            flags = {"load_best_model_at_end": self.load_best_model_at_end, "save_strategy best": keeps_best}
            flags[f"lr_scheduler_type {self.lr_scheduler_type.value}"] = waits
            for flag in [flag for flag, is_set in flags.items() if is_set]:
                raise Refusal(f"--{flag}: needs a --validation_file")
            return
        if keeps_best and self.eval_strategy == IntervalStrategy.NO:
            raise Refusal("--save_strategy best: needs an --eval_strategy; nothing is scored on the way")
        name, known = (self.metric_for_best_model or "loss").removeprefix("eval_"), ["loss", *scores]
        if name not in known:
            raise Refusal(f"--metric_for_best_model {name}: is none of {', '.join(dict.fromkeys(known))}")

    def to_dict(self) -> dict[str, Any]:
        """All fields, as trackers write them down: without secrets."""
        return redacted_values(super().to_dict())

    @property
    def resolved_precision(self) -> str:
        """What `auto` came to on this machine."""
        return "bf16" if self.bf16 else "fp16" if self.fp16 else "fp32"

    @property
    def draw_seed(self) -> int:
        """What draws the order of rows, and stage one's pairs and masks; dropout and new heads have the seed itself."""
        return self.seed if self.data_seed is None else self.data_seed

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


def arguments_aside(training: ArgumentsT, steps: int) -> ArgumentsT:
    """The run's arguments for some steps that are not part of it: nothing is saved, scored or reported."""
    arguments = copy.copy(training)
    arguments.max_steps, arguments.save_strategy, arguments.report_to = steps, SaveStrategy.NO, []
    arguments.eval_on_start = arguments.load_best_model_at_end = arguments.push_to_hub = False
    arguments.logging_steps = max(1, steps // 5)
    return arguments
