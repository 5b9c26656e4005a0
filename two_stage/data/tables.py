"""Files of rows → dictionaries, one a row, each with the place that it came from; a refusal names file, row and fix.

Every reader of the project starts here: labelled tables (csv, tsv, jsonl, parquet), CoNLL columns, lines of text, and
the tables of raw documents that stage one reads. `data_sets` beside it gives the rows of data sets in the same way.
"""

import csv
import json
import math
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import IO, Any, Protocol

import numpy as np

from two_stage.command_line.exits import Refusal
from two_stage.data.files import archive, file_format, open_bytes, open_text, readable, told_error

Row = dict[str, Any]
PlacedRow = tuple[str, Row]  # ("train.csv row 12", {"text": ...}); rows are counted from 1, without the header

LABELLED_FORMATS = ("csv", "tsv", "jsonl", "parquet", "conll", "bio")
LARGEST_SCORE = 1e18  # of which a float of 32 bits holds the square, as a loss has it, and sums of many
LISTS = ("List", "LargeList", "Sequence")  # what `datasets` calls its features of lists, by version
TAG = re.compile("O|[BIESLU]-.+")
COMMENT = re.compile("# +(newdoc|newpar|[^ \t=]+ =) [^\t]*")  # as CoNLL-U writes them: `# text = O Canada`

csv.field_size_limit(2**31 - 1)  # the stock limit refuses a text of 128 KiB


def read_rows(path: str) -> Iterator[PlacedRow]:
    """The rows of a table, in order, each with its place.

    Args:
        path: a .csv, .tsv, .jsonl, .parquet, .conll or .txt file, or such a file with .gz or .zst behind it.

    Yields:
        ("FILE row N", {column: value}). Values of csv and tsv are text as it stands in the file: `NA` stays "NA".
        Parquet that `datasets` wrote has the names of its ClassLabels, not their numbers. A row of CoNLL is a sentence:
        lists of texts, one a word, under "1", "2", ... for the columns, "tokens" for the first and, of two or more,
        "ner_tags" for the last; and "document", the document's number from 1, behind the file's first mark of one. A
        row of txt is a line that is not blank: "text", and "document", which blank lines end.

    Raises:
        Refusal: not UTF-8, broken archive, a row that does not parse; the message names file, row and fix.
    """
    readers = {"csv": _read_csv, "tsv": _read_csv, "jsonl": _read_jsonl, "json": _read_jsonl}
    readers |= {"parquet": _read_parquet, "conll": _read_conll, "bio": _read_conll, "txt": _read_txt}
    with readable(path):
        yield from readers[file_format(path)](path)


def _read_csv(path: str) -> Iterator[PlacedRow]:
    """Rows of comma- or tab-separated values under a header line."""
    separator, number, behind = "\t" if file_format(path) == "tsv" else ",", 0, 0  # the line that a row is behind
    with open_text(path) as file:
        rows = csv.reader(file, delimiter=separator, strict=True)
        try:
            header = next(rows, None)
            if header is None:
                return
            _check_header(path, header)
            behind = rows.line_num
            for fields in rows:
                if fields:
                    number += 1
                    place = f"{path} row {number} (line {behind + 1})"
                    if len(fields) != len(header):
                        raise Refusal(
                            f"{place}: {len(fields)} fields, the header has {len(header)}; put a text that holds a "
                            f'separator in "double quotes"{separator_hint(header)}'
                        )
                    # what lies between two quotes that were meant as such
                    if separator == "\t" and any("\t" in field and "\n" in field for field in fields):
                        raise Refusal(
                            f"{place}: a field holds tabs and whole lines; is a quote left open? if not, write "
                            "the text without tabs"
                        )
                    yield f"{path} row {number}", dict(zip(header, fields, strict=True))
                behind = rows.line_num
        except csv.Error as error:
            where = f"row {number + 1} (line {behind + 1})" if behind else "line 1"
            raise Refusal(f"{path} {where}: {told_error(error)}; is a quote left open?") from error


