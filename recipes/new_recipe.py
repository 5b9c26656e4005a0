"""Make a recipe of your own from your own files: a folder that runs at once, to be read and then changed.

    python recipes/new_recipe.py mydomain --corpus news.csv --sentiment sentiment.csv --entities entities.jsonl
    python recipes/new_recipe.py mydomain --corpus news.txt --entities train.conll valid.conll test.conll
    make recipe NAME=mydomain CORPUS=news.csv SENTIMENT=sentiment.csv ENTITIES=entities.jsonl

It reads the files as the scripts will, and writes recipes/mydomain/: a README.md, pretraining.yaml, sentiment.yaml and
ner.yaml as far as there are labels, comparison.yaml, and data/. Of one labelled file train, validation and test are
drawn (80, 10 and 10 %; a document's rows, copies and near copies stay together); three files are taken in this order.
The corpus stays where it is. What was guessed (columns, labels and their order) is said, and stands in the files.
"""

import math
import re
import shutil
import sys
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import yaml

sys.path.insert(0, str(Path(__file__).parents[1]))  # runs from a clone with no install

from two_stage.checkpointing.handoff import Checkpoint, open_checkpoint
from two_stage.command_line.exits import OneLineParser, Refusal, run_script, say
from two_stage.command_line.recipe import comment, like_a_flag
from two_stage.data.corpus import FORMATS, CorpusSource, corpus_tokenizer, read_documents, tokenize_documents
from two_stage.data.corpus_report import MANY_LONE_SENTENCES
from two_stage.data.files import check_files, file_format, nearest_existing
from two_stage.data.labelled_texts import COLUMNS, label_name
from two_stage.data.prepared import SPLITS, keep_apart, row_labels, row_text, split_rows, write_files
from two_stage.data.tables import (
    LABELLED_FORMATS,
    LARGEST_SCORE,
    PlacedRow,
    Row,
    UsualColumns,
    broken_text,
    column_value,
    has_words,
    read_rows,
    text_value,
    told,
)
from two_stage.data.tagged_sentences import entity_list, read_sentence
from two_stage.results.report import markdown_cell

TEXT_COLUMNS = ("text", "sentence", "review", "body", "content", "abstract", "title", "headline")
LABEL_COLUMNS = ("label", "sentiment", "stars", "rating", "shade", "polarity", "class", "score")
TOKEN_COLUMNS, TAG_COLUMNS = ("tokens", "words"), ("ner_tags", "tags", "labels")
ENTITY_COLUMNS = ("entities", "spans", "label")
DOCUMENT_COLUMNS = ("document", "document_id", "doc_id", "doc")
SCALES = (
    ("very negative", "negative", "neutral", "positive", "very positive"),
    ("strongly pessimistic", "pessimistic", "mildly pessimistic", "neutral", "cautiously optimistic", "optimistic",
     "strongly optimistic"),
    ("very bad", "bad", "so-so", "good", "very good"),
    ("bearish", "neutral", "bullish"),
)  # fmt: skip
MOST_LABELS = 20  # more different numbers than these are scores
LENGTHS = (32, 64, 96, 128, 192, 256, 384, 512)  # word pieces a row
LOOKED_AT = 2000  # documents whose tokens are counted
LEAST_STEPS = 300  # of stage one, as long as that takes no step of fewer than 32 pairs
MIN_STEPS = 200  # of stage two, however few its rows
TOKENS_A_PAIR = 0.6  # of max_length: what a pair takes of a corpus, on newswire and on the quickstart's
THERE_ALREADY = "is there already, and nothing is written over; give another name, or move it"
Lines = list[tuple[str, Any, str]]  # a recipe's keys, values and comments

# --- What is in the files ---------------------------------------------------------------------------------------------


class Labelled(NamedTuple):
    """Labelled rows by split, in the scripts' own forms, and what a recipe must say of them."""

    splits: dict[str, list[Row]]
    lengths: list[int]  # word pieces of every training text
    labels: list[str]  # of texts: in their order; none: the labels are scores. Of entities: their types
    is_ordered: bool = True  # whether the order was told by the labels themselves

    @property
    def rows(self) -> int:
        """Training rows."""
        return len(self.splits["train"])


class Corpus(NamedTuple):
    """What stage one needs to know of its documents."""

    files: list[str]
    column: str
    documents: int
    tokens: int  # about
    lone: float  # share of the documents that are one sentence


