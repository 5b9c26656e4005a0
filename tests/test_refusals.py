"""What cannot work is refused in one line before a model is loaded, and nothing is written."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, NoReturn

import pytest
import torch
from torch.multiprocessing.reductions import rebuild_storage_fd
from transformers import PreTrainedModel

import run_ner
import run_pretraining
import run_sentiment
from two_stage.checkpointing.runs import Run, begin_run
from two_stage.command_line.exits import Refusal, run_script, told_failure
from two_stage.command_line.recipe import parse_flags

REPOSITORY = Path(__file__).parent.parent
PRETRAINING, SENTIMENT, NER = SCRIPTS = ("run_pretraining.py", "run_sentiment.py", "run_ner.py")
MODULES: dict[str, ModuleType] = {PRETRAINING: run_pretraining, SENTIMENT: run_sentiment, NER: run_ner}
ARGUMENTS = {
    PRETRAINING: run_pretraining.PretrainingArguments,
    SENTIMENT: run_sentiment.SentimentArguments,
    NER: run_ner.NerArguments,
}
DATA = {PRETRAINING: "corpus.txt", SENTIMENT: "texts.csv", NER: "sentences.jsonl"}


class ModelWanted(BaseException):
    """A call came as far as the model: everything before it was found good."""


@dataclass
class Call:
    """A call that is good until a test edits it."""

    script: str
    folder: Path  # the test's own
    checkpoint: Path  # a copy that the test may spoil
    flags: dict[str, list[str]]

    @property
    def output(self) -> Path:
        """The output folder."""
        return self.folder / "out"

    def argv(self) -> list[str]:
        """The typed flags."""
        return [word for name, values in self.flags.items() for word in (f"--{name}", *values)]

    def main(self) -> None:
        """Run the script's main."""
        MODULES[self.script].main(self.argv())

    def data(self, flag: str, name: str, content: str) -> None:
        """Give a data flag a file of this content."""
        (self.folder / name).write_text(content, encoding="utf-8")
        self.flags[flag] = [str(self.folder / name)]

    def sentences(self, flag: str, *rows: tuple[list[str], list[str]]) -> None:
        """Give a data flag tagged sentences."""
        lines = [json.dumps({"tokens": tokens, "ner_tags": tags}) for tokens, tags in rows]
        self.data(flag, f"{flag}.jsonl", "\n".join(lines) + "\n")

    def recipe(self, text: str) -> None:
        """Give the call a recipe."""
        self.data("recipe", "given.yaml", text)

    def config(self, **changed: Any) -> None:
        """Change the checkpoint's config.json."""
        path = self.checkpoint / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changed), encoding="utf-8")


@pytest.fixture
def call(tmp_path: Path, tiny_folder: Path, data_folder: Path) -> Callable[[str], Call]:
    """A function that makes a good call of a script."""

    def make(script: str) -> Call:
        checkpoint = tmp_path / "checkpoint"
        shutil.copytree(tiny_folder, checkpoint)
        flags = {
            "checkpoint": [str(checkpoint)],
            "train_file": [str(data_folder / DATA[script])],
            "output_dir": [str(tmp_path / "out")],
            "max_length": ["32"],
        }
        if script == SENTIMENT:
            flags["labels"] = ["bad", "so-so", "good"]
        return Call(script, tmp_path, checkpoint, flags)

    return make