def _check_header(path: str, header: list[str]) -> None:
    """Refuse a first line that does not name the columns, each once."""
    if len(set(header)) < len(header):
        raise Refusal(f"{path} line 1: two columns have the same name: {told(header)}; rename one")
    if not any(header):
        raise Refusal(f"{path} line 1: names no column; the first line must hold the columns' names")
    if header[0].lower().startswith("sep="):
        raise Refusal(f"{path} line 1: {header[0]} is Excel's and names no column; take the line out")


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
            row = json.loads(line, object_pairs_hook=_json_object)
        except json.JSONDecodeError as error:
            raise Refusal(
                f"{path} row {number}: not JSON: {error.msg} at column {error.colno}; each line holds one object"
            ) from error
        except (ValueError, RecursionError) as error:  # a key twice, a number of thousands of digits, endless brackets
            raise Refusal(
                f"{path} row {number}: cannot be read: {told_error(error)}; mend the row, or take it out"
            ) from error
        if not isinstance(row, dict):
            raise Refusal(
                f'{path} row {number}: a {type(row).__name__}, not an object like {{"text": ...}}; each line holds one'
            )
        yield f"{path} row {number}", row


def _json_object(pairs: list[tuple[str, Any]]) -> Row:
    """A JSON object; of a key that is there twice the json module would drop the first value without a word."""
    row = dict(pairs)
    if len(row) < len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the key {twice[:60]!r} is there twice")
    return row


def _read_parquet(path: str) -> Iterator[PlacedRow]:
    """Rows of a parquet file, a batch in memory at a time."""
    import pyarrow
    import pyarrow.parquet

    number = 0
    what = "not a parquet file"
    try:
        with _unpacked(path) as file, pyarrow.parquet.ParquetFile(file) as table:
            columns = table.schema_arrow.names
            if len(set(columns)) < len(columns):
                raise Refusal(f"{path}: two columns have the same name: {told(columns)}; rename one")
            what = "broken"
            names = label_names(_stored_features(table.schema_arrow.metadata))
            for batch in table.iter_batches(batch_size=256):  # a row may be a book
                for row in batch.to_pylist():
                    number += 1
                    yield named((f"{path} row {number}", row), names)
    except UnicodeDecodeError:
        raise
    except (pyarrow.ArrowException, ValueError, ArithmeticError) as error:  # the last two of a date without a year
        where = f"{path} behind row {number}" if number else path
        raise Refusal(f"{where}: {what}: {told_error(error)}; write it anew") from error


@contextmanager
def _unpacked(path: str) -> Iterator[IO[bytes]]:
    """The file open for reads at any place, as parquet needs, whose end comes first; archives are unpacked to disk."""
    if archive(path) is None:
        with open(path, "rb") as file:
            yield file
        return
    with tempfile.TemporaryFile() as file, open_bytes(path) as packed:
        shutil.copyfileobj(packed, file)
        yield file


def _stored_features(metadata: dict[bytes, bytes] | None) -> dict[str, Any]:
    """The features that `datasets` writes into a parquet file, as its `Features.to_dict` has them; else none."""
    try:
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return {}
    return features if isinstance(features, dict) else {}


def _read_txt(path: str) -> Iterator[PlacedRow]:
    """Texts, one a line, without the white space around them; a blank line ends a document."""
    number, document, is_first = 0, 0, True
    with open_text(path) as file:
        for line in file:
            text = line.strip()
            if text:
                number, document = number + 1, document + is_first
                yield f"{path} row {number}", {"text": text, "document": document}
            is_first = not text


# --- CoNLL columns ----------------------------------------------------------------------------------------------------


def _read_conll(path: str) -> Iterator[PlacedRow]:
    """Sentences of CoNLL columns, a blank line or a mark of a document between them; comments are passed over."""
    words: list[list[str]] = []  # each as its cells
    number, document, columns, is_marked = 0, 0, 0, False
    is_tagged = _is_tagged(path)
    with open_text(path) as file:
        for line_number, line in enumerate(chain(file, [""]), start=1):
            cells = _conll_cells(line)
            is_mark = bool(cells) and cells[0].split(" ")[0] == "-DOCSTART-"
            if is_mark or not cells:
                if words:
                    number, document = number + 1, document + is_marked
                    yield f"{path} row {number}", _conll_row(words, document)
                    words, is_marked = [], False
                is_marked = is_marked or is_mark
            elif not words and _is_comment(line, cells, is_tagged):
                is_marked = is_marked or line.lstrip("# \t").split()[:1] == ["newdoc"]
            else:
                columns = columns or len(cells)
                _check_cells(cells, columns, f"{path} line {line_number}")
                words.append(cells)


def _is_tagged(path: str) -> bool:
    """Whether words have more than one cell, by the first line that surely is a word's: it begins with no #."""
    with open_text(path) as file:
        for line in file:
            cells = _conll_cells(line)
            if cells and not line.startswith(("#", "-DOCSTART-")):
                return len(cells) > 1
    return False