def pick_column(row: PlacedRow, asked: str | None, known: tuple[str, ...], flag: str) -> str:
    """The column that was asked for, or the first of the usual names that a row has.

    Raises:
        Refusal: no such column.
    """
    if asked:
        column_value(row, asked, flag)
        return asked
    names = {str(name).lower(): name for name in row[1]}
    found = [names[name] for name in known if name in names]
    if not found:
        raise Refusal(
            f"{row[0]}: no column of a usual name ({', '.join(known)}); found {told(row[1])}; name it with --{flag}"
        )
    return found[0]


def read_corpus(files: list[str], asked: str | None, checkpoint: Checkpoint) -> Corpus:
    """Count a corpus, and look at the tokens and sentences of its first documents.

    Raises:
        Refusal: a file that cannot be read, or too few documents for pairs.
    """
    check_files(files, FORMATS)
    column = "text"
    if any(file_format(path) != "txt" for path in files):
        table = next(path for path in files if file_format(path) != "txt")
        first = next(read_rows(table), None)
        if first is None:
            raise Refusal(f"{table}: no row in it; write some, or leave the file out")
        column = pick_column(first, asked, TEXT_COLUMNS, "corpus_column")
    seen = list(islice(read_documents(CorpusSource(tuple(files), text_column=column)), LOOKED_AT))
    documents = len(seen) if len(seen) < LOOKED_AT else sum(map(count_documents, files))
    if documents < 4:
        raise Refusal(
            f"{', '.join(files)}: {documents} document(s); four at least are needed, to train on and to hold out (in a "
            ".txt a blank line ends a document)"
        )
    rows = tokenize_documents(seen, corpus_tokenizer(checkpoint.tokenizer))
    tokens = round(sum(len(ids) for ids, _ in rows) * documents / len(seen))
    return Corpus(files, column, documents, tokens, sum(len(sentences) < 2 for sentences in seen) / len(seen))


def count_documents(path: str) -> int:
    """How many documents a file has: rows of a table, or what blank lines part."""
    rows = read_rows(path)
    return len({row["document"] for _, row in rows}) if file_format(path) == "txt" else sum(1 for _ in rows)


def read_sentiment(
    files: list[str], text: str | None, label: str | None, seed: int, checkpoint: Checkpoint
) -> Labelled:
    """Texts and their labels.

    Raises:
        Refusal: a file or row that cannot be read, a row without text or label, or one label alone.
    """
    check_files(files, LABELLED_FORMATS)
    parts, first = [], dict[str, str]()  # label → the place of its first row
    for path in files:
        placed = list(read_rows(path))
        if not placed:
            raise Refusal(f"{path}: no row in it; write some, or leave the file out")
        columns = (
            pick_column(placed[0], text, TEXT_COLUMNS, "text_column"),
            pick_column(placed[0], label, LABEL_COLUMNS, "label_column"),
        )
        say(f"{path}: texts in column {columns[0]}, labels in column {columns[1]}")
        parts.append([labelled_row(row, *columns) for row in placed])
        for (place, _), row in zip(placed, parts[-1], strict=True):
            first.setdefault(row["label"], place)
    names = Counter(row["label"] for part in parts for row in part)
    if len(names) < 2:
        raise Refusal(f"{files[0]}: one label alone, {told(names)}; there must be two to tell apart")
    numbers = [as_number(name) for name in names]
    if len(names) > MOST_LABELS and None in numbers:
        raise Refusal(
            f"{files[0]}: {len(names)} different labels, such as {told(list(names)[:5])}; is it the right column? "
            "name another with --label_column"
        )
    if len(names) > MOST_LABELS:
        scored = [[{"text": row["text"], "score": as_number(row["label"])} for row in part] for part in parts]
        splits = split_parts(scored, seed, None)
        return Labelled(splits, token_counts(splits["train"], checkpoint), [])
    check_labels(names, first)
    labels, is_ordered = ordered_labels(list(names))
    splits = split_parts(parts, seed, "label")
    return Labelled(splits, token_counts(splits["train"], checkpoint), labels, is_ordered)