@pytest.fixture(autouse=True)
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop a call that makes or loads a model."""

    def wanted(*args: object, **kwargs: object) -> NoReturn:
        raise ModelWanted

    monkeypatch.setattr(PreTrainedModel, "from_pretrained", wanted)
    monkeypatch.setattr(PreTrainedModel, "__init__", wanted)
    for module in MODULES.values():
        monkeypatch.setattr(module, "load_model", wanted)


def contents(folder: Path) -> dict[str, bytes | None]:
    """Every path under a folder (or the path itself) with its bytes; empty where there is none."""
    return {str(path): path.read_bytes() if path.is_file() else None for path in [folder, *folder.rglob("*")]} | {
        "is there": b"" if folder.exists() else None
    }


# --- The bad calls ----------------------------------------------------------------------------------------------------


def remove(call: Call, *names: str) -> None:
    """Take files out of the checkpoint."""
    for name in names:
        (call.checkpoint / name).unlink(missing_ok=True)


def only_pickled_weights(call: Call) -> None:
    """A checkpoint as it was saved years ago."""
    (call.checkpoint / "model.safetensors").rename(call.checkpoint / "pytorch_model.bin")


def no_tokenizer(call: Call) -> None:
    """A checkpoint of a model alone."""
    remove(call, "tokenizer.json", "vocab.txt", "tokenizer_config.json")


def weights_in_parts(call: Call) -> None:
    """A checkpoint that was saved in several files, which must not pass for one without weights."""
    (call.checkpoint / "model.safetensors").rename(call.checkpoint / "model-00001-of-00001.safetensors")
    index = {"metadata": {"total_size": 1}, "weight_map": {"cls.predictions.bias": "model-00001-of-00001.safetensors"}}
    (call.checkpoint / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")


def output_is_a_file(call: Call) -> None:
    """Something lies where the folder would be made."""
    call.output.write_text("notes", encoding="utf-8")


def output_under_a_file(call: Call) -> None:
    """No folder can be made there."""
    call.output.write_text("notes", encoding="utf-8")
    call.flags["output_dir"] = [str(call.output / "deeper")]


def output_with_foreign_files(call: Call) -> None:
    """Somebody's folder, which is not to be mixed with a run."""
    (call.output / "photos").mkdir(parents=True)
    (call.output / "photos" / "a.jpg").write_bytes(b"\xff\xd8")


def other_run(call: Call) -> None:
    """The beginning of a run that was called alike but for its seed."""
    module = MODULES[call.script]
    resolved = parse_flags(call.argv(), module.Settings, ARGUMENTS[call.script], module.QUICKSTART, module.__doc__)[2]
    if module is run_ner:  # which writes how it reads
        resolved = run_ner.Reading()._asdict() | resolved
    begin_run(Run(call.output), resolved | {"seed": 1234}, {"script": call.script})


def finished_run(call: Call) -> None:
    """Such a run, finished."""
    other_run(call)
    (call.output / "all_results.json").write_text("{}\n", encoding="utf-8")


def cut_off_run(call: Call) -> None:
    """Such a run, cut off behind its first checkpoint."""
    other_run(call)
    (call.output / "checkpoint-5").mkdir()  # whatever is in it


class BadCall(NamedTuple):
    """How a good call is spoiled, in which scripts, and what the message must say."""

    scripts: tuple[str, ...]
    spoil: Callable[[Call], object]
    needles: list[str]


def flag(name: str, *values: str) -> Callable[[Call], object]:
    """Spoil one flag."""
    return lambda call: call.flags.update({name: list(values)})


