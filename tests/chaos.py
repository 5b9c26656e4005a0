"""Interrupts a run again and again, at random, and holds its end against that of one that nothing happened to.

    python -m tests.chaos                    30 SIGKILLs and 10 SIGTERMs over run_pretraining.py, in under ten minutes
    python -m tests.chaos --script ner       over run_ner.py, or run_sentiment.py by `sentiment`
    python -m tests.chaos --stock            over transformers' own Trainer, which goes on from its last checkpoint

After each fault the same command is started again, by nobody's hand. Every start is a process of its own, forked from
this one, which has imported all that is slow to import and computed nothing.
"""

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file
from transformers import (
    AutoTokenizer,
    BertForPreTraining,
    DataCollatorForLanguageModeling,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)
from transformers.trainer_utils import get_last_checkpoint

import run_ner
import run_pretraining
import run_sentiment
from two_stage.checkpointing.checkpoints import UNFINISHED, find_checkpoint, what_is_wrong
from two_stage.checkpointing.handoff import file_sha256
from two_stage.command_line.exits import run_script

DATA = Path(__file__).parent.parent / "recipes" / "quickstart"
SAVE_STEPS = 5
LONGEST = 570  # seconds; no fault comes after so many, and what was not interrupted then is run to its end
STEPS = 400
MAINS = {"pretraining": run_pretraining.main, "sentiment": run_sentiment.main, "ner": run_ner.main}
FILES = {"pretraining": "corpus.txt", "sentiment": "sentiment_train.csv", "ner": "ner_train.jsonl"}
SHADES = ["strongly pessimistic", "pessimistic", "mildly pessimistic", "neutral"]
SHADES += ["cautiously optimistic", "optimistic", "strongly optimistic"]
STOPPED = {signal.SIGKILL: -signal.SIGKILL, signal.SIGTERM: 143}  # how a process ends by each


class Progress(TrainerCallback):
    """Writes down each step that was taken, as a user of the log would see it."""

    def __init__(self) -> None:
        self.file = os.environ["CHAOS_PROGRESS"]

    def on_step_end(self, args: TrainingArguments, state: Any, control: Any, **_: Any) -> None:
        """The step that is behind us; of heads that learn before a run there is nothing to save."""
        if args.save_strategy != "no":
            Path(self.file).write_text(str(state.global_step), encoding="ascii")


def prepare(folder: Path, documents: int) -> Path:
    """The quickstart's tiny BERT, with dropout, whose draws a resume must take up too; and some of its documents."""
    checkpoint = folder / "bert"
    shutil.copytree(DATA / "tiny-bert", checkpoint)
    config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    config |= {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}
    (checkpoint / "config.json").write_text(json.dumps(config), encoding="utf-8")
    corpus = (DATA / "data" / "corpus.txt").read_text(encoding="utf-8").split("\n\n")
    (folder / "corpus.txt").write_text("\n\n".join(corpus[:documents]) + "\n", encoding="utf-8")
    return checkpoint


def command(script: str, folder: Path, checkpoint: Path, steps: int) -> list[str]:
    """The flags of a run, without its output folder."""
    file = folder / "corpus.txt" if script == "pretraining" else DATA / "data" / FILES[script]
    flags = ["--checkpoint", str(checkpoint), "--train_file", str(file), "--use_cpu", "--max_length", "32"]
    flags += ["--per_device_train_batch_size", "8", "--max_steps", str(steps), "--save_strategy", "steps"]
    flags += ["--save_steps", str(SAVE_STEPS), "--logging_steps", "10", "--disable_tqdm", "true"]
    if script == "sentiment":
        flags += ["--labels", *SHADES]
    return flags


# --- One start --------------------------------------------------------------------------------------------------------


def start(work: Callable[[], None], log: Path) -> int:
    """Do `work` in a new process whose output goes to `log`; returns its number."""
    if process := os.fork():
        return process
    os.setsid()
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    torch.set_num_threads(1)
    try:
        work()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)


def our_run(script: str, flags: list[str]) -> Callable[[], None]:
    """What a user types."""

    def work() -> None:
        sys.argv = [f"run_{script}.py", *flags]
        try:
            run_script(MAINS[script])
        except SystemExit as end:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(int(end.code or 0))

    return work