def labelled_row(row: PlacedRow, text: str, label: str) -> Row:
    """A row of a text and a label.

    Raises:
        Refusal: one of them is missing, or a label that is no word, no number of a float's size, or a column's name.
    """
    name = label_name(column_value(row, label, "label_column")).strip()
    if not name:
        raise Refusal(f"{row[0]}: column {label} is empty; label the row, or take it out")
    if broken_text(name) or like_a_flag(name) or abs(as_number(name) or 0.0) > LARGEST_SCORE:
        shown = name.encode(errors="replace").decode()[:40]
        raise Refusal(f"{row[0]}: label {shown} is no word that a recipe can hold; call it something else, or mend it")
    if name in COLUMNS:  # as run_sentiment.py would refuse it
        raise Refusal(f"{row[0]}: label {name} is a column of predictions.csv; call the label something else")
    return {"text": text_value(row, text, "text_column"), "label": name}


def as_number(name: str) -> float | None:
    """The number that a label is or begins with, as "4 stars" does; else None."""
    match = re.match(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?(?=\s|$)", name)
    return float(match[0]) if match else None


def check_labels(names: Counter[str], first: dict[str, str]) -> None:
    """Refuse two labels that must be meant as one: `positive` and `Positive`, `1` and `1.0`.

    Args:
        names: label → its rows.
        first: label → the place of its first row.
    """
    seen: dict[Any, str] = {}
    for name, _ in names.most_common():
        number = as_number(name) if " " not in name else None
        key = name.casefold() if number is None else number
        if key in seen:
            raise Refusal(
                f"{first[name]}: label {name!r}, and {seen[key]!r} in other rows; spaces and capitals count: write one "
                "of them everywhere"
            )
        seen[key] = name


def ordered_labels(names: list[str]) -> tuple[list[str], bool]:
    """Labels in their order, and whether it is known: numbers ascend, and usual scales are known; else as found."""
    numbers = {name: as_number(name) for name in names}
    if None not in numbers.values():
        return sorted(names, key=lambda name: numbers[name] or 0.0), True
    for scale in SCALES:
        if {name.lower() for name in names} <= set(scale):
            return sorted(names, key=lambda name: scale.index(name.lower())), True
    return names, False


def read_entities(
    files: list[str], asked: dict[str, str | None], tags: list[str] | None, seed: int, checkpoint: Checkpoint
) -> Labelled:
    """Sentences of tagged words, or texts with entities as character spans.

    Args:
        files: one, or train, validation and test.
        asked: which columns hold `tokens`, `ner_tags`, `text` and `entities`; None: those of usual names.
        tags: what numbered tags are called, in their order.
        seed: of splits that are drawn.
        checkpoint: whose tokenizer counts pieces.

    Raises:
        Refusal: a file or row that cannot be read, a row without tags, or no entity at all.
    """
    check_files(files, LABELLED_FORMATS)
    parts = [[entity_row(row, asked, tags) for row in read_rows(path)] for path in files]
    if empty := [path for path, part in zip(files, parts, strict=True) if not part]:
        raise Refusal(f"{empty[0]}: no row in it; write some, or leave the file out")
    splits = {name: documents_together(rows) for name, rows in split_parts(parts, seed, None).items()}
    types = {kind for rows in splits.values() for row in rows for kind in row_labels(row, None)}
    if unseen := types - {kind for row in splits["train"] for kind in row_labels(row, None)}:
        raise Refusal(
            f"{files[0]}: type {told(sorted(unseen))} is in too few rows to be in train too; tag more, or take it out"
        )
    if not types:
        raise Refusal(f"{files[0]}: no entity in any row; tag some to learn from")
    return Labelled(splits, token_counts(splits["train"], checkpoint), sorted(types))


def entity_row(row: PlacedRow, asked: dict[str, str | None], tags: list[str] | None) -> Row:
    """A row in the forms that run_ner.py reads by itself, checked as it will check it."""
    names = {str(name).lower(): name for name in row[1]}
    found: dict[str, Any] = {}
    for ours, known in (
        ("tokens", TOKEN_COLUMNS), ("ner_tags", TAG_COLUMNS), ("text", TEXT_COLUMNS),
        ("entities", ENTITY_COLUMNS), ("document", DOCUMENT_COLUMNS),
    ):  # fmt: skip
        usual = next((names[name] for name in known if name in names), None)
        # an asked column that is not there may be that of the sentiment file
        name = asked[ours] if asked.get(ours) in row[1] else usual
        if name is not None and row[1].get(name) is not None:
            found[ours] = row[1][name]
    if not isinstance(found.get("entities"), list):  # "label" may be anything
        found.pop("entities", None)
    pair = ("tokens", "ner_tags") if has_words(found, UsualColumns()) else ("text", "entities")
    if not found.keys() >= set(pair):
        raise Refusal(
            f"{row[0]}: no tokens and ner_tags, and no text and entities in it; found {told(row[1])}; name them with "
            "--tokens_column and --tags_column, or --text_column and --entities_column (CoNLL columns: a file .conll)"
        )
    kept = {name: found[name] for name in (*pair, "document") if name in found}
    sentence = read_sentence((row[0], kept), UsualColumns(), tags)
    if tags and "ner_tags" in kept:
        kept["ner_tags"] = sentence.tags
    if "entities" in kept:  # in one form, whatever tool wrote them
        spans = entity_list((row[0], kept), kept["text"], "entities")
        kept["entities"] = [{"start": start, "end": stop, "label": kind} for start, stop, kind in spans]
    return kept


def documents_together(rows: list[Row]) -> list[Row]:
    """Rows with those of a document in a row, in the order in which documents and rows come."""
    first: dict[str, int] = {}
    return sorted(rows, key=lambda row: first.setdefault(str(row.get("document")), len(first)))


def split_parts(parts: list[list[Row]], seed: int, column: str | None) -> dict[str, list[Row]]:
    """Train, validation and test: as given, without copies of held-out texts, or drawn from one file."""
    if len(parts) == len(SPLITS):
        splits = keep_apart(dict(zip(SPLITS, parts, strict=True)))
        if not all(splits.values()):
            raise Refusal("the three files hold the same texts: none is left to learn from; give others, or one file")
        return splits
    rows = parts[0]
    has_documents = any("document" in row for row in rows)
    group = (lambda row: str(row.get("document"))) if has_documents else None
    splits = split_rows(rows, seed, column, group)
    say(f"drawn: {', '.join(f'{len(splits[name]):,} to {name}' for name in SPLITS)} of {len(rows):,} rows, seed {seed}")
    return splits


def token_counts(rows: list[Row], checkpoint: Checkpoint) -> list[int]:
    """Word pieces of each text, with [CLS] and [SEP], ascending."""
    encoded = corpus_tokenizer(checkpoint.tokenizer).encode_batch(
        [row_text(row) for row in rows], add_special_tokens=False
    )
    return sorted(len(each.ids) + 2 for each in encoded)


# --- Recipes ----------------------------------------------------------------------------------------------------------


def row_length(lengths: list[int], most: int) -> tuple[int, str]:
    """A max_length that holds 99 of 100 texts, if the checkpoint has so many positions, and why."""
    wanted = lengths[math.ceil(0.99 * len(lengths)) - 1]
    length = next((length for length in LENGTHS if wanted <= length <= most), min(most, LENGTHS[-1]))
    longer = sum(count > length for count in lengths)
    return (
        length,
        f"the longest text has {lengths[-1]} word pieces, and {longer:,} of {len(lengths):,} have more than {length}",
    )


def epochs_for(rows: int, batch: int) -> tuple[int, str]:
    """Epochs that make 300 steps or more, 3 at least and 20 at most, and the arithmetic."""
    steps = math.ceil(rows / batch)
    epochs = min(20, max(3, math.ceil(300 / steps)))
    total = max(steps * epochs, MIN_STEPS)
    return epochs, f"{rows:,} / {batch} = {steps:,} steps an epoch, {total:,} in all" + " (min_steps)" * (
        total == MIN_STEPS
    )


def data_lines(stem: str, ending: str, folder: Path, outputs: str) -> Lines:
    """What both recipes of stage two begin with."""
    files = [(f"{split}_file", f"{folder}/data/{stem}_{split}.{ending}", "") for split in SPLITS]
    return [
        ("checkpoint", f"{outputs}/pretraining", "what stage one left"),
        *files,
        ("output_dir", f"{outputs}/{stem}", ""),
    ]


def training_lines(rows: int) -> Lines:
    """What both recipes of stage two end with."""
    epochs, why = epochs_for(rows, 16)
    return [
        ("per_device_train_batch_size", 16, ""),
        ("num_train_epochs", epochs, why),
        ("learning_rate", 2e-5, "of the encoder; a tiny one, or one from scratch, learns at 5e-4"),
        ("head_learning_rate", 5e-5, "the head starts from nothing"),
        ("min_steps", MIN_STEPS, "where a comparison takes a few of the rows, it goes over them more often"),
        ("save_strategy", "no", "take it out if the run is long enough to be cut off"),
        ("seed", 42, ""),
    ]


def pretraining_lines(
    corpus: Corpus, made: dict[str, Labelled], folder: Path, outputs: str, checkpoint: Checkpoint
) -> Lines:
    """Stage one."""
    length = min(128, checkpoint.config.max_position_embeddings)
    pairs = max(1, round(corpus.tokens / (TOKENS_A_PAIR * length)))
    epochs = 10 if corpus.tokens < 1_000_000 else 3 if corpus.tokens < 10_000_000 else 1
    times = next((times for times in (8, 4, 2) if pairs * epochs / (32 * times) >= LEAST_STEPS), 1)
    steps = math.ceil(pairs / (32 * times))
    fraction = round(min(0.1, max(0.005, 200 / corpus.documents)), 3)
    if corpus.documents * fraction < 2:
        fraction = round(2.1 / corpus.documents, 3)
    held_out = [f"{folder}/data/{stem}_test.{ENDINGS[stem]}" for stem in made]
    of_tables: Lines = [("text_column", corpus.column, "")] if corpus.column != "text" else []
    why = f"{corpus.lone:.0%} of the documents are one sentence: there is no next one to tell"
    of_sentences: Lines = [("no_next_sentence", True, why)] if corpus.lone > MANY_LONE_SENTENCES else []
    return [
        ("checkpoint", checkpoint.name, "recipes/README.md lists others"),
        ("train_file", corpus.files if len(corpus.files) > 1 else corpus.files[0], f"{corpus.documents:,} documents"),
        *of_tables,
        ("output_dir", f"{outputs}/pretraining", ""),
        ("validation_fraction", fraction, f"{round(corpus.documents * fraction):,} documents, whole ones"),
        ("held_out_file", held_out, "test texts of stage two: are they in the corpus? it is said if they are"),
        ("max_length", length, ""),
        *of_sentences,
        ("per_device_train_batch_size", 32, ""),
        ("gradient_accumulation_steps", times, f"{32 * times} pairs a step"),
        (
            "num_train_epochs",
            epochs,
            f"some {corpus.tokens:,} tokens = some {pairs:,} pairs = {steps:,} steps an epoch",
        ),
        ("learning_rate", 3e-5, "5e-5 learns more and forgets more; a model from scratch learns at 5e-4"),
        ("save_strategy", "epoch", ""),
        ("seed", 42, ""),
    ]


def sentiment_lines(made: Labelled, folder: Path, outputs: str, most: int) -> Lines:
    """Stage two, whole texts."""
    length, why = row_length(made.lengths, most)
    lines = data_lines("sentiment", "csv", folder, outputs)
    if made.labels:
        order = (
            "worst first" if made.is_ordered else "CHECK: in the order in which they were found; put the worst first"
        )
        lines += [("labels", made.labels, order), ("calibrate", True, "a temperature from the validation texts")]
    else:
        lines += [
            ("score_column", "score", ""),
            ("loss", "regression", "or --labels and --bins, to cut scores into shades"),
        ]
    lines.append(("max_length", length, why))
    if made.lengths[math.ceil(0.95 * len(made.lengths)) - 1] > length:
        lines.append(
            ("long_text", "windows", "more than one text in twenty is longer: read in parts, whose mean is the answer")
        )
    return lines + training_lines(made.rows)


def ner_lines(made: Labelled, folder: Path, outputs: str, most: int) -> Lines:
    """Stage two, entities."""
    length, why = row_length(made.lengths, most)
    return [
        *data_lines("ner", "jsonl", folder, outputs),
        ("calibrate", True, f"types: {', '.join(made.labels)}"),
        ("max_length", length, f"{why}: those are read in windows, and no word is lost"),
        *training_lines(made.rows),
    ]


def comparison_lines(task: str, made: Labelled, folder: Path, outputs: str, checkpoint: Checkpoint) -> Lines:
    """With and without stage one."""
    fractions = [10, 100] if made.rows >= 200 else [100]
    return [
        ("task", task, ""),
        ("checkpoint", checkpoint.name, ""),
        ("stage_one", f"{outputs}/pretraining", "what stage one left; run it first"),
        ("stage_two", f"{folder}/{task}.yaml", "the same for both"),
        ("output_dir", f"{outputs}/comparison", ""),
        ("arms", ["base", "stage_one"], ""),
        *([] if made.labels else [("score", "pearson", "of scores; or mean_squared_error")]),
        ("fractions", fractions, f"per cent of {made.rows:,} training rows"),
        (
            "seeds",
            [0, 1, 2],
            f"{2 * len(fractions) * 3} runs; the report says how many more seeds or test texts would tell",
        ),
    ]


ENDINGS = {"sentiment": "csv", "ner": "jsonl"}
HEADS = {
    "pretraining": "Stage one of {name}: the checkpoint goes on with your corpus.",
    "sentiment": "Stage two of {name}: labels of whole texts.",
    "ner": "Stage two of {name}: entities.",
    "comparison": "Did stage one of {name} pay off? The same stage two with and without it.",
}


def recipe_yaml(head: str, lines: Lines) -> str:
    """A recipe as text: what it is, then a key a line, each with its reason behind it, or above where it is long."""
    text = f"# {head}\n# Made by recipes/new_recipe.py, to be read and changed.\n"
    for key, value, reason in lines:
        why = comment(reason)
        if isinstance(value, float) and value < 1e-3:
            said = f"{value:.0e}".replace("e-0", "e-")  # 2e-5, as everyone writes it
        else:
            said = yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True)
            said = said.removesuffix("\n").removesuffix("\n...")
        line = f"{key}: {said}"
        if why and len(line) + len(why) > 110:
            text += f"# {why}\n"
            why = ""
        text += f"{line}{f'  # {why}' if why else ''}\n"
    return text