NOTHING_HELD_OUT = {PRETRAINING: {"validation_fraction": ["0"]}, SENTIMENT: {}, NER: {}}
CSV = "text,label\nProfit rose .,good\nCash fell .,bad\n"
BAD_CALLS = {
    "missing file": BadCall(SCRIPTS, flag("train_file", "gone.csv"), ["gone.csv", "no such file"]),
    "missing validation file": BadCall(SCRIPTS, flag("validation_file", "gone.jsonl"), ["gone.jsonl", "no such file"]),
    "missing test file": BadCall((SENTIMENT, NER), flag("test_file", "gone.jsonl"), ["gone.jsonl", "no such file"]),
    "unread format": BadCall((SENTIMENT, NER), flag("train_file", __file__), ["test_refusals.py", ".jsonl"]),
    "missing column": BadCall(
        (PRETRAINING, SENTIMENT),
        lambda call: call.data("train_file", "a.csv", "body,label\nProfit rose .,good\n"),
        ["a.csv row 1", "no column text", "body, label", "--text_column"],
    ),
    "missing label column": BadCall(
        (SENTIMENT,),
        lambda call: call.data("train_file", "a.csv", "text,shade\nProfit rose .,good\n"),
        ["a.csv row 1", "no column label", "text, shade", "--label_column"],
    ),
    "missing tokens column": BadCall(
        (NER,),
        flag("tokens_column", "words"),
        ["sentences.jsonl row 1", "no column words", "--tokens_column", "no column text", "--text_column"],
    ),
    "empty text": BadCall(
        (SENTIMENT,), lambda call: call.data("train_file", "a.csv", CSV + ",good\n"), ["a.csv row 3", "text is empty"]
    ),
    "no row": BadCall((SENTIMENT,), lambda call: call.data("train_file", "a.csv", "text,label\n"), ["a.csv", "no row"]),
    "text for a list": BadCall(
        (NER,),
        lambda call: call.data("train_file", "a.jsonl", '{"tokens": "Lima rose", "ner_tags": ["B-LOC", "O"]}\n'),
        ["a.jsonl row 1", "tokens", "list"],
    ),
    "recipe with an unknown key": BadCall(
        SCRIPTS, lambda call: call.recipe("seed: 1\nlearning_rat: 1\n"), ["given.yaml", "learning_rat", "learning_rate"]
    ),
    "unknown flag": BadCall(SCRIPTS, flag("max_lenght", "9"), ["--max_lenght", "max_length"]),
    "no checkpoint": BadCall(SCRIPTS, lambda call: call.flags.pop("checkpoint"), ["--checkpoint"]),
    "checkpoint folder missing": BadCall(SCRIPTS, flag("checkpoint", "outputs/none"), ["outputs/none", "no such"]),
    "checkpoint without config": BadCall(SCRIPTS, lambda call: remove(call, "config.json"), ["config.json"]),
    "config that is no JSON": BadCall(
        SCRIPTS, lambda call: (call.checkpoint / "config.json").write_text("{"), ["config.json", "JSON"]
    ),
    "checkpoint of RoBERTa": BadCall(SCRIPTS, lambda call: call.config(model_type="roberta"), ["roberta", "bert"]),
    "checkpoint without tokenizer": BadCall(SCRIPTS, no_tokenizer, ["no tokenizer", "tokenizer.json"]),
    "pickled weights only": BadCall(SCRIPTS, only_pickled_weights, ["pickle", "safetensors"]),
    "weights in parts": BadCall(SCRIPTS, weights_in_parts, ["checkpoint", "safetensors"]),
    "tokenizer that is none": BadCall(
        SCRIPTS, lambda call: (call.checkpoint / "tokenizer.json").write_text("{}"), ["checkpoint", "tokenizer"]
    ),
    "lineage that is no JSON": BadCall(
        SCRIPTS, lambda call: (call.checkpoint / "lineage.json").write_text("{"), ["checkpoint", "lineage.json"]
    ),
    "tokenizer too large": BadCall(SCRIPTS, lambda call: call.config(vocab_size=100), ["116", "100"]),
    "max_length above positions": BadCall(SCRIPTS, flag("max_length", "65"), ["--max_length 65", "64"]),
    "max_length too short": BadCall(SCRIPTS, flag("max_length", "3"), ["--max_length 3"]),
    "output is a file": BadCall(SCRIPTS, output_is_a_file, ["out", "is a file", "--output_dir"]),
    "output under a file": BadCall(SCRIPTS, output_under_a_file, ["out", "--output_dir"]),
    "output with foreign files": BadCall(SCRIPTS, output_with_foreign_files, ["out", "holds no run", "--output_dir"]),
    "output with another finished run": BadCall(SCRIPTS, finished_run, ["out", "seed 1234 → 42", "--output_dir"]),
    "output with another run cut off": BadCall(SCRIPTS, cut_off_run, ["out", "seed 1234 → 42", "--output_dir"]),
    "one document only": BadCall(
        (PRETRAINING,),
        lambda call: call.data("train_file", "a.txt", "profit rose .\ncash fell .\n"),
        ["document", "two", "blank line"],
    ),
    "one held-out document only": BadCall(
        (PRETRAINING,),
        lambda call: call.data("validation_file", "a.txt", "profit rose .\ncash fell .\n"),
        ["1 document(s) of --validation_file", "two"],
    ),
    "more layers frozen than there are": BadCall(SCRIPTS, flag("freeze_layers", "9"), ["--freeze_layers 9", "2"]),
    "new words in frozen embeddings": BadCall(
        (PRETRAINING,),
        lambda call: call.flags.update(new_words=["3"], freeze_layers=["1"]),
        ["--new_words", "--freeze_layers", "leave one out"],
    ),
    "two sizes of a sample": BadCall(
        (SENTIMENT, NER),
        lambda call: call.flags.update(train_fraction=["0.5"], max_train_samples=["3"]),
        ["--train_fraction and --max_train_samples", "one or the other"],
    ),
    "two numbers of steps": BadCall(
        (SENTIMENT, NER),
        lambda call: call.flags.update(min_steps=["5"], max_steps=["3"]),
        ["--min_steps and --max_steps", "one or the other"],
    ),
    "smoothed labels in a loss that has none": BadCall(
        (SENTIMENT, NER),
        lambda call: call.flags.update(loss=["focal"], label_smoothing_factor=["0.1"], train_file=["gone.csv"]),
        ["--label_smoothing_factor 0.1", "cross_entropy"],
    ),
    "a best model by nothing": BadCall(
        (SENTIMENT, NER),
        lambda call: call.flags.update(load_best_model_at_end=["true"], eval_strategy=["no"], save_strategy=["no"]),
        ["--load_best_model_at_end"],
    ),
    "no layer and some": BadCall(
        (SENTIMENT, NER),
        lambda call: call.flags.update(freeze_encoder=["true"], freeze_layers=["1"]),
        ["--freeze_encoder and --freeze_layers", "one or the other"],
    ),
    "a model kept at the end": BadCall((PRETRAINING,), flag("keep_at", "10", "100"), ["--keep_at 10 100", "below 100"]),
    "a model kept at the start": BadCall((PRETRAINING,), flag("keep_at", "0"), ["--keep_at 0", "above 0"]),
    "a model kept twice": BadCall((PRETRAINING,), flag("keep_at", "10", "10"), ["--keep_at 10 10", "once"]),
    "models kept in no order": BadCall((PRETRAINING,), flag("keep_at", "30", "10"), ["--keep_at 30 10", "ascend"]),
    "a model kept at no number": BadCall((PRETRAINING,), flag("keep_at", "nan"), ["--keep_at nan"]),
    "a stream without an end": BadCall((PRETRAINING,), flag("streaming"), ["--streaming", "--max_steps"]),
    "lanes that do not divide the step": BadCall(
        (PRETRAINING,),
        lambda call: call.flags.update(streaming=[], stream_lanes=["3"], max_steps=["1"]),
        ["--stream_lanes 3", "rows of a step"],
    ),
    "lanes without a stream": BadCall((PRETRAINING,), flag("stream_lanes", "2"), ["--stream_lanes", "--streaming"]),
    "a labelled file that is not there": BadCall(
        (PRETRAINING,), flag("held_out_file", "no.csv"), ["no.csv", "no such"]
    ),
    "a labelled file without texts": BadCall(
        (PRETRAINING,),
        lambda call: call.data("held_out_file", "b.csv", "headline,label\nprofit rose,good\n"),
        ["b.csv row 1", "no column text", "headline"],
    ),
    "a data set that is not there": BadCall(
        (PRETRAINING,),
        lambda call: [call.flags.pop("train_file"), call.flags.update(dataset=["nosuch/set"])],
        ["data set nosuch/set"],
    ),
    "files and a data set": BadCall((PRETRAINING,), flag("dataset", "nosuch/set"), ["--train_file and --dataset"]),
    "one general document only": BadCall(
        (PRETRAINING,),
        lambda call: call.data("forgetting_file", "g.txt", "profit rose .\ncash fell .\n"),
        ["1 document(s) of --forgetting_file", "two"],
    ),
    "a batch of no rows": BadCall(
        SCRIPTS, flag("per_device_train_batch_size", "0"), ["--per_device_train_batch_size 0"]
    ),
    "share above 1": BadCall((PRETRAINING,), flag("mask_probability", "15"), ["--mask_probability 15", "0 and 1"]),
    "share below 0": BadCall((PRETRAINING,), flag("validation_fraction", "-0.1"), ["--validation_fraction -0.1"]),
    "label not in labels": BadCall((SENTIMENT,), flag("labels", "bad", "good"), ["texts.csv row", "so-so", "--labels"]),
    "label twice": BadCall((SENTIMENT,), flag("labels", "bad", "good", "bad"), ["--labels", "twice"]),
    "no labels": BadCall(
        (SENTIMENT,), lambda call: call.flags.pop("labels"), ["--labels", "order", "bad, good, so-so"]
    ),
    "no data to make a sentiment model from": BadCall(
        (SENTIMENT,),
        lambda call: (call.flags.pop("labels"), call.flags.update(test_file=call.flags.pop("train_file"))),
        ["no sentiment model", "--train_file"],
    ),
    "rows without a label": BadCall(
        (SENTIMENT,),
        lambda call: call.data("test_file", "a.jsonl", '{"text": "a", "label": "bad"}\n{"text": "b"}\n'),
        ["a.jsonl", "1 of 2", "label all or none"],
    ),
    "half a character": BadCall(
        (NER,), lambda call: call.sentences("train_file", (["a\ud83d"], ["O"])), ["train_file.jsonl row 1"]
    ),
    "nine tokens but eight tags": BadCall(
        (NER,),
        lambda call: call.sentences("train_file", (["Lima"], ["B-LOC"]), (["a"] * 9, ["O"] * 8)),
        ["train_file.jsonl row 2", "9 tokens", "8 tags"],
    ),
    "tag of no scheme": BadCall(
        (NER,),
        lambda call: call.sentences("train_file", (["Lima"], ["B-LOC"]), (["Oslo"], ["NN"])),
        ["train_file.jsonl row 2", "'NN'", "--tags_column"],
    ),
    "tag without type": BadCall(
        (NER,), lambda call: call.sentences("train_file", (["Lima"], ["B-"])), ["row 1", "'B-'"]
    ),
    "numbered tags without names": BadCall(
        (NER,),
        lambda call: call.data("train_file", "a.jsonl", '{"tokens": ["Lima"], "ner_tags": [1]}\n'),
        ["a.jsonl row 1", "numbers", "--labels O B-PER"],
    ),
    "entity behind the text's end": BadCall(
        (NER,),
        lambda call: call.data(
            "train_file", "a.jsonl", '{"text": "Lima", "entities": [{"start": 0, "end": 5, "label": "LOC"}]}\n'
        ),
        ["a.jsonl row 1", "0 to 5", "4 characters"],
    ),
    "columns that end early": BadCall(
        (NER,), lambda call: call.data("train_file", "a.conll", "Lima NNP B-LOC\nrose O\n"), ["a.conll line 2", "2 col"]
    ),
    "a sentence of two splits": BadCall(
        (NER,),
        lambda call: call.flags.update(test_file=call.flags["train_file"]),
        ["sentences.jsonl row 1", "two splits", "--allow_leakage"],
    ),
    "validation type unknown in train": BadCall(
        (NER,),
        lambda call: call.sentences("validation_file", (["Lima"], ["B-LOC"]), (["Hill"], ["B-PER"])),
        ["validation_file.jsonl row 2", "PER", "LOC"],
    ),
    "test type unknown in train": BadCall(
        (NER,), lambda call: call.sentences("test_file", (["Hill"], ["B-PER"])), ["test_file.jsonl row 1", "PER"]
    ),
    "half precision on a CPU": BadCall(SCRIPTS, flag("precision", "bf16"), ["half precision", "GPU", "auto"]),
    "transformers' own half precision on a CPU": BadCall(SCRIPTS, flag("fp16", "true"), ["half precision", "GPU"]),
    "a language by its name": BadCall((PRETRAINING,), flag("language", "german"), ["--language german", "such as de"]),
    "a language in capitals": BadCall((PRETRAINING,), flag("language", "DE"), ["--language DE", "small letters"]),
    "no step at all": BadCall(SCRIPTS, flag("max_steps", "0"), ["--max_steps 0", "--num_train_epochs"]),
    "fewer epochs than none": BadCall(SCRIPTS, flag("num_train_epochs", "-1"), ["--num_train_epochs -1"]),
    "epochs without an end": BadCall(SCRIPTS, flag("num_train_epochs", "inf"), ["--num_train_epochs inf"]),
    "fewer workers than none": BadCall(SCRIPTS, flag("dataloader_num_workers", "-1"), ["--dataloader_num_workers -1"]),
    "results kept for no batch": BadCall(
        SCRIPTS, flag("eval_accumulation_steps", "0"), ["--eval_accumulation_steps 0"]
    ),
    "batches cut by one process for all": BadCall(
        SCRIPTS, flag("accelerator_config", '{"dispatch_batches": true}'), ["--accelerator_config", "dispatch_batches"]
    ),
    "batches that some processes lack": BadCall(
        SCRIPTS, flag("accelerator_config", '{"even_batches": false}'), ["--accelerator_config", "even_batches"]
    ),
    "accumulation by another name": BadCall(
        SCRIPTS,
        flag("accelerator_config", '{"gradient_accumulation_kwargs": {"num_steps": 4}}'),
        ["--accelerator_config", "num_steps"],
    ),
    "a key that accelerate does not know": BadCall(
        SCRIPTS, flag("accelerator_config", '{"batches": 1}'), ["unexpected keyword argument 'batches'"]
    ),
    "a config of accelerate that is not there": BadCall(SCRIPTS, flag("accelerator_config", "no.json"), ["no.json"]),
    "shares that no launcher knows of": BadCall(SCRIPTS, flag("fsdp", "full_shard"), ["--fsdp", "recipes/accelerate"]),
    "DeepSpeed without its launcher": BadCall(SCRIPTS, flag("deepspeed", "a.json"), ["--deepspeed", "accelerate"]),
    "every machine writes": BadCall(SCRIPTS, flag("save_on_each_node", "true"), ["--save_on_each_node"]),
    "kernels that BERT has none of": BadCall(SCRIPTS, flag("use_liger_kernel", "true"), ["--use_liger_kernel"]),
    "a schedule without what it needs": BadCall(
        SCRIPTS, flag("lr_scheduler_type", "cosine_with_min_lr"), ["--lr_scheduler_type cosine_with_min_lr", "min_lr"]
    ),
    "a schedule with what it does not know": BadCall(
        SCRIPTS, flag("lr_scheduler_kwargs", '{"cycles": 2}'), ["--lr_scheduler_type linear", "cycles"]
    ),
    "an optimizer's number out of range": BadCall(SCRIPTS, flag("adam_beta2", "1.5"), ["--optim adamw_torch", "1.5"]),
    "an optimizer whose package is not there": BadCall(SCRIPTS, flag("optim", "lomo"), ["--optim lomo", "install"]),
    "a compiler that nobody knows": BadCall(
        SCRIPTS, flag("torch_compile_backend", "c"), ["--torch_compile_backend c", "DynamoBackend"]
    ),
    "the best of what is not scored": BadCall(
        SCRIPTS,
        lambda call: call.flags.update(NOTHING_HELD_OUT[call.script] | {"save_strategy": ["best"]}),
        ["--save_strategy best", "--validation_file"],
    ),
    "a schedule by what is not scored": BadCall(
        SCRIPTS,
        lambda call: call.flags.update(NOTHING_HELD_OUT[call.script] | {"lr_scheduler_type": ["reduce_lr_on_plateau"]}),
        ["--lr_scheduler_type reduce_lr_on_plateau", "--validation_file"],
    ),
    "wrong type": BadCall(SCRIPTS, flag("learning_rate", "fast"), ["--learning_rate", "fast"]),
}


