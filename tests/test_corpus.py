"""A corpus gives the documents that a naive reading gives, however it is packed, cut into shards and shared out."""

import gzip
import json
import multiprocessing
import os
import re
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from datasets import Dataset
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, BertTokenizer, PreTrainedTokenizerBase

from tests.test_tables import packed_by_zstd, write
from two_stage.command_line.exits import Failure, Refusal
from two_stage.data import corpus
from two_stage.data.corpus import CorpusSource, cut_shards, flat_sentence_lengths, load_corpus, read_documents

QUICK = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
Rows = list[tuple[list[int], list[int]]]

ANY_CHARACTER = st.characters(exclude_categories=["Cs"])  # a lone surrogate is no text: UTF-8 has no bytes for it
NASTY = st.sampled_from([*"\ufeff\u200f\u2028\x85\u00a0\u3000\x0b\x1c\x00", "é", "e\u0301", "日本", "🙂", "\u202eab"])
LINES = st.one_of(NASTY, st.text(ANY_CHARACTER, max_size=8), st.lists(NASTY, max_size=4).map("".join)).map(
    lambda text: re.sub("[\r\n]", "", text)
)
BLANKS = st.sampled_from(["", "", " ", "\t", "\u3000 ", "\x0b"])
CORPUS = st.lists(st.tuples(LINES | BLANKS, st.sampled_from(["\n", "\r\n", "\r"])), max_size=12).map(
    lambda lines: "".join(content + end for content, end in lines)
)


def json_lines(texts: list[str], end: str = "\n") -> bytes:
    """A .jsonl of texts."""
    return "".join(json.dumps({"text": text}, ensure_ascii=False) + end for text in texts).encode()


def source(*paths: Any, **fields: Any) -> CorpusSource:
    """Files as a corpus."""
    return CorpusSource(files=tuple(map(str, paths)), **fields)


def naive_documents(text: str) -> list[list[str]]:
    """Documents by the words of the format: lines between blank lines, stripped."""
    documents: list[list[str]] = [[]]
    for line in re.split("\r\n|\r|\n", text.removeprefix("\ufeff")):
        if line.strip():
            documents[-1].append(line.strip())
        else:
            documents.append([])
    return [document for document in documents if document]


def naive_rows(documents: list[list[str]], tokenizer: PreTrainedTokenizerBase) -> Rows:
    """Each document's token ids and the tokens of each sentence, tokenized sentence by sentence, copies left out."""
    rows = []
    for document in dict.fromkeys(map(tuple, documents)):
        pieces = [tokenizer.convert_tokens_to_ids(tokenizer.tokenize(sentence)) for sentence in document]
        pieces = [ids for ids in pieces if ids]
        if pieces:
            rows.append(([token for ids in pieces for token in ids], [len(ids) for ids in pieces]))
    return rows


def rows_of(documents: Dataset) -> Rows:
    """The rows of a loaded corpus as plain lists."""
    return [(list(row["input_ids"]), list(row["sentence_lengths"])) for row in documents]


def in_shards(files: CorpusSource, shard_bytes: int) -> list[list[str]]:
    """All documents, read shard by shard."""
    shards = cut_shards(files, shard_bytes)
    return [document for shard in shards for document in corpus.shard_documents(shard, files)]


@pytest.fixture(scope="module")
def tokenizer(tiny_folder: Path) -> PreTrainedTokenizerBase:
    """The tiny checkpoint's tokenizer."""
    return AutoTokenizer.from_pretrained(tiny_folder)


# --- Documents --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["corpus.txt", "corpus.txt.gz", "corpus.txt.zst"])
@QUICK
@given(text=CORPUS)
def test_documents_are_those_of_a_naive_reading(tmp_path: Path, name: str, text: str) -> None:
    """Any mix of blank lines, lines of white space and line ends parts the same documents."""
    path = write(tmp_path / name, text.encode() or b"\n")
    assert list(read_documents(source(path))) == naive_documents(text)


