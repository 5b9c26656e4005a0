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
from datasets import ClassLabel, Dataset, DatasetDict, Features, LargeList, List, Value
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from two_stage.command_line.exits import Refusal
from two_stage.data import data_sets, files, tables

TABLES = ("csv", "tsv", "jsonl", "parquet")
QUICK = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

ANY_CHARACTER = st.characters(exclude_categories=["Cs"])  # a lone surrogate is no text: UTF-8 has no bytes for it
MARKS = (
    "\ufeff\u200f\u2028\x85\u00a0\u3000\x0b\x1c"  # what some reader somewhere takes for a line's end, or for nothing
)
NASTY = st.sampled_from(
    ["NA", "null", "nan", "=1+1", "a. B", "naïve", "日本語", "🙂", "\u202eabc", '""', "\r\n", *"\",\t\n\r\\'# ", *MARKS]
)
TEXTS = st.one_of(NASTY, st.text(ANY_CHARACTER, max_size=8), st.lists(NASTY, max_size=4).map("".join))
LINES = TEXTS.map(lambda text: re.sub("[\r\n]", "", text))
LINE_ENDS = st.sampled_from(["\n", "\r\n"])


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


def looks_like_an_open_quote(rows: list[dict[str, str]]) -> bool:
    """Whether a field holds tabs and line breaks, for which a .tsv is refused."""
    return any("\t" in field and "\n" in field for row in rows for field in row.values())


# --- Tables give back what was written --------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", TABLES)
@QUICK
@given(texts=st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=6))
def test_tables_give_back_any_text(tmp_path: Path, ending: str, texts: list[tuple[str, str]]) -> None:
    """Quotes, separators, line breaks and words such as NA come back as they were written, in order."""
    rows = [{"text": text, "label": label} for text, label in texts]
    assume(not (ending == "tsv" and looks_like_an_open_quote(rows)))
    path = write_rows(tmp_path / f"table.{ending}", rows)
    assert values(path) == rows
    assert [place for place, _ in tables.read_rows(path)] == [f"{path} row {n}" for n in range(1, len(rows) + 1)]


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl"])
@QUICK
@given(texts=st.lists(TEXTS, min_size=1, max_size=4))
def test_byte_order_mark_is_no_part_of_the_first_column(tmp_path: Path, ending: str, texts: list[str]) -> None:
    """A file that a spreadsheet saved with a byte-order mark reads as one without, but for marks inside texts."""
    rows = [{"text": text, "label": "a"} for text in texts]
    assume(not (ending == "tsv" and looks_like_an_open_quote(rows)))
    assert values(write_rows(tmp_path / f"table.{ending}", rows, encoding="utf-8-sig")) == rows


def test_one_column_tables_keep_empty_cells(tmp_path: Path) -> None:
    """A quoted empty cell is a row, an empty line is none."""
    path = write(tmp_path / "one.csv", b'text\n""\n\nb\n')
    assert values(path) == [{"text": ""}, {"text": "b"}]


@QUICK
@given(
    documents=st.lists(
        st.lists(LINES.map(str.strip).filter(bool), min_size=1, max_size=3),
        min_size=1,
        max_size=4,
    ),
    line_end=LINE_ENDS,
    around=st.sampled_from(["", " ", "\t", "\u3000"]),
    blank=st.sampled_from(["{}", " {}", "{}{}\t{}"]),
    has_last_end=st.booleans(),
)
def test_text_files_give_back_lines_and_their_documents(
    tmp_path: Path, documents: list[list[str]], line_end: str, around: str, blank: str, has_last_end: bool
) -> None:
    """Every line that is not blank, whatever stands within it; blank lines, one or more, part documents."""
    blank = blank.replace("{}", line_end)
    blocks = ["".join(f"{around}{text}{around}{line_end}" for text in document) for document in documents]
    content = blank + blank.join(blocks)
    path = write(tmp_path / "a.txt", (content if has_last_end else content.removesuffix(line_end)).encode())
    rows = [{"text": text, "document": n} for n, document in enumerate(documents, start=1) for text in document]
    assert list(tables.read_rows(path)) == [(f"{path} row {n}", row) for n, row in enumerate(rows, start=1)]


