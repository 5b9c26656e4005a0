"""The quickstart's data: what prepare_data.py writes, byte for byte, and fit to learn from."""

import csv
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from tests.conftest import REPOSITORY

QUICKSTART = REPOSITORY / "recipes" / "quickstart"
SPLITS = ("train", "validation", "test")
SHADES = [
    "strongly pessimistic",
    "pessimistic",
    "mildly pessimistic",
    "neutral",
    "cautiously optimistic",
    "optimistic",
    "strongly optimistic",
]


def sentiment_rows(split: str) -> list[tuple[str, str]]:
    """(text, label) of a split."""
    with open(QUICKSTART / "data" / f"sentiment_{split}.csv", encoding="utf-8", newline="") as file:
        return [(row["text"], row["label"]) for row in csv.DictReader(file)]


@pytest.mark.slow
def test_the_generator_writes_what_is_committed(tmp_path: Path) -> None:
    """Every committed file, and no other, the same on every run."""
    command = [sys.executable, str(QUICKSTART / "prepare_data.py"), "--output_dir", str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    for folder in ("data", "tiny-bert"):
        made = {path.name: path.read_bytes() for path in (tmp_path / folder).iterdir()}
        kept = {path.name: path.read_bytes() for path in (QUICKSTART / folder).iterdir()}
        assert made.keys() == kept.keys()
        assert [name for name in made if made[name] != kept[name]] == []


def test_nothing_leaks() -> None:
    """No text in two splits, none twice, none in the corpus."""
    corpus = set((QUICKSTART / "data" / "corpus.txt").read_text(encoding="utf-8").splitlines())
    texts = [text for split in SPLITS for text, _ in sentiment_rows(split)]
    sentences = [
        " ".join(json.loads(line)["tokens"])
        for split in SPLITS
        for line in (QUICKSTART / "data" / f"ner_{split}.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert len(set(texts)) == len(texts) == 1160
    assert len(set(sentences)) == len(sentences) == 700
    assert corpus.isdisjoint(texts)


def test_no_word_tells_a_shade() -> None:
    """All seven shades are there, the ends are rarer, and the best single word beats the commonest shade by little."""
    rows = sentiment_rows("train")
    counts = Counter(label for _, label in rows)
    assert set(counts) == set(SHADES)
    assert max(counts[SHADES[0]], counts[SHADES[-1]]) < min(counts[shade] for shade in SHADES[1:-1])
    commonest = counts.most_common(1)[0][1]
    words = Counter(word for text, _ in rows for word in set(text.lower().split()))
    best = 0
    for word in (word for word, count in words.items() if count >= 5):
        halves = [Counter(), Counter()]
        for text, label in rows:
            halves[word in text.lower().split()][label] += 1
        best = max(best, sum(half.most_common(1)[0][1] for half in halves))
    assert best - commonest < 0.06 * len(rows)


def test_the_tokenizer_knows_the_corpus() -> None:
    """No unknown token; the model's vocabulary is the tokenizer's."""
    tokenizer = AutoTokenizer.from_pretrained(QUICKSTART / "tiny-bert")
    lines = (QUICKSTART / "data" / "corpus.txt").read_text(encoding="utf-8").split("\n")[:3000]
    ids = tokenizer([line for line in lines if line], add_special_tokens=False)["input_ids"]
    assert not any(tokenizer.unk_token_id in row for row in ids)
    config = json.loads((QUICKSTART / "tiny-bert" / "config.json").read_text())
    assert config["vocab_size"] == len(tokenizer)
