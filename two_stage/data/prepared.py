"""Rows of others' data → splits and files that the scripts read as they are: what every prepare_data.py shares.

Splits that are drawn or kept apart here share no text, not even one with a word or two changed, so that stage two does
not refuse them for it. Nothing is written over.
"""

import csv
import json
import random
from argparse import ArgumentParser
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from two_stage.command_line.exits import OneLineParser, Refusal, say
from two_stage.data.tables import Row, broken_text, told

SPLITS = ("train", "validation", "test")
HELD_OUT = 0.1  # the share of the texts that validation gets, and that test gets
FEWEST_HELD_OUT = 20  # rows: of fewer, one that is right is more than five points of accuracy

# --- Where data comes from, and where it goes -------------------------------------------------------------------------


def data_parser(description: str | None, folder: Path) -> ArgumentParser:
    """The flags that every prepare_data.py has.

    Args:
        description: the script's docstring, shown by --help.
        folder: the recipe's, in which data/ is written.
    """
    parser = OneLineParser(description=description)
    parser.add_argument("--source", choices=("hub", "files"), required=True, help="the Hub, or the authors' own files")
    parser.add_argument("--files", type=Path, help="the folder that holds the authors' files, at any depth")
    parser.add_argument("--output_dir", type=Path, default=folder / "data", help="(%(default)s)")
    parser.add_argument("--seed", type=int, default=13, help="of the splits that are drawn here (%(default)s)")
    return parser


def find_file(folder: Path | None, *names: str) -> Path | None:
    """The one file in a folder, at any depth, that has one of these names; None where there is none.

    Raises:
        Refusal: no folder was given, it is not there, or several such files lie in it.
    """
    if folder is None:
        raise Refusal("--source files: needs --files, the folder that holds the authors' files")
    if not folder.is_dir():
        raise Refusal(f"--files {folder}: no such folder")
    found = [path for path in sorted(folder.rglob("*")) if path.name in names and path.is_file()]
    if len(found) > 1:
        raise Refusal(f"{found[0]} and {found[1]}: which of them? leave one in the folder of --files")
    return found[0] if found else None


def find_splits(folder: Path | None, names: Sequence[Sequence[str]]) -> dict[str, Path]:
    """The files of train, validation and test; none where none of the three is there.

    Args:
        folder: that holds them, at any depth.
        names: what the file of each split may be called, in the order of SPLITS.

    Raises:
        Refusal: one or two of the three are there, or see `find_file`.
    """
    known = dict(zip(SPLITS, names, strict=True))
    found = {split: path for split in SPLITS if (path := find_file(folder, *known[split]))}
    if found and (missing := [" or ".join(known[split]) for split in SPLITS if split not in found]):
        there = ", ".join(path.name for path in found.values())
        raise Refusal(f"--files {folder}: {there} without {', '.join(missing)}; the three files go together")
    return found


def hub_file(repository: str, name: str, revision: str | None = None) -> str:
    """A file of a data set of the Hub, fetched once.

    Raises:
        Refusal: no such file, or no network to fetch it by.
    """
    from huggingface_hub import hf_hub_download

    try:
        return hf_hub_download(repository, name, repo_type="dataset", revision=revision)
    except Exception as error:  # of a dozen kinds, and all are about what was asked for
        what = " ".join(str(error).split())[:200]
        raise Refusal(f"data set {repository}: {name}: {what}; without a network, take --source files") from error


def decoded(path: Path) -> str:
    """The text of a file that is UTF-8 or, as older corpora are, latin-1.

    Text in latin-1 with any letter beyond ASCII is hardly ever valid UTF-8, so the bytes themselves tell.
    """
    content = path.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def write_files(folder: Path, files: Mapping[str, Iterable[Row]]) -> None:
    """Write tables, .csv or .jsonl by their names, or none of them.

    Raises:
        Refusal: one of them is there already, the folder cannot be made, or a row that no file can hold.
    """
    for name in files:
        if (folder / name).exists():
            raise Refusal(f"{folder / name}: is there already, and nothing is written over; move it, or --output_dir")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Refusal(f"{folder}: cannot be made: {error.strerror}; name another folder") from error
    partial = {name: folder / f".{name}.unfinished" for name in files}
    try:
        counts = {name: _write_table(partial[name], name, rows) for name, rows in files.items()}
        for name, path in partial.items():
            path.rename(folder / name)
    finally:
        for path in partial.values():
            path.unlink(missing_ok=True)
    for name, count in counts.items():
        say(f"{folder / name}: {count:,} rows")