def test_texts_longer_than_the_csv_module_takes_by_default(tmp_path: Path) -> None:
    """A text of 300,000 characters is read whole."""
    rows = [{"text": "word " * 60_000, "label": "a"}]
    assert values(write_rows(tmp_path / "long.csv", rows)) == rows


@pytest.mark.parametrize("ending", [*TABLES, "conll", "txt"])
@pytest.mark.parametrize("packer", ["gz", "zst"])
def test_packed_tables_equal_plain_ones(tmp_path: Path, ending: str, packer: str) -> None:
    """Every ending that the readers know is read with .gz or .zst behind it too, as their own message promises."""
    rows = [{"text": 'a, "b"\nc', "label": "ü"}, {"text": "NA", "label": "null"}]
    plain = tmp_path / f"table.{ending}"
    if ending == "conll":
        write(plain, "Lima B-LOC\n. O\n\nÜ O\n".encode())
    elif ending == "txt":
        write(plain, "Lima .\n\nÜ\n".encode())
    else:
        write_rows(plain, rows)
    packed = write(tmp_path / f"table.{ending}.{packer}", plain.read_bytes())
    assert len(values(str(plain))) == 2
    assert values(packed) == values(str(plain))


# --- CoNLL columns ----------------------------------------------------------------------------------------------------

ANY_WORD = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\t\r\n \ufeff"), min_size=1, max_size=5)
HARD_WORDS = st.sampled_from(
    ["#", "##", "#hashtag", "10\u00a0000", "\u200b", "\u3000", "O", "B-", "\x85", "-", '"', "日本"]
)
CONLL_WORDS = ANY_WORD | HARD_WORDS
SPACED_WORDS = st.lists(CONLL_WORDS, min_size=1, max_size=2).map(" ".join)
MIDDLES = st.sampled_from(["NN", "_", "B-NP", "#", "12", "O"])
TAGS = st.sampled_from(["O", "B-LOC", "I-LOC", "E-x-y", "S-人", "L-#", "U-x y", "U-MISC"])
BLANK_LINES = st.lists(st.sampled_from(["", " ", "\t", " \t "]), max_size=2)
COMMENTS = [
    "# text = Lima rose",
    "# text = O Canada",
    "# sent_id = B-12",
    "#\thttp://x.org/[a b]\t-",
    "## note",
    "# text =",
]
MARKS_OF_DOCUMENTS = [
    "-DOCSTART-",
    "-DOCSTART- -X- O O",
    "-DOCSTART-\t\t-X-\tO",
    "-DOCSTART- -X-\tO",
    "# newdoc",
    "# newdoc id = B-1",
]


@st.composite
def conll_files(draw: st.DrawFn) -> tuple[str, list[tables.Row]]:
    """What a naive writer writes, and the rows that it wrote."""
    columns, separator, end = draw(st.integers(1, 4)), draw(st.sampled_from(["\t", " ", "   "])), draw(LINE_ENDS)
    words = SPACED_WORDS if separator == "\t" and columns > 1 else CONLL_WORDS
    tags = TAGS.map(str.strip) if separator == "\t" else TAGS.filter(lambda tag: " " not in tag)
    lines: list[str] = []
    rows: list[tables.Row] = []
    document, is_marked = 0, False
    for _ in range(draw(st.integers(1, 4))):
        for line in draw(st.lists(st.sampled_from([*COMMENTS, *MARKS_OF_DOCUMENTS]), max_size=3)):
            lines += [line, *draw(BLANK_LINES)]
            is_marked = is_marked or line in MARKS_OF_DOCUMENTS
        document, is_marked = document + is_marked, False
        one_word = st.tuples(words, *[MIDDLES] * (columns - 2), *[tags] * (columns > 1))
        sentence = draw(st.lists(one_word, min_size=1, max_size=4))
        rows.append({str(n + 1): [word[n] for word in sentence] for n in range(columns)})
        rows[-1]["tokens"] = [word[0] for word in sentence]
        if columns > 1:
            rows[-1]["ner_tags"] = [word[-1] for word in sentence]
        if document:
            rows[-1]["document"] = document
        lines += [separator.join(word) for word in sentence] + [""] + draw(BLANK_LINES)
    content = "".join(line + end for line in lines)
    return content.rstrip("\r\n\t ") if draw(st.booleans()) else content, rows


