"""Rows of files and of data sets: which split is read from where, and what tells that its content changed."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value
from hypothesis import given
from hypothesis import strategies as st
from transformers import BertConfig

import run_sentiment
from run_ner import Settings
from two_stage.checkpointing.handoff import Checkpoint
from two_stage.command_line.exits import Refusal
from two_stage.data.sources import (
    Sample,
    Source,
    check_sources,
    sample_rows,
    split_sources,
    trace_dataset,
    training_sample,
)
from two_stage.data.tagged_sentences import load_splits

ENCODER = Checkpoint("the folder", BertConfig(), None, None, None)  # type: ignore[arg-type]
NAMES = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]  # CoNLL-2003's order, which is not the model's
FEATURES = Features({"tokens": List(Value("string")), "ner_tags": List(ClassLabel(names=NAMES))})
ROWS: dict[str, tuple[list[list[str]], list[list[int]]]] = {
    "train": ([["Ann", "Hill", "rose"], ["Oslo"]], [[1, 2, 0], [3]]),
    "validation": ([["in", "Lima"]], [[0, 3]]),
    "test": ([["Bob", "fell"]], [[1, 0]]),
}
GOLD = {"train": [3, 4, 0, 1], "validation": [0, 1], "test": [3, 0]}  # O B-LOC I-LOC B-PER I-PER


def rows_of(split: str) -> Dataset:
    """A split's rows, numbers with names."""
    tokens, tags = ROWS[split]
    return Dataset.from_dict({"tokens": tokens, "ner_tags": tags}, FEATURES)


def data_set(folder: Path, kind: str, names: dict[str, str]) -> str:
    """A data set whose splits go by these names, as parquet files or as `save_to_disk` writes them."""
    if kind == "saved":
        DatasetDict({name: rows_of(split) for split, name in names.items()}).save_to_disk(folder)
    else:
        folder.mkdir(parents=True, exist_ok=True)
        for split, name in names.items():
            rows_of(split).to_parquet(folder / f"{name}.parquet")
    return str(folder)


SAME = {split: split for split in ROWS}


# --- Flags that go together -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "found"),
    [
        ({"dataset": "x", "train_file": ["a.jsonl"]}, "--train_file and --dataset: give one or the other"),
        ({"dataset_splits": ["test"]}, "--dataset_splits: says which --dataset; there is none"),
        ({"dataset_config": "en"}, "--dataset_config: says which --dataset; there is none"),
        ({"dataset_revision": "main", "train_file": ["a"]}, "--dataset_revision: says which --dataset; there is none"),
    ],
)
def test_flags_that_exclude_each_other(flags: dict[str, Any], found: str) -> None:
    """Refused as the flags are read."""
    with pytest.raises(Refusal, match=f"^{re.escape(found)}$"):
        Settings(**flags)


def test_flags_that_go_together() -> None:
    """A data set beside files to score, and no data at all."""
    check_sources(Settings(dataset="x", dataset_config="en", dataset_revision="main", test_file=["a.jsonl"]))
    check_sources(Settings(validation_file=["a.jsonl"]))
    check_sources(Settings())


# --- Files ------------------------------------------------------------------------------------------------------------


def test_files_in_the_order_of_splits(tmp_path: Path) -> None:
    """Of what is given alone; rows of several files one behind the other, each with its place."""
    for name in "ab":
        (tmp_path / f"{name}.txt").write_text(f"{name} rose\n\n{name} fell\n", encoding="utf-8")
    a, b = str(tmp_path / "a.txt"), str(tmp_path / "b.txt")
    sources = split_sources(Settings(test_file=[b, a], train_file=[a]))
    assert sources == {"train": Source((a,)), "test": Source((b, a))}
    assert list(sources) == ["train", "test"]
    assert sources["test"].name == f"{b}, {a}"
    places = [f"{path} row {number}" for path in (b, a) for number in (1, 2)]
    assert [place for place, _ in sources["test"].rows()] == places
    assert [row["text"] for _, row in sources["test"].rows()] == ["b rose", "b fell", "a rose", "a fell"]
    assert split_sources(Settings()) == {}


