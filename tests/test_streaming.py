"""A streamed corpus: dealt out to lanes, the same rows for any number of processes, and gone on with where it stood."""

import json
import os
import subprocess
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from transformers import AutoTokenizer

import run_pretraining
from tests.conftest import REPOSITORY
from two_stage.command_line.exits import Failure, Refusal
from two_stage.command_line.recipe import parse_flags
from two_stage.data.corpus import CorpusSource, text_hash
from two_stage.data.splits import read_corpora
from two_stage.data.streaming import StreamedRows


class BlockRows:
    """Rows that say which document they are: one a sentence, as long as the sentence has words."""

    def __init__(self, documents: list[list[str]], key: str) -> None:
        self.rows = [(key, sentence) for document in documents for sentence in document]
        self.lengths = np.array([len(sentence.split()) for _, sentence in self.rows])

    def __getitem__(self, row: int) -> dict[str, Any]:
        return {"row": self.rows[row]}


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, ...]:
    """Four files of nine documents of two sentences each."""
    for file in range(4):
        documents = [f"file {file} document {i} a\nfile {file} document {i} b b" for i in range(9)]
        (tmp_path / f"{file}.txt").write_text("\n\n".join(documents))
    return tuple(str(tmp_path / f"{file}.txt") for file in range(4))


def stream(files: tuple[str, ...], rank: int = 0, processes: int = 1, lanes: int = 2, **more: Any) -> StreamedRows:
    """Six rows a step, blocks of four documents."""
    return StreamedRows(CorpusSource(files), BlockRows, "key", 6, lanes, rank, processes, 4, **more)


def steps(rows: StreamedRows, count: int, share: int = 6) -> list[list[tuple[str, str]]]:
    """The rows of the first `count` steps."""
    given = iter(rows)
    return [[row["row"] for row in islice(given, share)] for _ in range(count)]


def test_two_processes_see_the_rows_that_one_sees(files: tuple[str, ...]) -> None:
    """For the same lanes, step by step."""
    alone = steps(stream(files), 12)
    first, second = (steps(stream(files, rank, 2), 12, share=3) for rank in (0, 1))
    assert alone == [one + two for one, two in zip(first, second, strict=True)]
    assert not {row for step in first for row in step} & {row for step in second for row in step}


def test_a_turn_gives_every_document_once(files: tuple[str, ...]) -> None:
    """One lane, 36 documents in nine blocks: each sentence stands in the first turn."""
    rows = list(islice(iter(stream(files, lanes=1)), 108))
    in_first_turn = [row["row"][1] for row in rows if row["stream_position"][2] == 0]
    assert set(in_first_turn) == {
        f"file {file} document {i} {end}" for file in range(4) for i in range(9) for end in ("a", "b b")
    }
    assert len({row["row"][0] for row in rows}) >= 9


@pytest.mark.parametrize("used", [1, 5, 6, 17, 36, 61])
def test_it_goes_on_behind_the_rows_that_were_used(files: tuple[str, ...], used: int) -> None:
    """From the positions of any step on, the rows are those that would have come."""
    uninterrupted = steps(stream(files), used + 5)
    rows = list(islice(iter(stream(files)), used * 6))
    positions = {str(row["stream_position"][0]): list(row["stream_position"][1:]) for row in rows}
    again = stream(files)
    again.go_on_from(positions)
    assert steps(again, 5) == uninterrupted[used:]


def test_held_out_documents_and_copies_are_left_out(files: tuple[str, ...], tmp_path: Path) -> None:
    """No held-out document is ever given, and a document that stands twice in a block stands once."""
    text = Path(files[0]).read_text()
    (tmp_path / "twice.txt").write_text(f"{text}\n\n{text}")
    held_out = frozenset({text_hash(["file 0 document 3 a", "file 0 document 3 b b"])})
    rows = StreamedRows(CorpusSource((str(tmp_path / "twice.txt"),)), BlockRows, "key", 4, 1, 0, 1, 18, held_out)
    block = [row["row"] for row in islice(iter(rows), 16)]
    assert sorted(sentence for _, sentence in block) == sorted(
        f"file 0 document {i} {end}" for i in range(9) for end in ("a", "b b") if i != 3
    )


@pytest.mark.parametrize(
    ("lanes", "processes", "message"),
    [(3, 2, "multiple of the 2"), (4, 1, "divide the 6 rows"), (6, 1, "can be read in 4 part")],
)
def test_lanes_that_do_not_fit_are_refused(files: tuple[str, ...], lanes: int, processes: int, message: str) -> None:
    """Lanes must fit the processes, the step and the parts of the corpus."""
    with pytest.raises(Refusal, match=message):
        stream(files, 0, processes, lanes)


def test_another_number_of_lanes_is_refused(files: tuple[str, ...]) -> None:
    """A run goes on with the lanes that it began with."""
    with pytest.raises(Refusal, match="began with 1"):
        stream(files).go_on_from({"0": [0, 0, 0, 0, 0]})