@pytest.mark.parametrize(
    ("name", "script"), [(name, script) for name, bad in BAD_CALLS.items() for script in bad.scripts]
)
def test_bad_calls_are_refused_before_any_model(call: Callable[[str], Call], name: str, script: str) -> None:
    """One line names the thing, no model is loaded, and the output folder is as it was."""
    bad, made = BAD_CALLS[name], call(script)
    bad.spoil(made)
    before = contents(made.output)
    with pytest.raises(Refusal) as refusal:
        made.main()
    message = str(refusal.value)
    assert "\n" not in message
    assert [needle for needle in bad.needles if needle not in message] == [], message
    assert contents(made.output) == before


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_good_call_comes_as_far_as_the_model(call: Callable[[str], Call], script: str) -> None:
    """What the bad calls are made from is good, so that each is refused for its own fault alone."""
    made = call(script)
    with pytest.raises(ModelWanted):
        made.main()
    assert not made.output.exists()


@pytest.mark.parametrize("script", SCRIPTS)
def test_check_only_writes_nothing(call: Callable[[str], Call], script: str) -> None:
    """It reads and checks all that a run would and makes no folder; stage one alone loads a model, to time steps."""
    made = call(script)
    made.flags["check_only"] = []
    with pytest.raises(ModelWanted) if script == "run_pretraining.py" else nullcontext():
        made.main()
    assert not made.output.exists()


