"""Which documents stage one trains on, holds out, and measures forgetting on, and the words that it adds for them."""

from itertools import islice
from typing import NamedTuple, Protocol

import numpy as np
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from two_stage.command_line.exits import Refusal, say
from two_stage.data.corpus import (
    TOKENS,
    CorpusSource,
    corpus_tokenizer,
    load_corpus,
    open_dataset,
    read_documents,
    tokenize_documents,
)
from two_stage.data.vocabulary import choose_new_words, count_words, extend_tokenizer

DATA_SET = ("dataset", "dataset_config", "dataset_revision", "dataset_split")


class CorpusFlags(Protocol):
    """The flags that say which documents; the script's settings have them."""

    train_file: list[str] | None
    validation_file: list[str] | None
    forgetting_file: list[str] | None
    validation_fraction: float
    dataset: str | None
    dataset_config: str | None
    dataset_revision: str | None
    dataset_split: str
    text_column: str
    language: str
    max_train_samples: int | None
    new_words: int
    no_next_sentence: bool
    streaming: bool
    stream_documents: int
    preprocessing_workers: int | None


class Corpora(NamedTuple):
    """The documents of a run, and the tokenizer that they were read with."""

    train: Dataset  # of a stream, its first documents
    held_out: Dataset | None
    general: Dataset | None  # of --forgetting_file
    tokenizer: PreTrainedTokenizerBase
    new_words: dict[int, list[int]]  # id → the pieces that the word was before it had an entry of its own
    duplicates: int  # copies of documents that were dropped from the training files


def read_corpora(settings: CorpusFlags, tokenizer: PreTrainedTokenizerBase) -> Corpora:
    """Training, held-out and general documents; whole documents are held out, never pairs of one that is trained on.

    Without a validation file those are held out whose text has the lowest hash, so that every run on these files is
    scored on the same documents, whatever its seed and their order.

    Raises:
        Refusal: no training documents given, or too few for pairs.
    """
    workers = settings.preprocessing_workers
    if settings.train_file is None and settings.dataset is None:
        raise Refusal("no --train_file or --dataset given: the documents to train on")
    source = corpus_source(settings, settings.train_file)

    def training_documents(tokenizer: PreTrainedTokenizerBase) -> tuple[Dataset, dict[str, int]]:
        if settings.streaming:
            return first_documents(source, tokenizer, settings.stream_documents), {"duplicate_documents": 0}
        return load_corpus(source, tokenizer, workers, settings.max_train_samples)

    new_words: dict[int, list[int]] = {}
    train, facts = training_documents(tokenizer)
    if settings.new_words:
        words = choose_new_words(count_words(train, tokenizer), tokenizer, settings.new_words)
        tokenizer, new_words = extend_tokenizer(tokenizer, words)
        few = "" if len(words) == settings.new_words else f" of {settings.new_words}; others are rare"
        say(f"{len(words)} new words{few}: {', '.join(words[:8])} …")
        train, facts = training_documents(tokenizer)
    held_out, general = (
        load_corpus(corpus_source(settings, files), tokenizer, workers)[0] if files else None
        for files in (settings.validation_file, settings.forgetting_file)
    )
    known = [text_hashes(documents) for documents in (held_out, general) if documents is not None]
    if known and not settings.streaming:  # a document of both would be scored on what was learnt by heart
        kept = np.flatnonzero(~np.isin(text_hashes(train), np.concatenate(known)))
        if len(kept) < len(train):
            say(f"{len(train) - len(kept)} training documents are held out or general ones too: left out of training")
        train = train.select(kept)
    if held_out is None and settings.validation_fraction and not settings.streaming:
        order = np.argsort(text_hashes(train), kind="stable")
        count = max(1 if settings.no_next_sentence else 2, round(len(train) * settings.validation_fraction))
        train, held_out = train.select(np.sort(order[count:])), train.select(np.sort(order[:count]))
    check_counts(settings, train, held_out, general)
    return Corpora(train, held_out, general, tokenizer, new_words, facts["duplicate_documents"])


def check_counts(settings: CorpusFlags, train: Dataset, held_out: Dataset | None, general: Dataset | None) -> None:
    """Refuse too few documents: a random next sentence comes from another one, so there must be two."""
    least = 1 if settings.no_next_sentence else 2
    why = "" if settings.no_next_sentence else "; a random next sentence comes from another document: there must be two"
    splits = [
        ("to train on", train, settings.train_file),
        ("of --validation_file", held_out, settings.validation_file),
        ("of --forgetting_file", general, settings.forgetting_file),
    ]
    for split, documents, files in splits:
        if documents is not None and len(documents) < least:
            aside = held_out is not None and not settings.validation_file and split == "to train on"
            behind = f", with {len(held_out or ())} held out (--validation_fraction 0 holds none out)" if aside else ""
            name = corpus_source(settings, files).name
            raise Refusal(
                f"{name}: {len(documents)} document(s) {split}{behind}{why} (in a .txt a blank line ends a document)"
            )


def corpus_source(settings: CorpusFlags, files: list[str] | None) -> CorpusSource:
    """Where the documents of `files` come from; without files, of the data set."""
    data_set = {} if files else {name: getattr(settings, name) for name in DATA_SET}
    return CorpusSource(
        tuple(files or ()),
        streamed=settings.streaming,
        text_column=settings.text_column,
        language=settings.language,
        **data_set,
    )


def dataset_key(settings: CorpusFlags) -> dict[str, str]:
    """The data set's name, and a text that changes with its content; of a stream, with what was asked for alone."""
    source = corpus_source(settings, None)
    asked = f"{source.dataset_config} {source.dataset_revision} {source.dataset_split}"
    return {str(source.dataset): asked if settings.streaming else f"{asked} {open_dataset(source)._fingerprint}"}


def first_documents(source: CorpusSource, tokenizer: PreTrainedTokenizerBase, count: int) -> Dataset:
    """The first documents of a stream, in memory: what its report is made of, and its new words."""
    texts = list(islice(read_documents(source), count))
    rows = [row for row in tokenize_documents(texts, corpus_tokenizer(tokenizer)) if row[0]]
    if not rows:
        raise Refusal(f"{source.name}: no document among the first {count:,}")
    return Dataset.from_dict(dict(zip(TOKENS, map(list, zip(*rows, strict=True)), strict=True)), features=TOKENS)


def text_hashes(documents: Dataset) -> np.ndarray:
    """The hash of each document's text: int64 (documents,)."""
    return documents.with_format("numpy")["text_hash"][:]
