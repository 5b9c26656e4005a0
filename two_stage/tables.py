"""Files of rows → dictionaries, one a row, each with the place that it came from; a refusal names file, row and fix.

Every reader of the project starts here: labelled tables (csv, tsv, jsonl, parquet), CoNLL columns, and the tables
of raw documents that stage one reads. A `.gz` or `.zst` behind the name is unpacked on the way.
"""

import csv
import gzip
import hashlib
import io
import json
import math
import re
import shutil
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from two_stage.recipe import Refusal

Row = dict[str, Any]
PlacedRow = tuple[str, Row]  # ("train.csv row 12", {"text": ...}); rows are counted from 1, without the header

LARGEST = 3.4e38  # that a float of 32 bits holds
ARCHIVES = {".gz": "gzip", ".zst": "zstd"}

csv.field_size_limit(2**31 - 1)  # the stock limit refuses a text of 128 KiB


def file_format(path: str) -> str:
    """The ending of `path` that says how to read it, without an archive's: "csv" for `train.csv.gz`."""
    inner = Path(path).with_suffix("") if archive(path) else Path(path)
    return inner.suffix.removeprefix(".").lower()


def archive(path: str) -> str | None:
    """How the file is packed, "gzip" or "zstd"; None of a plain file."""
    return ARCHIVES.get(Path(path).suffix.lower())


def check_files(paths: list[str], formats: tuple[str, ...]) -> None:
    """Refuse before any work a file that is not there, is empty, or is of a format that nobody reads here.

    Raises:
        Refusal: naming the file and what would do instead.
    """
    for path in paths:
        if not Path(path).is_file():
            raise Refusal(f"{path}: no such file (the current folder is {Path.cwd().name}/)")
        if Path(path).stat().st_size == 0:
            raise Refusal(f"{path}: the file is empty")
        if file_format(path) not in formats:
            known = ", ".join(f".{name}" for name in formats)
            raise Refusal(f"{path}: cannot tell the format by this ending; known: {known}, each also with .gz or .zst")


def file_sha256(path: str | Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def open_text(path: str) -> IO[str]:
    """Open `path` as UTF-8 text, unpacked if it is an archive; a byte-order mark is dropped."""
    if archive(path) is None:
        return open(path, encoding="utf-8-sig", newline="")
    return io.TextIOWrapper(_open_archive(path), encoding="utf-8-sig", newline="")


def open_part(path: str, start: int, stop: int) -> IO[str]:
    """The bytes from `start` to `stop` of a plain file, held in memory, as `open_text` would give them."""
    with open(path, "rb") as file:
        file.seek(start)
        part = io.BytesIO(file.read(stop - start))
    # further on in a file, the bytes of a byte-order mark are a character
    return io.TextIOWrapper(part, encoding="utf-8" if start else "utf-8-sig", newline="")


def _open_archive(path: str) -> Any:
    """The unpacked bytes of an archive; an archive that is cut off raises at its end."""
    if archive(path) == "gzip":
        return gzip.open(path)
    import pyarrow  # its zstd reads on behind the first frame and notices a cut, which the package zstandard does not

    return pyarrow.input_stream(path, compression="zstd")


@contextmanager
def readable(path: str) -> Iterator[None]:
    """Say of a file that breaks off while it is read what is wrong with it.

    Raises:
        Refusal: not UTF-8, or an archive that is broken or cut off.
    """
    try:
        yield
    except UnicodeDecodeError as error:
        byte = f"0x{error.object[error.start]:02x}"
        raise Refusal(f"{path}: not UTF-8 (byte {byte}); convert it, say with iconv -f latin1 -t utf-8") from error
    except (EOFError, OSError, zlib.error) as error:
        what = f"broken {archive(path)} archive" if archive(path) else "cannot be read to its end"
        raise Refusal(f"{path}: {what}: {' '.join(str(error).split())}; copy or pack it anew") from error


def read_rows(path: str) -> Iterator[PlacedRow]:
    """The rows of a table, in order, each with its place.

    Args:
        path: a .csv, .tsv, .jsonl, .parquet or .conll file, or such a file with .gz or .zst behind it.

    Yields:
        ("FILE row N", {column: value}). Values of csv and tsv are text as it stands in the file: `NA` stays "NA".

    Raises:
        Refusal: not UTF-8, broken archive, a row that does not parse; the message names file, row and fix.
    """
    readers = {"csv": _read_csv, "tsv": _read_csv, "jsonl": _read_jsonl, "json": _read_jsonl}
    readers |= {"parquet": _read_parquet, "conll": _read_conll, "bio": _read_conll}
    with readable(path):
        yield from readers[file_format(path)](path)


def _read_csv(path: str) -> Iterator[PlacedRow]:
    """Rows of comma- or tab-separated values under a header line."""
    with open_text(path) as file:
        rows = csv.reader(file, delimiter="\t" if file_format(path) == "tsv" else ",", strict=True)
        try:
            header = next(rows, [])
            if len(set(header)) < len(header):
                raise Refusal(f"{path}: two columns of the header have the same name: {', '.join(header)}")
            for number, fields in enumerate((fields for fields in rows if fields), start=1):
                if len(fields) != len(header):
                    raise Refusal(
                        f"{path} row {number} (line {rows.line_num}): {len(fields)} fields, the header has "
                        f'{len(header)}; put a text that holds a separator in "double quotes"'
                    )
                yield f"{path} row {number}", dict(zip(header, fields, strict=True))
        except csv.Error as error:
            raise Refusal(f"{path} line {rows.line_num}: {error}; is a quote left open?") from error


def _read_jsonl(path: str) -> Iterator[PlacedRow]:
    """Rows of JSON objects, one a line."""
    with open_text(path) as file:
        yield from json_rows(path, file)


def json_rows(path: str, lines: Iterable[str], first: int = 1) -> Iterator[PlacedRow]:
    """Rows of JSON objects, one a line; blank lines count for nothing.

    Args:
        path: the file that the lines are of, for the rows' places.
        lines: all its lines, or those of a part.
        first: the number of the first row among them.

    Raises:
        Refusal: a line that does not parse, or that holds something else than an object.
    """
    for number, line in enumerate((line for line in lines if line.strip()), start=first):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise Refusal(
                f"{path} row {number}: not JSON: {error.msg} at column {error.colno}; each line holds one object"
            ) from error
        except (ValueError, RecursionError) as error:  # a number of thousands of digits, brackets without end
            raise Refusal(f"{path} row {number}: cannot be read: {error}; take the row out") from error
        if not isinstance(row, dict):
            raise Refusal(f'{path} row {number}: a {type(row).__name__}, not an object like {{"text": ...}}')
        yield f"{path} row {number}", row


def _read_parquet(path: str) -> Iterator[PlacedRow]:
    """Rows of a parquet file, a batch in memory at a time."""
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        with _unpacked(path) as file, pyarrow.parquet.ParquetFile(file) as table:
            for batch in table.iter_batches(batch_size=256):  # a row may be a book
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path} row {number}", row
    except pyarrow.ArrowInvalid as error:
        raise Refusal(f"{path}: not a parquet file: {' '.join(str(error).split())}; write it anew") from error