@QUICK
@given(text=CORPUS, shard_bytes=st.integers(1, 30))
def test_shards_of_text_hold_every_document_once(tmp_path: Path, text: str, shard_bytes: int) -> None:
    """However finely a .txt is cut, no document is lost, doubled or torn."""
    path = write(tmp_path / "corpus.txt", text.encode() or b"\n")
    assert in_shards(source(path), shard_bytes) == naive_documents(text)


@QUICK
@given(
    texts=st.lists(LINES, min_size=1, max_size=8), shard_bytes=st.integers(1, 60), end=st.sampled_from(["\n", "\r\n\n"])
)
def test_shards_of_json_hold_every_document_once(tmp_path: Path, texts: list[str], shard_bytes: int, end: str) -> None:
    """However finely a .jsonl is cut, its rows are those of the whole file."""
    path = write(tmp_path / "corpus.jsonl", json_lines([f"a{text}" for text in texts], end))
    assert in_shards(source(path), shard_bytes) == [corpus.split_sentences(f"a{text}", "en") for text in texts]


def test_shards_are_many_and_of_about_the_size_asked_for(tmp_path: Path) -> None:
    """A file is cut into shards that a process can hold, and a document longer than a shard stays whole."""
    path = write(tmp_path / "corpus.txt", b"profit rose\n\n" * 1000)
    sizes = [(shard.stop or 0) - shard.start for shard in cut_shards(source(path), 1300)]
    assert len(sizes) == pytest.approx(10, abs=1)
    assert max(sizes) < 1330
    assert len(cut_shards(source(write(tmp_path / "one.txt", b"profit rose\n" * 1000)), 1300)) == 1


@pytest.mark.parametrize(
    ("text", "documents"),
    [
        ("a\nb\n\nc\n", [["a", "b"], ["c"]]),
        ("\n\n a \n \t \n\n\nb", [["a"], ["b"]]),
        ("a\r\nb\r\n\r\nc\r\n", [["a", "b"], ["c"]]),
        ("\ufeffa\n", [["a"]]),
        ("a\u2028b\n\n", [["a\u2028b"]]),
        ("\n \n", []),
    ],
)
def test_documents_of_worked_examples(tmp_path: Path, text: str, documents: list[list[str]]) -> None:
    """What the format's own words say of a few small files."""
    assert list(read_documents(source(write(tmp_path / "a.txt", text.encode())))) == documents


@QUICK
@given(text=st.lists(LINES | st.sampled_from(["\n", "One fell. Two rose! "]), min_size=1, max_size=6).map("".join))
def test_texts_of_tables_end_sentences_at_line_breaks(text: str) -> None:
    """A document is its lines' sentences, one line after another, and not one of its characters is lost."""
    sentences = corpus.split_sentences(text, "en")
    by_line = [sentence for line in text.splitlines() for sentence in corpus.split_sentences(line, "en")]
    assert sentences == by_line
    assert "".join("".join(sentences).split()) == "".join(text.split())


def test_sentences_within_a_line_are_parted(tmp_path: Path) -> None:
    """The splitter ends a sentence at its full stop, not at that of an abbreviation."""
    path = write(tmp_path / "documents.csv", b'text,id\n"Mr. Hill sold. Costs fell.\nSales rose",1\n')
    assert list(read_documents(source(path))) == [["Mr. Hill sold.", "Costs fell.", "Sales rose"]]


@pytest.mark.parametrize("ending", ["txt", "csv", "tsv", "jsonl", "parquet"])
@pytest.mark.parametrize("packed", ["gz", "zst"])
def test_packed_files_equal_plain_ones(tmp_path: Path, ending: str, packed: str) -> None:
    """Every format is read with .gz or .zst behind it too."""
    plain = tmp_path / f"corpus.{ending}"
    if ending == "parquet":
        pyarrow.parquet.write_table(pyarrow.table({"text": ["a é", "b"]}), plain)
    else:
        texts = {"txt": b"a \xc3\xa9\n\nb\n", "jsonl": json_lines(["a é", "b"])}
        write(plain, texts.get(ending, b"text\na \xc3\xa9\nb\n"))
    archive = write(tmp_path / f"corpus.{ending}.{packed}", plain.read_bytes())
    assert list(read_documents(source(archive))) == list(read_documents(source(plain))) == [["a é"], ["b"]]


