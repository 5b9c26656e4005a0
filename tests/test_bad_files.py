"""A corpus of bad files: each is refused in one line with file, place and remedy, or read as it stands; none hangs."""

import errno
import gzip
import json
import math
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.test_refusals import (  # noqa: F401  # call and no_model are fixtures
    MODULES,
    NER,
    PRETRAINING,
    SCRIPTS,
    SENTIMENT,
    Call,
    ModelWanted,
    call,
    no_model,
    process,
)
from tests.test_tables import packed_by_zstd
from two_stage.command_line.exits import Refusal
from two_stage.data import files, tables
from two_stage.data.corpus import CorpusSource, read_documents
from two_stage.data.tag_schemes import tag_names

LONGEST = 5.0  # seconds that a refusal may take
TABLE_READERS = (PRETRAINING, SENTIMENT)

Maker = Callable[[Path], object]  # puts something at a path


class BadFile(NamedTuple):
    """A file that a flag names, beside which the call is good."""

    scripts: tuple[str, ...]
    name: str
    content: bytes | Maker
    needles: tuple[str, ...]  # what the message must say beside the name
    flag: str = "train_file"
    flags: dict[str, list[str]] | None = None  # others of the call


class OddFile(NamedTuple):
    """A file that looks bad and is read."""

    script: str
    name: str
    content: bytes | Maker
    read: Any  # what `what_was_read` gives of it
    said: tuple[str, ...] = ()  # on the screen
    flag: str = "train_file"
    flags: dict[str, list[str]] | None = None


def give(made: Call, bad: BadFile | OddFile) -> Path:
    """Write the file, or what lies there in its place, and name it in the call."""
    path = made.folder / bad.name
    if isinstance(bad.content, bytes):
        path.write_bytes(bad.content)
    else:
        bad.content(path)
    made.flags |= {bad.flag: [str(path)]} | (bad.flags or {})
    return path


