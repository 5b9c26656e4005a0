"""A domain's own words: count those that a WordPiece tokenizer cuts up, and give the worst of them rows of their own.

A new word stands in the WordPiece vocabulary itself, where greedy longest match finds it: whole, or as the first piece
of a longer word ("ebitda" + "##s"), and never inside one, as transformers' `add_tokens` would. Everything else is cut
as before. BERT's [unused…] rows are there to be taken, so a few hundred words do not grow the model.

Words by what they save, on top of a vocabulary that stays: after AVocaDo (Hong et al. 2021). A row's start, the mean of
the rows of the pieces that stood for the word: Fast Vocabulary Transfer (Gee et al. 2022).
"""

import json
import re
import tempfile
import unicodedata
from collections import Counter
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import torch
from datasets import Dataset
from tokenizers.models import WordPiece
from transformers import BertForPreTraining, PreTrainedTokenizerBase

from two_stage.command_line.exits import Refusal

DOCUMENTS_A_BATCH = 1000  # some 200,000 tokens: numpy's own costs vanish, and memory stays at a few MB
TOKEN_COLUMNS = ("input_ids", "sentence_lengths")
SHORTEST_WORD = 3  # letters
UNUSED = re.compile(r"\[unused\d+\]")


# --- Counting ---------------------------------------------------------------------------------------------------------


@dataclass
class WordCounts:
    """What the words of a corpus are made of; a word is what the tokenizer's pre-tokenizer cuts out, a comma too."""

    tokens: int = 0
    words: int = 0
    unknown: int = 0  # words that are [UNK]
    fragmented: Counter[tuple[int, ...]] = field(default_factory=Counter)  # ids of words of two or more pieces

    @property
    def pieces_per_word(self) -> float:
        """Tokens a word; 1 where no word is cut, or there is none."""
        return self.tokens / self.words if self.words else 1.0

    @property
    def unknown_share(self) -> float:
        """The share of words that the tokenizer cannot spell at all, 0 to 1."""
        return self.unknown / self.words if self.words else 0.0


class FragmentedWord(NamedTuple):
    """A word that the tokenizer cuts up, as it stands after normalising; how often, and into what."""

    word: str
    occurrences: int
    pieces: tuple[str, ...]

    @property
    def saved(self) -> int:
        """The tokens that the corpus would lose if the word were in the vocabulary."""
        return (len(self.pieces) - 1) * self.occurrences


def count_words(
    documents: Dataset, tokenizer: PreTrainedTokenizerBase, most_tokens: int = 20_000_000, seed: int = 0
) -> WordCounts:
    """Count words and their pieces in one pass over token ids; no text is read, and nothing tokenized again.

    Args:
        documents: rows of `input_ids` (all tokens of a document, no special ones) and `sentence_lengths` (in tokens),
            as `load_corpus` makes them.
        tokenizer: by which they were made.
        most_tokens: a larger corpus is counted on a random sample of whole documents, of about so many tokens.
        seed: of that sample.

    Returns:
        The counts of the documents read. A sentence's first piece always begins a word.

    Raises:
        Refusal: the tokenizer is no WordPiece.
    """
    continues = continuing_pieces(tokenizer)
    counts = WordCounts()
    sample = sample_documents(documents, most_tokens, seed).with_format("arrow", columns=list(TOKEN_COLUMNS))
    for batch in sample.iter(DOCUMENTS_A_BATCH):
        ids, lengths = (flat_column(batch, name) for name in TOKEN_COLUMNS)
        begins = ~continues[ids]
        begins[np.cumsum(lengths)[lengths > 0] - lengths[lengths > 0]] = True
        first = np.flatnonzero(begins)
        pieces = np.diff(first, append=len(ids))  # of each word
        counts.tokens += len(ids)
        counts.words += len(first)
        counts.unknown += int(np.count_nonzero(ids == tokenizer.unk_token_id))
        for length in np.unique(pieces[pieces > 1]).tolist():  # words of one length are one matrix
            words = ids[first[pieces == length][:, None] + np.arange(length)]
            counts.fragmented.update(map(tuple, words.tolist()))
    return counts


def sample_documents(documents: Dataset, most_tokens: int, seed: int) -> Dataset:
    """All documents where they have no more than `most_tokens` tokens, else random ones until they do, in file order.

    The document that crosses the line is taken too, so that there is always one.
    """
    batches = documents.with_format("arrow", columns=["input_ids"]).iter(DOCUMENTS_A_BATCH)
    lengths = np.concatenate([np.zeros(0, int), *(list_lengths(batch) for batch in batches)])
    if lengths.sum() <= most_tokens:
        return documents
    order = np.random.default_rng(seed).permutation(len(lengths))
    taken = int(np.searchsorted(np.cumsum(lengths[order]), most_tokens)) + 1
    return documents.select(np.sort(order[:taken]))


