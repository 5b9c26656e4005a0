"""A loss, gradient or weight that is no finite number stops a run within one step, and nothing broken is saved."""

import csv
import json
import math
import os
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoTokenizer

import run_pretraining
from tests.conftest import NOUNS, PLACES, REPOSITORY, SHADES, VERBS
from tests.test_resume import BATCH, Call, dropout_folder, history, scores_of  # noqa: F401
from two_stage.checkpointing.checkpoints import UNFINISHED, what_is_wrong
from two_stage.checkpointing.handoff import file_sha256
from two_stage.command_line.exits import Failure, Refusal, run_script
from two_stage.training.trainer import ExactTrainer

NAN, INF = math.nan, math.inf
SAVES = [*BATCH, "--save_strategy", "steps", "--save_steps", "3", "--save_total_limit", "9", "--eval_strategy", "no"]
HALVES = ("--per_device_train_batch_size", "4", "--gradient_accumulation_steps", "2")
BREAKS = 4  # the step that breaks a weight, behind checkpoint-3
LINE = re.compile(
    r"step (?P<step>\d+): (?P<what>[^(]+) \((?P<rows>.+? row \d+)(?: and (?P<more>\d+) more)?, "
    r"beginning with “(?P<text>.*)”\); the step was not taken, and (?P<good>.*); "
    r"try a lower --learning_rate than \S+, or --precision fp32"
)


