"""Files are read as they were written, and a file that cannot be is refused by name, row and remedy."""

import csv
import gzip
import json
import re
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from two_stage import tables
from two_stage.recipe import Refusal

TABLES = ("csv", "tsv", "jsonl", "parquet")
QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

ANY_CHARACTER = st.characters(exclude_categories=["Cs"])  # a lone surrogate is no text: UTF-8 has no bytes for it
MARKS = (
    "\ufeff\u200f\u2028\x85\u00a0\u3000\x0b\x1c"  # what some reader somewhere takes for a line's end, or for nothing
)
NASTY = st.sampled_from(
    ["NA", "null", "nan", "=1+1", "a. B", "naïve", "日本語", "🙂", "\u202eabc", '""', "\r\n", *"\",\t\n\r\\'# ", *MARKS]
)
TEXTS = st.one_of(NASTY, st.text(ANY_CHARACTER, max_size=8), st.lists(NASTY, max_size=4).map("".join))
LINES = TEXTS.map(lambda text: re.sub("[\r\n]", "", text))
WORDS = st.text(
    st.characters(exclude_categories=["Cs", "Cc", "Z"], exclude_characters="\ufeff"), min_size=1, max_size=6
)


def write(path: Path, content: bytes) -> str:
    """Write bytes, packed if the name says so; returns the path as readers take it."""
    if path.suffix == ".zst":
        content = packed_by_zstd(content)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return str(path)


def packed_by_zstd(content: bytes) -> bytes:
    """A .zst archive."""
    sink = pyarrow.BufferOutputStream()
    with pyarrow.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return sink.getvalue().to_pybytes()


def write_rows(path: Path, rows: list[dict[str, Any]], encoding: str = "utf-8") -> str:
    """Write a table by the packages that everybody writes tables with."""
    name = path.name.removesuffix(".gz")
    if name.endswith(".parquet"):
        sink = pyarrow.BufferOutputStream()
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), sink)
        return write(path, sink.getvalue().to_pybytes())
    plain = path.with_name("written")
    with open(plain, "w", encoding=encoding, newline="") as file:
        if name.endswith(".jsonl"):
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        else:
            writer = csv.DictWriter(file, list(rows[0]), delimiter="\t" if name.endswith(".tsv") else ",")
            writer.writeheader()
            writer.writerows(rows)
    return write(path, plain.read_bytes())


def values(path: str) -> list[tables.Row]:
    """The rows of a table without their places."""
    return [row for _, row in tables.read_rows(path)]


# --- Tables give back what was written --------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", TABLES)
@QUICK
@given(texts=st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=6))
def test_tables_give_back_any_text(tmp_path: Path, ending: str, texts: list[tuple[str, str]]) -> None:
    """Quotes, separators, line breaks and words such as NA come back as they were written, in order."""
    rows = [{"text": text, "label": label} for text, label in texts]
    path = write_rows(tmp_path / f"table.{ending}", rows)
    assert values(path) == rows
    assert [place for place, _ in tables.read_rows(path)] == [f"{path} row {n}" for n in range(1, len(rows) + 1)]


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl"])
@QUICK
@given(texts=st.lists(TEXTS, min_size=1, max_size=4))
def test_byte_order_mark_is_no_part_of_the_first_column(tmp_path: Path, ending: str, texts: list[str]) -> None:
    """A file that a spreadsheet saved with a byte-order mark reads as one without, but for marks inside texts."""
    rows = [{"text": text, "label": "a"} for text in texts]
    assert values(write_rows(tmp_path / f"table.{ending}", rows, encoding="utf-8-sig")) == rows


def test_one_column_tables_keep_empty_cells(tmp_path: Path) -> None:
    """A quoted empty cell is a row, an empty line is none."""
    path = write(tmp_path / "one.csv", b'text\n""\n\nb\n')
    assert values(path) == [{"text": ""}, {"text": "b"}]


def test_texts_longer_than_the_csv_module_takes_by_default(tmp_path: Path) -> None:
    """A text of 300,000 characters is read whole."""
    rows = [{"text": "word " * 60_000, "label": "a"}]
    assert values(write_rows(tmp_path / "long.csv", rows)) == rows


