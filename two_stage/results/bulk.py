"""Prediction of files that are larger than memory: some thousand rows at a time, in the file's order.

The file is gone over twice: once to count and check its rows, before a model is loaded, and once to answer them. What
is answered is written under a hidden name; the file of predictions gets its own when it is whole. A run that was cut
off goes on behind the last part that reached the disk.
"""

import json
import os
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from tqdm import tqdm

from two_stage.checkpointing.checkpoints import sync, told_if_unwritten, write_whole
from two_stage.checkpointing.runs import PARTIAL, Run
from two_stage.command_line.exits import Refusal, say
from two_stage.data.sources import Source
from two_stage.data.tables import PlacedRow

ROWS_AT_ONCE = 4096  # sorted by length among themselves, so that hardly anything is padded; a few MB in memory
SKIPPED = "skipped_rows.jsonl"
OTHERS = ("train_file", "validation_file", "test_file", "dataset")


class BulkFlags(Protocol):
    """The flags that say what is predicted; the script's settings have them."""

    predict_file: list[str] | None
    skip_bad_rows: bool


class Rows(NamedTuple):
    """The rows of the files to predict, as the first look found them."""

    source: Source
    check: Callable[[PlacedRow], object]  # raises Refusal of a row that cannot be answered
    number: Callable[[Iterator[PlacedRow]], Iterator[PlacedRow]]  # says what only all rows before a row can tell
    total: int  # rows that can
    skipped: list[tuple[str, str]]  # of each that cannot, its place and why

    def good(self) -> Iterator[PlacedRow]:
        """The rows that can be answered, in their order."""
        rows = self.number(self.source.rows())
        return (row for row in rows if not self.skipped or fault(row, self.check) is None)


def check_bulk(settings: Any) -> None:
    """Refuse --predict_file beside other data, and --skip_bad_rows without it."""
    if settings.skip_bad_rows and not settings.predict_file:
        raise Refusal("--skip_bad_rows: goes with --predict_file; other rows are all needed")
    for flag in OTHERS if settings.predict_file else ():
        if getattr(settings, flag):
            raise Refusal(f"--predict_file and --{flag}: give one or the other; what has labels is a --test_file")


def look_through(
    settings: BulkFlags,
    check: Callable[[PlacedRow], object],
    number: Callable[[Iterator[PlacedRow]], Iterator[PlacedRow]] = iter,
) -> Rows:
    """Count and check every row, before a model is loaded.

    Args:
        settings: the files, and whether rows that cannot be answered are left out.
        check: raises Refusal of such a row.
        number: adds to rows what only all rows before them can tell, such as the number of their document.

    Raises:
        Refusal: a file that does not parse, a bad row that is not to be skipped, or no good one.
    """
    source = Source(tuple(settings.predict_file or ()))
    count, skipped = 0, []
    for row in source.rows():
        why = fault(row, check)
        if why is None:
            count += 1
        elif settings.skip_bad_rows:
            skipped.append((row[0], why))
        else:
            raise Refusal(f"{why}; or leave such rows out with --skip_bad_rows")
    if not count:
        raise Refusal(f"{source.name}: no row in it that can be predicted")
    left_out = f"; {len(skipped):,} left out, first {skipped[0][1]}" if skipped else ""
    say(f"predict: {count:,} rows{left_out}")
    return Rows(source, check, number, count, skipped)


def fault(row: PlacedRow, check: Callable[[PlacedRow], object]) -> str | None:
    """Why a row cannot be answered; None of a good one."""
    try:
        check(row)
    except Refusal as refusal:
        return str(refusal)
    return None


def predict_rows(
    rows: Rows,
    answer: Callable[[list[PlacedRow]], str],
    run: Run,
    name: str,
    is_writer: bool,
    has_bar: bool,
    header: str = "",
) -> dict[str, float]:
    """Answer all rows, part by part, and write their predictions in their order.

    Args:
        rows: as `look_through` found them.
        answer: rows → their lines in the file of predictions. All processes of a job call it alike.
        run: that was begun.
        name: of the file of predictions.
        is_writer: whether this process writes.
        has_bar: whether it shows how far it is.
        header: the first line of the file, with its end.

    Returns:
        predict_samples, predict_skipped, predict_runtime in seconds, predict_samples_per_second.

    Raises:
        Failure: the disk is full; what was written stays, and the same command goes on.
    """
    began = time.perf_counter()
    partial, progress = run.folder / f"{PARTIAL}{name}", run.folder / f"{PARTIAL}progress.json"
    done, size = _where_it_stood(partial, progress)
    if done:
        say(f"Going on behind row {done:,}")
    todo, answered = islice(rows.good(), done, None), done
    is_silent = not (is_writer and has_bar)
    bar = tqdm(total=rows.total, initial=done, unit=" rows", unit_scale=True, disable=is_silent, mininterval=1.0)
    place = partial if is_writer else Path(os.devnull)
    with told_if_unwritten(partial, "what was predicted is kept"), open(place, "ab") as file:
        if is_writer:
            file.truncate(size)
        file.write(b"" if size else header.encode("utf-8"))
        while part := list(islice(todo, ROWS_AT_ONCE)):
            file.write(answer(part).encode("utf-8"))
            file.flush()
            answered += len(part)
            bar.update(len(part))  # which counts nothing where there is no bar
            if is_writer:
                os.fsync(file.fileno())
                write_whole(progress, json.dumps({"rows": answered, "bytes": file.tell()}) + "\n")
    bar.close()
    if is_writer:
        _finish(run.folder, partial, name, rows)
    seconds = time.perf_counter() - began
    return {
        "predict_samples": rows.total,
        "predict_skipped": len(rows.skipped),
        "predict_runtime": seconds,
        "predict_samples_per_second": (rows.total - done) / max(seconds, 1e-9),
    }


def _where_it_stood(partial: Path, progress: Path) -> tuple[int, int]:
    """Rows that an earlier call answered, and the bytes that they take; 0 and 0 where there was none."""
    try:
        stood = json.loads(progress.read_text(encoding="utf-8"))
        done, size = int(stood["rows"]), int(stood["bytes"])
        return (done, size) if partial.stat().st_size >= size else (0, 0)
    except (OSError, ValueError, KeyError, TypeError):
        return 0, 0


def _finish(folder: Path, partial: Path, name: str, rows: Rows) -> None:
    """Give the predictions their name, and say which rows are not among them."""
    if rows.skipped:
        lines = (json.dumps({"row": place, "why": why}, ensure_ascii=False) for place, why in rows.skipped)
        write_whole(folder / SKIPPED, "\n".join(lines) + "\n")
    partial.replace(folder / name)
    sync(folder)
    (folder / f"{PARTIAL}progress.json").unlink(missing_ok=True)
