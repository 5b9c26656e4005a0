"""Data sets by name: of the Hub, of a folder of files, or of one that `save_to_disk` wrote."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from two_stage.command_line.exits import Refusal
from two_stage.data.tables import PlacedRow, label_names, named

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset  # takes a second to import, and the rows of files need none of it


def open_split(
    name: str, config: str | None, revision: str | None, split: str, streamed: bool = False
) -> "Dataset | IterableDataset":
    """A split of a `datasets` data set, memory-mapped or streamed.

    Args:
        name: a Hub id, a local folder of files, or a folder that `save_to_disk` wrote.
        config: which of the data set's configurations; None takes its only one.
        revision: a branch, tag or commit of the Hub; None takes the newest.
        split: by its name; a folder that holds one saved split gives that one.
        streamed: read it as it comes, without keeping it.

    Raises:
        Refusal: no such data set, configuration or split, or no network to fetch it by.
    """
    from datasets import Dataset, load_dataset, load_from_disk

    with _openable(name):
        if not _is_saved(name):
            rows = load_dataset(name, config, revision=revision, split=split, streaming=streamed)
            return rows if rows.column_names else rows._resolve_features()  # a stream may not know its columns yet
        saved = load_from_disk(name)
        rows = saved if isinstance(saved, Dataset) else saved[split]
        return rows.to_iterable_dataset(num_shards=min(64, len(rows))) if streamed else rows


@lru_cache(maxsize=8)  # on the Hub a question of seconds, which a run asks several times
def dataset_splits(name: str, config: str | None, revision: str | None) -> list[str]:
    """The names of the splits that a data set has; `open_split` tells what the arguments are.

    A folder that holds one saved split, whatever it was of, counts as `["train"]`.

    Raises:
        Refusal: no such data set or configuration, or no network to ask.
    """
    from datasets import DatasetDict, get_dataset_split_names, load_from_disk

    with _openable(name):
        if not _is_saved(name):
            return list(get_dataset_split_names(name, config, revision=revision))
        saved = load_from_disk(name)
        return list(saved) if isinstance(saved, DatasetDict) else ["train"]


def dataset_rows(name: str, config: str | None, revision: str | None, split: str) -> Iterator[PlacedRow]:
    """The rows of a split, in order; `open_split` tells what the arguments are.

    Yields:
        ("NAME SPLIT row N", {column: value}), ClassLabels by their names.

    Raises:
        Refusal: the split cannot be opened, or a number stands for no name.
    """
    rows = open_split(name, config, revision, split).with_format(None)  # a saved one may give tensors
    names = label_names(rows.features.to_dict())
    number = 0
    for batch in rows.iter(batch_size=256):
        for values in zip(*batch.values(), strict=True):
            number += 1
            yield named((f"{name} {split} row {number}", dict(zip(batch, values, strict=True))), names)


def _is_saved(name: str) -> bool:
    """Whether the folder is one that `save_to_disk` wrote."""
    return Path(name, "state.json").is_file() or Path(name, "dataset_dict.json").is_file()


@contextmanager
def _openable(name: str) -> Iterator[None]:
    """Say of a data set that cannot be opened what was asked for and is not there."""
    try:
        yield
    except Exception as error:  # of a dozen kinds, and all are about what was asked for
        from datasets.exceptions import DatasetGenerationError

        cause = error.__cause__ if isinstance(error, DatasetGenerationError) and error.__cause__ else error
        what = f"no split {cause}" if isinstance(cause, KeyError) else " ".join(str(cause).split())[:200]
        if type(cause).__name__ == "UnpicklingError":  # torch advises to read it without restraint
            what = "holds a pickle, which can run code and is not read; save the rows as a table or as text"
        raise Refusal(f"data set {name}: {what or type(cause).__name__}") from error
