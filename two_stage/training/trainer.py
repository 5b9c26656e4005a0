"""ExactTrainer: the same loss, gradient and scores whatever per-device batch × accumulation × process count.

Stock Trainer takes every BERT head for one that divides its loss by the items of the whole step, which none does, so
that the loss and its gradient grow with accumulation steps and with processes (huggingface/transformers#47688).
Here the loss is a sum over items divided by the items of the whole global step, and every draw that decides what a
step sees (the order of rows, the masks) is keyed by (seed, epoch, row), never by a worker, a process or a batch.
"""

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import Trainer
from transformers.trainer_utils import IntervalStrategy, SaveStrategy

from two_stage.checkpointing.runs import told_to_all
from two_stage.command_line.exits import STOPS, Failure, Refusal, outlive_one_stop, say
from two_stage.training.batches import EpochSampler
from two_stage.training.cpu_training import keep_freed_memory, use_cpu_dropout
from two_stage.training.layers import UnfreezingCallback, freeze_layers, parameter_groups, spoken_groups
from two_stage.training.resumable import ResumableTrainer, ResumeState
from two_stage.training.trackers import write_into
from two_stage.training.training_arguments import ExactTrainingArguments, FineTuningArguments

SHOWN_ROWS = 3  # whose places are told
if not hasattr(Trainer, "loss_is_scaled_for_ga"):  # older ones would divide the gradient once more, in silence
    raise ImportError("transformers 5.23 or newer is needed: pip install -r requirements.txt")
DATA_PARALLEL = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)


class ExactTrainer(ResumableTrainer):
    """A resumable Trainer whose loss is a sum over items divided by the items of the whole global step.

    A subclass says what an item is (`count_items`), what a batch's loss is (`compute_loss`, which divides sums by
    `self.step_mean`), and what evaluation keeps of a row (`row_results`).
    """

    # compute_loss already divides by the items of the whole step: Trainer must not divide by accumulation steps again
    loss_is_scaled_for_ga = True

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
        self.places = places
        self.step_losses: list[Tensor] = []  # of the micro-batches of the step at work
        self.step_batches: list[dict[str, Tensor]] = []
        self.parameter_count: int | None = None
        if unfreezes:
            self.add_callback(UnfreezingCallback(self.model, args))
        self.evaluation_seconds = 0.0

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
            scores = self.take_up_trained(checkpoint)
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

    def take_up_trained(self, checkpoint: str) -> dict[str, float]:
        """Take up the model of a run that is trained to its end, and its train_loss; score it if that run did."""
        self._load_from_checkpoint(checkpoint)
        if self.args.load_best_model_at_end and self.state.best_model_checkpoint:
            self._load_best_model()
        is_last = not self.args.load_best_model_at_end  # whose scores are the last in the log
        of_last = self.state.log_history[-1:]  # none of a run that was cut off before its first log
        if is_last and self.eval_dataset is not None and any("eval_loss" in entry for entry in of_last):
            self.state.log_history.pop()
            self.evaluate()  # whose rows' results are not in the log
        if not (losses := ResumeState.of(checkpoint).get("losses")):
            return {}
        self._total_loss_scalar = sum(losses[:2])
        scores = {"train_loss": math.nan}
        self.log(scores)  # which puts it right
        return scores

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