@QUICK
@given(file=conll_files())
def test_conll_gives_back_what_was_written(tmp_path: Path, file: tuple[str, list[tables.Row]]) -> None:
    """Word by word, whatever the words, the columns, the line ends, and the comments and marks between sentences."""
    content, rows = file
    path = write(tmp_path / "a.conll", content.encode())
    assert list(tables.read_rows(path)) == [(f"{path} row {n}", row) for n, row in enumerate(rows, start=1)]


@pytest.mark.parametrize(
    ("line", "is_comment"),
    [
        ("# O", False),
        ("#\tO", False),
        ("#hashtag B-MISC", False),
        ("# NN I-MISC _", False),
        ("# text = a b", True),
        ("# text = O Canada", True),
        ("# newdoc id = O", True),
        ("#\thttp://x.org", True),
        ("# id 7\tdomain=en", True),
        ("#x\thttp://x.org", False),
        ("#Oslo\t1", False),
        ("#Oslo 1", False),
        ("# sent 12", True),
        ("#global.columns ID FORM", True),
        ("# OO", True),
        ("# X-MISC", True),
        ("# B-", True),
    ],
)
def test_lines_that_begin_with_a_hash(tmp_path: Path, line: str, is_comment: bool) -> None:
    """A comment unless it has a tag; and in the midst of a sentence always a word."""
    columns = re.split("[ \t]", line)
    rest = "\t".join(["a"] * len(columns))
    for lines in (f"{line}\n{rest}\n", f"{line}\n{line}\n{rest}\n"):
        words = [row["tokens"] for row in values(write(tmp_path / "a.conll", lines.encode()))]
        assert words == [["a"] if is_comment else [columns[0]] * (lines.count("\n") - 1) + ["a"]]
    behind = values(write(tmp_path / "a.conll", f"{rest}\n{re.sub(' ', chr(9), line)}\n".encode()))
    assert behind[0]["tokens"] == ["a", columns[0]]


def test_a_file_counts_once(tmp_path: Path) -> None:
    """By whatever path it is given again; a copy of it is another file."""
    path = write(tmp_path / "a.csv", b"text\na\n")
    copy = write(tmp_path / "b.csv", b"text\na\n")
    files.check_files([path, copy], ("csv",))
    for again in (path, f"{tmp_path}/../{tmp_path.name}/a.csv"):
        with pytest.raises(Refusal, match="is given twice"):
            files.check_files([path, copy, again], ("csv",))


def test_a_hash_alone_is_a_word_of_a_file_of_words(tmp_path: Path) -> None:
    """Also before the first word of a sentence; only with a second cell would it be a comment."""
    assert values(write(tmp_path / "a.conll", b"# a b\n#\n#x\n\n#newdoc\n")) == [
        {"1": ["#", "#x"], "tokens": ["#", "#x"]},
        {"1": ["#newdoc"], "tokens": ["#newdoc"]},
    ]


@pytest.mark.parametrize("first", ["", "-DOCSTART- O\n\n"])
def test_a_cell_alone_is_a_comment_of_a_file_of_tags(tmp_path: Path, first: str) -> None:
    """As JNLPBA has them, with and without a blank line behind; in the midst of a sentence it is a word without tag."""
    path = write(tmp_path / "a.conll", f"{first}###MEDLINE:9\n\nIL-2\tB-DNA\n\n#note\n#\ngene\tO\n".encode())
    assert [row["tokens"] for row in values(path)] == [["IL-2"], ["gene"]]
    path = write(tmp_path / "b.conll", b"IL-2\tB-DNA\n#note\n")
    with pytest.raises(Refusal, match=r"line 2: 1 column, but 2 before; .*only before a sentence's first word"):
        values(path)


def test_documents_are_numbered_behind_their_first_mark(tmp_path: Path) -> None:
    """Sentences before it have no document; marks in a row begin one; a mark ends a sentence without a blank line."""
    lines = "a O|-DOCSTART- -X-|b O||c O||-DOCSTART-|# newdoc id = 2||# text = d|d O|-DOCSTART-|"
    rows = values(write(tmp_path / "a.bio", lines.replace("|", "\n").encode()))
    assert [(row["tokens"], row.get("document")) for row in rows] == [(["a"], None), (["b"], 1), (["c"], 1), (["d"], 2)]


# --- Class labels -----------------------------------------------------------------------------------------------------

