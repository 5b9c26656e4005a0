"""From a file to masked rows: reading, splitting, tokenizing, pairs; beside BERT's own way and the tokenizer alone.

    python benchmarks/preprocessing.py
    python benchmarks/preprocessing.py --file corpus.jsonl.gz

BERT's own way is what google-research/bert does in Python: its BasicTokenizer and WordpieceTokenizer, rewritten here,
which must give the same tokens, and its pair builder, as tests/test_pairs.py has it. Reads Reuters under $REAL_DATA_DIR
where it is set, else a made-up corpus. Speed against the size of a corpus is in benchmarks/growth.py.
"""

import argparse
import os
import random
import sys
import tempfile
import unicodedata
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from datasets import Dataset

sys.path.insert(0, str(Path(__file__).parent.parent))  # runs from a clone with no install

from corpus_memory import measure_apart, write_corpus
from measuring import by_turns, checkpoint_folder, now, open_tokenizer, report

import run_pretraining as stage_one
from tests.test_pairs import naive_pairs
from two_stage.data.corpus import TOKENS, CorpusSource, corpus_tokenizer, read_documents, tokenize_documents

LENGTH = 128
SAMPLE = 300  # documents that BERT's own way is timed on; it goes one by one
BATCH = 32  # rows
ELSEWHERE = {"tokenizing": 127_000, "pairs": 644_000}  # tokens a second of google-research/bert, on another machine


# --- BERT's own tokenizer ---------------------------------------------------------------------------------------------


def is_punctuation(letter: str) -> bool:
    """As BERT has it: all ASCII that is neither letter nor number nor space, and what Unicode calls punctuation."""
    code = ord(letter)
    in_ascii = 33 <= code <= 47 or 58 <= code <= 64 or 91 <= code <= 96 or 123 <= code <= 126
    return in_ascii or unicodedata.category(letter).startswith("P")


def is_ideograph(code: int) -> bool:
    """Chinese characters, which are words of their own."""
    blocks = ((0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2CEAF), (0xF900, 0xFAFF))
    return any(first <= code <= last for first, last in blocks)


def basic_words(text: str) -> list[str]:
    """BasicTokenizer: clean, lower case, no accents, punctuation apart."""
    cleaned = []
    for letter in text:
        code, category = ord(letter), unicodedata.category(letter)
        if code in (0, 0xFFFD) or (category in ("Cc", "Cf") and letter not in "\t\n\r"):
            continue
        if is_ideograph(code):
            cleaned += [" ", letter, " "]
        else:
            cleaned.append(" " if letter in " \t\n\r" or category == "Zs" else letter)
    words = []
    for word in "".join(cleaned).split():
        plain = [one for one in unicodedata.normalize("NFD", word.lower()) if unicodedata.category(one) != "Mn"]
        starts_new = True
        for letter in plain:
            if is_punctuation(letter):
                words.append(letter)
                starts_new = True
            elif starts_new:
                words.append(letter)
                starts_new = False
            else:
                words[-1] += letter
    return words


def word_pieces(word: str, vocabulary: dict[str, int]) -> list[str]:
    """WordpieceTokenizer: the longest piece that fits, again and again."""
    if len(word) > 100:
        return ["[UNK]"]
    pieces, start = [], 0
    while start < len(word):
        for end in range(len(word), start, -1):
            piece = ("##" if start else "") + word[start:end]
            if piece in vocabulary:
                pieces.append(piece)
                break
        else:
            return ["[UNK]"]
        start = end
    return pieces


def own_way(documents: list[list[str]], vocabulary: dict[str, int]) -> list[list[list[int]]]:
    """Token ids of documents as sentences, as google-research/bert's FullTokenizer gives them."""
    return [
        [
            [vocabulary[piece] for word in basic_words(sentence) for piece in word_pieces(word, vocabulary)]
            for sentence in document
        ]
        for document in documents
    ]


# --- What is timed ----------------------------------------------------------------------------------------------------


def timed(run: Callable[[], Any]) -> list[float]:
    """The seconds that it takes."""
    began = now()
    run()
    return [now() - began]


def own_pairs(documents: list[list[list[int]]]) -> None:
    """google-research/bert's pair builder over all documents."""
    for index in range(len(documents)):
        naive_pairs(documents, index, LENGTH - stage_one.SPECIAL_TOKENS, 0.1, 0.5, random.Random(index))


def masked_batches(pairs: stage_one.SentencePairs, collator: stage_one.RowKeyedMasking, count: int) -> None:
    """What one process of the data loader does."""
    for batch in range(count):
        collator([pairs[row % len(pairs)] for row in range(batch * BATCH, (batch + 1) * BATCH)])


