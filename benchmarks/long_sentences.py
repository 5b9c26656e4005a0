"""Join a file's tagged sentences to long ones, and tell what a reader that cuts them off would lose.

python benchmarks/long_sentences.py --test_file test.conll --words 200 --max_length 64 --checkpoint outputs/ner \
        --written long.jsonl
python run_ner.py --checkpoint outputs/ner --test_file long.jsonl --max_length 64 --output_dir outputs/long
"""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from transformers import AutoTokenizer

from two_stage.data.tables import read_rows


def joined(path: str, words: int) -> list[tuple[list[str], list[str]]]:
    """The sentences of a file, one behind the other, cut anew into rows of at least so many words; the last is left."""
    rows: list[tuple[list[str], list[str]]] = []
    tokens: list[str] = []
    tags: list[str] = []
    for _, row in read_rows(path):
        tokens, tags = tokens + row["tokens"], tags + row["ner_tags"]
        if len(tokens) >= words:
            rows.append((tokens, tags))
            tokens, tags = [], []
    return rows


def main() -> None:
    """Write the long rows, and count."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--test_file", required=True)
    parser.add_argument("--checkpoint", required=True, help="whose tokenizer cuts the words")
    parser.add_argument("--words", type=int, default=200)
    parser.add_argument("--max_length", type=int, default=64)
    parser.add_argument("--written", required=True, help="where the long rows go, as JSON lines")
    flags = parser.parse_args()
    rows = joined(flags.test_file, flags.words)
    with open(flags.written, "w", encoding="utf-8") as file:
        for tokens, tags in rows:
            file.write(json.dumps({"tokens": tokens, "ner_tags": tags}, ensure_ascii=False) + "\n")
    tokenizer = AutoTokenizer.from_pretrained(flags.checkpoint, trust_remote_code=False)
    cut = tokenizer([row[0] for row in rows], is_split_into_words=True, truncation=True, max_length=flags.max_length)
    read = [max(word for word in cut.word_ids(i) if word is not None) + 1 for i in range(len(rows))]
    words = sum(len(tokens) for tokens, _ in rows)
    entities = [tag.startswith("B-") for _, tags in rows for tag in tags]
    kept = sum(tag.startswith("B-") for (_, tags), count in zip(rows, read, strict=True) for tag in tags[:count])
    print(f"{len(rows)} rows of {words / len(rows):.0f} words on average, {sum(entities)} entities")
    print(
        f"cut off at {flags.max_length} word pieces: {1 - sum(read) / words:.1%} of the words and "
        f"{1 - kept / sum(entities):.1%} of the entities are never read"
    )


if __name__ == "__main__":
    main()