def _conll_cells(line: str) -> list[str]:
    """A line's cells, parted by tabs if it has one, else by spaces; none of a blank line.

    Other kinds of space may stand within a word, and between tabs so may the space itself.
    """
    line = line.rstrip("\r\n")
    if not line.strip(" \t"):
        return []
    return [cell.strip(" ") for cell in line.split("\t")] if "\t" in line else re.split(" +", line.strip(" "))


def _is_comment(line: str, cells: list[str], is_tagged: bool) -> bool:
    """Whether a line before a sentence's first word is a comment: it begins with # and has nothing of a word's line.

    That is a cell like a tag or, behind a # with letters, a tab or a number for its tag. So `# O` and `#hashtag B-MISC`
    are words, and so is a lone `#` in a file of words alone; GermEval's `#`, tab, address is a comment, and so are
    MultiCoNER's `# id 7`, tab, `domain=en` and JNLPBA's `###MEDLINE:7`.

    Args:
        line: as it stands in the file.
        cells: its.
        is_tagged: whether words have more than one.
    """
    if not line.startswith("#") or COMMENT.fullmatch(line):
        return line.startswith("#")
    if len(cells) == 1:
        return is_tagged
    has_tag = any(map(TAG.fullmatch, cells[1:]))
    return not (has_tag or (cells[0].split(" ")[0] != "#" and ("\t" in line or cells[-1].isdecimal())))


def _check_cells(cells: list[str], columns: int, place: str) -> None:
    """Refuse a word of an empty cell, or of other columns than the words before it."""
    if not cells[0]:
        raise Refusal(f"{place}: the word is missing: column 1 is empty; write the word, or take the line out")
    if len(cells) != columns:
        counted = f"{len(cells)} column{'s' * (len(cells) > 1)}, but {columns} before"
        hint = "; a comment stands only before a sentence's first word" if cells[0].startswith("#") else ""
        raise Refusal(
            f"{place}: {counted}; give every word of the file the same columns, parted by tabs, or by spaces in a line "
            f"without a tab{hint}"
        )
    if "" in cells:
        raise Refusal(f"{place}: column {cells.index('') + 1} is empty; write _ into it, or take the tab before it out")


def _conll_row(words: list[list[str]], document: int) -> Row:
    """A sentence's columns by number, the first and the last by name too, and its document's number unless 0."""
    columns = [list(column) for column in zip(*words, strict=True)]
    row: Row = {str(number): column for number, column in enumerate(columns, start=1)}
    row |= {"tokens": columns[0]} | ({"ner_tags": columns[-1]} if len(columns) > 1 else {})
    return row | ({"document": document} if document else {})


# --- Names of labels --------------------------------------------------------------------------------------------------


def label_names(features: dict[str, Any]) -> dict[str, list[str]]:
    """The names of the columns of ClassLabels, be they alone or in lists.

    Args:
        features: of a data set, as `Features.to_dict` gives them and `datasets` of any version writes them.

    Returns:
        column → the names of 0, 1, ...; other columns are left out.
    """
    names = {}
    for column, feature in features.items():
        while isinstance(feature, list) or (isinstance(feature, dict) and feature.get("_type") in LISTS):
            # older versions wrote a list of one feature
            feature = next(iter(feature), None) if isinstance(feature, list) else feature.get("feature")
        found = feature.get("names") if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" else None
        if isinstance(found, list) and all(isinstance(name, str) for name in found):
            names[column] = found
    return names


def named(row: PlacedRow, names: dict[str, list[str]]) -> PlacedRow:
    """A row with the names of its ClassLabels instead of their numbers; null and -1 (no label) stay.

    Args:
        row: with its place.
        names: from `label_names`.

    Raises:
        Refusal: a number without a name.
    """
    place, values = row
    found = {
        column: _named_value(values[column], names[column], f"{place}: column {column}")
        for column in names
        if column in values  # a file that another program took a column out of may still tell of it
    }
    return place, values | found


def _named_value(value: Any, names: list[str], where: str) -> Any:
    """The name of a number, or of each in a list; what is neither stays."""
    if isinstance(value, list):
        return [_named_value(item, names, where) for item in value]
    if not isinstance(value, int) or value == -1:
        return value
    if not 0 <= value < len(names):
        raise Refusal(f"{where} holds {value}, but its labels are 0 to {len(names) - 1}: {told(names)[:80]}")
    return names[value]


# --- Rows and their values --------------------------------------------------------------------------------------------


