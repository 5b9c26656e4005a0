"""Raw text → documents of sentences → token ids on disk, memory-mapped, in one pass and in any number of processes.

A big plain file is cut into parts at document boundaries, so that processes share it and none holds more than a part;
peak memory is the same for a corpus of megabytes and of gigabytes. What was written is kept in the `datasets` cache.
"""

import hashlib
import os
import pickle
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from itertools import chain, islice, pairwise
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, Features, IterableDataset, List, Value, config
from datasets.exceptions import DatasetGenerationError
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from two_stage.checkpointing.checkpoints import told_if_unwritten
from two_stage.checkpointing.handoff import tokenizer_sha256
from two_stage.command_line.exits import Refusal
from two_stage.data import files, tables
from two_stage.data.data_sets import open_split
from two_stage.data.files import archive, check_files, file_format, file_sha256, open_part, open_text, readable
from two_stage.data.table_builder import TableBuilder
from two_stage.data.tables import PlacedRow, json_rows, read_rows, text_value

FORMATS = ("txt", "csv", "tsv", "jsonl", "parquet")
CUT_FORMATS = ("txt", "jsonl")  # where a document's end can be told from the bytes around it
SHARD_BYTES = 4 * 2**20  # of a plain file; a shard is held in memory while it is read, and shared out to processes
BATCH_CHARACTERS = 1_000_000  # tokenized at a time, some 100 bytes of memory a token; a longer document goes alone
# Written in one piece. Sentence lengths and hashes of a piece lie behind its tokens; reading them maps some 100 kB of
# memory a piece, so that in pieces of 1 MB a tenth of the corpus would count as memory of the process.
TABLE_BYTES = 16 * 2**20
SMALL_CORPUS = 8 * 2**20  # bytes; below, starting processes takes longer than they save
TOKENS = Features({"input_ids": List(Value("int32")), "sentence_lengths": List(Value("int32"))})
ROWS = Features({**TOKENS, "text_hash": Value("int64")})


@dataclass(frozen=True)
class CorpusSource:
    """Where documents come from: files, or a `datasets` data set."""

    files: tuple[str, ...] = ()  # .txt (one sentence a line, blank lines between documents) or tables
    dataset: str | None = None  # instead of files: a Hub id or a local folder
    dataset_config: str | None = None
    dataset_revision: str | None = None
    dataset_split: str = "train"
    streamed: bool = False  # read a data set as it comes, without keeping it
    text_column: str = "text"  # of a table or a data set, one document a row
    language: str = "en"  # ISO 639 code, by whose rules the texts of a table or a data set are split into sentences

    @property
    def name(self) -> str:
        """What messages call the corpus."""
        return f"data set {self.dataset}" if self.dataset else ", ".join(self.files)


@dataclass(frozen=True)
class Shard:
    """A part of a corpus that one process reads: whole documents of a file, or rows of a data set."""

    path: str  # of a data set, its name
    start: int = 0  # bytes; of a data set, rows
    stop: int | None = None  # None: the whole file
    rows: Dataset | IterableDataset | None = None


# --- Shards -----------------------------------------------------------------------------------------------------------