@pytest.fixture(scope="module")
def rare_words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data in which each noun stands in three rows alone; of stage one documents of many lengths."""
    folder = tmp_path_factory.mktemp("rare")
    rng = random.Random(0)
    sentences = [
        [*rng.choices(VERBS + PLACES, k=2 + row % 7), NOUNS[row % 16], *rng.choices(VERBS, k=2), "."]
        for row in range(168)
    ]
    documents = ["\n".join(" ".join(words) for words in sentences[start : start + 3]) for start in range(48, 168, 3)]
    del sentences[48:]
    rows = [[" ".join(words), SHADES[row % 3]] for row, words in enumerate(sentences)]
    with open(folder / "texts.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["text", "label"], *rows])
    tagged = [
        {"tokens": words, "ner_tags": ["B-LOC" if word in NOUNS else "O" for word in words]} for words in sentences
    ]
    (folder / "sentences.jsonl").write_text("".join(json.dumps(row) + "\n" for row in tagged), encoding="utf-8")
    (folder / "corpus.txt").write_text("\n\n".join(documents) + "\n", encoding="utf-8")
    return folder


@pytest.fixture
def call(tmp_path: Path, dropout_folder: Path, rare_words: Path) -> Callable[..., Call]:  # noqa: F811
    """A function that makes a command."""
    return lambda name, *flags: Call(name, tmp_path, dropout_folder, rare_words, *SAVES, *flags)


# --- What a run saw, and what it said ---------------------------------------------------------------------------------


class Row(NamedTuple):
    """The token ids of a row, and what the model is shown of them."""

    whole: tuple[int, ...]
    shown: tuple[int, ...]


class Seen:
    """What a run learned from: step → micro-batch → rows; its trainer, and its weights before the last step."""

    def __init__(self) -> None:
        self.steps: list[list[list[Row]]] = []
        self.trainer: ExactTrainer
        self.weights: dict[str, Tensor] = {}

    def note(self, trainer: ExactTrainer, inputs: dict[str, Tensor]) -> None:
        """Note a micro-batch."""
        ids, labels = inputs["input_ids"], inputs["labels" if "next_sentence_label" in inputs else "input_ids"]
        whole = torch.where(labels != -100, labels, ids)  # words that are masked, as they were
        lengths = inputs["attention_mask"].sum(dim=1).tolist()
        rows = [
            Row(tuple(whole[row, :length].tolist()), tuple(ids[row, :length].tolist()))
            for row, length in enumerate(lengths)
        ]
        if trainer.state.global_step == len(self.steps):
            self.steps.append([])
            self.weights = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
        self.steps[-1].append(rows)
        self.trainer = trainer


@contextmanager
def each_micro_batch(first: Callable[[ExactTrainer, Seen], None]) -> Iterator[Seen]:
    """Note all that a run learns from, and do something before each micro-batch."""
    own, seen = ExactTrainer.training_step, Seen()

    def training_step(trainer: ExactTrainer, model: Any, inputs: dict[str, Tensor], *rest: Any) -> Tensor:
        seen.note(trainer, inputs)
        first(trainer, seen)
        return own(trainer, model, inputs, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ExactTrainer, "training_step", training_step)
        yield seen


def breaks(tensor: str, row: int, value: float) -> Callable[[ExactTrainer, Seen], None]:
    """Break a row of a tensor, from the fourth step on."""

    def first(trainer: ExactTrainer, seen: Seen) -> None:
        if trainer.state.global_step >= BREAKS - 1:
            trainer.model.get_parameter(f"bert.embeddings.{tensor}.weight").data[row] = value

    return first


class Told(NamedTuple):
    """What the line of a failure says."""

    step: int
    what: str
    places: list[str]
    more: int
    text: str
    good: str


def told(line: str) -> Told:
    """A line, taken apart; it has no other form."""
    found = LINE.match(line)
    assert found, line
    places, more = found["rows"].split(", "), int(found["more"] or 0)
    assert len(places) == 3 or not more
    return Told(int(found["step"]), found["what"], places, more, found["text"], found["good"])


def file_rows(name: str, folder: Path, tokenizer: Any) -> dict[tuple[int, ...], str]:
    """Token ids of each row of the training file → its place, counted from 1, as anybody would."""
    path = folder / ("texts.csv" if name == "sentiment" else "sentences.jsonl")
    if name == "sentiment":
        with open(path, encoding="utf-8", newline="") as file:
            texts = [row["text"] for row in csv.DictReader(file)]
    else:
        texts = [" ".join(json.loads(line)["tokens"]) for line in path.read_text(encoding="utf-8").splitlines()]
    places = {tuple(tokenizer(text)["input_ids"]): f"{path} row {number}" for number, text in enumerate(texts, 1)}
    assert len(places) == len(texts)
    return places


def nothing_broken(run: Path) -> None:
    """No file of weights under a run's folder holds a number that is none, and no checkpoint is half."""
    for path in run.rglob("*.safetensors"):
        assert all(tensor.isfinite().all() for tensor in load_file(path).values()), path
    assert all(what_is_wrong(checkpoint) is None for checkpoint in run.glob("checkpoint-*"))
    assert not (run / "all_results.json").exists()


# --- The loss ---------------------------------------------------------------------------------------------------------


def expected_word(seen: Seen, ids: dict[str, int], met_by: list[bool]) -> tuple[str, int]:
    """A noun that these micro-batches of a step meet, some rows of each, and no step since it broke; with the step."""
    for word in reversed(NOUNS):
        met = [[[ids[word] in row.shown for row in batch] for batch in step] for step in seen.steps]
        step = next(number for number in range(BREAKS - 1, len(met)) if any(map(any, met[number])))
        if list(map(any, met[step])) == met_by and not any(map(all, met[step])):
            return word, step + 1
    raise AssertionError("no noun of the data is met so")