def jsonl(*rows: Any) -> bytes:
    """Rows as JSONL; NaN and Infinity as Python writes them."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def labelled(*labels: Any) -> bytes:
    """Rows of texts that have these labels."""
    return jsonl(*({"text": f"Profit rose {number} .", "label": label} for number, label in enumerate(labels)))


def parquet(*columns: Any, names: tuple[str, ...] = ("text", "label")) -> bytes:
    """A parquet file of columns that pyarrow makes of lists."""
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.table(list(map(pyarrow.array, columns)), names=list(names)), sink)
    return sink.getvalue().to_pybytes()


# --- Encodings --------------------------------------------------------------------------------------------------------

# A file of each format; a letter beyond ASCII stands in its third or, of columns, fourth line.
ACCENTED = {
    "txt": (PRETRAINING, "Profit rose .\n\nCafé sales fell .\n"),
    "csv": (SENTIMENT, "text,label\nProfit rose .,good\nCafé sales fell .,bad\n"),
    "jsonl": (
        SENTIMENT,
        '{"text": "Profit rose .", "label": "good"}\n\n{"text": "Café sales fell .", "label": "bad"}\n',
    ),
    "conll": (NER, "Lima B-LOC\nrose O\n\nCafé O\n"),
}


def badly_encoded() -> Iterator[tuple[str, BadFile]]:
    """Every format in encodings that are not UTF-8, and cut off within a character."""
    for ending, (script, text) in ACCENTED.items():
        line = text[: text.index("é")].count("\n") + 1
        offset = len(text[: text.index("é")])
        place = f"a.{ending} line {line}: not UTF-8 (byte "
        for name, content, needles in [
            ("latin-1", text.encode("latin-1"), [f"{place}0xe9 at offset {offset})", "iconv -f cp1252"]),
            ("cp1252", text.replace("é", "\u201d").encode("cp1252"), [f"{place}0x94", "iconv -f cp1252"]),
            ("UTF-16", text.encode("utf-16"), ["line 1: not UTF-8 but UTF-16;", "iconv -f UTF-16 "]),
            ("UTF-16 without a mark", text.encode("utf-16-le"), ["UTF-16LE", "iconv -f UTF-16LE"]),
            ("UTF-16 of the other order", text.encode("utf-16-be"), ["UTF-16BE", "iconv -f UTF-16BE"]),
            ("cut character", text.encode()[: offset + 1], [f"{place}0xc3", "ends within a character", "copy it anew"]),
        ]:
            yield f"{ending}: {name}", BadFile((script,), f"a.{ending}", content, tuple(needles))


# --- Files that are no tables, or broken ------------------------------------------------------------------------------

CSV = b"text,label\nProfit rose .,good\nCash fell .,bad\n"
SENTENCE = b'{"tokens": ["Lima", "rose"], "ner_tags": ["B-LOC", "O"]}\n'
TEXT = b"Profit rose .\n\nCash fell .\n"
GOOD = {PRETRAINING: TEXT, SENTIMENT: CSV, NER: SENTENCE}
NOISE = bytes(range(32, 127)) * 50
ANEW = ("broken gzip archive", "pack it anew", "take .gz off")


def link_to_itself(path: Path) -> None:
    """A link that leads in a circle."""
    path.symlink_to(path.name)


BROKEN = {
    "empty": BadFile(SCRIPTS, "a.jsonl", b"", ("a.jsonl: the file is empty", "write it anew")),
    "a folder": BadFile(SCRIPTS, "a.jsonl", Path.mkdir, ("is a folder", "name the files in it")),
    "a pipe": BadFile(SCRIPTS, "a.jsonl", os.mkfifo, ("is a pipe or a device", "write it to a file")),
    "a device": BadFile(
        SCRIPTS, "a.jsonl", lambda path: path.symlink_to("/dev/null"), ("is a pipe or a device", "write it to a file")
    ),
    "a link in a circle": BadFile(SCRIPTS, "a.jsonl", link_to_itself, ("cannot be opened", "name another file")),
    "a link to nothing": BadFile(SCRIPTS, "a.jsonl", lambda path: path.symlink_to("gone"), ("no such file",)),
    "a name too long": BadFile((SENTIMENT,), "a" * 300 + ".csv", lambda path: None, ("cannot be opened",)),
    "no ending": BadFile(SCRIPTS, "book", CSV, ("cannot tell the format", "known: ", ".jsonl", ".gz")),
    "a spreadsheet": BadFile(SCRIPTS, "book.xlsx", b"PK\x03\x04", ("cannot tell the format", ".csv")),
    "columns for sentiment": BadFile((SENTIMENT,), "a.conll", b"Lima B-LOC\n", ("cannot tell the format", ".csv")),
    "gzip that is cut": BadFile((SENTIMENT, NER), "a.jsonl.gz", gzip.compress(NOISE)[:-20], ANEW),
    "corpus in gzip that is cut": BadFile((PRETRAINING,), "a.txt.gz", gzip.compress(NOISE)[:-20], ANEW),
    "gzip of ten bytes": BadFile(SCRIPTS, "a.jsonl.gz", gzip.compress(NOISE)[:10], ANEW),
    "gzip with garbage behind": BadFile((SENTIMENT,), "a.csv.gz", gzip.compress(CSV) + b"garbage", ANEW),
    "gzip with other sums": BadFile((SENTIMENT,), "a.csv.gz", gzip.compress(CSV)[:-8] + bytes(8), ANEW),
    "gzip that is plain": BadFile((SENTIMENT,), "a.csv.gz", CSV, (*ANEW, "if it is not packed")),
    "gzip of latin-1": BadFile(
        (SENTIMENT,), "a.csv.gz", gzip.compress(CSV + b"caf\xe9,bad\n"), ("line 4: not UTF-8 (byte 0xe9", "iconv")
    ),
    "gzip of UTF-16": BadFile((SENTIMENT,), "a.csv.gz", gzip.compress(CSV.decode().encode("utf-16")), ("UTF-16",)),
    "gzip of nothing": BadFile((SENTIMENT,), "a.csv.gz", gzip.compress(b""), ("no row in it", "write some")),
    "zstd that is cut": BadFile(
        (SENTIMENT,), "a.csv.zst", packed_by_zstd(NOISE)[:-9], ("broken zstd", "take .zst off")
    ),
    "zstd that is plain": BadFile((NER,), "a.jsonl.zst", SENTENCE, ("broken zstd archive", "take .zst off")),
    "parquet that is cut": BadFile(
        SCRIPTS, "a.parquet", parquet(["a"] * 9, ["bad"] * 9)[:-30], ("not a parquet file", "write it anew")
    ),
    "parquet that is text": BadFile((SENTIMENT,), "a.parquet", CSV, ("not a parquet file", "write it anew")),
    "parquet in gzip that is cut": BadFile(
        (SENTIMENT,), "a.parquet.gz", gzip.compress(parquet(["a"], ["b"]))[:-9], ANEW
    ),
}

# --- Tables ----------------------------------------------------------------------------------------------------------

JSON_FIX = "each line holds one object"
TABLES = {
    "header alone": BadFile((SENTIMENT,), "a.csv", b"text,label\n", ("no row in it", "write some")),
    "corpus of a header alone": BadFile((PRETRAINING,), "a.csv", b"text,label\n", ("no document in it", "write some")),
    "blank lines alone": BadFile((SENTIMENT, NER), "a.jsonl", b"\n \r\n\n", ("no row in it", "write some")),
    "corpus of blank lines": BadFile((PRETRAINING,), "a.txt", b"\n \r\n\n", ("no document in it", "write some")),
    "parquet of no row": BadFile(
        (SENTIMENT,), "a.parquet", parquet(pyarrow.array([], "string"), pyarrow.array([], "string")), ("no row in it",)
    ),
    "columns of other names": BadFile(
        (SENTIMENT,), "a.csv", CSV.replace(b"text,label", b"body,label"), ("row 1: no column text; found body, label",)
    ),
    "columns of other case": BadFile((SENTIMENT,), "a.csv", CSV.replace(b"text", b"Text"), ("row 1", "Text, label")),
    "a space in the header": BadFile(
        (SENTIMENT,), "a.csv", CSV.replace(b",label", b", label"), ("found text, ' label'",)
    ),
    "a line break in the header": BadFile(
        (SENTIMENT,),
        "a.csv",
        b'"te\nxt",label\na,bad\n',
        ("row 1: no column text", r"'te\nxt', label", "--text_column"),
    ),
    "a thousand columns": BadFile(
        (SENTIMENT,),
        "a.csv",
        ",".join(map(str, range(1000))).encode() + b"\n" + b"a," * 999 + b"a\n",
        ("found 0, 1, 2",),
    ),
    "a column twice": BadFile(
        (SENTIMENT,), "a.csv", b"text,text\na,b\n", ("line 1", "same name: text, text", "rename")
    ),
    "a column of parquet twice": BadFile(
        (SENTIMENT,), "a.parquet", parquet(["a"], ["b"], names=("text", "text")), ("same name: text, text", "rename")
    ),
    "a row too long": BadFile(
        (SENTIMENT,), "a.csv", CSV + b"a, b,bad\n", ("row 3 (line 4): 3 fields", "double quotes")
    ),
    "a row too short": BadFile(
        (SENTIMENT,), "a.tsv", b"text\tlabel\na\n", ("row 1 (line 2): 1 fields", "double quotes")
    ),
    "an open quote": BadFile(
        TABLE_READERS, "a.csv", CSV + b'"a,bad\nb,bad\n', ("row 3 (line 4)", "is a quote left open?")
    ),
    "an open quote in tabs": BadFile(
        (SENTIMENT,),
        "a.tsv",
        b'text\tlabel\nup\tgood\n"what\tbad\ndown\tbad\ncalled art"\tgood\n',
        ("row 2 (line 3)", "is a quote left open?"),
    ),
    "a blank first line": BadFile((SENTIMENT,), "a.csv", b"\n" + CSV, ("line 1: names no column",)),
    "Excel's first line": BadFile((SENTIMENT,), "a.csv", b"sep=,\n" + CSV, ("line 1: sep= is Excel's", "take")),
    "semicolons": BadFile(
        (SENTIMENT,), "a.csv", CSV.replace(b",", b";"), ("row 1: no column text; found text;label", "by semicolons?")
    ),
    "semicolons and a comma": BadFile(
        (SENTIMENT,), "a.csv", b"text;label\nup, up;good\n", ("row 1 (line 2): 2 fields", "by semicolons?")
    ),
    "tabs in a csv": BadFile(
        (SENTIMENT,), "a.csv", CSV.replace(b",", b"\t"), ("row 1: no column text", "by tabs?", ".tsv")
    ),
    "commas in a tsv": BadFile((SENTIMENT,), "a.tsv", CSV, ("row 1: no column text", "by commas?", ".csv")),
    "an array a line": BadFile(
        TABLE_READERS, "a.jsonl", b'["a", "bad"]\n', ("row 1: a list, not an object", "each line holds one")
    ),
    "a number a line": BadFile((NER,), "a.jsonl", SENTENCE + b"7\n", ("row 2: a int, not an object",)),
    "one array of all": BadFile(
        (SENTIMENT,), "a.jsonl", b'[{"text": "a", "label": "bad"},\n{"text": "b"}]\n', ("row 1: not JSON", JSON_FIX)
    ),
    "JSON over lines": BadFile((SENTIMENT,), "a.jsonl", b'{\n  "text": "a"\n}\n', ("row 1: not JSON", JSON_FIX)),
    "a trailing comma": BadFile((NER,), "a.jsonl", SENTENCE[:-2] + b",}\n", ("row 1: not JSON", "column ", JSON_FIX)),
    "two objects a line": BadFile(
        (NER,), "a.jsonl", SENTENCE * 2 + SENTENCE[:-1] + SENTENCE, ("row 3: not JSON: Extra data", JSON_FIX)
    ),
    "a row that is cut": BadFile((SENTIMENT,), "a.jsonl", labelled("bad", "good")[:-9], ("row 2: not JSON", JSON_FIX)),
    "a key twice": BadFile(
        TABLE_READERS,
        "a.jsonl",
        b'{"text": "a", "label": "bad", "text": "b"}\n',
        ("row 1", "'text' is there twice", "take"),
    ),
    "brackets without end": BadFile((SENTIMENT,), "a.jsonl", b"[" * 200_000 + b"\n", ("row 1: cannot be read", "take")),
    "an empty text": BadFile(
        TABLE_READERS, "a.csv", CSV + b",bad\n", ("row 3: column text is empty", "take the row out")
    ),
    "a null text": BadFile(
        TABLE_READERS, "a.parquet", parquet(["a", None], ["bad", "bad"]), ("row 2: column text is empty",)
    ),
    "half a character": BadFile(
        TABLE_READERS, "a.jsonl", b'{"text": "a\\ud83d", "label": "bad"}\n', ("row 1", "mend the")
    ),
}
WRONG_TYPES = {
    "ints": [7, 8],
    "floats": [0.5, math.nan],
    "lists": [["a"], ["b"]],
    "objects": [{"a": 1}, {"a": 2}],
    "bytes": [b"a", b"\xff"],
    "booleans": [True, False],
}
TABLES |= {
    f"texts that are {kind}": BadFile(
        TABLE_READERS,
        "a.parquet",
        parquet(texts, ["bad", "bad"]),
        ("row 1: column text holds", "give every row a text"),
    )
    for kind, texts in WRONG_TYPES.items()
}
TABLES |= {
    f"a text that is {value}": BadFile(
        (SENTIMENT,), "a.jsonl", jsonl({"text": value, "label": "bad"}), ("row 1: column text",)
    )
    for value in (math.nan, math.inf, ["a"], {"a": 1})
}
TABLES["nulls for texts"] = BadFile(
    (SENTIMENT,), "a.parquet", parquet([None], ["bad"]), ("row 1: column text is empty",)
)
TABLES["a date beyond years"] = BadFile(
    TABLE_READERS,
    "a.parquet",
    parquet(["a"], pyarrow.array([2**30], pyarrow.date32()), names=("text", "date")),
    ("a.parquet: broken: ", "write it anew"),
)

# --- Labels -----------------------------------------------------------------------------------------------------------

SOFT = {"soft_labels": [], "labels": ["bad", "good"]}
SCORED = {"score_column": ["score"], "labels": ["bad", "good"], "bins": ["0"]}
NONE_OF = "is none of bad, so-so, good (--labels)"
LABELS = {
    "a label that is empty": (labelled("bad", ""), ("row 2: label ''", NONE_OF, "label the row, or take it out")),
    "a label that is null": (labelled("bad", None), ("row 2: label None", NONE_OF, "label the row, or take it out")),
    "a label with a space": (labelled("bad", " bad"), ("row 2: label ' bad'", NONE_OF, "is it 'bad'?")),
    "a label in capitals": (labelled("bad", "GOOD"), ("row 2: label 'GOOD'", NONE_OF, "is it 'good'?")),
    "a number for a label": (labelled("bad", 1), ("row 2: label 1", NONE_OF, "mend it, or name it there")),
    "a float for a label": (labelled(0.5), ("row 1: label 0.5", NONE_OF)),
    "a boolean for a label": (labelled("bad", True), ("row 2: label True", NONE_OF)),
    "NaN for a label": (labelled("bad", math.nan), ("row 2: label nan", NONE_OF)),
    "a list of labels": (labelled(["bad"]), ("row 1: label ['bad']", NONE_OF)),
    "no label at all": (jsonl({"text": "a"}), ("row 1: no column label; found text", "--label_column")),
}
LABELLED = {name: BadFile((SENTIMENT,), "a.jsonl", content, needles) for name, (content, needles) in LABELS.items()}
LABELLED |= {
    f"a label in {split} alone": BadFile(
        (SENTIMENT,), "b.jsonl", labelled("bad", "great"), ("b.jsonl row 2: label 'great'", NONE_OF), f"{split}_file"
    )
    for split in ("validation", "test")
}
LABELLED |= {
    "shares below 0": BadFile(
        (SENTIMENT,), "a.csv", b"text,bad,good\na,0.5,0.5\nb,-0.5,1.5\n", ("row 2: shares", "none may be"), flags=SOFT
    ),
    "shares of nothing": BadFile(
        (SENTIMENT,), "a.csv", b"text,bad,good\na,0,0\n", ("row 1: shares", "some must be above 0"), flags=SOFT
    ),
    "shares that are words": BadFile(
        (SENTIMENT,), "a.csv", b"text,bad,good\na,0,all\n", ("row 1: column good holds 'all'", "number"), flags=SOFT
    ),
    "shares of one label": BadFile(
        (SENTIMENT,), "a.csv", b"text,bad\na,1\n", ("row 1: no column good; found text, bad",), flags=SOFT
    ),
    "a score that is a word": BadFile(
        (SENTIMENT,),
        "a.csv",
        b"text,score\na,1\nb,high\n",
        ("row 2: column score holds 'high'", "finite"),
        flags=SCORED,
    ),
    "a score without end": BadFile(
        (SENTIMENT,), "a.csv", b"text,score\na,inf\n", ("row 1: column score holds 'inf'", "finite"), flags=SCORED
    ),
    "a score that is NaN": BadFile(
        (SENTIMENT,),
        "a.parquet",
        parquet(["a"], [math.nan], names=("text", "score")),
        ("row 1", "finite"),
        flags=SCORED,
    ),
}

# --- Sentences --------------------------------------------------------------------------------------------------------


def tagged(tokens: Any, tags: Any) -> bytes:
    """A good sentence and one of these tokens and tags."""
    return SENTENCE + jsonl({"tokens": tokens, "ner_tags": tags})


TAGGED = {
    "too few tags": (tagged(["a", "b", "c"], ["O"]), ("row 2: 3 tokens but 1 tags", "give every token its tag")),
    "too many tags": (tagged(["a"], ["O", "O"]), ("row 2: 1 tokens but 2 tags", "give every token its tag")),
    "no tags": (tagged(["a"], None), ("row 2: no tags in a column ner_tags", "--tags_column")),
    "tags that are null": (tagged(["a", "b"], ["O", None]), ("row 2: tag None is none such as O", "--tags_column")),
    "tags of two kinds": (tagged(["a", "b"], ["O", 1]), ("row 2", "numbers and names", "one or the other")),
    "tags in one text": (tagged(["a"], "O"), ("row 2: column ner_tags must hold a list",)),
    "tags of lists": (tagged(["a"], [["O"]]), ("row 2: tag ['O'] is none such as O",)),
    "a tag of no scheme": (tagged(["a"], ["X-LOC"]), ("row 2: tag 'X-LOC' is none such as O, B-ORG",)),
    "a tag in small letters": (tagged(["a"], ["b-loc"]), ("row 2: tag 'b-loc' is none such as O, B-ORG",)),
    "no tokens": (tagged([], []), ("row 2: column tokens must hold a list of words", "at least one")),
    "tokens that are null": (tagged(["a", None], ["O", "O"]), ("row 2: column tokens must hold a list of words",)),
    "tokens in one text": (tagged("a b", ["O", "O"]), ("row 2: column tokens must hold a list of words",)),
    "no entity": (jsonl({"tokens": ["a"], "ner_tags": ["O"]}), ("row 1", "no entity", "tag some")),
}
SENTENCES = {name: BadFile((NER,), "a.jsonl", content, needles) for name, (content, needles) in TAGGED.items()}
SENTENCES |= {
    name: BadFile((NER,), "a.conll", content, needles)
    for name, content, needles in [
        ("one column", b"Lima\nrose\n", ("row 1: no tags in a column ner_tags", "--tags_column")),
        ("columns that change", b"Lima NNP B-LOC\nrose O\n", ("line 2: 2 columns, but 3 before", "the same columns")),
        ("a tag left out", b"Lima\tB-LOC\nrose\t\n", ("line 2: column 2 is empty", "write _ into it")),
        ("a word left out", b"Lima\tB-LOC\n\tO\n", ("line 2: the word is missing", "take the line out")),
        ("marks of documents alone", b"-DOCSTART- -X- O\n\n-DOCSTART- -X- O\n", ("no row in it", "write some")),
        ("tags of parts of speech", b"Lima NNP\nrose VBD\n", ("row 1: tag 'NNP' is none such as O", "--tags_column")),
    ]
}
SENTENCES |= {
    f"a type in {split} alone": BadFile(
        (NER,),
        "b.conll",
        b"Oslo B-LOC\n\nAnn B-PER\n",
        ("b.conll row 2: type PER is none of train's", "mend"),
        f"{split}_file",
    )
    for split in ("validation", "test")
}
SENTENCES["a type of two lines"] = BadFile(
    (NER,), "b.jsonl", jsonl({"tokens": ["Ann"], "ner_tags": ["B-P\nX"]}), ("row 1", r"'P\nX' is none"), "test_file"
)

# --- Corpora ----------------------------------------------------------------------------------------------------------

CORPORA = {
    "one document": BadFile(
        (PRETRAINING,), "a.txt", b"Profit rose .\nCash fell .\n", ("a.txt: 0 document(s) to train on", "blank line")
    ),
    "one held-out document": BadFile(
        (PRETRAINING,), "b.txt", b"Cash fell .\n", ("b.txt: 1 document(s)", "there must be two"), "validation_file"
    ),
    "one general document": BadFile(
        (PRETRAINING,), "b.txt", b"Cash fell .\n", ("b.txt: 1 document(s)", "there must be two"), "forgetting_file"
    ),
    "documents of control characters": BadFile(
        (PRETRAINING,), "a.txt", b"\x00\x01\x02\n\n\x7f\x03\n", ("no document in it", "write some")
    ),
    "documents that are empty": BadFile(
        (PRETRAINING,),
        "a.jsonl",
        jsonl({"text": ""}, {"text": " "}),
        ("row 1: column text is empty", "take the row out"),
    ),
    "held-out texts in latin-1": BadFile(
        (PRETRAINING,),
        "b.csv",
        b"\xef\xbb\xbftext\nZ\xc3\xbcrich\ncaf\xe9\n",
        ("line 3: not UTF-8 (byte 0xe9 at offset 19)", "iconv"),
        "held_out_file",
    ),
}
BAD_FILES = dict(badly_encoded()) | BROKEN | TABLES | LABELLED | SENTENCES | CORPORA


def test_the_corpus_is_as_large_as_was_asked() -> None:
    """No name hides another's file."""
    assert len(BAD_FILES) == sum(map(len, (dict(badly_encoded()), BROKEN, TABLES, LABELLED, SENTENCES, CORPORA)))
    assert len(BAD_FILES) >= 70