def test_archives_of_several_parts_are_read_to_their_end(tmp_path: Path) -> None:
    """Packers that work in parallel write one archive behind another."""
    for ending, pack in (("gz", gzip.compress), ("zst", packed_by_zstd)):
        path = tmp_path / f"a.txt.{ending}"
        path.write_bytes(pack(b"a\n\nb") + pack(b"c\n"))
        assert list(read_documents(source(path))) == [["a"], ["bc"]]


# --- Rows -------------------------------------------------------------------------------------------------------------


@settings(QUICK, max_examples=6)
@given(text=CORPUS)
def test_rows_are_their_sentences_tokens(tmp_path: Path, tokenizer: PreTrainedTokenizerBase, text: str) -> None:
    """Tokens add up to the sentence lengths and are those of one sentence after another."""
    text = f"profit rose .\ncash\n\n{text}\n\n\u200b\n\nOslo unaffordable 12%\n\u200b\nfell\n"
    documents, _ = load_corpus(source(write(tmp_path / "corpus.txt", text.encode())), tokenizer)
    found = rows_of(documents)
    assert found == naive_rows(naive_documents(text), tokenizer)
    assert all(len(ids) == sum(lengths) and min(lengths) > 0 for ids, lengths in found)


@pytest.mark.slow
def test_any_number_of_workers_gives_the_same_rows(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase, data_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One process, two, or more than there are shards: the same rows in the order of the files."""
    texts = [f"profit {noun} rose. Cost {noun} fell." for noun in "cash drug ship profit cost".split()]
    files = source(
        data_folder / "corpus.txt",
        write(tmp_path / "more.jsonl", json_lines([*texts, texts[0]])),
        write(tmp_path / "packed.txt.gz", b"margin rose\n\ncash\n"),
    )
    found = []
    for workers in (1, 2, 40):
        monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / f"cache{workers}"))
        documents, facts = load_corpus(files, tokenizer, workers, shard_bytes=900)
        found.append((documents[:], facts, len(documents.cache_files)))
    assert found[0][0] == found[1][0] == found[2][0]
    assert [facts for _, facts, _ in found] == [{"duplicate_documents": found[0][1]["duplicate_documents"]}] * 3
    assert found[0][1]["duplicate_documents"] >= 1
    assert [written for *_, written in found][:2] == [1, 2]  # the second had two processes indeed
    assert rows_of(documents) == naive_rows(list(read_documents(files)), tokenizer)


def test_first_copies_are_kept_across_files_and_shards(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """A later copy is dropped wherever it stands; a part of a document is no copy."""
    one = write(tmp_path / "one.txt", b"ship\nrose\n\nbank\n\nship\nrose\n\nship\n\nship rose\n")
    two = write(tmp_path / "two.jsonl", json_lines(["bank", "drug", "ship\nrose", "drug"]))
    again = write(tmp_path / "again.txt", Path(one).read_bytes())
    documents, facts = load_corpus(source(one, two, again), tokenizer, shard_bytes=8)
    texts = [tokenizer.decode(row["input_ids"]) for row in documents]
    assert texts == ["ship rose", "bank", "ship", "ship rose", "drug"]
    assert documents["sentence_lengths"][:] == [[1, 1], [1], [1], [2], [1]]
    assert facts == {"duplicate_documents": 9}
    assert len(set(documents["text_hash"][:])) == 5


@pytest.mark.parametrize(
    "text",
    [
        "profit\n",
        "\n\n\r\n \n\nprofit\n\n\n\n",
        "profit\n\ncash\n\nrose",
        "a\x00b\n\n\x00\n\ncash\n",
        "cash e\u0301 Oslo\n\n🙂 🧑‍🏭\n\nשלום عالم\n\nहिन्दी ไทย\n\n中文。句子\n",
        pytest.param("cash " * 200_000 + "\n\nrose\n", marks=pytest.mark.slow),
        "x" * 300_000 + "\n\nrose\n",
    ],
    ids=["one document", "blank lines", "one word each", "NUL", "scripts", "line of 1 MB", "word of 0.3 MB"],
)
def test_odd_corpora_are_read_whole(tmp_path: Path, tokenizer: PreTrainedTokenizerBase, text: str) -> None:
    """The rows are those of a naive reading."""
    documents, _ = load_corpus(source(write(tmp_path / "a.txt", text.encode())), tokenizer)
    assert rows_of(documents) == naive_rows(naive_documents(text), tokenizer)


def test_long_lines_of_tables_are_split_in_time(tmp_path: Path) -> None:
    """A text of 1 MB on one line is parted into its sentences, none lost."""
    path = write(tmp_path / "a.jsonl", json_lines(["Cash rose by 2.5 % on Monday. " * 35_000]))
    assert [len(document) for document in read_documents(source(path))] == [35_000]


def test_a_limit_counts_distinct_documents_and_reads_no_further(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    """Rows behind the limit may be broken: nobody reads them."""
    broken = json_lines(["cash", "cash", "rose", "fell"]) + b"{broken\n"
    files = source(write(tmp_path / "a.jsonl", broken))
    for limit, words, dropped in ((1, ["cash"], 0), (2, ["cash", "rose"], 1), (3, ["cash", "rose", "fell"], 1)):
        documents, facts = load_corpus(files, tokenizer, limit=limit)
        assert [tokenizer.decode(ids) for ids in documents["input_ids"]] == words
        assert facts == {"duplicate_documents": dropped}
    with pytest.raises(Refusal, match="row 5"):
        load_corpus(files, tokenizer, limit=4)


@pytest.mark.parametrize("order", [None, [2, 0], [1], [3, 2, 1, 0, 2], range(1, 3), []])
def test_flat_lengths_are_the_rows_own(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase, order: list[int] | None
) -> None:
    """Of all documents, of some in another order, and of a slice."""
    text = b"profit rose\ncash\n\ncost .\n\nfell\nfell .\nfell . .\n\nship\n"
    documents, _ = load_corpus(source(write(tmp_path / "a.txt", text)), tokenizer)
    documents = documents if order is None else documents.select(order)
    lengths, starts = flat_sentence_lengths(documents)
    assert (lengths.dtype, starts.dtype, len(starts)) == (np.int32, np.int64, len(documents) + 1)
    found = [lengths[start:stop].tolist() for start, stop in pairwise(starts)]
    assert found == [list(row["sentence_lengths"]) for row in documents]


# --- Cache ------------------------------------------------------------------------------------------------------------


def test_a_second_call_uses_the_files_of_the_first(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not for another tokenizer or other documents, and for the same ones whatever the tokenizer did meanwhile."""
    path = write(tmp_path / "a.txt", b"profit rose\n\ncash\n")
    first, _ = load_corpus(source(path), tokenizer)
    words = [word for word, _ in sorted(tokenizer.get_vocab().items(), key=lambda item: item[1]) if word != "cash"]
    other, _ = load_corpus(source(path), BertTokenizer(vocab={word: i for i, word in enumerate(words)}))
    assert rows_of(other) != rows_of(first)
    tokenizer(["cash", "profit rose"], padding=True, truncation=True, max_length=5)
    moved = write(tmp_path / "b.txt", b"profit rose\n\ncash\n")
    monkeypatch.setattr(corpus, "tokenize_documents", None)  # a call would fail
    again, _ = load_corpus(source(moved), AutoTokenizer.from_pretrained(tiny_folder))
    assert again.cache_files == first.cache_files != other.cache_files
    assert again._fingerprint == first._fingerprint != other._fingerprint
    assert load_corpus(source(path), tokenizer)[0]._fingerprint == first._fingerprint


@pytest.mark.parametrize("ending", ["txt", "csv"])
def test_a_file_that_changed_under_its_name_is_read_anew(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase, ending: str
) -> None:
    """Other bytes of the same size and time under the same name are not taken from the cache."""
    path = tmp_path / f"corpus.{ending}"
    found = []
    for word in ("profit", "margin", "profit"):
        write(path, f"text\n\n{word} rose\n".encode())
        os.utime(path, (1, 1))
        found.append(rows_of(load_corpus(source(path), tokenizer)[0]))
    assert found[0] == found[2] != found[1]
    assert found[1] == naive_rows([["text"], ["margin rose"]] if ending == "txt" else [["margin rose"]], tokenizer)


# --- Data sets --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_local_data_sets_are_read_as_their_files_are(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """A folder of .jsonl or parquet, or one that `datasets` saved, gives its texts in order, but for empty ones."""
    texts = ["Cash rose. Cost fell.", "ship", "Cash rose. Cost fell.", "drug\nbank", *map(str, range(300))]
    rows = Dataset.from_dict({"id": range(len(texts) + 2), "body": [texts[0], "", None, *texts[1:]]})
    rows.to_json(tmp_path / "lines" / "part.jsonl")
    (tmp_path / "table").mkdir()
    rows.to_parquet(tmp_path / "table" / "part.parquet")
    rows.save_to_disk(tmp_path / "saved")
    expected = naive_rows([corpus.split_sentences(text, "en") for text in texts], tokenizer)
    for folder in ("lines", "table", "saved"):
        folder_source = CorpusSource(dataset=str(tmp_path / folder), text_column="body")
        assert in_shards(folder_source, 100) == list(read_documents(folder_source))
        for workers in (1, 2):
            documents, facts = load_corpus(folder_source, tokenizer, workers, shard_bytes=600)
            assert rows_of(documents) == expected
            assert facts == {"duplicate_documents": 1}
    assert len(load_corpus(folder_source, tokenizer, limit=2)[0]) == 2


@pytest.mark.parametrize(
    ("changes", "needles"),
    [
        ({"text_column": "txt"}, ["no column txt", "found text", "--text_column"]),
        ({"dataset_split": "tset"}, ["tset", "train"]),
        ({"dataset_config": "odd"}, ["odd"]),
        ({"dataset": "nobody/nothing"}, ["nobody/nothing"]),
        ({"dataset": "no such/folder/at all"}, []),
    ],
    ids=["column", "split", "configuration", "offline", "no name"],
)
def test_bad_data_sets_are_refused(tmp_path: Path, changes: dict[str, str], needles: list[str]) -> None:
    """One line that names the data set and what is not there."""
    write(tmp_path / "part.jsonl", json_lines(["a"]))
    fields = {"dataset": str(tmp_path)} | changes
    with pytest.raises(Refusal) as refusal:
        list(read_documents(CorpusSource(**fields)))  # type: ignore[arg-type]
    message = str(refusal.value)
    assert "\n" not in message
    assert [needle for needle in ["data set", fields["dataset"], *needles] if needle not in message] == [], message


def test_bad_rows_of_data_sets_are_refused_by_number(tmp_path: Path) -> None:
    """Numbers for texts are refused, by the row's number in the data set."""
    write(tmp_path / "part.jsonl", b'{"text": 1}\n{"text": 2}\n')
    with pytest.raises(Refusal, match="row 1: column text holds 1, which is no text"):
        list(read_documents(CorpusSource(dataset=str(tmp_path))))


# --- Refusals ---------------------------------------------------------------------------------------------------------

NO_GZIP_STREAM = gzip.compress(b"")[:10] + b"\xff" * 60  # a proper header, then bits that are no deflate block
LINES_OF_TEXT = "".join(f"line {i} of text\n\n" for i in range(3000)).encode()
BAD_FILES = {
    "missing": ("gone.txt", None, ["no such file"]),
    "empty": ("empty.txt", b"", ["empty"]),
    "wrong ending": ("book.pdf", b"%PDF", ["known: ", ".txt", ".gz or .zst"]),
    "latin-1": ("a.txt", b"caf\xe9\n", ["not UTF-8", "iconv"]),
    "latin-1 far on": ("a.txt", b"a\n\n" * 100 + b"caf\xe9\n", ["not UTF-8", "iconv"]),
    "latin-1 jsonl": ("a.jsonl", b'{"text": "caf\xe9"}\n', ["not UTF-8", "iconv"]),
    "no gzip": ("a.txt.gz", b"text\na\n", ["broken gzip"]),
    "cut gzip": ("a.txt.gz", gzip.compress(LINES_OF_TEXT)[:-20], ["broken gzip", "end"]),
    "damaged gzip": ("a.txt.gz", NO_GZIP_STREAM, ["broken gzip"]),
    "no zstd": ("a.txt.zst", b"text\na\n", ["broken zstd"]),
    "cut zstd": ("a.txt.zst", packed_by_zstd(LINES_OF_TEXT)[:-20], ["broken zstd", "runcated"]),
    "zstd cut in its head": ("a.jsonl.zst", packed_by_zstd(LINES_OF_TEXT)[:3], ["broken zstd", "runcated"]),
    "broken row far on": ("a.jsonl", json_lines(["a"] * 40) + b"\n \n{x\n", ["row 41:", "not JSON"]),
    "missing column": ("a.csv", b"txt,label\na,b\n", ["row 1", "no column text", "txt, label", "--text_column"]),
    "half a character": ("a.jsonl", b'{"text": "a"}\n{"text": "b \\ud83d c"}\n', ["row 2"]),
    "no parquet": ("a.parquet", b"text\na\nb\nc\n", ["not a parquet file"]),
    "no parquet packed": ("a.parquet.zst", packed_by_zstd(b"text"), ["not a parquet file"]),
    "blank lines": ("a.txt", b"\n \n", ["no document"]),
    "header alone": ("a.csv", b"text\n", ["no document"]),
    "blank line of json": ("a.jsonl", b"\n", ["no document"]),
    "nothing packed": ("a.txt.gz", gzip.compress(b""), ["no document"]),
    "no token": ("a.txt", "\u200b\n".encode(), ["no document"]),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_files_are_refused(tmp_path: Path, tokenizer: PreTrainedTokenizerBase, case: str) -> None:
    """One line with the file, the row where there is one, and the remedy; not wrapped by the data set library."""
    name, content, needles = BAD_FILES[case]
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(Refusal) as refusal:
        load_corpus(source(tmp_path / name), tokenizer, shard_bytes=50)
    message = str(refusal.value)
    assert "\n" not in message
    assert [needle for needle in [name, *needles] if needle not in message] == [], message


def test_refusals_come_out_of_worker_processes(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """The words of the reader, with the row counted from the file's start, and no process left behind."""
    content = json_lines([f"cash {i}" for i in range(50)]) + b'{"body": "cash"}\n' + json_lines(["rose"])
    with pytest.raises(Refusal) as refusal:
        load_corpus(source(write(tmp_path / "a.jsonl", content)), tokenizer, workers=2, shard_bytes=200)
    assert re.fullmatch(r".*a\.jsonl row 51: no column text; found body \(pick one .*\)", str(refusal.value))
    deadline = time.monotonic() + 10
    while multiprocessing.active_children() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_cache_is_told_in_one_line(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it lies and what to do, out of another process too; and once there is room the corpus is read."""
    path = write(tmp_path / "a.txt", b"".join(b"cash %d full %d\n\n" % (i, workers) for i in range(50)))

    def full(**kwargs: Any) -> Any:
        raise OSError(28, "No space left on device")
        yield

    with monkeypatch.context() as patch:
        patch.setattr(corpus, "_token_tables", full)
        with pytest.raises(Failure, match=r": could not be written: No space left .* HF_DATASETS_CACHE names another"):
            load_corpus(source(path), tokenizer, workers=workers, shard_bytes=200)
    assert len(load_corpus(source(path), tokenizer, workers=workers, shard_bytes=200)[0]) == 50


def test_small_corpora_start_no_process(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By default a corpus of more than 8 MB is shared by the cores that there are, at most one a shard."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(6)), raising=False)
    small = cut_shards(source(write(tmp_path / "a.txt", b"cash\n\n" * 1000)), 100)
    assert len(small) > 6
    assert corpus.default_workers(small) == 1
    big = source(write(tmp_path / "b.txt", b"cash\n\n" * 1_500_000))
    assert corpus.default_workers(cut_shards(big, 2**20)) == 6
    assert corpus.default_workers(cut_shards(big)) == 3