def cut_shards(source: CorpusSource, shard_bytes: int = SHARD_BYTES) -> list[Shard]:
    """The parts of a corpus, in order; together they hold every document once.

    Args:
        source: the corpus.
        shard_bytes: where a plain .txt or .jsonl file, or a data set, is cut; other files are one shard each.

    Raises:
        Refusal: a file that is missing, empty or of another format; a data set that cannot be opened.
    """
    if source.dataset:
        rows = open_dataset(source)
        if isinstance(rows, IterableDataset):
            parts = rows.num_shards
            return [Shard(source.name, rows=rows.shard(num_shards=parts, index=i)) for i in range(parts)]
        if not len(rows):
            raise Refusal(f"{source.name}: no document in it")
        step = max(1, shard_bytes * len(rows) // max(1, rows.data.nbytes))
        return [Shard(source.name, i, min(i + step, len(rows)), rows) for i in range(0, len(rows), step)]
    check_files(list(source.files), FORMATS)
    return [shard for path in source.files for shard in _cut_file(path, shard_bytes)]


def _cut_file(path: str, shard_bytes: int) -> list[Shard]:
    """A file's shards; one document longer than a shard stays whole."""
    if archive(path) or file_format(path) not in CUT_FORMATS:
        return [Shard(path)]
    size = os.path.getsize(path)
    cuts = [0]
    with open(path, "rb") as file:
        while cuts[-1] + shard_bytes < size:
            cuts.append(_document_boundary(file, cuts[-1] + shard_bytes, file_format(path)))
    cuts += [size] if cuts[-1] < size else []
    return [Shard(path, start, stop) for start, stop in pairwise(cuts)]


def _document_boundary(file: IO[bytes], offset: int, file_format: str) -> int:
    """The first place at or behind `offset` before which a document has ended: a line's end, in .txt a blank line's."""
    file.seek(offset)
    file.readline()
    if file_format == "txt":
        while (line := file.readline()) and line.decode("utf-8", "replace").strip():
            pass
    return file.tell()


def open_dataset(source: CorpusSource) -> Dataset | IterableDataset:
    """The rows of a `datasets` data set, memory-mapped or streamed, its text column alone.

    Raises:
        Refusal: no such data set, configuration, split or column, or no network to fetch it by.
    """
    name = str(source.dataset)
    rows = open_split(name, source.dataset_config, source.dataset_revision, source.dataset_split, source.streamed)
    if source.text_column not in rows.column_names:
        found = ", ".join(rows.column_names)
        raise Refusal(f"data set {name}: no column {source.text_column}; found {found} (pick one with --text_column)")
    return rows.select_columns([source.text_column])


# --- Documents --------------------------------------------------------------------------------------------------------


def read_documents(source: CorpusSource) -> Iterator[list[str]]:
    """Every document of a corpus as its sentences, in order; copies are not dropped.

    Raises:
        Refusal: a file or a row that cannot be read, by its name and number.
    """
    return chain.from_iterable(shard_documents(shard, source) for shard in cut_shards(source))


def shard_documents(shard: Shard, source: CorpusSource) -> Iterator[list[str]]:
    """The documents of one shard, in order.

    Raises:
        Refusal: a row that cannot be read; its number counts from the file's first row.
    """
    if shard.rows is not None:
        yield from _documents_of_rows(_dataset_rows(shard, source.text_column), source)
    elif file_format(shard.path) == "txt":
        with readable(shard.path), _open_shard(shard) as file:
            yield from documents_of_text(file)
    elif shard.stop is None:
        yield from _documents_of_rows(read_rows(shard.path), source)
    else:
        try:
            yield from _documents_of_json(shard, source, first=1)
        except Refusal:
            with open_part(shard.path, 0, shard.start) as before:  # only now is it worth counting
                rows_before = sum(1 for line in before if line.strip())
            for _ in _documents_of_json(shard, source, first=1 + rows_before):
                pass
            raise


def documents_of_text(lines: Iterable[str]) -> Iterator[list[str]]:
    """Documents of BERT's own corpus format: one sentence a line, blank lines between documents."""
    sentences: list[str] = []
    for line in lines:
        if sentence := line.strip():
            sentences.append(sentence)
        elif sentences:
            yield sentences
            sentences = []
    if sentences:
        yield sentences


def split_sentences(text: str, language: str) -> list[str]:
    """The sentences of a text: a line break ends one, and sentencex splits within a line."""
    import sentencex

    lines = (line.strip() for line in text.splitlines())
    sentences = (sentence.strip() for line in lines if line for sentence in sentencex.segment(language, line))
    return [sentence for sentence in sentences if sentence]


def _documents_of_rows(rows: Iterable[PlacedRow], source: CorpusSource) -> Iterator[list[str]]:
    """Documents of a table, one a row."""
    for row in rows:
        yield split_sentences(text_value(row, source.text_column, "text_column"), source.language)


def _documents_of_json(shard: Shard, source: CorpusSource, first: int) -> Iterator[list[str]]:
    """Documents of a part of a .jsonl file, whose rows are counted from `first`."""
    with readable(shard.path), _open_shard(shard) as file:
        yield from _documents_of_rows(json_rows(shard.path, file, first), source)


def _open_shard(shard: Shard) -> IO[str]:
    """The text of a shard of a file."""
    return open_text(shard.path) if shard.stop is None else open_part(shard.path, shard.start, shard.stop)


def _dataset_rows(shard: Shard, text_column: str) -> Iterator[PlacedRow]:
    """The rows of a shard of a data set, but for those without text: nobody can take rows out of another's data."""
    assert shard.rows is not None
    if isinstance(shard.rows, IterableDataset):
        rows = shard.rows
    else:  # a mapping of its own, given back at the end: pages once read count as memory for as long as they are mapped
        rows = pickle.loads(pickle.dumps(shard.rows.select(range(shard.start, shard.stop or 0))))
    values = chain.from_iterable(batch[text_column] for batch in rows.iter(batch_size=256))
    for number, value in enumerate(values, start=shard.start + 1):
        if value is not None and not (isinstance(value, str) and not value.strip()):
            yield f"{shard.path} row {number}", {text_column: value}


# --- Tokens -----------------------------------------------------------------------------------------------------------


def corpus_tokenizer(tokenizer: PreTrainedTokenizerBase) -> Tokenizer:
    """A copy of a checkpoint's Rust tokenizer that neither cuts nor pads.

    Called directly it is twice as fast as through transformers, which makes lists of all that BERT does not need here.
    """
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.no_truncation()
    backend.no_padding()
    backend.encode_special_tokens = tokenizer.split_special_tokens
    return backend


def tokenize_documents(documents: list[list[str]], tokenizer: Tokenizer) -> list[tuple[list[int], list[int]]]:
    """Token ids of documents, without special tokens.

    Args:
        documents: each as its sentences.
        tokenizer: from `corpus_tokenizer`.

    Returns:
        For each document its token ids, and how many of them each sentence has; sentences without tokens are left
        out, so a document without any has two empty lists.
    """
    sentences = [sentence for document in documents for sentence in document]
    encoded = iter(tokenizer.encode_batch_fast(sentences, add_special_tokens=False))
    rows = []
    for document in documents:
        pieces = [next(encoded).ids for _ in document]
        rows.append(([token for ids in pieces for token in ids], [len(ids) for ids in pieces if ids]))
    return rows


def text_hash(sentences: list[str]) -> int:
    """64 bits of BLAKE2b of a document's sentences, as a signed integer: equal documents have equal hashes."""
    digest = hashlib.blake2b("\n".join(sentences).encode("utf-8", "replace"), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def _batched(documents: Iterable[list[str]]) -> Iterator[list[list[str]]]:
    """Documents in lists of about BATCH_CHARACTERS."""
    batch: list[list[str]] = []
    characters = 0
    for document in documents:
        batch.append(document)
        characters += sum(map(len, document))
        if characters >= BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _token_tables(
    shards: list[Shard], source: CorpusSource, tokenizer: PreTrainedTokenizerBase, count: int | None
) -> Iterator[pa.Table]:
    """Tables of ROWS of the first `count` documents of the shards; documents without a token are left out."""
    backend = corpus_tokenizer(tokenizer)
    documents = chain.from_iterable(shard_documents(shard, source) for shard in shards)
    pieces: list[pa.Table] = []
    for batch in _batched(islice(documents, count)):
        rows = [
            (ids, lengths, text_hash(document))
            for document, (ids, lengths) in zip(batch, tokenize_documents(batch, backend), strict=True)
            if ids
        ]
        if rows:
            pieces.append(pa.table(list(map(list, zip(*rows, strict=True))), schema=ROWS.arrow_schema))
        if sum(piece.nbytes for piece in pieces) >= TABLE_BYTES:
            yield pa.concat_tables(pieces)
            pieces = []
    if pieces:
        yield pa.concat_tables(pieces)


# --- Data set ---------------------------------------------------------------------------------------------------------


def load_corpus(
    source: CorpusSource,
    tokenizer: PreTrainedTokenizerBase,
    workers: int | None = None,
    limit: int | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> tuple[Dataset, dict[str, int]]:
    """Read, split and tokenize a corpus of any size; the result lies on disk, is memory-mapped, and is used again.

    Args:
        source: the corpus.
        tokenizer: the checkpoint's.
        workers: processes to share the shards; None takes one a core, and none for a small corpus. The result is the
            same for any number.
        limit: distinct documents to read, for a quick try; None reads all.
        shard_bytes: how finely `cut_shards` cuts.

    Returns:
        A data set with one row a document that has any token: `input_ids` (all its tokens, no special ones),
        `sentence_lengths` (tokens a sentence, which add up to the row's length) and `text_hash`; of documents with the
        same sentences the first is kept. And facts: `duplicate_documents`, how many were dropped.

    Raises:
        Refusal: a file or data set that is missing, of another format, not UTF-8, or without a document.
        Failure: the cache cannot be written, most often because its disk is full.
    """
    shards = cut_shards(source, shard_bytes)
    count, content = (None, _content_key(source, shards)) if limit is None else _first_documents(source, shards, limit)
    key = [content, *map(file_sha256, (__file__, files.__file__, tables.__file__))]
    key += [version("sentencex"), version("tokenizers")]
    key += [tokenizer_sha256(tokenizer), str(tokenizer.split_special_tokens), source.text_column, source.language]
    processes = default_workers(shards) if workers is None else min(workers, len(shards))
    processes = processes if limit is None else 1  # the first documents of all, not of each process
    with _told_if_cache_is_full(), _tokenizer_threads(processes == 1):
        builder = TableBuilder(
            dataset_name="corpus",
            config_id=hashlib.sha256("\n".join(key).encode()).hexdigest()[:32],
            generator=_token_tables,
            gen_kwargs={"shards": shards, "source": source, "tokenizer": tokenizer, "count": count},
            columns=ROWS,
            expected_rows=_expected_documents(shards) if count is None else count,
        )
        builder.download_and_prepare(num_proc=processes if processes > 1 else None)
    if not builder.info.splits["train"].num_examples:
        raise Refusal(f"{source.name}: no document in it; write some, or leave it out")
    return _drop_duplicates(builder.as_dataset(split="train"))


@contextmanager
def _told_if_cache_is_full() -> Iterator[None]:
    """Tell in one line that the cache of `datasets` could not be written, which that wraps in an error of its own."""
    with told_if_unwritten(Path(config.HF_DATASETS_CACHE), "HF_DATASETS_CACHE names another place for it"):
        try:
            yield
        except DatasetGenerationError as error:
            if isinstance(error, Refusal) or error.__cause__ is None:
                raise
            raise error.__cause__  # noqa: B904, which is all that there is of an error in another process


def default_workers(shards: list[Shard]) -> int:
    """One process a core that this one may use, at most one a shard, and one alone for a small corpus."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    rows = shards[0].rows
    paths = {shard.path for shard in shards}
    size = sum(map(os.path.getsize, paths)) if rows is None else rows.data.nbytes
    return 1 if size < SMALL_CORPUS else min(cores, len(shards))


@contextmanager
def _tokenizer_threads(wanted: bool) -> Iterator[None]:
    """Let the Rust tokenizer use threads or not, here and in the processes started within."""
    name, before = "TOKENIZERS_PARALLELISM", os.environ.get("TOKENIZERS_PARALLELISM")
    if not wanted:
        os.environ[name] = "false"
    try:
        yield
    finally:
        if not wanted:
            del os.environ[name]
            os.environ |= {name: before} if before is not None else {}


def _content_key(source: CorpusSource, shards: list[Shard]) -> str:
    """A text that differs for any two corpora."""
    if shards[0].rows is not None:
        return str(shards[0].rows._fingerprint)
    return " ".join(f"{file_format(path)} {file_sha256(path)}" for path in source.files)


def _first_documents(source: CorpusSource, shards: list[Shard], limit: int) -> tuple[int, str]:
    """How many documents to read until `limit` distinct ones are seen, and a text that differs for any two such."""
    seen: set[int] = set()
    digest, count = hashlib.sha256(), 0
    for document in chain.from_iterable(shard_documents(shard, source) for shard in shards):
        document_hash = text_hash(document)
        digest.update(document_hash.to_bytes(8, "little", signed=True))
        seen.add(document_hash)
        count += 1
        if len(seen) == limit:
            break
    return count, f"{count} {digest.hexdigest()}"


def _expected_documents(shards: list[Shard]) -> int | None:
    """About how many documents there are, by the first bytes of plain files; None where bytes do not tell."""
    if shards[0].rows is not None:
        return len(shards[0].rows)
    if any(shard.stop is None for shard in shards):
        return None
    with open(shards[0].path, "rb") as file:
        head = file.read(2**18)
    ends = rb"\n[ \t\r]*\n" if file_format(shards[0].path) == "txt" else rb"\n"
    size = sum((shard.stop or 0) - shard.start for shard in shards)
    return round(len(re.findall(ends, head)) * size / len(head)) or None


def _drop_duplicates(documents: Dataset) -> tuple[Dataset, dict[str, int]]:
    """The first copy of each document, and how many others there were."""
    hashes = documents.data.column("text_hash").to_numpy()
    firsts = np.sort(np.unique(hashes, return_index=True)[1])
    facts = {"duplicate_documents": len(hashes) - len(firsts)}
    return (documents.select(firsts) if len(firsts) < len(hashes) else documents), facts


def flat_sentence_lengths(documents: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """The sentence lengths of all documents in one array, read without touching their tokens.

    Returns:
        `lengths`, int32 (sentences,), in tokens, and `starts`, int64 (documents + 1,): those of document d are
        `lengths[starts[d]:starts[d + 1]]`.
    """
    column = documents.data.column("sentence_lengths")
    counts = pc.list_value_length(column).to_numpy().astype(np.int64)
    lengths = pc.list_flatten(column).to_numpy()
    if documents._indices is None:
        return lengths, np.concatenate([[0], np.cumsum(counts)])
    rows = documents._indices.column(0).to_numpy()  # of a data set that `select` put in order, where its rows lie
    first, counts = (np.cumsum(counts) - counts)[rows], counts[rows]
    starts = np.concatenate([[0], np.cumsum(counts)])
    return lengths[np.repeat(first - starts[:-1], counts) + np.arange(starts[-1])], starts