# --- Exit codes and what stands on the screen -------------------------------------------------------------------------


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("argv", [["--trian_file", "x.csv"], ["--seed", "many"], ["--checkpoint"]])
def test_refusals_without_data_are_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], script: str, argv: list[str]
) -> None:
    """A mistyped flag is all that is told, not that a quickstart runs, which does not."""
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setattr(sys, "argv", [script, *argv])
    with pytest.raises(SystemExit) as ended:
        run_script(MODULES[script].main)
    assert ended.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f"{script}: ")


@pytest.mark.parametrize(
    "error", [ConnectionResetError(104, "reset by peer"), EOFError(), FileNotFoundError(2, "gone")]
)
def test_a_batch_of_a_worker_that_was_killed_just_then(error: BaseException) -> None:
    """It breaks off within torch before torch knows of the worker's death; the same error elsewhere is another."""

    class Gone:
        def detach(self) -> int:
            raise error

    with pytest.raises(type(error)) as raised:
        rebuild_storage_fd(torch.UntypedStorage, Gone(), 4)
    told = told_failure(raised.value)
    assert told is not None
    assert told.startswith("a process that makes batches was killed")
    with pytest.raises(type(error)) as raised:
        Gone().detach()
    assert told_failure(raised.value.with_traceback(None)) is None