LABELLED = Features(
    {
        "text": Value("string"),
        "label": ClassLabel(names=["bad", "good"]),
        "tags": List(ClassLabel(names=["O", "B-LOC"])),
        "large": LargeList(ClassLabel(names=["x"])),
        "two": List(ClassLabel(names=["p", "q"]), length=2),
        "nested": List(List(ClassLabel(names=["n"]))),
        "number": Value("int64"),
        "numbers": List(Value("int64")),
    }
)
NUMBERED = {
    "text": ["a", None, "c"],
    "label": [1, None, -1],
    "tags": [[0, 1, -1], None, []],
    "large": [[0], [], [0, 0]],
    "two": [[1, 0], [0, 0], [1, 1]],
    "nested": [[[0], []], [], None],
    "number": [0, 1, None],
    "numbers": [[1], [], None],
}
NAMED = NUMBERED | {
    "label": ["good", None, -1],
    "tags": [["O", "B-LOC", -1], None, []],
    "large": [["x"], [], ["x", "x"]],
    "two": [["q", "p"], ["p", "p"], ["q", "q"]],
    "nested": [[["n"], []], [], None],
}
NAMED_ROWS = [dict(zip(NAMED, row, strict=True)) for row in zip(*NAMED.values(), strict=True)]


def labelled_rows() -> Dataset:
    """Columns of class labels, alone and in lists, and of plain numbers."""
    return Dataset.from_dict(NUMBERED, features=LABELLED)


def parquet_with(path: Path, metadata: dict[str, Any] | str | None, table: dict[str, list[Any]]) -> str:
    """A parquet file whose schema says of its features what is given."""
    said = metadata if isinstance(metadata, str) else json.dumps({"info": {"features": metadata}})
    written = pyarrow.table(table).replace_schema_metadata({"huggingface": said} if metadata is not None else None)
    pyarrow.parquet.write_table(written, path)
    return str(path)


def test_parquet_that_datasets_wrote_has_names_for_numbers(tmp_path: Path) -> None:
    """Of class labels alone and in lists of any kind; null and -1 stay, and so does every other column."""
    path = str(tmp_path / "a.parquet")
    labelled_rows().to_parquet(path)
    assert list(tables.read_rows(path)) == [(f"{path} row {n}", row) for n, row in enumerate(NAMED_ROWS, start=1)]


@pytest.mark.parametrize(
    "feature",
    [
        [{"names": ["O", "B-LOC"], "_type": "ClassLabel"}],
        {"feature": {"num_classes": 2, "names": ["O", "B-LOC"], "_type": "ClassLabel"}, "_type": "Sequence"},
    ],
)
def test_parquet_of_older_versions(tmp_path: Path, feature: Any) -> None:
    """Lists were written in two other ways; and a column may have gone, or be new."""
    features = {"tags": feature, "gone": {"names": ["x"], "_type": "ClassLabel"}}
    path = parquet_with(tmp_path / "a.parquet", features, {"tags": [[1, 0]], "new": [0]})
    assert values(path) == [{"tags": ["B-LOC", "O"], "new": 0}]


@pytest.mark.parametrize(
    "metadata",
    [None, "no JSON", "\ufffd", "[]", '{"info": null}', '{"info": {"features": [1]}}', {"tags": {}}, {"tags": []}],
)
def test_parquet_without_features_keeps_its_numbers(tmp_path: Path, metadata: dict[str, Any] | str | None) -> None:
    """Metadata of another kind tells nothing."""
    assert values(parquet_with(tmp_path / "a.parquet", metadata, {"tags": [[1, 0]]})) == [{"tags": [1, 0]}]


def test_labels_that_are_no_numbers_stay(tmp_path: Path) -> None:
    """Another program may have put the names in and left the metadata as it was."""
    features = {"label": {"names": ["bad", "good"], "_type": "ClassLabel"}}
    assert values(parquet_with(tmp_path / "a.parquet", features, {"label": ["good"]})) == [{"label": "good"}]