def sample_indices(count: int, limit: int | None, seed: int = 0) -> np.ndarray:
    """Which of `count` rows to take: all, or `limit` of them drawn at random, ascending: int (taken,).

    The first rows of a file are often of one label. Of one seed the draw is the same every time, and a smaller sample
    is part of a larger one, so that runs with more and fewer rows compare.
    """
    return np.sort(np.random.default_rng(seed).permutation(count)[:limit]) if limit is not None else np.arange(count)


def column_value(row: PlacedRow, column: str, flag: str) -> Any:
    """The value of `column` in a row.

    Raises:
        Refusal: no such column; the message lists those that there are and names the flag that picks one.
    """
    place, values = row
    if column not in values:
        hint = separator_hint(list(values)) if file_format(place.rpartition(" row ")[0]) in ("csv", "tsv") else ""
        raise Refusal(f"{place}: no column {column}; found {told(values)} (pick one with --{flag}){hint}")
    return values[column]


def told(names: Iterable[Any]) -> str:
    """Names out of a file as a message has them: in one line, with what could not be seen written out."""
    shown = (name if name.isprintable() and name == name.strip() != "" else repr(name) for name in map(str, names))
    line = ", ".join(shown)
    return line if len(line) <= 300 else f"{line[:300]} …"


def separator_hint(header: list[str]) -> str:
    """For a refusal: the only column's name holds what seems to part the columns."""
    if len(header) != 1 or not (found := re.search("[;\t|,]", header[0])):
        return ""
    what = {";": "semicolons", "\t": "tabs", "|": "bars", ",": "commas"}[found[0]]
    return f"; are columns parted by {what}? write commas into a .csv, tabs into a .tsv"


def text_value(row: PlacedRow, column: str, flag: str) -> str:
    """The text of `column` in a row.

    Raises:
        Refusal: no such column, no text in it, or only white space.
    """
    value = column_value(row, column, flag)
    if not isinstance(value, str) or not value.strip():
        found = "is empty" if value is None or isinstance(value, str) else f"holds {repr(value)[:60]}, which is no text"
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
    if not abs(number) <= LARGEST_SCORE:
        shown = repr(value)[:40]
        raise Refusal(
            f"{row[0]}: column {column} holds {shown}; a finite number is expected, of {LARGEST_SCORE:g} at most "
            f"(--{flag})"
        )
    return number


def broken_text(text: str) -> bool:
    """Whether `text` holds half of a character, which JSON can write and no tokenizer can read."""
    return any("\ud800" <= character <= "\udfff" for character in text)


# --- Words or a text --------------------------------------------------------------------------------------------------


class TagColumns(Protocol):
    """The flags that name the columns of tagged words, or of a text and its entities."""

    tokens_column: str
    tags_column: str
    text_column: str
    entities_column: str


@dataclass
class UsualColumns:
    """What those columns are called where no flag says otherwise."""

    tokens_column: str = "tokens"
    tags_column: str = "ner_tags"
    text_column: str = "text"
    entities_column: str = "entities"


def has_words(values: Row, columns: TagColumns) -> bool:
    """Whether a row is read by its words; where it has a text too, by what its tags or its entities belong to."""
    if columns.tokens_column not in values or columns.text_column not in values:
        return columns.tokens_column in values
    words, tags, entities = map(values.get, (columns.tokens_column, columns.tags_column, columns.entities_column))
    if isinstance(words, list) and any(isinstance(word, dict) for word in words):
        return False  # Prodigy's, each with its place in the text
    # a table of texts may have anything else in a column of that name, such as how many they are
    return words is not None and (tags is not None or (entities is None and isinstance(words, list)))


def word_list(row: PlacedRow, column: str) -> list[str]:
    """A column's list of words, at least one."""
    values = column_value(row, column, "tokens_column")
    if not isinstance(values, list) or not values or not all(isinstance(value, str) for value in values):
        raise Refusal(f'{row[0]}: column {column} must hold a list of words such as ["Oslo", "rose"], at least one')
    if any(map(broken_text, values)):
        raise Refusal(f"{row[0]}: column {column} holds half of a character (a lone surrogate); mend the text")
    return values


def tagged_text(row: PlacedRow, columns: TagColumns) -> str:
    """The text of a row of words, one blank between two, or of a text; it need not be tagged.

    Raises:
        Refusal: neither words nor a text in it.
    """
    if isinstance(row[1].get(columns.tokens_column), list) and has_words(row[1], columns):
        return " ".join(word_list(row, columns.tokens_column))
    return text_value(row, columns.text_column, "text_column")