def list_lengths(batch: pa.Table) -> np.ndarray:
    """The tokens of each document of a batch: int64 (documents,)."""
    return np.concatenate([np.diff(chunk.offsets.to_numpy()) for chunk in batch["input_ids"].chunks])


def flat_column(batch: pa.Table, name: str) -> np.ndarray:
    """The values of a column of lists, one list after the other: int32."""
    return np.concatenate([chunk.flatten().to_numpy() for chunk in batch[name].chunks])


def continuing_pieces(tokenizer: PreTrainedTokenizerBase) -> np.ndarray:
    """Whether each id of the tokenizer goes on with a word (`##` pieces): bool (largest id + 1,)."""
    prefix, vocabulary = word_piece(tokenizer).continuing_subword_prefix, tokenizer.get_vocab()
    continues = np.zeros(max(vocabulary.values()) + 1, dtype=bool)
    continues[[id for piece, id in vocabulary.items() if piece.startswith(prefix)]] = True
    return continues


def word_piece(tokenizer: PreTrainedTokenizerBase) -> WordPiece:
    """The tokenizer's WordPiece model; a refusal where it has another."""
    model = tokenizer.backend_tokenizer.model
    if not isinstance(model, WordPiece):
        raise Refusal(f"tokenizer {tokenizer.name_or_path}: a {type(model).__name__}; new words need a WordPiece")
    return model


# --- Choosing ---------------------------------------------------------------------------------------------------------


def ranked_words(counts: WordCounts, tokenizer: PreTrainedTokenizerBase) -> list[FragmentedWord]:
    """All fragmented words of three letters or more and nothing but letters, most tokens saved first, then by name."""
    prefix = word_piece(tokenizer).continuing_subword_prefix
    pieces = {id: piece for piece, id in tokenizer.get_vocab().items()}
    words = []
    for ids, count in counts.fragmented.items():
        first, *rest = cut = tuple(pieces[id] for id in ids)
        word = first + "".join(piece.removeprefix(prefix) for piece in rest)
        if len(word) >= SHORTEST_WORD and all(unicodedata.category(letter)[0] in "LM" for letter in word):
            words.append(FragmentedWord(word, count, cut))  # M: the vowel signs of Indic scripts, and accents
    return sorted(words, key=lambda word: (-word.saved, word.word))


def most_fragmented(counts: WordCounts, tokenizer: PreTrainedTokenizerBase, n: int) -> list[FragmentedWord]:
    """The `n` words of letters whose pieces cost the corpus most, (pieces - 1) × occurrences tokens, most first.

    Args:
        counts: from `count_words`.
        tokenizer: the same as there.
        n: how many at most.

    Returns:
        (word, occurrences, pieces) of each; equal costs stand in the order of their words.
    """
    return ranked_words(counts, tokenizer)[:n]


def choose_new_words(
    counts: WordCounts, tokenizer: PreTrainedTokenizerBase, n: int, minimum_count: int = 5
) -> list[str]:
    """The words that would save most tokens if they were in the vocabulary, most first.

    Args:
        counts: from `count_words`.
        tokenizer: the same as there.
        n: how many at most.
        minimum_count: a row that is met less often is hardly trained.

    Returns:
        Up to `n` words of three or more letters that the tokenizer reads in one piece as they stand and that its
        vocabulary lacks. Each is ranked as if it came alone: of "ebitda" and "ebitdas" both may come.
    """
    vocabulary = tokenizer.get_vocab()
    often = (word for word, count, _ in ranked_words(counts, tokenizer) if count >= minimum_count)
    fit = (word for word in often if word not in vocabulary and read_as(word, tokenizer) == [word])
    return list(islice(fit, n))


def read_as(text: str, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """The words that the tokenizer's WordPiece is given of a text: normalised, and cut at spaces and marks."""
    backend = tokenizer.backend_tokenizer
    if backend.normalizer is not None:
        text = backend.normalizer.normalize_str(text)
    if backend.pre_tokenizer is None:
        return [text]
    return [word for word, _ in backend.pre_tokenizer.pre_tokenize_str(text)]


# --- Extending --------------------------------------------------------------------------------------------------------


def extend_tokenizer(
    tokenizer: PreTrainedTokenizerBase, words: list[str]
) -> tuple[PreTrainedTokenizerBase, dict[int, list[int]]]:
    """A new tokenizer whose WordPiece vocabulary holds `words`; the one given stays as it is.

    The words take the [unused…] rows in order of id, then ids behind the last. A text's words that begin with none of
    them are cut as before. One that begins with a new word is cut after it where that is its longest match, as by any
    WordPiece: mostly into fewer pieces, now and then into more, and into [UNK] where the vocabulary lacks a letter's ##
    piece for what is left.

    Args:
        tokenizer: a BERT's.
        words: as `choose_new_words` gives them, or from elsewhere.

    Returns:
        The new tokenizer, of the same class, special tokens and settings, and for each new id the ids of the pieces
        into which the old tokenizer cuts its word, for `extend_embeddings`.

    Raises:
        Refusal: the tokenizer is no WordPiece, or has tokens added behind its vocabulary, whose ids would move; a word
            is in the vocabulary already, is given twice, is not read as it stands, or cannot be spelt.
    """
    check_new_words(words, tokenizer)
    ids = free_ids(tokenizer, len(words))
    old = word_piece(tokenizer)
    pieces = {id: [token.id for token in old.tokenize(word)] for word, id in zip(words, ids, strict=True)}
    # by way of a folder, so that nothing of the old vocabulary stays behind in the new object
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)  # leaves no vocab.txt
        file = Path(folder, "tokenizer.json")
        backend = json.loads(file.read_text(encoding="utf-8"))
        named = {id: piece for piece, id in backend["model"]["vocab"].items()} | dict(zip(ids, words, strict=True))
        backend["model"]["vocab"] = {named[id]: id for id in sorted(named)}
        file.write_text(json.dumps(backend, ensure_ascii=False), encoding="utf-8")
        extended = type(tokenizer).from_pretrained(folder)
    extended.name_or_path = extended.init_kwargs["name_or_path"] = tokenizer.name_or_path
    return extended, pieces