@pytest.mark.parametrize(
    ("name", "script"), [(name, script) for name, bad in BAD_FILES.items() for script in bad.scripts]
)
def test_bad_files_are_refused(call: Callable[[str], Call], name: str, script: str) -> None:  # noqa: F811
    """In one line that names the file, the place and the remedy, soon, before any model, and nothing is written."""
    made, bad = call(script), BAD_FILES[name]
    path = give(made, bad)
    started = time.monotonic()
    with pytest.raises(Refusal) as refusal:
        made.main()
    assert time.monotonic() - started < LONGEST
    message = str(refusal.value)
    assert message.isprintable()  # one line, and nothing that a terminal would take for an order
    assert len(message) < len(str(path)) + 500
    assert str(path) in message
    assert [needle for needle in bad.needles if needle not in message] == [], message
    assert not made.output.exists()


# --- Files that look bad and are read ---------------------------------------------------------------------------------

WORDS_ALIKE = ["None", "NA", "null", "nan"]  # that table readers elsewhere take for no value
RIGHT_TO_LEFT = "\u200fשלום\u200e \u202bעולם\u202c"
ROWS_AS_READ = [("Profit rose .", "good"), ("Cash fell .", "bad")]
LONG_TEXT = "profit rose . " * 75_000  # 1 MB
ODD_FILES = {
    "labels that look like none": OddFile(
        SENTIMENT,
        "a.csv",
        ("text,label\n" + "".join(f"Profit rose {label} .,{label}\n" for label in WORDS_ALIKE)).encode(),
        [(f"Profit rose {label} .", label) for label in WORDS_ALIKE],
        flags={"labels": WORDS_ALIKE},
    ),
    "labels of JSON that look like none": OddFile(
        SENTIMENT,
        "a.jsonl",
        labelled(*WORDS_ALIKE),
        [(f"Profit rose {number} .", label) for number, label in enumerate(WORDS_ALIKE)],
        flags={"labels": WORDS_ALIKE},
    ),
    "texts that look like none": OddFile(
        SENTIMENT,
        "a.csv",
        ("text,label\n" + "".join(f"{text},bad\n" for text in WORDS_ALIKE)).encode(),
        [(text, "bad") for text in WORDS_ALIKE],
    ),
    "labels of two types": OddFile(
        SENTIMENT,
        "a.jsonl",
        labelled(0, 1.0, "2", True, "1"),
        [(f"Profit rose {number} .", label) for number, label in enumerate(["0", "1", "2", "true", "1"])],
        flags={"labels": ["0", "1", "2", "true"]},
    ),
    "labels that a table made floats of": OddFile(
        SENTIMENT, "a.parquet", parquet(["a", "b"], [1.0, 0.0]), [("a", "1"), ("b", "0")], flags={"labels": ["0", "1"]}
    ),
    "a mark of byte order": OddFile(SENTIMENT, "a.csv", b"\xef\xbb\xbf" + CSV, ROWS_AS_READ),
    "line ends of three kinds": OddFile(
        SENTIMENT, "a.csv", b"text,label\r\nProfit rose .,good\rCash fell .,bad\n", ROWS_AS_READ
    ),
    "JSON lines of three ends": OddFile(
        SENTIMENT,
        "a.jsonl",
        labelled("bad", "good", "bad").replace(b"\n", b"\r\n", 1).replace(b'"good"}\n', b'"good"}\r'),
        [("Profit rose 0 .", "bad"), ("Profit rose 1 .", "good"), ("Profit rose 2 .", "bad")],
    ),
    "marks of direction": OddFile(
        SENTIMENT,
        "a.csv",
        f"text,label\n{RIGHT_TO_LEFT},bad\nlone \u200b mark,good\n".encode(),
        [(RIGHT_TO_LEFT, "bad"), ("lone \u200b mark", "good")],
    ),
    "NUL": OddFile(SENTIMENT, "a.csv", b"text,label\nProfit\0 rose .,bad\n", [("Profit\0 rose .", "bad")]),
    "a text of 1 MB": OddFile(
        SENTIMENT,
        "a.csv",
        f"text,label\n{LONG_TEXT},bad\n".encode(),
        [(LONG_TEXT, "bad")],
        ("1 are longer than", "windows"),
    ),
    "a text of control characters": OddFile(
        SENTIMENT,
        "a.csv",
        CSV + b"\x01\x02,bad\n",
        [*ROWS_AS_READ, ("\x01\x02", "bad")],
        ("a.csv row 3", "no word piece"),
    ),
    "shares that sum to 10": OddFile(
        SENTIMENT, "a.csv", b"text,bad,good\na,9,1\nb,2,8\n", [("a", "bad"), ("b", "good")], flags=SOFT
    ),
    "a shade without a text": OddFile(SENTIMENT, "a.csv", CSV, ROWS_AS_READ, ("no training text is labelled so-so",)),
    "a test file without labels": OddFile(
        SENTIMENT, "b.csv", b"text\nDebt held .\n", [("Debt held .", None)], ("no labels (column label)",), "test_file"
    ),
    "an I- that opens an entity": OddFile(
        NER,
        "a.conll",
        b"the O\nLima I-LOC\n\nOslo B-LOC\nOslo B-LOC\n\nTurin O\nPerth B-LOC\n",
        [(["the", "Lima"], "O B-LOC"), (["Oslo", "Oslo"], "B-LOC B-LOC"), (["Turin", "Perth"], "O B-LOC")],
        ("1 tags break IOB2", "a.conll row 1 word 2, I-LOC"),
    ),
    "words of nothing": OddFile(
        NER,
        "a.jsonl",
        tagged(["", "  ", "\u200b", "\u200f", "NA"], ["O", "O", "O", "B-LOC", "O"]),
        [(["Lima", "rose"], "B-LOC O"), (["", "  ", "\u200b", "\u200f", "NA"], "O O O B-LOC O")],
    ),
    "columns of three line ends": OddFile(
        NER,
        "a.conll",
        b"\xef\xbb\xbfLima B-LOC\r\nrose O\r\r\nOslo B-LOC\n\n\r\n",
        [(["Lima", "rose"], "B-LOC O"), (["Oslo"], "B-LOC")],
    ),
    "a sentence of 20,000 words": OddFile(
        NER,
        "a.conll",
        b"Lima B-LOC\n" + b"rose O\n" * 20_000,
        [(["Lima"] + ["rose"] * 20_000, " ".join(["B-LOC"] + ["O"] * 20_000))],
        ("20,001 words; is a blank line missing?",),
    ),
    "a corpus of three line ends": OddFile(
        PRETRAINING,
        "a.txt",
        b"\xef\xbb\xbfProfit rose .\r\nCash fell .\r\rDebt held .\n \r\nNA\n\nnull\n\nSales fell .",
        [["Profit rose .", "Cash fell ."], ["Debt held ."], ["NA"], ["null"], ["Sales fell ."]],
    ),
    "a document of 1 MB": OddFile(
        PRETRAINING,
        "a.txt",
        f"{TEXT.decode()}\n{LONG_TEXT}\n\nDebt held .\n\n\0Debt\0 rose .\n".encode(),
        [["Profit rose ."], ["Cash fell ."], [LONG_TEXT.strip()], ["Debt held ."], ["\0Debt\0 rose ."]],
    ),
    "a document without a token": OddFile(
        PRETRAINING,
        "a.jsonl",
        jsonl(*({"text": text} for text in ["\u200b", "a b .", "c d .", "e f .", "g h ."])),
        [["\u200b"], ["a b ."], ["c d ."], ["e f ."], ["g h ."]],
    ),
}


