r"""Get the data of the reviews recipe into the forms that the scripts read.

    python recipes/reviews/prepare_data.py --source hub
    python recipes/reviews/prepare_data.py --source files --files ~/downloads

Yelp reviews of one to five stars (Zhang et al. 2015). From files: train.csv and test.csv of yelp_review_full_csv, which
have no header: a number of stars and a text, in whose text \n stands for a line break. Of the training reviews
--train_rows are drawn to learn from, a tenth as many to validate on, and --corpus_rows others are stage one's corpus,
stars left out; of the test reviews --test_rows are drawn. 0 takes all (of the corpus: all others). Where that leaves
too few others, the reviews that are learnt from stand in the corpus too, which is told.
"""

import csv
import math
import random
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # runs from a clone with no install

from two_stage.command_line.exits import Refusal, run_script, say
from two_stage.data.data_sets import dataset_rows
from two_stage.data.files import readable
from two_stage.data.prepared import data_parser, find_file, keep_apart, tell_thin, write_files
from two_stage.data.tables import PlacedRow, Row, text_value

STARS = ("1 star", "2 stars", "3 stars", "4 stars", "5 stars")
FEWEST_DOCUMENTS = 500  # of a corpus: fewer make but a handful of stage one's steps


def yelp_rows(path: Path) -> Iterator[Row]:
    r"""The rows of one of the authors' files.

    Raises:
        Refusal: a row that is not a number of stars from 1 to 5 and a text.
    """
    with readable(str(path)), open(path, encoding="utf-8", newline="") as file:
        try:
            for number, cells in enumerate(csv.reader(file, strict=True), start=1):
                if len(cells) != 2 or cells[0] not in ("1", "2", "3", "4", "5") or not cells[1].strip():
                    raise Refusal(f'{path} row {number}: is not "stars","text" with 1 to 5 stars; is it Yelp\'s?')
                yield {"text": cells[1].replace("\\n", "\n").strip(), "label": STARS[int(cells[0]) - 1]}
        except csv.Error as error:
            raise Refusal(f"{path}: {error}; is a quote left open?") from error


def hub_rows(rows: Iterable[PlacedRow]) -> Iterator[Row]:
    """The same rows of the Hub, whose names are `1 star`, `2 star`, `3 stars` and so on."""
    for row in rows:
        stars = str(row[1].get("label"))[:1]
        if stars not in ("1", "2", "3", "4", "5"):
            raise Refusal(f"{row[0]}: label {row[1].get('label')!r} is no number of stars")
        text = text_value(row, "text", "source")
        yield {"text": text.replace("\\n", "\n").strip(), "label": STARS[int(stars) - 1]}


def review_files(
    train: list[Row], test: list[Row], train_rows: int, corpus_rows: int, test_rows: int, seed: int
) -> dict[str, list[Row]]:
    """Draw what is learnt from, validated on, tested on and pretrained on."""
    rng = random.Random(seed)
    rng.shuffle(train)
    rng.shuffle(test)
    count = min(train_rows or len(train), len(train) * 10 // 11)
    held_out = max(1, count // 10)
    splits = {"train": train[:count], "validation": train[count : count + held_out], "test": test[: test_rows or None]}
    if not all(splits.values()):
        raise Refusal(f"{len(train)} reviews to train and {len(test)} to test: too few to draw from")
    splits = keep_apart(splits)
    tell_thin(splits, "label", "sentiment")
    files = {f"sentiment_{split}.csv": rows for split, rows in splits.items()}
    return files | {"corpus.jsonl": corpus_documents(train[count + held_out :], splits["train"], corpus_rows)}


def corpus_documents(others: list[Row], learnt_from: list[Row], count: int) -> list[Row]:
    """Reviews without stars: of those that stage two does not see, and where they are too few those it learns from.

    Args:
        others: reviews that are in no split.
        learnt_from: those of train.
        count: how many are asked for; 0 takes all.
    """
    if len(others) < min(count or FEWEST_DOCUMENTS, FEWEST_DOCUMENTS):
        say(
            f"CHECK: corpus.jsonl: {len(others):,} review(s) stand in no split, so those learnt from are in it too, "
            "stars left out; for others alone, lower --train_rows"
        )
        others = others + learnt_from
    return [{"text": row["text"]} for row in others[: count or None]]


def main(argv: list[str] | None = None) -> None:
    """Write all files."""
    parser = data_parser(__doc__, Path(__file__).parent)
    parser.add_argument("--train_rows", type=int, default=10_000, help="reviews to learn from (%(default)s)")
    parser.add_argument("--corpus_rows", type=int, default=100_000, help="reviews for stage one (%(default)s)")
    parser.add_argument("--test_rows", type=int, default=5_000, help="reviews to test on (%(default)s)")
    args = parser.parse_args(argv)
    from two_stage.command_line.recipe import check_range  # takes seconds to import, and --help must not wait for it

    check_range(args, 0, math.inf, "train_rows", "corpus_rows", "test_rows")
    if args.source == "hub":
        train, test = (list(hub_rows(dataset_rows("Yelp/yelp_review_full", None, None, s))) for s in ("train", "test"))
    else:
        paths = [find_file(args.files, name) for name in ("train.csv", "test.csv")]
        if None in paths:
            raise Refusal(f"--files {args.files}: holds no train.csv and test.csv of yelp_review_full_csv")
        train, test = (list(yelp_rows(path)) for path in paths if path)
    files = review_files(train, test, args.train_rows, args.corpus_rows, args.test_rows, args.seed)
    write_files(args.output_dir, files)


if __name__ == "__main__":
    run_script(main)