def call(tiny_folder: Path, data_folder: Path, output: Path, *more: str) -> list[str]:
    """A streamed run of stage one: eight steps of eight pairs, saved after four."""
    text = (data_folder / "corpus.txt").read_text().split("\n\n")
    parts = [data_folder / "part-0.txt", data_folder / "part-1.txt"]
    for i, part in enumerate(parts):
        part.write_text("\n\n".join(text[i::2]))
    flags = ["--checkpoint", str(tiny_folder), "--train_file", *map(str, parts), "--streaming", "--max_steps", "8"]
    flags += ["--stream_documents", "10", "--stream_lanes", "2", "--max_length", "32", "--logging_steps", "1"]
    flags += ["--per_device_train_batch_size", "8", "--save_steps", "4", "--save_strategy", "steps", "--use_cpu"]
    return [*flags, "--learning_rate", "1e-3", "--output_dir", str(output), *more]


def losses(output: Path) -> dict[int, float]:
    """Step → loss of a finished run."""
    history = json.loads((output / "trainer_state.json").read_text())["log_history"]
    return {entry["step"]: entry["loss"] for entry in history if "grad_norm" in entry}


def leave_only(output: Path, step: int) -> None:
    """What a run leaves that was killed after its checkpoint of `step`."""
    for path in output.iterdir():
        if path.name not in (f"checkpoint-{step}", "recipe.yaml", "lineage.json", "before.json"):
            [file.unlink() for file in path.iterdir()] if path.is_dir() else path.unlink()
            if path.is_dir():
                path.rmdir()


@pytest.mark.slow  # it trains whole runs
@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_streamed_run_resumes_bit_for_bit(tiny_folder: Path, data_folder: Path, tmp_path: Path, workers: str) -> None:
    """Cut off after its checkpoint of step 4, with rows read ahead: the same losses and the same weights."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    more = ["--dataloader_num_workers", workers, "--save_total_limit", "5"]
    for output in (whole, cut):
        run_pretraining.main(call(tiny_folder, data_folder, output, *more))
    leave_only(cut, 4)
    run_pretraining.main(call(tiny_folder, data_folder, cut, *more))
    assert losses(cut) == losses(whole)
    weights, expected = load_file(cut / "model.safetensors"), load_file(whole / "model.safetensors")
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_broken_row_far_down_is_told_in_one_line(
    tiny_folder: Path, data_folder: Path, tmp_path: Path, workers: str
) -> None:
    """By the process or by a worker, without a traceback's text; as a failure once there is something to lose."""
    for broken, kind in ((12, Refusal), (197, Failure)):
        rows = [{"text": f"profit rose {i}. cost fell {i}." if i != broken else 5} for i in range(200)]
        file = tmp_path / f"{broken}.jsonl"
        file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        more = ["--train_file", str(file), "--stream_lanes", "1", "--dataloader_num_workers", workers]
        more += ["--stream_documents", "20", "--max_steps", "40", "--save_strategy", "no"]
        with pytest.raises(kind) as told:
            run_pretraining.main(call(tiny_folder, data_folder, tmp_path / f"run-{broken}", *more))
        assert str(told.value).startswith(f"{file} row {broken + 1}: column text holds 5")
        assert "\n" not in str(told.value)


def test_general_documents_are_not_trained_on(tiny_folder: Path, data_folder: Path, tmp_path: Path) -> None:
    """As without a stream: their loss, before and after, is of text that was not learnt by heart."""
    general = (data_folder / "corpus.txt").read_text().split("\n\n")[:5]
    file = tmp_path / "general.txt"
    file.write_text("\n\n".join(general))
    flags = call(tiny_folder, data_folder, tmp_path / "run", "--forgetting_file", str(file))
    settings, training, _ = parse_flags(
        flags, run_pretraining.Settings, run_pretraining.PretrainingArguments, "", "A run."
    )
    corpora = read_corpora(settings, AutoTokenizer.from_pretrained(tiny_folder))
    rows = run_pretraining.streamed_pairs(settings, training, corpora)
    assert rows.held_out == {text_hash(document.splitlines()) for document in general}


def test_copies_in_a_row_are_not_told_as_lanes(tiny_folder: Path, tmp_path: Path) -> None:
    """One lane can be no fewer: a longer block mends it, or masked words alone, which need no other document."""
    (tmp_path / "copies.txt").write_text("profit rose .\ncash fell .\n\n" * 20 + "sales held .\nship sank .\n")
    flags = ["--checkpoint", str(tiny_folder), "--train_file", str(tmp_path / "copies.txt"), "--streaming"]
    flags += ["--max_steps", "2", "--max_length", "32", "--per_device_train_batch_size", "4", "--use_cpu"]
    with pytest.raises(Refusal, match=r"--stream_documents 10: .* hold 1 different one"):
        run_pretraining.main([*flags, "--stream_documents", "10", "--output_dir", str(tmp_path / "short")])
    for more in (["--stream_documents", "30"], ["--stream_documents", "10", "--no_next_sentence"]):
        run_pretraining.main([*flags, *more, "--output_dir", str(tmp_path / more[1] / str(len(more)))])


