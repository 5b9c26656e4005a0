"""ResumableTrainer: checkpoints that are whole, a resume to the bit, a stop that loses nothing.

A checkpoint is written aside and given its place when it is complete. It keeps what Trainer's own does not: the place
in a stream, and the sums behind the logged losses. A signal waits for the end of the step, and for its checkpoint.
"""

import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import nn
from torch.utils.data import IterableDataset
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState
from transformers.trainer_utils import SaveStrategy

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
from two_stage.command_line.exits import STOPS, Failure, Refusal, Stopped
from two_stage.training.batches import EpochSampler
from two_stage.training.training_arguments import WAITING, ExactTrainingArguments, planned_steps

STOP_BY_OTHERS = 15  # SIGTERM: what another process of the job was asked by


class ResumableCallback(TrainerCallback):
    """Tells the sampler which epoch begins, saves what a resume needs when it is due, and heeds a stop."""

    def __init__(self, trainer: "ResumableTrainer") -> None:
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


class ResumableTrainer(Trainer):
    """Trainer that can be cut off at any moment and gone on with as if it had not been.

    A subclass says at which rates what learns (`asked_groups`), and where its streams stand (`stream_positions`).
    """

    sampler: EpochSampler
    optimizer: torch.optim.Optimizer | None

    def __init__(self, args: ExactTrainingArguments, **kwargs: Any) -> None:
        """Make it, of what Trainer takes."""
        super().__init__(args=args, **kwargs)
        self.own_callback = ResumableCallback(self)
        self.add_callback(self.own_callback)
        self.resume_state = ResumeState()
        self.add_callback(self.resume_state)
        self.resumed: dict[str, Any] = {}  # a checkpoint's ResumeState
        self.asked_elsewhere = False  # whether another process was asked to stop
        self.saving_in: Path | None = None
        self.is_streaming = isinstance(self.train_dataset, IterableDataset)
        self.stream_positions: dict[str, list[int]] = {}  # lane → where it stands, of this process's lanes
        if self.is_streaming:
            args.ignore_data_skip = True  # the stream goes on from its own place, and nothing is read twice

    def asked_groups(self, model: nn.Module) -> list[dict[str, Any]]:
        """The parameters that learn, in groups, each with its rate (`lr`, `initial_lr`) and its decay."""
        raise NotImplementedError("a subclass says at which rates it learns")

    # --- Saving ---

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

    # --- Going on ---

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

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        """Load the checkpoint's weights."""
        with refusing_pickles(resume_from_checkpoint):
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        """Warn of tensors that a checkpoint lacks, but for those that it holds under another name or never had."""
        known = self.model.all_tied_weights_keys.keys() | getattr(self.model, "untrained", set())
        missing = [name for name in load_result.missing_keys if name not in known]
        super()._issue_warnings_after_load(load_result._replace(missing_keys=missing))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """Load both; where the optimizer was lost, let the learning rate at least go on where it was."""
        with refusing_pickles(checkpoint):
            try:
                super()._load_optimizer_and_scheduler(checkpoint)
            except ValueError as error:
                if checkpoint is None or "parameter group" not in str(error):
                    raise
                raise other_optimizer(checkpoint) from error
            except KeyError as error:
                if error.args != ("lr_lambdas",):  # which schedules that go by steps keep, and WAITING ones do not
                    raise
                raise Refusal(
                    f"{checkpoint}: its schedule goes by scores, and cannot go on by steps; give --lr_scheduler_type "
                    "as it was, or another --output_dir"
                ) from error
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
        own: Any = self.optimizer
        while hasattr(own, "optimizer"):  # of accelerate's wrapper, and of DeepSpeed's within, which has no defaults
            own = own.optimizer
        for group, now in zip(own.param_groups, asked, strict=True):
            if own.defaults.keys() - group.keys() - {"differentiable"}:  # which torch adds to the defaults as it loads
                raise other_optimizer(checkpoint)
            group |= {name: options[name] for name in ("betas", "eps") if name in options}
            group["weight_decay"] = now["weight_decay"]
            began = group.get("initial_lr", now["lr"])
            # a rate that did not change stays to the bit
            group["lr"] = group["lr"] * (now["lr"] / began) if began else now["lr"]
            group["initial_lr"] = now["lr"]
        if hasattr(self.lr_scheduler, "base_lrs"):  # by which most schedules reckon every step anew
            self.lr_scheduler.base_lrs = [now["lr"] for now in asked]
        self.lr_scheduler._last_lr = [group["lr"] for group in own.param_groups]  # which is logged

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Load the random states that the checkpoint kept."""
        with refusing_pickles(checkpoint):
            super()._load_rng_state(checkpoint)

    # --- The best checkpoint ---

    def _determine_best_metric(self, *args: Any, **kwargs: Any) -> bool:
        """Save a model that is the best so far when it is found, and where a stop was asked for any.

        Stock Trainer saves at --save_steps alone, though it scores more often, and would end with another as the best.

        Returns:
            Whether --save_strategy best saves.
        """
        is_best = super()._determine_best_metric(*args, **kwargs)
        self.control.should_save |= (
            is_best and self.args.load_best_model_at_end and not self.own_callback.saves_behind_epoch
        )
        return is_best or self.is_asked_to_stop

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

    # --- Stops ---

    @property
    def is_asked_to_stop(self) -> bool:
        """Whether a signal asked for a stop: all processes hear of it before a step, and a lone one at once."""
        return self.asked_elsewhere if self.args.world_size > 1 else STOPS.asked > 0

    def stop_if_asked(self) -> None:
        """Stop behind the last step, whose checkpoint is written, if any process was asked to since.

        Raises:
            Stopped: as it was asked for.
        """
        asked = torch.tensor(STOPS.asked, device=self.args.device)
        if self.accelerator.reduce(asked, "sum").item():
            saved = str(self.checkpoint_folder) if self.checkpoint_folder.exists() else ""
            raise Stopped(STOPS.asked or STOP_BY_OTHERS, saved)

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