def readme_text(
    name: str, folder: Path, outputs: str, corpus: Corpus, made: dict[str, Labelled], checkpoint: str
) -> str:
    """What the folder is, the commands in their order, and what is to be filled in."""
    flags = {"pretraining": "run_pretraining.py", "sentiment": "run_sentiment.py", "ner": "run_ner.py"}
    stages = ["pretraining", *made]
    look = f"python run_pretraining.py --recipe {folder}/pretraining.yaml --check_only"
    run = "\n".join(f"python {flags[stage]} --recipe {folder}/{stage}.yaml" for stage in stages)
    counts = {stem: " / ".join(f"{len(rows):,}" for rows in each.splits.values()) for stem, each in made.items()}
    rows = "".join(
        f"| `data/{stem}_*.{ENDINGS[stem]}` | {counts[stem]} rows to train, validate and test; "
        f"{markdown_cell(', '.join(each.labels)) or 'scores'} |\n"
        for stem, each in made.items()
    )
    files = ", ".join(f"`{path}`" for path in corpus.files)
    return (
        f"# {name}\n\nFrom `{checkpoint}`. Look at the corpus, run the stages, then ask whether stage one paid "
        "off:\n\n"
        f"```bash\n{look}\n{run}\npython run_comparison.py --recipe {folder}/comparison.yaml\n```\n\n"
        "| file | what it is |\n|---|---|\n"
        f"| {files} | {corpus.documents:,} documents, some {corpus.tokens:,} tokens |\n"
        f"{rows}\nData source and licence: …\n\n"
        f"Figures measured: … (`python -m two_stage.results.report {outputs}/pretraining"
        f"{''.join(f' {outputs}/{stem}' for stem in made)}` prints them)\n"
    )