@pytest.mark.parametrize(
    ("name", "flags", "value"),
    [
        pytest.param("sentiment", (), NAN, marks=pytest.mark.slow),
        pytest.param("sentiment", HALVES, INF),
        pytest.param("ner", (), INF),
        pytest.param("ner", HALVES, NAN, marks=pytest.mark.slow),
        pytest.param("sentiment", ("--max_train_samples", "60", "--min_steps", "24"), NAN, marks=pytest.mark.slow),
        pytest.param("ner", ("--dataloader_num_workers", "1"), NAN, marks=pytest.mark.slow),
    ],
)
def test_the_very_rows_with_a_broken_word(
    call: Callable[..., Call], rare_words: Path, name: str, flags: tuple[str, ...], value: float
) -> None:
    """At the first step that meets it, its rows and no others, also where only the second micro-batch has it."""
    made = call(name, *flags)
    tokenizer = AutoTokenizer.from_pretrained(made.flags[1])
    with each_micro_batch(lambda trainer, seen: None) as seen:
        made("whole")
    ids = {word: tokenizer.convert_tokens_to_ids(word) for word in NOUNS}
    word, step = expected_word(seen, ids, [False, True] if flags == HALVES else [True])
    with each_micro_batch(breaks("word_embeddings", ids[word], value)) as seen, pytest.raises(Failure) as failure:
        made("run")
    line = told(str(failure.value))
    places = file_rows(name, rare_words, tokenizer)
    at_fault = [row for batch in seen.steps[step - 1] for row in batch if ids[word] in row.shown]
    assert line.step == step == len(seen.steps)
    assert line.what == "the loss is nan"
    assert line.places == [places[row.whole] for row in at_fault][:3]
    assert len(line.places) + line.more == len(at_fault)
    assert line.text == tokenizer.decode(at_fault[0].whole, skip_special_tokens=True)[:60]
    saved = made.folder / "run" / f"checkpoint-{(step - 1) // 3 * 3}"
    assert line.good == f"{saved} is the last good checkpoint"
    assert what_is_wrong(saved) is None
    nothing_broken(made.folder / "run")


@pytest.mark.parametrize("flags", [(), pytest.param(HALVES, marks=pytest.mark.slow)])
def test_the_very_pairs_of_stage_one(call: Callable[..., Call], flags: tuple[str, ...]) -> None:
    """Those that show a word; the word's own weights, which are also those that name it, would break every pair."""
    made = call("pretraining", *flags)
    tokenizer = AutoTokenizer.from_pretrained(made.flags[1])
    with each_micro_batch(lambda trainer, seen: None) as seen:
        made("whole")
    ids = {word: tokenizer.convert_tokens_to_ids(word) for word in NOUNS}
    word, step = expected_word(seen, ids, [False, True] if flags else [True])

    def first(trainer: ExactTrainer, seen: Seen) -> None:
        def hook(module: Any, args: tuple[Tensor], vectors: Tensor) -> Tensor:
            return vectors.masked_fill(args[0].eq(ids[word])[..., None], NAN)

        if trainer.state.global_step == BREAKS - 1 and len(seen.steps[-1]) == 1:
            trainer.model.bert.embeddings.word_embeddings.register_forward_hook(hook)

    with each_micro_batch(first) as seen, pytest.raises(Failure) as failure:
        made("run")
    line = told(str(failure.value))
    pairs = seen.trainer.train_dataset
    places = {tuple(pairs[row]["input_ids"]): f"training row {row + 1}" for row in range(len(pairs))}
    assert len(places) == len(pairs)
    assert line.step == step == len(seen.steps)
    at_fault = [places[row.whole] for batch in seen.steps[-1] for row in batch if ids[word] in row.shown]
    assert line.places == at_fault[:3]
    assert len(line.places) + line.more == len(at_fault) < 8
    assert f"checkpoint-{(step - 1) // 3 * 3} is the last good checkpoint" in line.good
    nothing_broken(made.folder / "run")


def test_a_stream_tells_the_text(call: Callable[..., Call]) -> None:
    """Its rows have no numbers."""
    made = call("pretraining", "--streaming", "--max_steps", "9", "--stream_documents", "20")
    with (
        each_micro_batch(breaks("position_embeddings", 2, NAN)) as seen,
        pytest.raises(Failure, match=r"step 4: the loss is nan \(beginning with “\w.*”\); .*checkpoint-3 is the last"),
    ):
        made("run")
    assert len(seen.steps) == BREAKS
    nothing_broken(made.folder / "run")


