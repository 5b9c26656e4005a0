"""ExactTrainer: the same loss, gradient and scores whatever per-device batch × accumulation × process count.

Stock Trainer takes every BERT head for one that divides its loss by the items of the whole step, which none does, so
that the loss and its gradient grow with accumulation steps and with processes (huggingface/transformers#47688).
Here the loss is a sum over items divided by the items of the whole global step, and every draw that decides what a
step sees (the order of rows, the masks) is keyed by (seed, epoch, row), never by a worker, a process or a batch.
"""

import math
import shutil
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType, gather_object
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState
from transformers.trainer_utils import IntervalStrategy, SaveStrategy

from two_stage.checkpointing.checkpoints import (
    UNFINISHED,
    check_space,
    numbered_checkpoints,
    put_in_place,
    remove_oldest,
    seal,
    told_if_unwritten,
    what_is_wrong,
)
from two_stage.checkpointing.hub import open_repository
from two_stage.checkpointing.runs import told_to_all
from two_stage.command_line.exits import STOPS, Failure, Refusal, Stopped, outlive_one_stop, say
from two_stage.training.batches import EpochSampler
from two_stage.training.cpu_training import keep_freed_memory, use_cpu_dropout
from two_stage.training.layers import UnfreezingCallback, freeze_layers, parameter_groups, spoken_groups
from two_stage.training.trackers import write_into
from two_stage.training.training_arguments import (
    WAITING,
    ExactTrainingArguments,
    FineTuningArguments,
    planned_steps,
)

STOP_BY_OTHERS = 15  # SIGTERM: what another process of the job was asked by
SHOWN_ROWS = 3  # whose places are told
if not hasattr(Trainer, "loss_is_scaled_for_ga"):  # older ones would divide the gradient once more, in silence
    raise ImportError("transformers 5.23 or newer is needed: pip install -r requirements.txt")
DATA_PARALLEL = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)