@pytest.mark.parametrize(
    ("argv", "raised", "code", "shown"),
    [
        (["a"], None, 0, ""),
        (["a"], Refusal("file.csv: is empty"), 2, "run.py: file.csv: is empty\n"),
        (["a", "--debug"], Refusal("file.csv: is empty"), 2, "Traceback"),
        (["a"], KeyboardInterrupt(), 130, "run.py: interrupted"),
    ],
)
def test_run_script_ends_the_process(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    argv: list[str],
    raised: BaseException | None,
    code: int,
    shown: str,
) -> None:
    """0 done, 2 refused, 130 interrupted; --debug is taken away from what main sees."""
    seen: list[str] = []

    def main(given: list[str]) -> None:
        seen.extend(given)
        if raised:
            raise raised

    monkeypatch.setattr(sys, "argv", ["folder/run.py", *argv])
    with pytest.raises(SystemExit) as ended:
        run_script(main)
    assert (ended.value.code, seen) == (code, ["a"])
    assert capsys.readouterr().err.startswith(shown)


def test_errors_that_are_no_refusal_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault of the program is not dressed up as one of the user's."""
    monkeypatch.setattr(sys, "argv", ["run.py"])
    with pytest.raises(ZeroDivisionError):
        run_script(lambda argv: 1 // len(argv))


@pytest.mark.parametrize(("rank", "lines"), [("0", 1), ("1", 0)])
def test_only_one_process_tells_the_refusal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], rank: str, lines: int
) -> None:
    """Under a launcher every process refuses, and one a machine says so."""

    def main(argv: list[str]) -> NoReturn:
        raise Refusal("no")

    monkeypatch.setattr(sys, "argv", ["run.py"])
    monkeypatch.setenv("LOCAL_RANK", rank)
    with pytest.raises(SystemExit):
        run_script(main)
    assert len(capsys.readouterr().err.splitlines()) == lines