def main() -> None:
    """One table of tokens a second."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--file", help="a corpus, its texts in the column text")
    parser.add_argument("--rounds", type=int, default=3, help="times that each way has its turn")
    parser.add_argument("--megabytes", type=float, default=10, help="of the made-up corpus, where there is no other")
    asked = parser.parse_args()
    real = Path(os.environ.get("REAL_DATA_DIR", ""), "corpus", "reuters21578.jsonl.gz")
    with tempfile.TemporaryDirectory() as folder:
        path = asked.file or (str(real) if real.is_file() else str(Path(folder, "corpus.txt")))
        if not Path(path).exists():
            write_corpus(Path(path), asked.megabytes, checkpoint_folder())
        table, facts = rates(path, asked.rounds)
    report(
        "preprocessing", {f"Preprocessing of {Path(path).name}, tokens a second": table}, rounds=asked.rounds, **facts
    )


def rates(path: str, rounds: int) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """A line a way."""
    tokenizer = open_tokenizer()
    fast, vocabulary = corpus_tokenizer(tokenizer), tokenizer.get_vocab()
    texts = list(islice(read_documents(CorpusSource(files=(path,))), 10 * SAMPLE))
    rows = [row for row in tokenize_documents(texts, fast) if row[0]]
    tokens = sum(len(ids) for ids, _ in rows)
    sample = own_way(texts[:SAMPLE], vocabulary)
    theirs = [[token for sentence in document for token in sentence] for document in sample]
    agree = np.mean([a == b for a, (b, _) in zip(theirs, tokenize_documents(texts[:SAMPLE], fast), strict=True)])
    few = sum(map(len, theirs))
    columns = dict(zip(TOKENS, map(list, zip(*rows, strict=True)), strict=True))
    settings = stage_one.Settings(max_length=LENGTH)
    pairs = stage_one.SentencePairs(Dataset.from_dict(columns, features=TOKENS), tokenizer, settings, key=0)
    collator, batches = stage_one.RowKeyedMasking(tokenizer), min(40, len(pairs) // BATCH)
    sample = [[sentence for sentence in document if sentence] for document in sample]
    ways: dict[str, Callable[[], list[float]]] = {
        "file to tokens by the wall clock, one process": lambda: [
            1 / measure_apart(path, 1, checkpoint_folder())["tokens/s"]
        ],
        "file to tokens by the wall clock, two processes": lambda: [
            1 / measure_apart(path, 2, checkpoint_folder())["tokens/s"]
        ],
        "tokenizing": partial(timed, partial(tokenize_documents, texts, fast)),
        "tokenizer alone": partial(
            timed,
            partial(
                fast.encode_batch_fast, [sentence for text in texts for sentence in text], add_special_tokens=False
            ),
        ),
        "BERT's own, tokenizing": partial(timed, partial(own_way, texts[:SAMPLE], vocabulary)),
        "pairs": partial(timed, partial(pairs.plan_epoch, 1)),
        "BERT's own, pairs": partial(timed, partial(own_pairs, [document for document in sample if document])),
        "masked batches": partial(timed, partial(masked_batches, pairs, collator, batches)),
    }
    counts = {
        "BERT's own, tokenizing": few,
        "BERT's own, pairs": few,
        "file to tokens by the wall clock, one process": 1,
    }
    counts |= {
        "file to tokens by the wall clock, two processes": 1,
        "masked batches": float(pairs.lengths.mean()) * BATCH * batches,
    }
    found = {name: counts.get(name, tokens) / median(times) for name, times in by_turns(ways, rounds).items()}
    own = 1 / (1 / found["BERT's own, tokenizing"] + 1 / found["BERT's own, pairs"])
    table = [{"way": name, "tokens a second": rate} for name, rate in found.items()]
    for workers in ("one process", "two processes"):
        ours = 1 / (1 / found[f"file to tokens by the wall clock, {workers}"] + 1 / found["pairs"])
        table.append({"way": f"file to pairs, {workers}", "tokens a second": ours})
        found[f"times BERT's own, {workers}"] = ours / own
    table.append({"way": "BERT's own, tokens to pairs", "tokens a second": own})
    elsewhere = 1 / sum(1 / rate for rate in ELSEWHERE.values())
    table.append({"way": "BERT's own, on another machine", "tokens a second": elsewhere})
    facts = {name: value for name, value in found.items() if name.startswith("times")}
    return table, facts | {"documents_that_agree": float(agree), "tokens": tokens}


if __name__ == "__main__":
    main()