def read_texts(found: tuple[Any, ...], flag: str, labels: list[str]) -> list[tuple[str, str | None]]:
    """The texts of a split and their labels."""
    split = found[0][flag.removesuffix("_file")]
    gold = [None] * len(split) if split.gold is None else [labels[shade] for shade in split.gold]
    return list(zip(split.texts, gold, strict=True))


def read_sentences(found: tuple[Any, ...], flag: str) -> list[tuple[list[str], str]]:
    """The words of a split's sentences and their IOB2 tags."""
    split, names = found[0][flag.removesuffix("_file")], tag_names(found[1])
    tags = iter([names[number] for number in split.gold])
    return [(sentence.words, " ".join(next(tags) for _ in sentence.words)) for sentence in split.sentences]


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if "1 MB" in n else ()) for n in ODD_FILES])
def test_odd_files_are_read(
    call: Callable[[str], Call],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
) -> None:
    """As they stand, as far as the model; what is odd is told."""
    odd = ODD_FILES[name]
    made, module, found = call(odd.script), MODULES[odd.script], []
    path = give(made, odd)
    if odd.script != PRETRAINING:
        load_splits = module.load_splits
        monkeypatch.setattr(module, "load_splits", lambda *given: found.append(load_splits(*given)) or found[0])
    started = time.monotonic()
    with pytest.raises(ModelWanted):
        made.main()
    assert time.monotonic() - started < LONGEST
    if odd.script == PRETRAINING:
        read = list(read_documents(CorpusSource((str(path),))))
    elif odd.script == SENTIMENT:
        read = read_texts(found[0], odd.flag, made.flags["labels"])
    else:
        read = read_sentences(found[0], odd.flag)
    assert read == odd.read
    shown = capsys.readouterr().out
    assert [needle for needle in odd.said if needle not in shown] == [], shown
    assert not made.output.exists()