@pytest.mark.parametrize("number", [2, -2])
def test_numbers_without_a_name_are_refused(tmp_path: Path, number: int) -> None:
    """With the row, the column, and the names that there are; -1 alone stands for no label."""
    features = {"tags": {"feature": {"names": ["O", "B-LOC"], "_type": "ClassLabel"}, "_type": "List"}}
    path = parquet_with(tmp_path / "a.parquet", features, {"tags": [[0], [1, number]]})
    with pytest.raises(Refusal) as refusal:
        values(path)
    assert str(refusal.value) == f"{path} row 2: column tags holds {number}, but its labels are 0 to 1: O, B-LOC"


# --- Data sets --------------------------------------------------------------------------------------------------------


def folder_of_data(folder: Path, kind: str) -> str:
    """Splits train and test of a data set, in a folder of the kind."""
    splits = DatasetDict({"train": labelled_rows(), "test": labelled_rows().select([2, 0])})
    folder.mkdir()
    if kind == "parquet":
        for name, rows in splits.items():
            rows.to_parquet(folder / f"{name}.parquet")
    elif kind == "saved splits":
        splits.with_format("numpy").save_to_disk(folder)
    else:
        splits["train"].save_to_disk(folder)
    return str(folder)


@pytest.mark.parametrize("kind", ["parquet", "saved splits", "one saved split"])
def test_data_sets_give_their_splits_and_rows(tmp_path: Path, kind: str) -> None:
    """Of a folder of files, or one that `datasets` saved: names for numbers, and places that tell the split."""
    name = folder_of_data(tmp_path / "data", kind)
    expected = {"train": NAMED_ROWS, "test": [NAMED_ROWS[2], NAMED_ROWS[0]]}
    expected = {"train": NAMED_ROWS} if kind == "one saved split" else expected
    assert data_sets.dataset_splits(name, None, None) == list(expected)
    for split, rows in expected.items():
        places = [f"{name} {split} row {n}" for n in range(1, len(rows) + 1)]
        assert list(data_sets.dataset_rows(name, None, None, split)) == list(zip(places, rows, strict=True))
        assert list(data_sets.open_split(name, None, None, split)["text"]) == [row["text"] for row in rows]
        streamed = data_sets.open_split(name, None, None, split, streamed=True)
        assert not hasattr(streamed, "__len__")
        assert [row["text"] for row in streamed] == [row["text"] for row in rows]


def test_saved_splits_have_any_name(tmp_path: Path) -> None:
    """Those that a folder of files could not have."""
    DatasetDict({name: labelled_rows() for name in ("kept", "out")}).save_to_disk(tmp_path / "data")
    name = str(tmp_path / "data")
    assert data_sets.dataset_splits(name, None, None) == ["kept", "out"]
    assert [row for _, row in data_sets.dataset_rows(name, None, None, "out")] == NAMED_ROWS
    with pytest.raises(Refusal, match=r"^data set .*data: no split .*train"):
        data_sets.open_split(name, None, None, "train")


def test_streams_know_their_columns(tmp_path: Path) -> None:
    """Those of a .csv too, which `datasets` does not look into before its first row is asked for."""
    write_rows(tmp_path / "a.csv", [{"text": "a", "label": 1}])
    assert data_sets.open_split(str(tmp_path), None, None, "train", streamed=True).column_names == ["text", "label"]


def test_broken_files_of_data_sets_are_refused_for_what_is_wrong(tmp_path: Path) -> None:
    """The cause is told, not that something happened while the data set was made."""
    write(tmp_path / "a.jsonl", b'{"text": "a"}\n{"text": \n')
    with pytest.raises(Refusal, match=r"^data set .*JSON parse error"):
        data_sets.open_split(str(tmp_path), None, None, "train")


def test_rows_of_data_sets_are_counted_on_over_batches(tmp_path: Path) -> None:
    """The 600th row is row 600."""
    Dataset.from_dict({"n": range(600)}).save_to_disk(tmp_path / "data")
    rows = list(data_sets.dataset_rows(str(tmp_path / "data"), None, None, "train"))
    assert [row["n"] for _, row in rows] == list(range(600))
    assert [int(place.rpartition(" ")[2]) for place, _ in rows] == list(range(1, 601))


