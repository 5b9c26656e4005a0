"""Where a split's rows come from: the files that were given, or a split of a data set."""

import hashlib
import json
import math
from collections.abc import Iterator
from typing import NamedTuple, Protocol

import numpy as np

from two_stage.command_line.exits import Refusal
from two_stage.command_line.recipe import check_range
from two_stage.data.data_sets import dataset_rows, dataset_splits
from two_stage.data.tables import PlacedRow, read_rows, sample_indices

SPLITS = ("train", "validation", "test")
SAMPLE_FLAGS = ("max_train_samples", "train_fraction", "sample_seed")
SPLIT_NAMES = {"train": ("train",), "validation": ("validation", "valid", "val", "dev"), "test": ("test",)}


class SourceFlags(Protocol):
    """The flags that say where rows come from; the script's settings have them."""

    train_file: list[str] | None
    validation_file: list[str] | None
    test_file: list[str] | None
    dataset: str | None
    dataset_config: str | None
    dataset_revision: str | None
    dataset_splits: list[str] | None


class SampleFlags(Protocol):
    """The flags that say which rows are trained on; the script's settings have them."""

    max_train_samples: int | None
    train_fraction: float | None
    sample_seed: int | None


class Source(NamedTuple):
    """The rows of one split."""

    files: tuple[str, ...] = ()
    dataset: tuple[str, str | None, str | None, str] | None = None  # name, configuration, revision, split

    @property
    def name(self) -> str:
        """What is said of it."""
        return f"{self.dataset[0]} {self.dataset[3]}" if self.dataset else ", ".join(self.files)

    def rows(self) -> Iterator[PlacedRow]:
        """All rows in their order, each with its place.

        Raises:
            Refusal: a file, a row or a data set that cannot be read.
        """
        if self.dataset:
            yield from dataset_rows(*self.dataset)
        for path in self.files:
            yield from read_rows(path)


class Sample(NamedTuple):
    """How many of a split's rows are taken, and which."""

    limit: int | None = None  # rows; None takes all
    fraction: float | None = None  # of all rows, in place of a limit
    seed: int = 0

    def of(self, count: int) -> np.ndarray:
        """Which of `count` rows are taken, ascending: int (taken,); see `sample_indices`."""
        limit = self.limit if self.fraction is None else max(1, round(self.fraction * count))
        return sample_indices(count, limit, self.seed)


ALL_ROWS = Sample()


def training_sample(settings: SampleFlags) -> Sample:
    """Which rows of the train split are trained on, as the flags say."""
    return Sample(settings.max_train_samples, settings.train_fraction, settings.sample_seed or 0)


def check_sample(settings: SampleFlags) -> None:
    """Refuse a sample of no row, of two sizes, or a seed of no sample."""
    check_range(settings, 1, math.inf, "max_train_samples")
    check_range(settings, 0, 2**32 - 1, "sample_seed")
    fraction, limit = settings.train_fraction, settings.max_train_samples
    if fraction is not None and not 0 < fraction <= 1:
        raise Refusal(f"--train_fraction {fraction:g}: must be above 0 and at most 1")
    if fraction is not None and limit is not None:
        raise Refusal("--train_fraction and --max_train_samples: give one or the other")
    if settings.sample_seed and fraction is None and limit is None:
        raise Refusal("--sample_seed: draws what --train_fraction or --max_train_samples says; there is neither")


def sample_rows(source: Source, sample: Sample) -> list[PlacedRow]:
    """The rows of a source that a sample takes, in their order."""
    rows = list(source.rows())
    return [rows[i] for i in sample.of(len(rows)).tolist()]


def check_sources(settings: SourceFlags) -> None:
    """Refuse a configuration or a revision of no data set, and a data set beside a train file."""
    if settings.dataset and settings.train_file:
        raise Refusal("--train_file and --dataset: give one or the other")
    for flag in ("dataset_config", "dataset_revision", "dataset_splits"):
        if getattr(settings, flag) and not settings.dataset:
            raise Refusal(f"--{flag}: says which --dataset; there is none")


def check_training_flags(settings: SourceFlags, flags: tuple[str, ...]) -> None:
    """Refuse what means nothing where no rows are trained on, or --calibrate where none are held out.

    Raises:
        Refusal: one of `flags` is set and there is no train split; or what `split_sources` refuses.
    """
    there = split_sources(settings)
    for flag in flags:
        value = getattr(settings, flag)
        if value is not None and value is not False and "train" not in there:
            raise Refusal(f"--{flag}: needs a --train_file; nothing is trained without one")
    if getattr(settings, "calibrate", False) and "validation" not in there:
        raise Refusal("--calibrate: needs a --validation_file to set the temperature on")


def split_sources(settings: SourceFlags) -> dict[str, Source]:
    """The splits that were given, in the order train, validation, test; a file wins over the data set's split.

    Raises:
        Refusal: the data set cannot be read, or has none of the splits, or not those that were asked for, or two that
            were asked for are one.
    """
    sources = {split: Source(tuple(files)) for split in SPLITS if (files := getattr(settings, f"{split}_file"))}
    if settings.dataset:
        asked = (settings.dataset, settings.dataset_config, settings.dataset_revision)
        sources = {split: Source(dataset=(*asked, name)) for split, name in _splits_used(settings).items()} | sources
    return {split: sources[split] for split in SPLITS if split in sources}


def _splits_used(settings: SourceFlags) -> dict[str, str]:
    """Of each split that a data set gives its own name for it; see `split_sources`."""
    there = dataset_splits(str(settings.dataset), settings.dataset_config, settings.dataset_revision)
    if missing := [name for name in settings.dataset_splits or () if name not in there]:
        raise Refusal(f"data set {settings.dataset}: has no split {missing[0]}; found {', '.join(there)}")
    taken = settings.dataset_splits or there
    used = {split: name for split, names in SPLIT_NAMES.items() for name in reversed(names) if name in taken}
    known = [name for names in SPLIT_NAMES.values() for name in names]
    if not used or (settings.dataset_splits and not set(taken).issubset(known)):
        what = f"its splits {', '.join(taken)} are not all among {', '.join(known)}"
        raise Refusal(f"data set {settings.dataset}: {what}")
    for split in used if settings.dataset_splits else ():
        alike = [name for name in taken if name in SPLIT_NAMES[split]]
        if len(alike) > 1:
            told = f"{' and '.join(alike)} are both the {split} split"
            raise Refusal(f"--dataset_splits {' '.join(taken)}: {told}; name one of them")
    return used


def trace_dataset(settings: SourceFlags) -> dict[str, dict[str, str]]:
    """For lineage.json: each split of the data set that is used, and the SHA-256 of its rows.

    They stand under "train_file" and such, so that what was trained on is known again.
    """
    found = {}
    for split, source in split_sources(settings).items() if settings.dataset else ():
        if source.dataset:
            digest = hashlib.sha256()
            for _, row in source.rows():
                digest.update(json.dumps(row, sort_keys=True, default=str).encode() + b"\n")
            found[f"{split}_file"] = {source.name: digest.hexdigest()}
    return found