def check_new_words(words: list[str], tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse a word that is there already, that the tokenizer never meets as it stands, or that has no pieces."""
    model, vocabulary = word_piece(tokenizer), tokenizer.get_vocab()
    for word, count in Counter(words).items():
        if count > 1:
            raise Refusal(f"new word {word!r}: given {count} times; give each word once")
        if word in vocabulary:
            raise Refusal(f"new word {word!r}: is in the vocabulary already; leave it out")
        if (read := read_as(word, tokenizer)) != [word]:
            shown = " ".join(map(repr, read)) or "nothing"
            raise Refusal(f"new word {word!r}: the tokenizer reads it as {shown}; give one word, as it reads it")
        if any(token.value == model.unk_token for token in model.tokenize(word)):
            raise Refusal(f"new word {word!r}: is {model.unk_token} to the tokenizer, so no pieces can start its row")


def free_ids(tokenizer: PreTrainedTokenizerBase, n: int) -> list[int]:
    """`n` ids for new words: those of the [unused…] entries, least first, then those behind the last."""
    vocabulary, added = tokenizer.get_vocab(), tokenizer.added_tokens_encoder
    unused = sorted(id for piece, id in vocabulary.items() if UNUSED.fullmatch(piece) and piece not in added)
    behind = max(vocabulary.values()) + 1
    ids = [*unused, *range(behind, behind + n)][:n]
    outside = added.keys() - tokenizer.backend_tokenizer.get_vocab(with_added_tokens=False).keys()
    if outside and n > len(unused):
        # a file's added tokens are numbered behind its vocabulary, so those would move, and the model's rows not
        raise Refusal(
            f"tokenizer {tokenizer.name_or_path}: has tokens added behind its vocabulary ({min(outside)}), so there is "
            f"room in its {len(unused)} [unused] rows only; ask for no more new words"
        )
    return ids


@torch.no_grad()
def extend_embeddings(model: BertForPreTraining, pieces: dict[int, list[int]]) -> None:
    """Start each new row at the mean of the rows of its word's pieces, in the word embeddings and the decoder's bias.

    So a new word looks at first much as its pieces did, and is predicted about as often (Gee et al. 2022). Hewitt 2021
    ("Initializing New Word Embeddings for Pretrained Language Models") shows for the mean of all rows why one within
    the cloud of old ones must be better than a random one, whose logit can outweigh every other word's.

    Args:
        model: changed in place, before an optimizer is made; it grows where ids lie behind its vocabulary, and the
            decoder, tied to the embeddings, with it. All other rows keep their bits.
        pieces: from `extend_tokenizer`; the ids of each new id's pieces.

    Raises:
        ValueError: a piece is itself new or no row of the model, or ids behind the vocabulary leave a gap, whose row
            would stay random.
    """
    size = model.config.vocab_size
    beyond = sorted(id for id in pieces if id >= size)
    if beyond != list(range(size, size + len(beyond))):
        raise ValueError(f"new ids {beyond} behind {size} rows leave a gap; take them from extend_tokenizer")
    for id, cut in pieces.items():
        if not cut or any(piece in pieces or not 0 <= piece < size for piece in cut):
            raise ValueError(f"new id {id}: its pieces {cut} must be old rows, 0 to {size - 1}")
    if not pieces:
        return
    if beyond:
        # its random rows are all overwritten below; mean_resizing would only make them slowly
        model.resize_token_embeddings(size + len(beyond), mean_resizing=False)
    head = model.cls.predictions
    # tied tensors come twice, and the second time changes nothing: only old rows are read
    for table in (model.get_input_embeddings().weight, head.decoder.weight, head.bias, head.decoder.bias):
        for id, cut in pieces.items():
            table[id] = table[cut].mean(dim=0)