def test_data_sets_of_several_configurations(tmp_path: Path) -> None:
    """Each has splits of its own; without a choice they are refused, and named."""
    name = folder_of_data(tmp_path / "data", "parquet")
    configs = (
        "- config_name: one\n  data_files: train.parquet\n- config_name: two\n  data_files: {split: test.parquet}\n"
    )
    configs = "configs:\n" + configs.replace("{split: test.parquet}", "\n  - split: dev\n    path: test.parquet")
    (tmp_path / "data" / "README.md").write_text(f"---\n{configs}---\n", encoding="utf-8")
    assert data_sets.dataset_splits(name, "one", None) == ["train"]
    assert data_sets.dataset_splits(name, "two", None) == ["dev"]
    assert len(list(data_sets.dataset_rows(name, "two", None, "dev"))) == 2
    for ask in (data_sets.dataset_splits, lambda *asked: data_sets.open_split(*asked, "train")):
        with pytest.raises(Refusal, match=r"^data set .*data: Config name is missing.*'one', 'two'"):
            ask(name, None, None)


@pytest.mark.parametrize(
    ("name", "config", "needle"),
    [
        ("nobody/nothing", None, "nobody/nothing: Couldn't reach"),
        ("no such/folder/at all", None, "no such/folder/at all: "),
        ("{}", "odd" * 99, "BuilderConfig 'oddodd"),
        ("{}/nothing", None, "any data files"),
    ],
    ids=["offline", "no name", "configuration", "empty folder"],
)
def test_data_sets_that_are_not_there_are_refused(tmp_path: Path, name: str, config: str | None, needle: str) -> None:
    """By whoever asks first, in the same words."""
    name = name.replace("{}", folder_of_data(tmp_path / "data", "parquet"))
    (tmp_path / "data" / "nothing").mkdir()
    messages = []
    for ask in (data_sets.dataset_splits, lambda *asked: data_sets.open_split(*asked, "train")):
        with pytest.raises(Refusal) as refusal:
            ask(name, config, None)
        messages.append(str(refusal.value))
    assert messages[0] == messages[1]
    assert "\n" not in messages[0]
    assert messages[0].startswith(f"data set {name}: ")
    assert len(messages[0]) <= len(f"data set {name}: ") + 200
    assert needle in messages[0]


@pytest.mark.parametrize("kind", ["parquet", "saved splits"])
def test_splits_that_are_not_there_are_refused(tmp_path: Path, kind: str) -> None:
    """By their name; rows are refused before the first of them."""
    name = folder_of_data(tmp_path / "data", kind)
    with pytest.raises(Refusal, match=r"^data set .*data: .*tset"):
        next(data_sets.dataset_rows(name, None, None, "tset"))


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
    "open quote": ("a.csv", b'text,label\na,b\n"c,d\ne,f\n', ["row 2 (line 3)", "quote"]),
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
    files.check_files([path], TABLES)
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
        (b"Lima B-LOC\nrose\n", ["line 2: 1 column, but 2 before", "tab"]),
        (b"-DOCSTART- -X- O\n\nLima B-LOC\n\nrose \n", ["line 5: 1 column, but 2 before"]),
        (b"Lima NN B-LOC\n# text = a\n", ["line 2: 4 columns, but 3 before", "comment", "first word"]),
        (b"Lima NNP B-LOC\tO\nrose VB B-NP O\n", ["line 2: 4 columns, but 2 before"]),
        (b"Lima\tB-LOC\n\tO\n", ["line 2: the word is missing", "column 1 is empty"]),
        (b"Lima\tB-LOC\n\n \tO\n", ["line 3: the word is missing"]),
        (b"\tO\n", ["line 1: the word is missing"]),
        (b"Lima\tNNP\tB-LOC\nrose\tVB\t\n", ["line 2: column 3 is empty"]),
        (b"# text = x\r\nLima\t \tB-LOC\r\n", ["line 2: column 2 is empty"]),
        (b"Lim\xe1 B-LOC\n", ["not UTF-8", "iconv"]),
    ],
)
def test_bad_conll_is_refused(tmp_path: Path, content: bytes, needles: list[str]) -> None:
    """A line of other columns, without a word, with an empty cell, or of another encoding, is refused by its number."""
    path = tmp_path / "a.conll"
    path.write_bytes(content)
    with pytest.raises(Refusal) as refusal:
        values(str(path))
    check_message(str(refusal.value), path, needles)


def test_file_hash_is_that_of_the_bytes(tmp_path: Path) -> None:
    """The SHA-256 of three known bytes, from FIPS 180-2."""
    path = write(tmp_path / "abc", b"abc")
    assert files.file_sha256(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