# --- Main -------------------------------------------------------------------------------------------------------------


def main(argv: list[str] | None = None) -> None:
    """Read all files, then write the folder."""
    parser = OneLineParser(description=__doc__)
    parser.add_argument("name", help="of the recipe, and of its folder")
    parser.add_argument("--corpus", nargs="+", required=True, help="documents of the domain, one file or more")
    parser.add_argument("--sentiment", nargs="+", help="labelled texts: one file, or train, validation and test")
    parser.add_argument("--entities", nargs="+", help="tagged sentences: one file, or train, validation and test")
    parser.add_argument("--checkpoint", default="bert-base-uncased", help="BERT to start from (%(default)s)")
    parser.add_argument("--corpus_column", help="of the corpus's documents, where it is none of the usual names")
    parser.add_argument("--text_column", help="of labelled texts, where it is none of the usual names")
    parser.add_argument("--label_column", help="of labels, where it is none of the usual names")
    for name, what in (("tokens", "words"), ("tags", "the words' tags"), ("entities", "character spans")):
        parser.add_argument(f"--{name}_column", help=f"of {what}, where it is none of the usual names")
    parser.add_argument("--labels", nargs="+", help="what numbered tags are called, in their order: O B-PER I-PER ...")
    parser.add_argument("--folder", type=Path, help="where to write it (recipes/NAME)")
    parser.add_argument("--seed", type=int, default=13, help="of splits that are drawn (%(default)s)")
    args = parser.parse_args(argv)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", args.name):
        raise Refusal(f"{args.name}: a name of letters, digits, - and _ is needed: it becomes a folder's")
    folder = args.folder or Path("recipes") / args.name
    if folder.exists():
        raise Refusal(f"{folder}: {THERE_ALREADY}")
    if not nearest_existing(folder).is_dir():
        raise Refusal(f"{folder}: a file is in the way; name another --folder")
    given = {"sentiment": args.sentiment, "ner": args.entities}
    if not any(given.values()):
        raise Refusal("--sentiment and --entities: give one at least; stage one alone needs no recipe but its command")
    for flag, files in (("sentiment", args.sentiment), ("entities", args.entities)):
        if files and len(files) not in (1, len(SPLITS)):
            raise Refusal(f"--{flag}: {len(files)} files; give one, or three: train, validation and test")
    checkpoint = open_checkpoint(args.checkpoint)
    made: dict[str, Labelled] = {}
    if args.sentiment:
        made["sentiment"] = read_sentiment(args.sentiment, args.text_column, args.label_column, args.seed, checkpoint)
    if args.entities:
        asked = {"tokens": args.tokens_column, "ner_tags": args.tags_column, "entities": args.entities_column}
        made["ner"] = read_entities(
            args.entities, asked | {"text": args.text_column}, args.labels, args.seed, checkpoint
        )
    corpus = read_corpus(args.corpus, args.corpus_column, checkpoint)
    claim(folder)
    try:
        write_recipe(args.name, folder, corpus, made, checkpoint)
    except BaseException:  # Ctrl-C too: half a folder would be "there already" to the next call
        shutil.rmtree(folder, ignore_errors=True)
        raise