@pytest.mark.parametrize("separator", [" ", "\t", " middle ", "\tNN\tB-NP\t"])
@QUICK
@given(
    sentences=st.lists(st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=5), min_size=1, max_size=5),
    line_end=st.sampled_from(["\n", "\r\n"]),
    between=st.sampled_from(["{}", "{}{}", " {}", "{}-DOCSTART- -X- O O{}{}"]),
)
def test_conll_gives_back_words_and_tags(
    tmp_path: Path, separator: str, sentences: list[list[tuple[str, str]]], line_end: str, between: str
) -> None:
    """The first column is the word, the last its tag, and any blank line or document mark ends a sentence."""
    between = between.replace("{}", line_end)
    blocks = ["".join(f"{word}{separator}{tag}{line_end}" for word, tag in sentence) for sentence in sentences]
    path = write(tmp_path / "a.conll", between.join(blocks).encode())
    assert values(path) == [{"tokens": [w for w, _ in s], "ner_tags": [t for _, t in s]} for s in sentences]


@pytest.mark.parametrize("space", ["\u00a0", "\u202f", "\u3000"])
def test_conll_words_keep_spaces_that_are_no_separator(tmp_path: Path, space: str) -> None:
    """Columns lie between blanks and tabs: a word such as 10 000 with a no-break space inside is one word."""
    path = write(tmp_path / "a.conll", f"10{space}000 B-NUM\n".encode())
    assert values(path) == [{"tokens": [f"10{space}000"], "ner_tags": ["B-NUM"]}]


@pytest.mark.parametrize("ending", [*TABLES, "conll"])
@pytest.mark.parametrize("packer", ["gz", "zst"])
def test_packed_tables_equal_plain_ones(tmp_path: Path, ending: str, packer: str) -> None:
    """Every ending that the readers know is read with .gz or .zst behind it too, as their own message promises."""
    rows = [{"text": 'a, "b"\nc', "label": "ü"}, {"text": "NA", "label": "null"}]
    plain = tmp_path / f"table.{ending}"
    if ending == "conll":
        write(plain, "Lima B-LOC\n. O\n\nÜ O\n".encode())
    else:
        write_rows(plain, rows)
    packed = write(tmp_path / f"table.{ending}.{packer}", plain.read_bytes())
    assert len(values(str(plain))) == 2
    assert values(packed) == values(str(plain))


# --- Refusals ---------------------------------------------------------------------------------------------------------

NO_GZIP_STREAM = gzip.compress(b"")[:10] + b"\xff" * 60  # a proper header, then bits that are no deflate block
CUT_GZIP = gzip.compress(bytes(range(32, 127)) * 50)[:-20]

# file name, its bytes as they lie on disk (None: no such file), and what the message must say beside the name
BAD_FILES = {
    "missing": ("gone.csv", None, ["no such file"]),
    "empty": ("empty.csv", b"", ["empty"]),
    "wrong ending": ("book.xlsx", b"PK", ["known: ", ".csv", ".gz"]),
    "no ending": ("book", b"text\na\n", ["known: ", ".csv"]),
    "latin-1 csv": ("a.csv", b"text\ncaf\xe9\n", ["not UTF-8", "iconv"]),
    "latin-1 tsv": ("a.tsv", b"text\ncaf\xe9\n", ["not UTF-8", "iconv"]),
    "latin-1 jsonl": ("a.jsonl", b'{"text": "caf\xe9"}\n', ["not UTF-8", "iconv"]),
    "latin-1 packed": ("a.csv.gz", gzip.compress(b"text\ncaf\xe9\n"), ["not UTF-8", "iconv"]),
    "UTF-16": ("a.csv", "text\na\n".encode("utf-16"), ["not UTF-8"]),
    "no gzip": ("a.csv.gz", b"text\na\n", ["gzip"]),
    "cut gzip": ("a.jsonl.gz", CUT_GZIP, ["gzip"]),
    "damaged gzip": ("a.csv.gz", NO_GZIP_STREAM, ["gzip"]),
    "no zstd": ("a.csv.zst", b"text\na\n", ["zstd"]),
    "cut zstd": ("a.jsonl.zst", packed_by_zstd(bytes(range(32, 127)) * 50)[:-20], ["zstd"]),
    "open quote": ("a.csv", b'text,label\na,b\n"c,d\ne,f\n', ["line 4", "quote"]),
    "text behind a quote": ("a.csv", b'text,label\na,b\n"c" d,e\n', ["line 3", "quote"]),
    "too many fields": ("a.csv", b"text,label\na,b\na, b,c\n", ["row 2 (line 3)", "3 fields", "double quotes"]),
    "too few fields": ("a.tsv", b"text\tlabel\na\n", ["row 1", "1 fields", "double quotes"]),
    "header with twins": ("a.csv", b"text,text\na,b\n", ["same name"]),
    "not JSON": ("a.jsonl", b'{"text": "a"}\n\n{"text": "b"}\n{"text": \n', ["row 3", "not JSON", "one object"]),
    "JSON of numbers without end": ("a.jsonl", b'{"text": ' + b"1" * 5000 + b"}\n", ["row 1"]),
    "JSON list": ("a.jsonl", b'{"text": "a"}\n["b"]\n', ["row 2", "a list", "object"]),
    "JSON text": ("a.jsonl", b'"b"\n', ["row 1", "a str", "object"]),
    "half a character": ("a.jsonl", b'{"text": "a"}\n{"text": "b \\ud83d c"}\n', ["row 2"]),
    "missing column": ("a.csv", b"txt,label\na,b\n", ["row 1", "no column text", "txt, label", "--text_column"]),
    "column missing later": ("a.jsonl", b'{"text": "a"}\n{"body": "b"}\n', ["row 2", "body", "--text_column"]),
    "empty text": ("a.csv", b"text,label\na,b\n,c\n", ["row 2", "empty", "take the row out"]),
    "blank text": ("a.tsv", b"text\tlabel\n \tb\n", ["row 1", "empty", "take the row out"]),
    "null text": ("a.jsonl", b'{"text": null}\n', ["row 1", "empty", "take the row out"]),
    "number for a text": ("a.jsonl", b'{"text": 7}\n', ["row 1", "7", "no text"]),
    "no parquet": ("a.parquet", b"text\na\nb\nc\n", ["not a parquet file"]),
    "short parquet": ("a.parquet", b"P", ["not a parquet file"]),
}