def _write_table(path: Path, name: str, rows: Iterable[Row]) -> int:
    """Write rows as JSON objects, or to a .csv under a header of the first one's columns; returns how many.

    Raises:
        Refusal: half of a character in a row.
    """
    count, is_table = 0, name.endswith(".csv")
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        quoting = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL)
        for count, row in enumerate(rows, start=1):
            line = json.dumps(row, ensure_ascii=False, default=str)  # a date, say
            if broken_text(line):
                raise Refusal(
                    f"{name} row {count}: holds half of a character (a lone surrogate); mend it at its source"
                )
            if is_table and count == 1:
                writer.writerow(row)
            if is_table:
                # before 3.13 a lone carriage return is not quoted by itself, and would end the row
                (quoting if "\\r" in line else writer).writerow(row.values())
            else:
                file.write(line + "\n")
    return count


class NamedFile(NamedTuple):
    """A file that a recipe names, and where."""

    key: str
    name: str
    key_line: int  # where its key stands, which may have several
    line: int


def named_files(recipe: Path) -> Iterator[NamedFile]:
    """The files that a recipe reads, in its order, its lines counted from 1; none of what is no recipe."""
    try:
        mapping = yaml.compose(recipe.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
    except (yaml.YAMLError, UnicodeDecodeError):  # the script that is given it says what is wrong with it
        return
    for key, value in mapping.value if isinstance(mapping, yaml.MappingNode) else ():
        if str(key.value).endswith("_file"):
            for each in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                name = Path(str(each.value)).name
                yield NamedFile(key.value, name, key.start_mark.line + 1, each.start_mark.line + 1)


def tell_missing(folder: Path, data: Path) -> None:
    """Say what the recipes of a folder read that was not made, and which lines to take out for it.

    Of what a recipe reads, only the texts that stage one looks for in its corpus can be done without.

    Args:
        folder: of the recipes.
        data: where their files are written.
    """
    for recipe in sorted(folder.glob("*.yaml")):
        files = list(named_files(recipe))
        missing = [file for file in files if not (data / file.name).exists()]
        if needed := [file.name for file in missing if file.key != "held_out_file"]:
            say(f"CHECK: {recipe} reads {', '.join(needed)}, not in {data}: bring it, or pass this recipe over")
        held_out = [file for file in files if file.key == "held_out_file"]
        if gone := [file for file in held_out if file in missing]:
            lines = [file.line for file in gone]
            if gone == held_out:  # the key goes too: without a value it is refused
                lines = list(range(gone[0].key_line, gone[-1].line + 1))
            which = f"line{'s' * (len(lines) > 1)} {', '.join(map(str, lines))}"
            names = ", ".join(file.name for file in gone)
            say(
                f"CHECK: {recipe}: take out {which}: {names}, not in {data}: stage one refuses a file that is not there"
            )


# --- Splits -----------------------------------------------------------------------------------------------------------


def row_text(row: Row) -> str:
    """What a row says, which is written here and so has a text or tokens, and never both."""
    return str(row["text"]) if "text" in row else " ".join(row["tokens"])


def draw_splits(
    texts: list[str], seed: int, groups: list[Hashable] | None = None, strata: list[Any] | None = None
) -> dict[str, list[int]]:
    """Draw train, validation and test: 80, 10 and 10 % of the groups, evenly from each stratum.

    Args:
        texts: one a row.
        seed: of the draw; one seed gives one result.
        groups: what must stay in one split, such as a document's rows; None makes each row its own. Equal texts stay
            together anyway, and so do groups that texts with a word or two changed bind, which then go to train.
        strata: what shall be alike in all splits, such as labels; a group goes by its first row's.

    Returns:
        name → the numbers of its rows, ascending; every row is in one split.

    Raises:
        Refusal: fewer than three groups, or texts so alike that no validation or test rows are left.
    """
    group = _bound_groups(texts, groups)
    members: dict[int, list[int]] = {}
    for i, number in enumerate(group):
        members.setdefault(number, []).append(i)
    if len(members) < len(SPLITS):
        raise Refusal(f"{len(members)} different text(s) or document(s): three at least are needed for three splits")
    order = list(members)
    random.Random(seed).shuffle(order)
    if strata is not None:
        order.sort(key=lambda number: str(strata[members[number][0]]))  # stable: shuffled within a stratum
    held_out = max(1, round(HELD_OUT * len(order)))
    split = dict.fromkeys(order, 0)
    for i in range(held_out):  # at even distances, so that each stratum gives its share
        split[order[int((i + 0.25) * len(order) / held_out)]] = 1
        split[order[int((i + 0.75) * len(order) / held_out)]] = 2
    _join_near_copies(texts, group, split)
    drawn = {name: [i for i, number in enumerate(group) if split[number] == k] for k, name in enumerate(SPLITS)}
    if empty := [name for name in SPLITS if not drawn[name]]:
        raise Refusal(f"the texts are so alike that none is left for {empty[0]}; bring a file of your own for it")
    return drawn


def _bound_groups(texts: list[str], groups: list[Hashable] | None) -> list[int]:
    """For each row the number of the first row that it must stay with: of its group, or of the same text."""
    from two_stage.data.duplicates import normalised

    first = list(range(len(texts)))

    def root(i: int) -> int:
        while first[i] != i:
            first[i] = first[first[i]]
            i = first[i]
        return i

    seen: dict[tuple[str, Hashable], int] = {}
    for i, text in enumerate(texts):
        for key in [("text", normalised(text)), *([("group", groups[i])] if groups is not None else [])]:
            a, b = root(seen.setdefault(key, i)), root(i)
            first[max(a, b)] = min(a, b)
    return [root(i) for i in range(len(texts))]


def _join_near_copies(texts: list[str], group: list[int], split: dict[int, int]) -> None:
    """Move groups to the earlier split that has a near copy of one of their texts, until no split has one."""
    from two_stage.data.duplicates import twins_across

    while True:
        rows = {name: [i for i, number in enumerate(group) if split[number] == k] for k, name in enumerate(SPLITS)}
        twins = twins_across({name: [texts[i] for i in rows[name]] for name in SPLITS})
        if not twins:
            return
        for twin in twins:
            number = group[rows[twin.split][twin.index]]
            split[number] = min(split[number], SPLITS.index(twin.other_split))


def keep_apart(splits: dict[str, list[Row]]) -> dict[str, list[Row]]:
    """Leave out of train, and then of validation, the texts that a later split has too; the test split stays whole.

    Published splits are so made comparable and honest at once. What is left out is told.
    """
    if not splits:
        return {}
    from two_stage.data.duplicates import twins_across

    backwards = [name for name in reversed(SPLITS) if name in splits]
    twins = twins_across({name: [row_text(row) for row in splits[name]] for name in backwards})
    gone = {(twin.split, twin.index) for twin in twins}
    for name in backwards[1:]:
        exact = sum(twin.split == name and twin.is_exact for twin in twins)
        near = sum(twin.split == name and not twin.is_exact for twin in twins)
        if exact + near:
            say(f"{name}: left out {exact:,} exact and {near:,} near copies of texts that are held out")
    return {name: [row for i, row in enumerate(rows) if (name, i) not in gone] for name, rows in splits.items()}


def distinct_rows(rows: list[Row], column: str) -> list[Row]:
    """Each text once, and none that has two labels; what is left out is told.

    Args:
        rows: with a text each.
        column: of the label.
    """
    from two_stage.data.duplicates import normalised

    keys = [normalised(row_text(row)) for row in rows]
    labels: dict[str, set[Any]] = {}
    for key, row in zip(keys, rows, strict=True):
        labels.setdefault(key, set()).add(row[column])
    firsts = dict(zip(reversed(keys), reversed(rows), strict=True))
    kept = [firsts[key] for key in dict.fromkeys(keys) if len(labels[key]) == 1]
    if len(kept) < len(rows):
        odd = sum(len(labels[key]) > 1 for key in keys)
        say(
            f"left out {len(rows) - len(kept) - odd:,} copies, and {odd:,} rows whose text stands there with two labels"
        )
    return kept


def split_rows(
    rows: list[Row],
    seed: int,
    column: str | None = None,
    group: Callable[[Row], Hashable] | None = None,
    stem: str = "",
) -> dict[str, list[Row]]:
    """Rows by split, as `draw_splits` draws them; of what it could draw but thinly it is told.

    Args:
        rows: with a text or tokens each.
        seed: of the draw.
        column: of what shall be alike in all splits.
        group: what must stay in one split; None makes each row its own.
        stem: of the files' names, see `tell_thin`.
    """
    drawn = draw_splits(
        [row_text(row) for row in rows],
        seed,
        [group(row) for row in rows] if group else None,
        [row[column] for row in rows] if column else None,
    )
    splits = {name: [rows[i] for i in numbers] for name, numbers in drawn.items()}
    tell_thin(splits, column, stem)
    return splits


def tell_thin(splits: Mapping[str, list[Row]], column: str | None, stem: str = "") -> None:
    """Say of drawn splits, a line each, which have too few rows to score on, and which lack a label.

    Args:
        splits: rows by the names of SPLITS.
        column: of the label; None looks at the types of entities.
        stem: of the files' names, where there are several tasks.
    """
    called = {name: f"{stem}_{name}" if stem else name for name in SPLITS}
    for name in SPLITS[1:]:
        if (count := len(splits[name])) < FEWEST_HELD_OUT:
            say(f"CHECK: {called[name]} has {count} rows, and a score on fewer than {FEWEST_HELD_OUT} says little")
    seen = {name: {label for row in rows for label in row_labels(row, column)} for name, rows in splits.items()}
    every = {label for labels in seen.values() for label in labels}
    for name in SPLITS:
        if lacking := sorted(every - seen[name]):
            more = f" and {len(lacking) - 5:,} more" if len(lacking) > 5 else ""
            what = "learnt" if name == "train" else "scored"
            say(f"CHECK: {called[name]} has no row of {told(lacking[:5])}{more}: not to be {what} there")


def row_labels(row: Row, column: str | None) -> set[str]:
    """The label of a row, or the types of its entities; a score is none."""
    if column is not None:
        return set() if isinstance(row[column], float) else {str(row[column])}
    if "ner_tags" in row:
        return {str(tag)[2:] for tag in row["ner_tags"]} - {""}
    return {str(each["label"] if isinstance(each, dict) else each[2]) for each in row.get("entities", ())}


# --- Entities ---------------------------------------------------------------------------------------------------------


def entities_apart(text: str, entities: list[Row]) -> list[Row]:
    """Of entities that share a word, the longest; in the text's order.

    Args:
        text: that the offsets count in, in characters.
        entities: {"start", "end", "label"} each.

    Returns:
        Those that run_ner.py can read together: a word has one tag.
    """
    from two_stage.data.tagged_sentences import WORDS

    spans = [span for _, span in WORDS.pre_tokenize_str(text)]
    taken: set[int] = set()
    kept = []
    for entity in sorted(entities, key=lambda entity: (entity["start"] - entity["end"], entity["start"])):
        words = {i for i, (start, stop) in enumerate(spans) if start < entity["end"] and stop > entity["start"]}
        if words and not words & taken:
            taken |= words
            kept.append(entity)
    return sorted(kept, key=lambda entity: entity["start"])