def test_a_file_of_another_user_is_refused(call: Callable[[str], Call], monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """Who has given nobody leave to read it."""
    made = call(SENTIMENT)
    path = give(made, BadFile((SENTIMENT,), "a.csv", CSV, ()))

    def no_leave(name: str | Path, mode: str) -> IO[bytes]:
        if str(name) == str(path):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return open(name, mode)

    path.chmod(0)
    if os.access(path, os.R_OK):  # root reads every file
        monkeypatch.setattr(files, "open", no_leave, raising=False)
    with pytest.raises(Refusal, match=r"a\.csv: cannot be opened: Permission denied; .*name another file"):
        made.main()


# --- Any bytes --------------------------------------------------------------------------------------------------------

QUICK = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
ROWS = {
    "txt": TEXT,
    "csv": CSV + b'"a ""b"", c",so-so\r\n',
    "tsv": CSV.replace(b",", b"\t"),
    "jsonl": SENTENCE + labelled("bad", None, 1.5),
    "conll": b"-DOCSTART- -X- O\n\n# text = a\nLima NNP B-LOC\nrose\tVBD\tO\n\n",
    "parquet": parquet(["Profit rose .", None, "Café"], [["O"], [], ["B-LOC"]], names=("text", "tags")),
}


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """Bytes with some of them changed, taken out, doubled or put in."""
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, max(0, len(content) - 1)))
        stop = min(len(content), start + draw(st.sampled_from([1, 1, 1, 2, 4, 30])))
        put = draw(
            st.one_of(
                st.just(b""),
                st.just(content[start:stop] * 2),
                st.just(bytes(byte ^ 255 for byte in content[start:stop])),
                st.binary(max_size=4),
                st.sampled_from(
                    [b"\0", b"\r", b"\n", b'"', b"\t", b"\xff\xfe", b"\xe2\x80\xa8", b"[", b"\xed\xa0\x80"]
                ),
            )
        )
        content = content[:start] + put + content[stop:]
    return content