# --- Data sets --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["parquet", "saved"])
def test_a_data_set_gives_all_its_splits(kind: str, tmp_path: Path) -> None:
    """Numbers by the names of their feature: no --labels are needed, and their order does not matter."""
    name = data_set(tmp_path / "set", kind, SAME)
    splits, types, facts = load_splits(Settings(dataset=name), ENCODER)
    assert (list(splits), types) == (list(ROWS), ["LOC", "PER"])
    assert {split: splits[split].gold_chosen.tolist() for split in splits} == GOLD
    assert splits["train"].places == [f"{name} train row 1", f"{name} train row 2"]
    assert facts["train"] == "2 sentences, 4 words, IOB2: 1 LOC, 1 PER"


@pytest.mark.parametrize("validation", ["validation", "valid", "val", "dev"])
def test_splits_by_their_other_names(validation: str, tmp_path: Path) -> None:
    """What is scored every epoch goes by several; the row's place has the data set's own."""
    name = data_set(tmp_path / "set", "saved", {"train": "train", "validation": validation, "test": "unlabelled"})
    sources = split_sources(Settings(dataset=name))
    assert sources == {
        "train": Source(dataset=(name, None, None, "train")),
        "validation": Source(dataset=(name, None, None, validation)),
    }
    assert sources["validation"].name == f"{name} {validation}"
    assert [place for place, _ in sources["validation"].rows()] == [f"{name} {validation} row 1"]


def test_of_two_splits_to_validate_on_the_first_name_counts(tmp_path: Path) -> None:
    """As some have both; only one can be meant."""
    splits = {name: rows_of("validation") for name in ("dev", "validation")} | {"train": rows_of("train")}
    DatasetDict(splits).save_to_disk(tmp_path / "set")
    sources = split_sources(Settings(dataset=str(tmp_path / "set")))
    assert list(sources) == ["train", "validation"]
    assert sources["validation"].dataset == (str(tmp_path / "set"), None, None, "validation")


def test_a_file_wins_over_the_data_sets_split(tmp_path: Path) -> None:
    """The other splits stay the data set's, and the lineage names only these."""
    name = data_set(tmp_path / "set", "parquet", SAME)
    file = tmp_path / "own.conll"
    file.write_text("Perth B-LOC\nheld O\n", encoding="utf-8")
    asked = Settings(dataset=name, validation_file=[str(file)])
    splits, _, _ = load_splits(asked, ENCODER)
    assert splits["validation"].places == [f"{file} row 1"]
    assert splits["validation"].texts == ["Perth held"]
    assert splits["test"].texts == ["Bob fell"]
    assert list(splits) == ["train", "validation", "test"]
    assert [list(traced) for traced in trace_dataset(asked).values()] == [[f"{name} train"], [f"{name} test"]]


@pytest.mark.parametrize("kind", ["parquet", "saved"])
def test_a_data_set_without_train_can_be_predicted(kind: str, tmp_path: Path) -> None:
    """Whether there is a model to predict is the reader's matter."""
    name = data_set(tmp_path / "set", kind, {"validation": "validation", "test": "test"})
    assert [source.name for source in split_sources(Settings(dataset=name)).values()] == [
        f"{name} validation",
        f"{name} test",
    ]


def test_some_of_a_data_sets_splits(tmp_path: Path) -> None:
    """Those that are named; one that is not there, or that nothing is done with, is refused."""
    name = data_set(tmp_path / "set", "saved", SAME | {"test": "unlabelled"})
    train = split_sources(Settings(dataset=name, dataset_splits=["train"]))
    assert {split: source.name for split, source in train.items()} == {"train": f"{name} train"}
    assert list(split_sources(Settings(dataset=name))) == ["train", "validation"]
    with pytest.raises(Refusal, match="has no split dev; found "):
        split_sources(Settings(dataset=name, dataset_splits=["dev", "train"]))
    with pytest.raises(Refusal, match="its splits unlabelled are not all among train, validation, "):
        split_sources(Settings(dataset=name, dataset_splits=["unlabelled"]))