class ExactCallback(TrainerCallback):
    """Tells the sampler which epoch begins, saves what a resume needs when it is due, and heeds a stop."""

    def __init__(self, trainer: "ExactTrainer") -> None:
        self.trainer = trainer
        self.saves_behind_epoch = False

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Take up the sums behind the logged losses where the run before left them.

        Each process draws its own dropout: all were seeded alike, and would drop the same places of their rows. What
        a resumed run draws is in its checkpoint, which Trainer reads after this.
        """
        if args.process_index:
            torch.manual_seed(args.seed + args.process_index)
        self.trainer.take_up_losses()

    def on_epoch_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Set the epoch; accelerate's own `set_epoch` does not reach the sampler after a resume in mid-epoch."""
        if self.trainer.is_streaming:
            return  # a stream keeps its own place
        # as Trainer counts, and not state.epoch: steps may hold other rows than before, with --resume_anyway
        epoch = state.global_step // max(len(self.trainer.sampler) // self.trainer.args.rows_a_step, 1)
        self.trainer.sampler.epoch = epoch
        if hasattr(self.trainer.train_dataset, "set_epoch"):
            self.trainer.train_dataset.set_epoch(epoch)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Save where a stop was asked for; at an epoch's end behind its evaluation, which no resume would make up for.

        The last step is logged: what Trainer adds to train_loss after it is one process's share, not the mean.
        """
        if self.trainer.is_streaming:
            state.epoch = state.global_step / state.max_steps  # Trainer counts from where it went on
        is_last = state.global_step >= state.max_steps
        control.should_log |= is_last
        control.should_save |= self.trainer.is_asked_to_stop
        self.saves_behind_epoch = control.should_save and (is_last or state.epoch == int(state.epoch or 0))
        control.should_save &= not self.saves_behind_epoch

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Save what waited for the epoch's end."""
        control.should_save |= self.saves_behind_epoch
        self.saves_behind_epoch = False

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """A stop that came meanwhile need not wait for another step."""
        if args.world_size == 1 and state.global_step and self.trainer.is_in_train:
            control.should_save |= self.trainer.is_asked_to_stop

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Stop, with nothing that would look like the end of a run.

        Raises:
            Stopped: as it was asked for.
        """
        if self.trainer.is_asked_to_stop:
            raise Stopped(STOPS.asked or STOP_BY_OTHERS, str(self.trainer.checkpoint_folder))


class ResumeState(TrainerCallback, ExportableState):
    """What an exact resume needs besides Trainer's own, kept in trainer_state.json.

    `positions`: where each lane of a streamed data set stands. `losses`: the sum of losses since the last log, the sum
    of all before, and the step of that log.
    """

    def __init__(self) -> None:
        self.kept: dict[str, Any] = {}

    def state(self) -> dict[str, Any]:
        """What trainer_state.json keeps."""
        return {"args": {}, "attributes": self.kept}

    @classmethod
    def of(cls, checkpoint: str) -> dict[str, Any]:
        """What was kept with a checkpoint; nothing of one that another program wrote."""
        state = TrainerState.load_from_json(str(Path(checkpoint) / "trainer_state.json"))
        return state.stateful_callbacks.get(cls.__name__, {}).get("attributes", {})


class ExactTrainer(Trainer):
    """Trainer whose loss is a sum over items divided by the items of the whole global step.

    A subclass says what an item is (`count_items`), what a batch's loss is (`compute_loss`, which divides sums by
    `self.step_mean`), and what evaluation keeps of a row (`row_results`).
    """

    # compute_loss already divides by the items of the whole step: Trainer must not divide by accumulation steps again
    loss_is_scaled_for_ga = True
    sampler: EpochSampler
    optimizer: torch.optim.Optimizer | None

    def __init__(
        self, args: ExactTrainingArguments, eval_dataset: Any = None, places: Sequence[str] = (), **kwargs: Any
    ) -> None:
        """Make it.

        Args:
            args: the run's.
            eval_dataset: rows to score; without any nothing is scored on the way.
            places: of each training row where it came from, over and over where rows are repeated; for messages.
            kwargs: as Trainer takes them.
        """
        if eval_dataset is None or not len(eval_dataset):
            args.eval_strategy, args.eval_on_start, eval_dataset = IntervalStrategy.NO, False, None
        if args.device.type == "cpu":
            use_cpu_dropout(kwargs["model"])
            keep_freed_memory()
        freeze_layers(kwargs["model"], args.freeze_layers)
        if isinstance(args, FineTuningArguments) and args.freeze_encoder:
            kwargs["model"].bert.requires_grad_(False)
        unfreezes = isinstance(args, FineTuningArguments) and args.unfreeze_epochs > 0
        args.ddp_find_unused_parameters = unfreezes or args.ddp_find_unused_parameters
        super().__init__(args=args, eval_dataset=eval_dataset, **kwargs)
        write_into(self.callback_handler.callbacks, args.output_dir)
        self.exact_callback = ExactCallback(self)
        self.add_callback(self.exact_callback)
        self.resume_state = ResumeState()
        self.add_callback(self.resume_state)
        self.resumed: dict[str, Any] = {}  # a checkpoint's ResumeState
        self.places = places
        self.step_losses: list[Tensor] = []  # of the micro-batches of the step at work
        self.step_batches: list[dict[str, Tensor]] = []
        self.parameter_count: int | None = None
        self.asked_elsewhere = False  # whether another process was asked to stop
        self.saving_in: Path | None = None
        if unfreezes:
            self.add_callback(UnfreezingCallback(self.model, args))
        self.is_streaming = isinstance(self.train_dataset, IterableDataset)
        self.evaluation_seconds = 0.0
        self.stream_positions: dict[str, list[int]] = {}  # lane → where it stands, of this process's lanes
        if self.is_streaming:
            args.ignore_data_skip = True  # the stream goes on from its own place, and nothing is read twice

    def create_accelerator_and_postprocess(self) -> None:
        """Share the DeepSpeed plugin of an earlier trainer, as of heads that learnt first: none is taken twice."""
        plugin = self.args.deepspeed_plugin
        if AcceleratorState._shared_state:  # empty before the first trainer; to make one would fill it
            self.args.deepspeed_plugin = None
        super().create_accelerator_and_postprocess()
        self.args.deepspeed_plugin = plugin

    def _prepare_for_training(self, *args: Any, **kwargs: Any) -> Any:
        """Under FSDP2, share out a tied head's matrix and bias in one group with what they are tied to.

        accelerate would make a group of the embeddings and the head's last layer, as most language models have them;
        BERT's bias is tied as well, to one outside of it, and torch takes no parameter in two groups.
        """
        is_tied = self.is_fsdp_enabled and self.model.get_output_embeddings() is not None
        if is_tied:
            self.model.get_input_embeddings = self.model.get_output_embeddings = lambda: None
        try:
            return super()._prepare_for_training(*args, **kwargs)
        finally:
            if is_tied:
                del self.model.get_input_embeddings, self.model.get_output_embeddings

    def train_and_evaluate(self, checkpoint: str | None = None) -> dict[str, float]:
        """Train if there are rows to train on, and score the validation rows, once more only if need be.

        Args:
            checkpoint: the folder to resume from; None starts anew.

        Returns:
            train_…: loss, seconds, rows and tokens (without padding) a second, and `train_tokens`, all of them over
            all processes; eval_…: see `compute_metrics`.
        """
        scores: dict[str, float] = {}
        counts_tokens = self.args.include_num_input_tokens_seen == "non_padding"
        if checkpoint and self.is_trained(checkpoint):
            self._load_from_checkpoint(checkpoint)
            if self.args.load_best_model_at_end and self.state.best_model_checkpoint:
                self._load_best_model()
            is_last = not self.args.load_best_model_at_end  # whose scores are the last in the log
            if is_last and self.eval_dataset is not None and "eval_loss" in self.state.log_history[-1]:
                self.state.log_history.pop()
                self.evaluate()  # whose rows' results are not in the log
            if losses := ResumeState.of(checkpoint).get("losses"):
                self._total_loss_scalar = sum(losses[:2])
                scores = {"train_loss": math.nan}
                self.log(scores)  # which puts it right
        elif self.train_dataset is not None:
            self.resumed = ResumeState.of(checkpoint) if checkpoint else {}
            self.args.eval_on_start &= not checkpoint
            if checkpoint and self.is_streaming:
                if "positions" not in self.resumed:
                    raise Refusal(f"{checkpoint}: does not say where its stream stood; give another --output_dir")
                self.stream_positions = self.train_dataset.go_on_from(self.resumed["positions"])
            say(spoken_groups(self.asked_groups(self.model)))
            told_to_all(self.check_space)
            with STOPS.heeded_at_step_end() if self.args.save_strategy != SaveStrategy.NO else nullcontext():
                scores = self.train(resume_from_checkpoint=checkpoint).metrics
                self.stop_if_asked()
            tokens = self.state.num_input_tokens_seen - self._initial_num_input_tokens_seen
            seconds = max(scores["train_runtime"] - self.evaluation_seconds, 1e-9)
            scores |= {"train_tokens_per_second": tokens / seconds} if counts_tokens else {}
        if self.train_dataset is not None and counts_tokens:
            scores["train_tokens"] = self.state.num_input_tokens_seen  # of the whole run, also where it was cut off
        if self.eval_dataset is not None:
            last = self.state.log_history[-2] if len(self.state.log_history) > 1 else {}
            is_current = "eval_loss" in last and last["step"] == self.state.global_step
            evaluated = last if is_current and not self.args.load_best_model_at_end else self.evaluate()
            # of a folder that is not trained here it is not known which loss it was
            unknown = {"eval_loss"} if self.train_dataset is None else set()
            scores |= {name: evaluated[name] for name in evaluated if name.startswith("eval_") and name not in unknown}
        return scores

    def is_trained(self, checkpoint: str) -> bool:
        """Whether a checkpoint is of the run's last step; Trainer would train one step more from it.

        It then becomes this trainer's state.
        """
        state = TrainerState.load_from_json(str(Path(checkpoint) / "trainer_state.json"))
        planned = self.args.max_steps if self.is_streaming else planned_steps(len(self.train_dataset), self.args)
        if state.global_step < planned:
            return False
        self.state = state
        self.find_best_checkpoint()
        return True

    def _init_training_state(self, *args: Any) -> tuple[int, int]:
        """Take up what a checkpoint kept; stock Trainer forgets the best checkpoint of a folder that moved.

        When to log, score and save is as this call asks, where stock Trainer would keep to what the run began with.
        """
        trained = super()._init_training_state(*args)
        max_steps, *_, checkpoint, _trial = args
        if checkpoint:
            self.state.compute_steps(self.args, max_steps)
            kept = TrainerState.load_from_json(str(Path(checkpoint) / "trainer_state.json"))
            self.state.best_model_checkpoint = kept.best_model_checkpoint
            self.find_best_checkpoint()
            if self.args.resume_anyway and self.args.metric_for_best_model:  # it may be another score than before
                name = "eval_" + self.args.metric_for_best_model.removeprefix("eval_")
                of_best = [entry for entry in self.state.log_history if entry["step"] == self.state.best_global_step]
                self.state.best_metric = next((entry[name] for entry in of_best if name in entry), None)
        return trained

    def _finalize_training(self, *args: Any) -> Any:
        """Keep the last checkpoint beside the best until the run is finished: a kill now would go on from it."""
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        try:
            return super()._finalize_training(*args)
        finally:
            self.args.save_total_limit = limit

    def leave_the_best_alone(self) -> None:
        """Remove what is beside the best checkpoint of a finished run that ends with its best model and keeps one."""
        best = Path(self.state.best_model_checkpoint or "")
        if self.args.load_best_model_at_end and self.args.save_total_limit == 1 and best.is_dir() and best.name:
            for checkpoint in numbered_checkpoints(Path(self.args.output_dir)):
                if checkpoint.name != best.name:
                    shutil.rmtree(checkpoint, ignore_errors=True)

    def stop_if_asked(self) -> None:
        """Stop behind the last step, whose checkpoint is written, if any process was asked to since.

        Raises:
            Stopped: as it was asked for.
        """
        asked = torch.tensor(STOPS.asked, device=self.args.device)
        if self.accelerator.reduce(asked, "sum").item():
            saved = str(self.checkpoint_folder) if self.checkpoint_folder.exists() else ""
            raise Stopped(STOPS.asked or STOP_BY_OTHERS, saved)

    def find_best_checkpoint(self) -> None:
        """Where the best checkpoint lies now, if the run's folder was moved since."""
        if self.state.best_model_checkpoint:
            self.state.best_model_checkpoint = str(
                Path(self.args.output_dir, Path(self.state.best_model_checkpoint).name)
            )

    def _load_best_model(self) -> None:
        """Load the best checkpoint's weights, if it is as it was written.

        Raises:
            Failure: it is not, or is gone; stock Trainer would go on with the last weights.
        """
        best = Path(self.state.best_model_checkpoint or "")
        if wrong := what_is_wrong(best):
            raise Failure(f"{best}: the best checkpoint {wrong}, so it cannot be loaded; the last one is intact")
        super()._load_best_model()

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
        """The batches of one optimizer step, and its items over all of them and over all processes.

        Raises:
            Failure: what is read while it is needed cannot be; before the first step of a lone process a Refusal.
        """
        try:
            batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        except Refusal as error:  # of a row of a stream; that of a worker has a traceback before it
            line = str(error).rsplit("Refusal: ", 1)[-1].strip()
            # nothing is lost before the first step; but of several processes only a failure is told by each
            is_early = self.state.global_step == 0 and self.args.world_size == 1
            raise (Refusal if is_early else Failure)(line) from error
        if not batches:
            return batches, None
        for batch in batches:
            for lane, *place in batch.pop("stream_position", torch.empty(0)).tolist():
                self.stream_positions[str(lane)] = place
        counts = torch.stack([self.count_items(batch) for batch in batches]).sum(0).to(device)
        # told along with the counts, so that all processes stop behind one step
        asked = torch.tensor([STOPS.asked > 0], device=device)
        *items, others = self.accelerator.reduce(torch.cat([counts, asked]), "sum").split([len(counts), 1])
        if self.args.world_size > 1:
            self.asked_elsewhere = bool(others)
        self.step_batches = batches
        return batches, items[0]

    @property
    def is_asked_to_stop(self) -> bool:
        """Whether a signal asked for a stop: all processes hear of it before a step, and a lone one at once."""
        return self.asked_elsewhere if self.args.world_size > 1 else STOPS.asked > 0

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
            loader = super().get_train_dataloader()
            loader.worker_init_fn = outlive_one_stop  # no draw is a worker's, so it needs no seed of its own
            return loader
        return DataLoader(
            self.train_dataset,
            batch_size=self.args.train_batch_size,
            collate_fn=self.data_collator,
            num_workers=min(1, self.args.dataloader_num_workers),  # a second would read the same rows again
            pin_memory=self.args.dataloader_pin_memory,
            worker_init_fn=outlive_one_stop,
            generator=torch.Generator(),  # its draw would else move dropout's
        )

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader:
        """Batches to score, by workers that a Ctrl-C does not end."""
        loader = super().get_eval_dataloader(eval_dataset)
        loader.worker_init_fn = outlive_one_stop
        return loader

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Score, and keep apart the time that training waits for it."""
        began = time.perf_counter()
        scores = super().evaluate(*args, **kwargs)
        self.evaluation_seconds += time.perf_counter() - began if self.is_in_train else 0.0
        return scores

    def _determine_best_metric(self, *args: Any, **kwargs: Any) -> bool:
        """Save a model that is the best so far when it is found, and where a stop was asked for any.

        Stock Trainer saves at --save_steps alone, though it scores more often, and would end with another as the best.

        Returns:
            Whether --save_strategy best saves.
        """
        is_best = super()._determine_best_metric(*args, **kwargs)
        self.control.should_save |= (
            is_best and self.args.load_best_model_at_end and not self.exact_callback.saves_behind_epoch
        )
        return is_best or self.is_asked_to_stop

    def _get_train_sampler(self, train_dataset: Any = None) -> EpochSampler:
        """One order of rows for every way to cut a step into batches."""
        self.sampler = EpochSampler(self.train_dataset, self.args.rows_a_step, self.args.draw_seed)
        return self.sampler

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """AdamW over the encoder's and the head's parameters, each at its own learning rate, under one schedule."""
        if self.optimizer is None:
            model = self.model if model is None else model
            optimizer, options = self.get_optimizer_cls_and_kwargs(self.args, model)
            self.optimizer = optimizer(self.asked_groups(model), **options)
        return self.optimizer

    def asked_groups(self, model: nn.Module) -> list[dict[str, Any]]:
        """The parameters that learn, in groups, each with its rate, also as the one that it began with."""
        groups = parameter_groups(model, set(self.get_decay_parameter_names(model)), self.args)
        return [group | {"initial_lr": group["lr"]} for group in groups]

    def floating_point_ops(self, inputs: dict[str, Tensor]) -> int:
        """Trainer's own estimate, with the parameters counted once instead of at every micro-batch."""
        if self.parameter_count is None:
            self.parameter_count = self.model.num_parameters(exclude_embeddings=True)
        return 6 * inputs[self.model.main_input_name].numel() * self.parameter_count

    # --- Numbers that are none ---

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        """Forward and backward of a micro-batch, whose loss is kept until the step is checked."""
        loss = super().training_step(*args, **kwargs)
        self.step_losses.append(loss)
        return loss

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        """The gradient's norm, which Trainer asks for before each update: the last moment to keep the weights whole."""
        grad_norm = super()._get_grad_norm(model, grad_norm)
        losses, self.step_losses = torch.stack(self.step_losses), []
        # a scaler of fp16 meets infinite gradients now and then, passes over the step, and scales less
        is_scaled = getattr(self.accelerator, "scaler", None) is not None
        # and DeepSpeed tells no norm where it does not clip
        is_norm = grad_norm is not None and not is_scaled
        numbers = torch.cat([losses, torch.as_tensor(grad_norm).to(losses).reshape(1)]) if is_norm else losses
        if not numbers.isfinite().all():
            self.refuse_step(losses)
        return grad_norm

    def refuse_step(self, losses: Tensor) -> None:
        """Stop before a step whose loss or gradient is no finite number.

        Args:
            losses: of this process's micro-batches: (micro-batches,).

        Raises:
            Failure: naming step, rows, and what is still good.
        """
        step = self.state.global_step + 1
        bad = [i for i, loss in enumerate(losses.tolist()) if not math.isfinite(loss)]
        what = f"the loss is {losses[bad[0]].item()}" if bad else "the gradient is no finite number"
        if not bad and self.args.world_size > 1:
            what += ", while this process's losses are"
        saved = self.last_checkpoint()
        good = f"{saved} is the last good checkpoint" if saved else "no checkpoint was saved before"
        # DeepSpeed takes its step within the backward pass, before anybody can look
        taken = "was taken" if self.accelerator.distributed_type == DistributedType.DEEPSPEED else "was not taken"
        raise Failure(
            f"step {step}: {what} ({self.spoken_rows(bad or list(range(len(losses))))}); the step {taken}, and "
            f"{good}; try a lower --learning_rate than {self.args.learning_rate:g}, or --precision fp32"
            + (", with --resume_anyway to go on from there" if saved else "")
        )

    def spoken_rows(self, batches: list[int]) -> str:
        """Where the rows come from that give no finite results, of the micro-batches at fault; all, if none does alone.

        Args:
            batches: the micro-batches, by their place in the step.
        """
        numbers, texts = [], []
        for batch in batches:
            inputs = self.step_batches[batch]
            of_batch = self.row_numbers(batch, len(inputs["input_ids"]))
            at_fault = self.rows_at_fault(inputs) or list(range(len(inputs["input_ids"])))
            numbers += [of_batch[row] for row in at_fault] if of_batch else []
            texts += [inputs["input_ids"][row] for row in at_fault]
        text = self.processing_class.decode(texts[0], skip_special_tokens=True)[:60]
        named = (self.places[n % len(self.places)] if self.places else f"training row {n + 1:,}" for n in numbers)
        places = list(dict.fromkeys(named))  # of windows and copies each once
        more = f" and {len(places) - SHOWN_ROWS:,} more" if len(places) > SHOWN_ROWS else ""
        return (f"{', '.join(places[:SHOWN_ROWS])}{more}, " if places else "") + f"beginning with “{text}”"

    def row_numbers(self, batch: int, rows: int) -> list[int]:
        """The numbers in the training data of the rows of a micro-batch of this step; none of a stream."""
        if self.is_streaming:
            return []
        done = self.state.global_step % max(len(self.sampler) // self.args.rows_a_step, 1)
        step_batch = done * self.args.gradient_accumulation_steps + batch
        first = (step_batch * self.args.world_size + self.args.process_index) * self.args.train_batch_size
        return list(self.sampler)[first : first + rows]

    def rows_at_fault(self, inputs: dict[str, Tensor]) -> list[int]:
        """The rows of a micro-batch whose own results are no finite numbers, by their place in it."""
        if self.accelerator.distributed_type not in DATA_PARALLEL:
            return []  # a process alone has no whole model
        model = self.accelerator.unwrap_model(self.model).eval()
        with torch.no_grad(), self.compute_loss_context_manager():
            results, _ = self.row_results(model, self._prepare_inputs(dict(inputs)))
        return torch.nonzero(~results.flatten(1).isfinite().all(dim=1)).flatten().tolist()

    # --- The Hub ---

    def init_hf_repo(self, *args: Any, **kwargs: Any) -> None:
        """Find out before training whether the repository can be written to.

        Raises:
            Refusal: it cannot, or there will be no model to upload.
        """
        if self.train_dataset is None:
            raise Refusal("--push_to_hub: uploads a model that was trained; nothing is trained here")
        self.hub_model_id = told_to_all(lambda: open_repository(self.args))

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Upload nothing while the model learns: `finish_run` does it once, see `two_stage.checkpointing.hub`."""

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save, and leave uploading to `finish_run`."""
        super().save_model(output_dir, _internal_call=True)

    # --- Checkpoints ---

    @property
    def checkpoint_folder(self) -> Path:
        """Where this step's checkpoint lies, or will."""
        return Path(self.args.output_dir, f"checkpoint-{self.state.global_step}")

    def check_space(self) -> None:
        """Refuse to train where not even one checkpoint has room."""
        if self.args.save_strategy != SaveStrategy.NO:
            weights = sum(tensor.numel() * tensor.element_size() for tensor in self.model.parameters())
            check_space(Path(self.args.output_dir), weights)

    def last_checkpoint(self) -> str | None:
        """The newest checkpoint of this run."""
        found = numbered_checkpoints(Path(self.args.output_dir))
        return str(found[-1]) if found else None

    @property
    def what_is_intact(self) -> str:
        """What is not lost where something cannot be written."""
        saved = self.last_checkpoint()
        return f"{saved} is intact" if saved else "no checkpoint was saved before"

    def _get_output_dir(self, trial: Any = None) -> str:
        """Where Trainer saves: aside, while a checkpoint is written."""
        return str(self.saving_in or super()._get_output_dir(trial))

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Let Trainer write the checkpoint aside, then give it its place, and only then remove old ones."""
        folder, aside = self.checkpoint_folder, Path(self.args.output_dir, UNFINISHED)
        partial = aside / folder.name
        with told_if_unwritten(folder, self.what_is_intact):
            if self.args.should_save:
                shutil.rmtree(aside, ignore_errors=True)
            self.keep_resume_state()
            self.accelerator.wait_for_everyone()
            self.saving_in = aside
            try:
                super()._save_checkpoint(model, trial)
            finally:
                self.saving_in = None
            if self.state.best_model_checkpoint == str(partial):
                self.state.best_model_checkpoint = str(folder)
            self.accelerator.wait_for_everyone()  # each process keeps its own random state there
            if self.args.should_save:
                self.state.save_to_json(str(partial / "trainer_state.json"))  # which knows where the best one lies
                seal(partial)
                put_in_place(partial, folder)
                aside.rmdir()
                best = self.state.best_model_checkpoint
                remove_oldest(Path(self.args.output_dir), self.args.save_total_limit, best)
            self.accelerator.wait_for_everyone()

    def keep_resume_state(self) -> None:
        """Gather what an exact resume needs besides Trainer's own; every process comes here alike."""
        losses = self.accelerator.gather(self._tr_loss.detach().reshape(1)).mean().item()
        kept: dict[str, Any] = {"losses": [losses, self._total_loss_scalar, self._globalstep_last_logged]}
        if self.is_streaming:
            gathered = gather_object([self.stream_positions])
            kept["positions"] = {lane: place for one in gathered for lane, place in one.items()}
        self.resume_state.kept = kept

    def take_up_losses(self) -> None:
        """Let the first logged loss and train_loss be those of a run that was not cut off."""
        if losses := self.resumed.get("losses"):
            since_log, before, self._globalstep_last_logged = losses
            self._tr_loss = torch.tensor(since_log, device=self.args.device)
            self._total_loss_scalar = before

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Log; train_loss is the mean over the steps of the whole run, also where it was cut off."""
        if "train_loss" in logs:
            logs["train_loss"] = self._total_loss_scalar / max(self.state.global_step, 1)
        super().log(logs, *args, **kwargs)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """Load both; where the optimizer was lost, let the learning rate at least go on where it was."""
        with refusing_pickles(checkpoint):
            try:
                super()._load_optimizer_and_scheduler(checkpoint)
            except ValueError as error:
                if checkpoint is None or "parameter group" not in str(error):
                    raise
                raise other_optimizer(checkpoint) from error
        # some count evaluations, of which there may have been none
        waits = self.args.lr_scheduler_type in WAITING
        if checkpoint and not waits and self.lr_scheduler.last_epoch == 0 and self.state.global_step:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message=".*before `optimizer.step")
                for _ in range(self.state.global_step):
                    self.lr_scheduler.step()
        if checkpoint and self.args.resume_anyway:
            self.take_asked_rates(checkpoint)

    def take_asked_rates(self, checkpoint: str) -> None:
        """Go on at the rates and the decay of this call, in place of those that the checkpoint kept.

        Raises:
            Refusal: the checkpoint's optimizer is of another kind.
        """
        _, options = self.get_optimizer_cls_and_kwargs(self.args, self.model)
        asked = self.asked_groups(self.model)
        assert self.optimizer is not None
        for group, now in zip(self.optimizer.param_groups, asked, strict=True):
            if self.optimizer.defaults.keys() - group.keys():
                raise other_optimizer(checkpoint)
            group |= {name: options[name] for name in ("betas", "eps") if name in options}
            group["weight_decay"] = now["weight_decay"]
            began = group.get("initial_lr", now["lr"])
            group["lr"] = group["lr"] * now["lr"] / began if began else now["lr"]
            group["initial_lr"] = now["lr"]
        if hasattr(self.lr_scheduler, "base_lrs"):  # by which most schedules reckon every step anew
            self.lr_scheduler.base_lrs = [now["lr"] for now in asked]
        self.lr_scheduler._last_lr = [group["lr"] for group in self.optimizer.param_groups]  # which is logged

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Load the random states that the checkpoint kept."""
        with refusing_pickles(checkpoint):
            super()._load_rng_state(checkpoint)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        """Load the checkpoint's weights."""
        with refusing_pickles(resume_from_checkpoint):
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        """Warn of tensors that a checkpoint lacks, but for those that it holds under another name or never had."""
        known = self.model.all_tied_weights_keys.keys() | getattr(self.model, "untrained", set())
        missing = [name for name in load_result.missing_keys if name not in known]
        super()._issue_warnings_after_load(load_result._replace(missing_keys=missing))

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """Save weights that are numbers, each once, and no training_args.bin, a pickle; recipe.yaml says the same.

        Raises:
            Failure: a weight is no finite number.
        """
        if state_dict is not None:  # gathered by FSDP or DeepSpeed, which part what is tied
            tied = self.model.all_tied_weights_keys
            state_dict = {name: tensor for name, tensor in state_dict.items() if tied.get(name) not in state_dict}
        tensors = self.model.state_dict() if state_dict is None else state_dict
        if broken := next((name for name, tensor in tensors.items() if not tensor.isfinite().all()), None):
            saved = self.last_checkpoint()
            raise Failure(
                f"step {self.state.global_step}: {broken} holds numbers that are none, so nothing was saved"
                + (f"; {saved} is the last good checkpoint" if saved else "")
                + f"; try a lower --learning_rate than {self.args.learning_rate:g}, or --precision fp32"
            )
        super()._save(output_dir, state_dict)
        if self.args.should_save:
            (Path(output_dir or self.args.output_dir) / "training_args.bin").unlink(missing_ok=True)


@contextmanager
def refusing_pickles(checkpoint: str | None) -> Iterator[None]:
    """Tell in one line that torch's restricted unpickler refused a file of a checkpoint.

    Raises:
        Refusal: it held more than tensors and numbers, or was broken in some way that its manifest does not tell.
    """
    try:
        yield
    except Exception as error:
        if type(error).__name__ != "UnpicklingError":
            raise
        raise Refusal(
            f"{checkpoint}: a pickle in it holds more than tensors and numbers, so none of it was run; somebody "
            "changed it: remove the folder, and the same command goes on from an older one"
        ) from error


def other_optimizer(checkpoint: str) -> Refusal:
    """What is said where an optimizer's state is not of the one that is asked for, as may be with --resume_anyway."""
    return Refusal(
        f"{checkpoint}: its optimizer is not the one that --optim, --freeze_layers and --layer_decay ask for, and "
        "cannot go on as that one; give these as they were, or another --output_dir"
    )