def claim(folder: Path) -> None:
    """Make the folder, which is from then on this call's own, to fill and to remove.

    Raises:
        Refusal: another call has made it since this one looked, or it cannot be made.
    """
    try:
        folder.mkdir(parents=True)
    except FileExistsError as error:
        raise Refusal(f"{folder}: {THERE_ALREADY}") from error
    except OSError as error:
        raise Refusal(f"{folder}: cannot be made: {error.strerror}; name another --folder") from error


def write_recipe(name: str, folder: Path, corpus: Corpus, made: dict[str, Labelled], checkpoint: Checkpoint) -> None:
    """Write the folder, and say what to do next."""
    outputs, most = f"outputs/{name}", checkpoint.config.max_position_embeddings
    recipes = {"pretraining": pretraining_lines(corpus, made, folder, outputs, checkpoint)}
    if "sentiment" in made:
        recipes["sentiment"] = sentiment_lines(made["sentiment"], folder, outputs, most)
    if "ner" in made:
        recipes["ner"] = ner_lines(made["ner"], folder, outputs, most)
    task = next(iter(made))
    recipes["comparison"] = comparison_lines(task, made[task], folder, outputs, checkpoint)
    files = {
        f"{stem}_{split}.{ENDINGS[stem]}": rows for stem, each in made.items() for split, rows in each.splits.items()
    }
    write_files(folder / "data", files)
    for stage, lines in recipes.items():
        (folder / f"{stage}.yaml").write_text(recipe_yaml(HEADS[stage].format(name=name), lines), encoding="utf-8")
    readme = readme_text(name, folder, outputs, corpus, made, checkpoint.name)
    (folder / "README.md").write_text(readme, encoding="utf-8")
    if corpus.lone > MANY_LONE_SENTENCES:
        say(
            f"! {folder}/pretraining.yaml: {corpus.lone:.0%} of the documents are one sentence, so words are masked "
            "and no next sentences told; if they are longer, a .txt needs a sentence a line (docs/your_own_data.md)"
        )
    if "sentiment" in made and not made["sentiment"].is_ordered:
        say(f"! {folder}/sentiment.yaml: labels stand in the order in which they were found; put the worst first")
    say(f"{folder}: {', '.join(f'{stage}.yaml' for stage in recipes)} and README.md, which has the commands")


if __name__ == "__main__":
    run_script(main)