def test_two_names_of_one_split_are_refused(tmp_path: Path) -> None:
    """Only one of them can be meant, and all are names that are known."""
    splits = {name: rows_of("validation") for name in ("dev", "validation")} | {"train": rows_of("train")}
    DatasetDict(splits).save_to_disk(tmp_path / "set")
    told = "--dataset_splits train validation dev: validation and dev are both the validation split; name one of them"
    with pytest.raises(Refusal, match=f"^{told}$"):
        split_sources(Settings(dataset=str(tmp_path / "set"), dataset_splits=["train", "validation", "dev"]))
    with pytest.raises(Refusal, match="train and train are both the train split"):
        split_sources(Settings(dataset=str(tmp_path / "set"), dataset_splits=["train", "train"]))


def test_a_data_set_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """Before a row is read, for the lineage too."""
    asked = Settings(dataset=str(tmp_path / "gone"))
    for read in (split_sources, trace_dataset):
        with pytest.raises(Refusal, match=f"^data set {tmp_path}/gone: "):
            read(asked)


def test_a_type_of_a_data_set_that_train_has_not_is_refused(tmp_path: Path) -> None:
    """By the split and the row; the names of a feature make no type that no word has."""
    only_places = Dataset.from_dict({"tokens": [["Oslo"]], "ner_tags": [[3]]}, FEATURES)
    DatasetDict(train=only_places, test=rows_of("test")).save_to_disk(tmp_path / "set")
    with pytest.raises(Refusal, match=r"set test row 1: type PER is none of train's: LOC; "):
        load_splits(Settings(dataset=str(tmp_path / "set")), ENCODER)


# --- Lineage ----------------------------------------------------------------------------------------------------------


def test_files_leave_no_trace_of_a_data_set() -> None:
    """They are traced as files."""
    assert trace_dataset(Settings(train_file=["a.jsonl"])) == {}