def refusal_of(path: Path) -> str | None:
    """What is said of a file that is refused; None of one whose rows come out, each with its place."""
    try:
        for number, (place, row) in enumerate(tables.read_rows(str(path)), start=1):
            assert place == f"{path} row {number}"
            assert isinstance(row, dict)
    except Refusal as refusal:
        return str(refusal)
    return None


def rows_or_refusal(path: Path, content: bytes) -> None:
    """Rows come out, or one line that names the file; no other error does."""
    path.write_bytes(content)
    message = refusal_of(path)
    assert message is None or message.isprintable(), repr(message)
    assert message is None or message.startswith(str(path))


@pytest.mark.parametrize("ending", ROWS)
@QUICK
@given(data=st.data(), packer=st.sampled_from(["", ".gz"]))
def test_any_bytes_are_rows_or_refused(tmp_path: Path, ending: str, packer: str, data: st.DataObject) -> None:
    """As a file of every format, and as what an archive holds."""
    content = data.draw(st.binary(max_size=60))
    rows_or_refusal(tmp_path / f"a.{ending}{packer}", gzip.compress(content, 1) if packer else content)


@pytest.mark.parametrize("ending", ROWS)
@QUICK
@given(data=st.data(), packer=st.sampled_from(["", ".gz"]))
def test_damaged_files_are_rows_or_refused(tmp_path: Path, ending: str, packer: str, data: st.DataObject) -> None:
    """Good files with bytes changed; of archives, sometimes those within."""
    content = ROWS[ending]
    if packer and data.draw(st.booleans()):
        content = data.draw(damaged(gzip.compress(content, 1)))
    else:
        content = data.draw(damaged(content))
        content = gzip.compress(content, 1) if packer else content
    rows_or_refusal(tmp_path / f"a.{ending}{packer}", content)


# --- Processes --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "name"), [(PRETRAINING, "txt: latin-1"), (SENTIMENT, "a row too long"), (NER, "too few tags")]
)
def test_a_process_refuses_a_bad_file(call: Callable[[str], Call], script: str, name: str) -> None:  # noqa: F811
    """With exit code 2 and one line on the screen, without a traceback."""
    made, bad = call(script), BAD_FILES[name]
    give(made, bad)
    folder = made.folder / "empty"
    folder.mkdir()
    started = time.monotonic()
    refused = process(script, folder, *made.argv())
    seconds = time.monotonic() - started
    print(f"{script}: {seconds:.1f} s")  # most of it imports
    assert seconds < 60
    assert refused.returncode == 2
    assert "Traceback" not in refused.stderr + refused.stdout
    # stage one's progress bar may stand before it
    lines = [line for line in refused.stderr.splitlines() if line and not line.startswith("Generating train split")]
    assert len(lines) == 1, refused.stderr
    assert [needle for needle in (f"{script}: ", *bad.needles) if needle not in lines[0]] == [], lines[0]
    assert list(folder.iterdir()) == []
    assert not made.output.exists()