def test_a_stream_needs_an_end(tiny_folder: Path, data_folder: Path, tmp_path: Path) -> None:
    """Without max_steps it would never stop."""
    flags = [flag for flag in call(tiny_folder, data_folder, tmp_path / "run") if flag not in ("--max_steps",)]
    flags.remove("8")
    with pytest.raises(Refusal, match="max_steps"):
        run_pretraining.main(flags)


@pytest.fixture
def launched(tiny_folder: Path, data_folder: Path, tmp_path: Path) -> Path:
    """The same stream on two processes, by torchrun."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    flags = call(tiny_folder, data_folder, tmp_path / "two", "--per_device_train_batch_size", "2")
    flags += ["--gradient_accumulation_steps", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*launch, "run_pretraining.py", *flags], cwd=REPOSITORY, env=environment, capture_output=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return tmp_path / "two"


@pytest.mark.slow
def test_two_processes_stream_as_one(tiny_folder: Path, data_folder: Path, tmp_path: Path, launched: Path) -> None:
    """2 × 2 × 2 gives the losses of 8 × 1 × 1, and the checkpoint knows where both lanes stood."""
    run_pretraining.main(call(tiny_folder, data_folder, tmp_path / "one"))
    assert losses(launched) == pytest.approx(losses(tmp_path / "one"), rel=1e-4)
    state = json.loads((launched / "checkpoint-4" / "trainer_state.json").read_text())
    assert sorted(state["stateful_callbacks"]["ResumeState"]["attributes"]["positions"]) == ["0", "1"]


def test_a_lane_without_documents_is_refused(files: tuple[str, ...], tmp_path: Path) -> None:
    """It would look for one for ever."""
    (tmp_path / "blank.txt").write_text("\n \n\n")
    rows = StreamedRows(CorpusSource((files[0], str(tmp_path / "blank.txt"))), BlockRows, "key", 6, 2, 1, 2, 4)
    with pytest.raises(Refusal, match="lane 1 of 2 has no document to train on; use fewer --stream_lanes"):
        next(iter(rows))


def test_a_process_goes_on_with_its_own_lanes_alone(files: tuple[str, ...]) -> None:
    """Another process's place, kept from the checkpoint, would be saved over the one that it has reached."""
    place = {"0": [1, 0, 0, 4, 3], "1": [2, 0, 1, 5, 6]}
    assert [stream(files, rank, 2).go_on_from(place) for rank in (0, 1)] == [{"0": place["0"]}, {"1": place["1"]}]


def test_a_lane_of_held_out_documents_is_refused(files: tuple[str, ...]) -> None:
    """It too would look for a document for ever."""
    texts = [[f"file 0 document {i} a", f"file 0 document {i} b b"] for i in range(9)]
    with pytest.raises(Refusal, match="no document to train on; give some that are not held out"):
        next(iter(stream(files[:1], lanes=1, held_out=frozenset(map(text_hash, texts)))))


def test_a_block_goes_on_behind_held_out_documents(files: tuple[str, ...]) -> None:
    """Held-out documents at the front of a file do not stop the stream: blocks are filled with the others."""
    texts = [[f"file 0 document {i} a", f"file 0 document {i} b b"] for i in range(9)]
    rows = stream(files[:1], lanes=1, held_out=frozenset(map(text_hash, texts[:7])))
    seen = {row["row"][1] for row in islice(iter(rows), 24)}
    assert seen == {sentence for text in texts[7:] for sentence in text}


def test_another_key_gives_another_order(tmp_path: Path) -> None:
    """The order of shards and rows knows the seed."""
    (tmp_path / "a.txt").write_text("\n\n".join(f"document {i}\nof two" for i in range(40)))
    source = CorpusSource((str(tmp_path / "a.txt"),))
    orders = [
        [row["row"][1] for row in islice(iter(StreamedRows(source, BlockRows, key, 8, 1, 0, 1, 40)), 40)]
        for key in ("1", "2")
    ]
    assert orders[0] != orders[1]


def test_a_data_set_is_streamed(tmp_path: Path) -> None:
    """Its rows come as they are read; each of its files is a part."""
    for file in range(2):
        Dataset.from_dict({"text": [f"One of {file}.\nTwo of {i}." for i in range(6)]}).to_parquet(
            tmp_path / f"train-{file}.parquet"
        )
    rows = StreamedRows(CorpusSource(dataset=str(tmp_path), streamed=True), BlockRows, "key", 4, 2, 0, 1, 6)
    seen = {row["row"][1] for row in islice(iter(rows), 24)}
    assert seen == {f"One of {file}." for file in range(2)} | {f"Two of {i}." for i in range(6)}