def read_everything(path: str) -> list[str]:
    """The texts of a table, read as stage two reads them."""
    tables.check_files([path], TABLES)
    return [tables.text_value(row, "text", "text_column") for row in tables.read_rows(path)]


def check_message(message: str, path: Path, needles: list[str]) -> None:
    """One line that names the file and says all of `needles`."""
    assert "\n" not in message
    assert path.name in message
    assert [needle for needle in needles if needle not in message] == [], message


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_tables_are_refused(tmp_path: Path, case: str) -> None:
    """The message is one line that names the file, the row where there is one, and the remedy."""
    name, content, needles = BAD_FILES[case]
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(Refusal) as refusal:
        read_everything(str(tmp_path / name))
    check_message(str(refusal.value), tmp_path / name, needles)


@pytest.mark.parametrize("damage", [(4, 40), (50, 80), (-60, -20)], ids=["page header", "page", "footer"])
def test_damaged_parquet_is_refused(tmp_path: Path, damage: tuple[int, int]) -> None:
    """Bytes overturned anywhere in the file end in a refusal that names it."""
    path = tmp_path / "a.parquet"
    write_rows(path, [{"text": f"hello world {i} " * 20} for i in range(500)])
    content = bytearray(path.read_bytes())
    start, stop = (place % len(content) for place in damage)
    content[start:stop] = bytes(byte ^ 255 for byte in content[start:stop])
    path.write_bytes(content)
    with pytest.raises(Refusal) as refusal:
        read_everything(str(path))
    check_message(str(refusal.value), path, [])


@pytest.mark.parametrize(
    ("content", "needles"),
    [
        (b"Lima B-LOC\nrose\n", ["line 2", "a word and its tag"]),
        (b"-DOCSTART- -X- O\n\nLima B-LOC\n\nrose \n", ["line 5", "a word and its tag"]),
        (b"Lim\xe1 B-LOC\n", ["not UTF-8", "iconv"]),
    ],
)
def test_bad_conll_is_refused(tmp_path: Path, content: bytes, needles: list[str]) -> None:
    """A line of one column, or of another encoding, is refused with its number."""
    path = tmp_path / "a.conll"
    path.write_bytes(content)
    with pytest.raises(Refusal) as refusal:
        values(str(path))
    check_message(str(refusal.value), path, needles)


def test_file_hash_is_that_of_the_bytes(tmp_path: Path) -> None:
    """The SHA-256 of three known bytes, from FIPS 180-2."""
    path = write(tmp_path / "abc", b"abc")
    assert tables.file_sha256(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_samples_are_random_nested_and_in_order(tmp_path: Path) -> None:
    """A file sorted by label gives a mixed sample; ten rows are among twenty; without a limit, all."""
    path = tmp_path / "sorted.csv"
    path.write_text("text,label\n" + "".join(f"t{i},{i // 50}\n" for i in range(100)), encoding="utf-8")
    ten, twenty = (tables.sample_rows([str(path)], limit) for limit in (10, 20))
    assert len(ten) == 10
    assert {row["label"] for _, row in ten} == {"0", "1"}
    numbers = [int(row["text"][1:]) for _, row in twenty]
    assert numbers == sorted(numbers)
    assert {place for place, _ in ten} < {place for place, _ in twenty}
    assert len(tables.sample_rows([str(path)], None)) == len(tables.sample_rows([str(path)], 100)) == 100
