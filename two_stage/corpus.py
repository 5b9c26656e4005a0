"""Raw text → documents of sentences → token ids on disk, memory-mapped; and the report of what is in them."""

import hashlib
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import numpy as np
from datasets import Dataset, Features, List, Value
from transformers import PreTrainedTokenizerBase

from two_stage import tables
from two_stage.recipe import Refusal
from two_stage.tables import check_files, file_format, file_sha256, open_text, read_rows, readable, text_value

FORMATS = ("txt", "csv", "tsv", "jsonl", "parquet")
SENTENCES = Features({"sentences": List(Value("string"))})
TOKENS = Features({"input_ids": List(Value("int32")), "sentence_lengths": List(Value("int32"))})


def documents_of_text(path: str) -> Iterator[list[str]]:
    """Documents of BERT's own corpus format: one sentence a line, blank lines between documents."""
    sentences: list[str] = []
    with readable(path), open_text(path) as file:
        for line in file:
            if sentence := line.strip():
                sentences.append(sentence)
            elif sentences:
                yield sentences
                sentences = []
    if sentences:
        yield sentences


def documents_of_table(path: str, text_column: str, language: str) -> Iterator[list[str]]:
    """Documents of a table, one a row: a line break ends a sentence, and sentencex splits within a line."""
    import sentencex

    for row in read_rows(path):
        text = text_value(row, text_column, "text_column")
        lines = (line.strip() for line in text.splitlines())
        sentences = [sentence.strip() for line in lines if line for sentence in sentencex.segment(language, line)]
        yield [sentence for sentence in sentences if sentence]


def read_documents(
    paths: list[str], text_column: str, language: str, limit: int | None, cache_key: str
) -> Iterator[dict[str, list[str]]]:
    """Every document of the files, each text once.

    A second copy of a document would stand as "another document" behind its twin, and on both sides of a split.

    Args:
        paths: corpus files.
        text_column: where a table has its text.
        language: by whose rules a table's texts are split into sentences.
        limit: documents to read; None reads all.
        cache_key: not used here: by it the data set cache knows files, or code, that changed under the same name.
    """
    seen: set[bytes] = set()
    for path in paths:
        is_text = file_format(path) == "txt"
        for sentences in documents_of_text(path) if is_text else documents_of_table(path, text_column, language):
            if len(seen) == limit:
                return
            digest = hashlib.blake2b("\n".join(sentences).encode("utf-8", "replace"), digest_size=8).digest()
            if digest not in seen:
                seen.add(digest)
                yield {"sentences": sentences}


def tokenize_documents(batch: dict[str, list[list[str]]], tokenizer: PreTrainedTokenizerBase) -> dict[str, list[Any]]:
    """Documents of sentences → for each its token ids in one row, and how many of them each sentence has."""
    sentences = [sentence for document in batch["sentences"] for sentence in document]
    ids = iter(tokenizer(sentences, add_special_tokens=False, return_attention_mask=False, verbose=False)["input_ids"])
    rows: dict[str, list[Any]] = {"input_ids": [], "sentence_lengths": []}
    for document in batch["sentences"]:
        encoded = [tokens for tokens in (next(ids) for _ in document) if tokens]
        rows["input_ids"].append([token for tokens in encoded for token in tokens])
        rows["sentence_lengths"].append([len(tokens) for tokens in encoded])
    return rows


def load_corpus(
    paths: list[str],
    text_column: str,
    tokenizer: PreTrainedTokenizerBase,
    workers: int | None = None,
    language: str = "en",
    limit: int | None = None,
) -> Dataset:
    """Read, split and tokenize a corpus; both steps are cached on disk and memory-mapped.

    Args:
        paths: .txt files (one sentence a line, a blank line between documents) or tables (one document a row).
        text_column: where a table has its text.
        tokenizer: the checkpoint's.
        workers: processes that tokenize; None works in this one.
        language: of a table's texts, as an ISO 639 code.
        limit: documents to read; None reads all.

    Returns:
        A data set with one row a document that has any token: `input_ids` (all its tokens, no special ones) and
        `sentence_lengths` (tokens a sentence, which add up to the row's length).

    Raises:
        Refusal: a file that is missing, of another format, not UTF-8, or without a document.
    """
    check_files(paths, FORMATS)
    read_by = [file_sha256(path) for path in (*paths, __file__, tables.__file__)]
    cache_key = " ".join([*read_by, version("sentencex")])
    arguments = {"paths": paths, "text_column": text_column, "language": language, "limit": limit}
    arguments["cache_key"] = cache_key
    try:
        documents = Dataset.from_generator(read_documents, features=SENTENCES, gen_kwargs=arguments)
    except Exception as error:  # datasets wraps what the generator raised
        if isinstance(error, ValueError) and "no data" in str(error):
            raise Refusal(f"{', '.join(paths)}: no document in it") from None
        cause = error.__cause__ or error.__context__
        raise (cause if isinstance(cause, Refusal) else error) from None
    return documents.map(
        tokenize_documents,
        batched=True,
        fn_kwargs={"tokenizer": tokenizer},
        remove_columns=["sentences"],
        features=TOKENS,
        num_proc=workers,
        desc="Tokenizing documents",
    ).filter(lambda lengths: len(lengths) > 0, input_columns="sentence_lengths", desc="Dropping empty documents")


def sentence_lengths(documents: Dataset) -> list[np.ndarray]:
    """The sentence lengths of every document, in tokens: one int32 array a document."""
    return list(documents.with_format("numpy")["sentence_lengths"])