def process(script: str, folder: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    """Run a script as a user does, in an empty folder."""
    return subprocess.run(
        [sys.executable, str(REPOSITORY / script), *argv], cwd=folder, env=os.environ, capture_output=True, text=True
    )


@pytest.mark.slow
def test_a_process_tells_where_it_refused(call: Callable[[str], Call]) -> None:
    """With --debug, and the exit code is the same."""
    made = call("run_sentiment.py")
    made.data("train_file", "bad.jsonl", '{"body": "Profit rose ."}\n')
    debugged = process("run_sentiment.py", made.folder, *made.argv(), "--debug")
    assert debugged.returncode == 2
    assert "Traceback" in debugged.stderr
    assert "bad.jsonl row 1" in debugged.stderr
    assert not made.output.exists()


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS)
def test_a_process_shows_its_help(tmp_path: Path, script: str) -> None:
    """Exit code 0, with every flag of the script's own."""
    shown = process(script, tmp_path, "--help")
    assert (shown.returncode, shown.stderr) == (0, "")
    own = [f"--{name}" for name in MODULES[script].Settings.__dataclass_fields__]
    assert [name for name in own if f"{name} " not in shown.stdout] == []
    assert shown.stdout.count("\n  --") < len(own) + 60


@pytest.mark.slow
def test_a_process_shows_all_its_help(tmp_path: Path) -> None:
    """Trainer's flags too, a hundred and more."""
    shown = process("run_ner.py", tmp_path, "--help_all")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout.count("\n  --") > len(MODULES["run_ner.py"].Settings.__dataclass_fields__) + 110