@pytest.mark.parametrize("kind", ["parquet", "saved"])
def test_the_trace_changes_with_the_content(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the split that changed, by one tag; read again, it is the same."""
    before = trace_dataset(Settings(dataset=data_set(tmp_path / "set", kind, SAME)))
    assert {flag: list(traced) for flag, traced in before.items()} == {
        f"{split}_file": [f"{tmp_path}/set {split}"] for split in ROWS
    }
    assert trace_dataset(Settings(dataset=str(tmp_path / "set"))) == before
    tokens, _ = ROWS["train"]
    monkeypatch.setitem(ROWS, "train", (tokens, [[1, 2, 0], [0]]))
    after = trace_dataset(Settings(dataset=data_set(tmp_path / "set", kind, SAME)))
    key = f"{tmp_path}/set train"
    assert after["train_file"][key] != before["train_file"][key]
    assert {flag: after[flag] for flag in ("validation_file", "test_file")} == {
        flag: before[flag] for flag in ("validation_file", "test_file")
    }


def test_the_trace_is_of_the_configuration(tmp_path: Path) -> None:
    """That was asked for, whatever the folder is called."""
    for config, split in (("en", "train"), ("de", "test")):
        (tmp_path / "set" / config).mkdir(parents=True)
        rows_of(split).to_parquet(tmp_path / "set" / config / "train.parquet")
    card = "".join(f"- config_name: {config}\n  data_files: {config}/*.parquet\n" for config in ("en", "de"))
    (tmp_path / "set" / "README.md").write_text(f"---\nconfigs:\n{card}---\n", encoding="utf-8")
    asked = Settings(dataset=str(tmp_path / "set"), dataset_config="de")
    other = Settings(dataset=data_set(tmp_path / "other", "saved", {"test": "train"}))
    assert list(trace_dataset(asked)["train_file"].values()) == list(trace_dataset(other)["train_file"].values())
    assert trace_dataset(asked) != trace_dataset(Settings(dataset=str(tmp_path / "set"), dataset_config="en"))
    splits, types, _ = load_splits(asked, ENCODER)
    assert (splits["train"].texts, types) == (["Bob fell"], ["PER"])
    with pytest.raises(Refusal, match=f"^data set {tmp_path}/set: "):
        split_sources(Settings(dataset=str(tmp_path / "set")))


# --- Samples ---------------------------------------------------------------------------------------------------------


def test_samples_are_random_nested_and_in_order(tmp_path: Path) -> None:
    """A file sorted by label gives a mixed sample; ten rows are among twenty; without a limit, all."""
    path = tmp_path / "sorted.csv"
    path.write_text("text,label\n" + "".join(f"t{i},{i // 50}\n" for i in range(100)), encoding="utf-8")
    ten, twenty = (sample_rows(Source((str(path),)), Sample(limit)) for limit in (10, 20))
    assert len(ten) == 10
    assert {row["label"] for _, row in ten} == {"0", "1"}
    numbers = [int(row["text"][1:]) for _, row in twenty]
    assert numbers == sorted(numbers)
    assert {place for place, _ in ten} < {place for place, _ in twenty}
    for sample in (Sample(), Sample(100)):
        assert len(sample_rows(Source((str(path),)), sample)) == 100


@given(count=st.integers(1, 200), limit=st.integers(1, 200), seed=st.integers(0, 2**32 - 1))
def test_a_sample_is_the_head_of_one_shuffle(count: int, limit: int, seed: int) -> None:
    """Of each seed: so a smaller sample is part of a larger one; without a seed it is that of seed 0."""
    order = np.random.default_rng(seed).permutation(count).tolist()
    assert Sample(limit, seed=seed).of(count).tolist() == sorted(order[:limit])
    assert Sample(limit).of(count).tolist() == Sample(limit, seed=0).of(count).tolist()
    assert Sample(seed=seed).of(count).tolist() == list(range(count))


def test_the_draw_stays_what_it_was() -> None:
    """Runs of today compare with those of tomorrow; another seed draws others."""
    assert Sample(5).of(40).tolist() == [4, 11, 23, 24, 27]
    drawn = {tuple(Sample(5, seed=seed).of(40).tolist()) for seed in range(20)}
    assert len(drawn) == 20


@pytest.mark.parametrize(
    ("fraction", "count", "taken"),
    [(1.0, 7, 7), (0.5, 7, 4), (0.29, 100, 29), (0.1, 30, 3), (0.01, 7, 1), (1e-9, 1, 1), (0.999, 7, 7)],
)
def test_a_fraction_by_hand(fraction: float, count: int, taken: int) -> None:
    """The nearest number of rows, one at least; drawn as a limit of so many would be."""
    found = Sample(fraction=fraction, seed=3).of(count).tolist()
    assert len(found) == taken
    assert found == Sample(taken, seed=3).of(count).tolist()


def test_the_flags_say_the_sample() -> None:
    """Both scripts' settings have them; by default nothing is left out."""
    for settings in (Settings, run_sentiment.Settings):
        assert training_sample(settings()) == Sample()
        assert training_sample(settings(max_train_samples=3, sample_seed=0)) == Sample(3)
        assert training_sample(settings(train_fraction=0.25, sample_seed=7)) == Sample(fraction=0.25, seed=7)


@pytest.mark.parametrize(
    ("flags", "found"),
    [
        ({"train_fraction": 0.0}, "--train_fraction 0: must be above 0 and at most 1"),
        ({"train_fraction": 1.5}, "--train_fraction 1.5: must be above 0"),
        ({"train_fraction": float("nan")}, "--train_fraction nan: must be above 0"),
        ({"train_fraction": 0.5, "max_train_samples": 3}, "--train_fraction and --max_train_samples: give one or"),
        ({"max_train_samples": 0}, "--max_train_samples 0: must be at least 1"),
        ({"sample_seed": 3}, "--sample_seed: draws what --train_fraction or --max_train_samples says"),
        ({"sample_seed": -1, "train_fraction": 0.5}, "--sample_seed -1: must be between 0"),
    ],
)
def test_samples_that_are_none(flags: dict[str, Any], found: str) -> None:
    """Refused by both scripts."""
    for settings in (Settings, run_sentiment.Settings):
        with pytest.raises(Refusal, match=re.escape(found)):
            settings(**flags)
