"""Strict F1 of a folder's entities as the stock pipeline finds them, by each way to make words of word pieces.

python benchmarks/pipeline_entities.py --test_file test.conll outputs/ner …
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from transformers import pipeline

from two_stage.data.tables import read_rows

Span = tuple[int, int, str]


def gold_spans(words: list[str], tags: list[str]) -> tuple[str, set[Span]]:
    """The words as one text, and the entities in it by their characters."""
    spans: list[Span] = []
    start = 0
    for word, tag in zip(words, tags, strict=True):
        if tag.startswith("B-"):
            spans.append((start, start + len(word), tag[2:]))
        elif tag.startswith("I-"):
            spans[-1] = (spans[-1][0], start + len(word), tag[2:])
        start += len(word) + 1
    return " ".join(words), set(spans)


def main() -> None:
    """Score every folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--test_file", required=True, help="tagged sentences, IOB2")
    parser.add_argument("folders", nargs="+")
    flags = parser.parse_args()
    sentences = [gold_spans(row["tokens"], row["ner_tags"]) for _, row in read_rows(flags.test_file)]
    for folder in flags.folders:
        for strategy in ("first", "simple"):
            find = pipeline("token-classification", model=folder, aggregation_strategy=strategy, device="cpu")
            right = found = 0
            for text, gold in sentences:
                spans = {(entity["start"], entity["end"], entity["entity_group"]) for entity in find(text)}
                right, found = right + len(spans & gold), found + len(spans)
            print(f"{folder}  {strategy:<7} F1 {2 * right / (found + sum(len(gold) for _, gold in sentences)):.3f}")


if __name__ == "__main__":
    main()