@pytest.mark.slow  # it trains whole runs
def test_a_run_that_broke_goes_on(call: Callable[..., Call]) -> None:
    """The same command, once what broke it is gone, ends in the numbers of a run that was never disturbed."""
    made = call("sentiment", "--num_train_epochs", "1")
    made("whole")
    with each_micro_batch(breaks("position_embeddings", 0, NAN)), pytest.raises(Failure, match=r"^step 4: "):
        made("run")
    made("run")
    whole, run = made.folder / "whole", made.folder / "run"
    assert history(run) == history(whole)
    assert scores_of(run) == scores_of(whole)
    assert file_sha256(run / "model.safetensors") == file_sha256(whole / "model.safetensors")


@pytest.mark.parametrize("name", ["sentiment", pytest.param("ner", marks=pytest.mark.slow)])
def test_the_script_ends_with_one_line(
    call: Callable[..., Call], name: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Exit code 1, no traceback; before the first checkpoint it is said that there is none."""
    made = call(name, "--save_steps", "99", "--disable_tqdm", "true")
    monkeypatch.setattr(sys, "argv", [f"/a/b/run_{name}.py", *made.flags, "--output_dir", str(made.folder / "run")])
    with each_micro_batch(breaks("position_embeddings", 0, NAN)), pytest.raises(SystemExit) as end:
        run_script(made.module.main)
    assert end.value.code == 1
    said = capfd.readouterr()
    assert "Traceback" not in said.err + said.out
    lines = [line for line in said.err.splitlines() if line.startswith("run_")]
    assert len(lines) == 1
    assert lines[0] == said.err.splitlines()[-1]
    line = told(lines[0].removeprefix(f"run_{name}.py: "))
    assert line.step == BREAKS
    assert len(line.places) + line.more == 8
    assert line.good == "no checkpoint was saved before"
    assert not list((made.folder / "run").glob("checkpoint-*"))
    nothing_broken(made.folder / "run")


# --- The gradient -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        pytest.param("pretraining", HALVES, marks=pytest.mark.slow),
        pytest.param("sentiment", ("--max_grad_norm", "0")),
        pytest.param("ner", HALVES, marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("value", [INF, pytest.param(NAN, marks=pytest.mark.slow)])
def test_a_gradient_that_is_none(call: Callable[..., Call], name: str, flags: tuple[str, ...], value: float) -> None:
    """With a finite loss, clipped or not: all rows of the step are told, and no weight has moved."""

    def first(trainer: ExactTrainer, seen: Seen) -> None:
        if trainer.state.global_step == BREAKS - 1 and len(seen.steps[-1]) == 1:
            bias = trainer.model.get_parameter("bert.encoder.layer.0.output.dense.bias")
            bias.register_hook(lambda gradient: gradient.index_fill(0, torch.tensor(5), value))

    made = call(name, *flags)
    with each_micro_batch(first) as seen, pytest.raises(Failure) as failure:
        made("run")
    line = told(str(failure.value))
    assert (line.step, line.what) == (BREAKS, "the gradient is no finite number")
    assert len(line.places) + line.more == sum(map(len, seen.steps[-1])) == 8
    assert line.good == f"{made.folder / 'run' / 'checkpoint-3'} is the last good checkpoint"
    for key, tensor in seen.trainer.model.state_dict().items():
        assert torch.equal(tensor, seen.weights[key]), key
    nothing_broken(made.folder / "run")


def test_many_rows_are_not_all_told(call: Callable[..., Call]) -> None:
    """Three, and how many more there are."""

    def first(trainer: ExactTrainer, seen: Seen) -> None:
        trainer.model.classifier.bias.register_hook(lambda gradient: gradient * INF)

    with each_micro_batch(first), pytest.raises(Failure) as failure:
        call("sentiment", "--per_device_train_batch_size", "12")("run")
    line = told(str(failure.value))
    assert (line.step, len(line.places), line.more) == (1, 3, 9)


@pytest.mark.slow  # it trains whole runs
def test_a_text_is_named_once(call: Callable[..., Call], tmp_path: Path) -> None:
    """Whatever windows it is cut into, and however often they are gone over."""
    texts = [f"{' '.join(VERBS * 3)} {noun}" for noun in NOUNS[:2]]
    file = tmp_path / "long.csv"
    file.write_text("text,label\n" + "".join(f"{text},{SHADES[0]}\n" for text in texts), encoding="utf-8")

    def first(trainer: ExactTrainer, seen: Seen) -> None:
        trainer.model.classifier.bias.register_hook(lambda gradient: gradient * INF)

    made = call("sentiment", "--long_text", "windows", "--stride", "4", "--max_length", "16", "--min_steps", "9")
    made.flags[made.flags.index("--train_file") + 1] = str(file)
    with each_micro_batch(first) as seen, pytest.raises(Failure) as failure:
        made("run")
    line = told(str(failure.value))
    assert sum(map(len, seen.steps[0])) == 8
    assert sorted(line.places) == [f"{file} row 1", f"{file} row 2"]
    assert line.more == 0


# --- Weights ----------------------------------------------------------------------------------------------------------


@contextmanager
def broken_before(owner: Any, name: str, step: int) -> Iterator[None]:
    """Break a weight just before a function is called behind a step, when nothing looks at losses any more."""
    own = getattr(owner, name)

    def replaced(self: Any, *args: Any, **kwargs: Any) -> Any:
        trainer = self if isinstance(self, ExactTrainer) else self.trainer
        if trainer.state.global_step == step:
            trainer.model.bert.embeddings.LayerNorm.weight.data[3] = NAN
        return own(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, replaced)
        yield


BROKEN = r"step {}: bert\.embeddings\.LayerNorm\.weight holds numbers that are none, so nothing was saved"


def test_a_broken_weight_is_in_no_checkpoint(call: Callable[..., Call]) -> None:
    """The one before is told and stays as it was; what is left of the new one has no name that a run would take."""
    made = call("sentiment")
    run = made.folder / "run"
    with (
        broken_before(ExactTrainer, "_save_checkpoint", 6),
        pytest.raises(Failure, match=BROKEN.format(6) + f"; {run}/checkpoint-3 is the last good checkpoint; try a"),
    ):
        made("run")
    there = {path.name for path in run.iterdir()}
    assert there - {UNFINISHED} == {"checkpoint-3", "lineage.json", "recipe.yaml"}
    nothing_broken(run)
    assert made("run")["train_loss"] > 0


@pytest.mark.parametrize("name", ["sentiment", pytest.param("pretraining", marks=pytest.mark.slow)])
def test_a_broken_weight_is_in_no_final_model(call: Callable[..., Call], name: str) -> None:
    """The run is not finished, and its folder is no model."""
    made = call(name, "--max_steps", "4")
    with broken_before(ExactTrainer, "save_model", 4), pytest.raises(Failure, match=BROKEN.format(4)):
        made("run", "--save_strategy", "no")
    assert not list((made.folder / "run").glob("*.safetensors"))
    nothing_broken(made.folder / "run")


def test_a_broken_weight_is_in_no_model_on_the_way(call: Callable[..., Call]) -> None:
    """--keep_at of stage one."""
    made = call("pretraining", "--max_steps", "4", "--keep_at", "50")
    with broken_before(run_pretraining.KeepModels, "write", 2), pytest.raises(Failure, match=BROKEN.format(2)):
        made("run")
    assert not (made.folder / "run" / "kept" / "50-percent").exists()
    nothing_broken(made.folder / "run")


@pytest.mark.parametrize("name", ["ner", pytest.param("sentiment", marks=pytest.mark.slow)])
def test_a_step_that_breaks_the_weights(
    call: Callable[..., Call], name: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A rate beyond all numbers, in the last step before an evaluation: one line, and nothing is saved."""
    rate = ("--learning_rate", "1e38", "--head_learning_rate", "1e38", "--warmup_steps", "0")
    made = call(name, *rate, "--max_steps", "1", "--eval_strategy", "epoch", "--disable_tqdm", "true")
    monkeypatch.setattr(sys, "argv", [f"run_{name}.py", *made.flags, "--output_dir", str(made.folder / "run")])
    with pytest.raises(SystemExit) as end:
        run_script(made.module.main)
    assert end.value.code == 1
    said = capfd.readouterr().err
    assert "Traceback" not in said
    assert said.splitlines()[-1].startswith(f"run_{name}.py: ")
    assert "numbers" in said.splitlines()[-1]
    nothing_broken(made.folder / "run")


@pytest.mark.parametrize("value", [NAN, INF, -INF])
@pytest.mark.parametrize("name", ["pretraining", "sentiment", "ner"])
def test_broken_weights_to_start_from_are_refused(call: Callable[..., Call], name: str, value: float) -> None:
    """The tensor is named, before any step."""
    made = call(name)
    folder = made.folder / "broken"
    shutil.copytree(made.flags[1], folder)
    tensors = load_file(folder / "model.safetensors")
    tensors["bert.embeddings.word_embeddings.weight"][9, 3] = value
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    line = r"broken: bert\.embeddings\.word_embeddings\.weight holds numbers that are none"
    with pytest.raises(Refusal, match=line):
        made("run", "--checkpoint", str(folder))
    assert not (made.folder / "run").exists()


# --- Two processes ----------------------------------------------------------------------------------------------------

DRIVER = """
import sys
import time
from pathlib import Path

import run_sentiment
from two_stage.command_line.exits import run_script
from two_stage.training.trainer import ExactTrainer

own, own_rows = ExactTrainer.training_step, ExactTrainer.rows_at_fault
word, noted = int(sys.argv.pop(1)), Path(sys.argv.pop(1))


def training_step(trainer, model, *rest):
    if trainer.state.global_step == 3:
        trainer.accelerator.unwrap_model(model).bert.embeddings.word_embeddings.weight.data[word] = float("nan")
        noted.touch()
    return own(trainer, model, *rest)


def rows_at_fault(trainer, inputs):
    time.sleep(4 * trainer.args.process_index)
    return own_rows(trainer, inputs)


ExactTrainer.training_step, ExactTrainer.rows_at_fault = training_step, rows_at_fault
sys.argv[0] = "run_sentiment.py"
run_script(run_sentiment.main)
"""


@pytest.mark.slow
def test_the_process_with_the_broken_row_tells_it(call: Callable[..., Call], rare_words: Path) -> None:
    """Also where the other one ends before it, and the launcher tells it to end; and that within seconds."""
    made = call("sentiment", *HALVES)
    tokenizer = AutoTokenizer.from_pretrained(made.flags[1])
    with each_micro_batch(lambda trainer, seen: None) as seen:
        made("whole")
    ids = {word: tokenizer.convert_tokens_to_ids(word) for word in NOUNS}
    word, step = expected_word(seen, ids, [False, True])  # the second of a step's micro-batches is now process 1's
    (made.folder / "driver.py").write_text(DRIVER, encoding="utf-8")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    driver = [str(made.folder / "driver.py"), str(ids[word]), str(made.folder / "noted")]
    flags = [*made.flags, "--gradient_accumulation_steps", "1", "--output_dir", str(made.folder / "run")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [*launch, *driver, *flags], capture_output=True, text=True, cwd=REPOSITORY, env=environment, timeout=120
    )
    assert done.returncode == 1
    assert time.time() - (made.folder / "noted").stat().st_mtime < 30
    said = dict(re.findall(r"run_sentiment\.py \(process (\d)\): (.*)", done.stderr))
    line = told(said["1"])
    places = file_rows("sentiment", rare_words, tokenizer)
    assert (line.step, line.what) == (step, "the loss is nan")
    at_fault = [places[row.whole] for row in seen.steps[step - 1][1] if ids[word] in row.shown]
    assert line.places == at_fault[:3]
    assert told(said["0"]).what == "the gradient is no finite number, while this process's losses are"
    nothing_broken(made.folder / "run")