def stock_run(folder: Path, checkpoint: Path, steps: int, output_dir: Path) -> Callable[[], None]:
    """Masked words under transformers' own Trainer and collator, going on from what its own function finds."""

    def work() -> None:
        tokenizer = AutoTokenizer.from_pretrained(checkpoint, trust_remote_code=False)
        lines = [line for line in (folder / "corpus.txt").read_text(encoding="utf-8").splitlines() if line]
        rows = [tokenizer(line, truncation=True, max_length=32) | {"next_sentence_label": 0} for line in lines]
        set_seed(42)
        model = BertForPreTraining(transformers.BertConfig.from_pretrained(checkpoint))
        arguments = TrainingArguments(
            str(output_dir), use_cpu=True, per_device_train_batch_size=8, max_steps=steps, save_steps=SAVE_STEPS,
            save_total_limit=2, logging_steps=10, disable_tqdm=True, report_to="none", learning_rate=3e-5,
        )  # fmt: skip
        collator = DataCollatorForLanguageModeling(tokenizer)
        trainer = Trainer(model, arguments, collator, rows, processing_class=tokenizer)
        last = get_last_checkpoint(str(output_dir)) if output_dir.is_dir() else None
        trainer.train(resume_from_checkpoint=last)
        trainer.save_model()
        (output_dir / "all_results.json").write_text("{}", encoding="ascii")
        os._exit(0)

    return work