@contextmanager
def _unpacked(path: str) -> Iterator[IO[bytes]]:
    """The file open for reads at any place, as parquet needs, whose end comes first; archives are unpacked to disk."""
    if archive(path) is None:
        with open(path, "rb") as file:
            yield file
        return
    with tempfile.TemporaryFile() as file, _open_archive(path) as packed:
        shutil.copyfileobj(packed, file)
        yield file


def _read_conll(path: str) -> Iterator[PlacedRow]:
    """Sentences of CoNLL columns (word first, tag last), a blank line between them, as `tokens` and `ner_tags`."""
    tokens: list[str] = []
    tags: list[str] = []
    number = 1
    with open_text(path) as file:
        for line_number, line in enumerate(file, start=1):
            columns = re.split("[ \t]+", line.strip(" \t\r\n"))  # other kinds of space may stand within a word
            if columns[0] not in ("", "-DOCSTART-"):
                if len(columns) < 2:
                    raise Refusal(f"{path} line {line_number}: one column; a word and its tag are expected")
                tokens.append(columns[0])
                tags.append(columns[-1])
            elif tokens:
                yield f"{path} row {number}", {"tokens": tokens, "ner_tags": tags}
                tokens, tags, number = [], [], number + 1
    if tokens:
        yield f"{path} row {number}", {"tokens": tokens, "ner_tags": tags}


def sample_rows(paths: list[str], limit: int | None) -> list[PlacedRow]:
    """The rows of several files, or `limit` of them drawn at random, in their order.

    The first rows of a file are often of one label. The draw is the same every time, and a smaller sample is part of a
    larger one, so that runs with more and fewer rows compare.
    """
    rows = [row for path in paths for row in read_rows(path)]
    if limit is None or limit >= len(rows):
        return rows
    return [rows[i] for i in sorted(np.random.default_rng(0).permutation(len(rows))[:limit].tolist())]


def column_value(row: PlacedRow, column: str, flag: str) -> Any:
    """The value of `column` in a row.

    Raises:
        Refusal: no such column; the message lists those that there are and names the flag that picks one.
    """
    place, values = row
    if column not in values:
        raise Refusal(f"{place}: no column {column}; found {', '.join(map(str, values))} (pick one with --{flag})")
    return values[column]


def text_value(row: PlacedRow, column: str, flag: str) -> str:
    """The text of `column` in a row.

    Raises:
        Refusal: no such column, no text in it, or only white space.
    """
    value = column_value(row, column, flag)
    if not isinstance(value, str) or not value.strip():
        found = "is empty" if value is None or isinstance(value, str) else f"holds {value!r}, which is no text"
        raise Refusal(f"{row[0]}: column {column} {found}; give every row a text, or take the row out")
    if broken_text(value):
        raise Refusal(f"{row[0]}: column {column} holds half of a character (a lone surrogate); mend the text")
    return value


def number_value(row: PlacedRow, column: str, flag: str) -> float:
    """The finite number of `column` in a row, be it a number or the text of one.

    Raises:
        Refusal: no such column, or no finite number in it.
    """
    value = column_value(row, column, flag)
    is_none = value is None or isinstance(value, bool) or (isinstance(value, str) and "_" in value)
    try:
        number = math.nan if is_none else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not abs(number) <= LARGEST:
        shown = repr(value)[:40]
        raise Refusal(
            f"{row[0]}: column {column} holds {shown}; a finite number is expected, {LARGEST:g} at most (--{flag})"
        )
    return number


def broken_text(text: str) -> bool:
    """Whether `text` holds half of a character, which JSON can write and no tokenizer can read."""
    return any("\ud800" <= character <= "\udfff" for character in text)