def wait_for(process: int, seconds: float) -> int | None:
    """How a process ended, 128 + … or a signal's number below 0, if it did within so many seconds."""
    until = time.monotonic() + seconds
    while True:
        done, status = os.waitpid(process, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() >= until:
            return None
        time.sleep(0.002)


# --- All of them ------------------------------------------------------------------------------------------------------


@dataclass
class Report:
    """What happened."""

    faults: int = 0
    recovered: int = 0  # faults after which the same command went on, with no hand
    by_hand: int = 0  # starts that failed until somebody removed a broken checkpoint
    during_saves: int = 0
    lost: list[int] = field(default_factory=list)  # steps taken again after each fault
    runs: int = 0
    equal: int = 0  # runs that ended in the weights of the undisturbed one, bit for bit
    left_over: int = 0  # runs with anything unfinished or set aside in their folder
    told: list[str] = field(default_factory=list)  # what went wrong

    def is_good(self) -> bool:
        """Whether all that is promised held."""
        clean = self.recovered == self.faults and self.equal == self.runs
        return clean and max(self.lost, default=0) <= SAVE_STEPS and not (self.by_hand or self.left_over or self.told)


class Chaos:
    """A command that is interrupted until all faults are used up, in as many folders as that takes."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self.options, self.folder, self.rng = options, folder, random.Random(options.seed)
        self.checkpoint = prepare(folder, options.documents)
        self.faults = [signal.SIGKILL] * options.kills + [signal.SIGTERM] * options.stops
        self.rng.shuffle(self.faults)
        self.report, self.log = Report(), folder / "log"
        self.progress, self.until = folder / "progress", time.monotonic() + LONGEST
        os.environ["CHAOS_PROGRESS"] = str(self.progress)

    def work(self, run: Path) -> Callable[[], None]:
        """The command, in this folder."""
        options = self.options
        if options.stock:
            return stock_run(self.folder, self.checkpoint, options.steps, run)
        flags = command(options.script, self.folder, self.checkpoint, options.steps)
        return our_run(options.script, [*flags, "--output_dir", str(run)])

    def undisturbed(self) -> float:
        """Run it to its end with nothing in the way; returns seconds."""
        began = time.monotonic()
        ended = wait_for(start(self.work(self.folder / "undisturbed"), self.log), 600)
        if ended != 0:
            raise SystemExit(f"the undisturbed run ended with {ended}:\n{self.log.read_text()[-2000:]}")
        return time.monotonic() - began

    def seconds_to_first_step(self) -> float:
        """How long a start takes that goes on from a checkpoint, until its first step."""
        for steps in (SAVE_STEPS + 1, 1):
            self.progress.unlink(missing_ok=True)
            began = time.monotonic()
            process = start(self.work(self.folder / "first step"), self.log)
            while self.steps_taken() < steps and time.monotonic() - began < 60:
                time.sleep(0.002)
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
        return time.monotonic() - began

    def __call__(self) -> Report:
        """Interrupt it so long as there are faults left."""
        whole, began_after = self.undisturbed(), self.seconds_to_first_step()
        # so that all faults together let through about one run, and some come before the first step
        self.longest = began_after + 2 * max(whole - began_after, 0.1) / max(len(self.faults), 1)
        while self.faults:
            self.report.runs += 1
            self.one_run(self.folder / f"run-{self.report.runs}")
        return self.report

    def one_run(self, run: Path) -> None:
        """Start the command until it ends by itself, with faults on the way as long as there are any."""
        fault = None
        self.progress.unlink(missing_ok=True)
        while True:
            if time.monotonic() > self.until:
                self.faults.clear()
            reached, newest = self.steps_taken(), self.newest(run)
            process = start(self.work(run), self.log)
            wait = self.rng.uniform(0.01, self.longest) if self.faults else 600.0
            ended = wait_for(process, wait)
            after = None
            if ended is None:  # the fault that is due
                after = self.faults.pop()
                ended = self.interrupt(process, after, run)
            if fault is not None and not self.went_on(run, ended, after, reached, newest):
                continue
            if ended == 0:
                return self.hold(run)
            if after is None:
                self.report.told.append(f"ended with {ended}: {self.log.read_text(errors='replace')[-600:]}")
                return None
            fault = after

    def interrupt(self, process: int, fault: signal.Signals, run: Path) -> int | None:
        """Let the fault happen; returns how the process ended."""
        self.report.faults += 1
        os.kill(process, fault)
        self.report.during_saves += (run / UNFINISHED).is_dir()
        ended = wait_for(process, 60)
        if ended not in (STOPPED[fault], 0) and not self.options.stock:
            self.report.told.append(f"{fault.name}: ended with {ended}: {self.log.read_text(errors='replace')[-600:]}")
        if ended != 0 and (run / "all_results.json").exists() and not self.finished(run):
            self.report.told.append(f"{fault.name}: something final stands in the folder of an interrupted run")
        return ended

    def finished(self, run: Path) -> bool:
        """Whether a run that was interrupted at its very end had already ended as it should."""
        return file_sha256(run / "model.safetensors") == self.expected()

    def expected(self) -> str:
        """The hash of the undisturbed weights."""
        return file_sha256(self.folder / "undisturbed" / "model.safetensors")

    def steps_taken(self) -> int:
        """The last step that a process took."""
        return int(self.progress.read_text(encoding="ascii") or 0) if self.progress.exists() else 0

    def newest(self, run: Path) -> int:
        """The step of the newest whole checkpoint."""
        found = [path for path in run.glob("checkpoint-*") if self.options.stock or what_is_wrong(path) is None]
        return max((int(path.name.split("-")[1]) for path in found), default=0)

    def went_on(self, run: Path, ended: int | None, after: Any, reached: int, newest: int) -> bool:
        """Whether the start after a fault went on by itself; if not, remove by hand what is in its way."""
        if ended not in (0, -signal.SIGKILL, 143, -signal.SIGTERM):  # by the last ends who does not heed a stop
            self.report.by_hand += 1
            if broken := get_last_checkpoint(str(run)):
                shutil.rmtree(broken)
            if not self.options.stock:
                self.report.told.append(self.log.read_text(errors="replace")[-600:])
            if after is not None:  # it failed by itself before the next fault came
                self.faults.append(after)
                self.report.faults -= 1
            return False
        self.report.recovered += 1
        self.report.lost.append(max(reached - newest, 0))
        return True

    def hold(self, run: Path) -> None:
        """Hold a run that came to its end against the undisturbed one."""
        self.report.equal += file_sha256(run / "model.safetensors") == self.expected()
        if self.options.stock:
            return
        names = {path.name for path in run.iterdir()}
        expected = {path.name for path in (self.folder / "undisturbed").iterdir()}
        self.report.left_over += names != expected
        found = find_checkpoint(run)
        if found is None or found.lacks:
            self.report.told.append(f"{run}: its last checkpoint is not whole")
        assert load_file(run / "model.safetensors")


def told(report: Report, options: argparse.Namespace, seconds: float) -> str:
    """The report, a line a promise."""
    who = "stock Trainer" if options.stock else f"run_{options.script}.py"
    lines = [
        f"{who}: {options.kills} SIGKILLs and {options.stops} SIGTERMs at random, {report.faults} came",
        f"went on with no hand            {report.recovered} of {report.faults}",
        f"removed a checkpoint by hand    {report.by_hand}",
        f"came while a save was going on  {report.during_saves}",
        f"steps taken again, at most      {max(report.lost, default=0)} (a save every {SAVE_STEPS})",
        f"runs that ended, equal weights  {report.equal} of {report.runs}",
        f"folders with something left     {report.left_over}",
        f"took                            {seconds:.0f} s",
        *report.told,
    ]
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> Report:
    """Interrupt, and tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--script", choices=MAINS, default="pretraining")
    parser.add_argument("--stock", action="store_true", help="transformers' own Trainer instead")
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--stops", type=int, default=10)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--documents", type=int, default=200, help="of the quickstart's corpus")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    if Progress not in transformers.trainer.DEFAULT_CALLBACKS:
        transformers.trainer.DEFAULT_CALLBACKS.append(Progress)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        report = Chaos(options, Path(folder))()
    print(told(report, options, time.monotonic() - began))
    return report


if __name__ == "__main__":
    outcome = main()
    sys.exit(not outcome.is_good())
