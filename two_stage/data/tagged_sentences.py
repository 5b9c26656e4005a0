"""Tagged files → sentences of words and their entities, whatever the files write them as.

A row is a list of words with a tag each (names of any scheme, or numbers and --labels), or a text with its entities as
character spans, or words or a text alone, to be predicted. All become words, their places in a text, and IOB2 tags.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import numpy as np
from tokenizers import Regex, pre_tokenizers

from two_stage.checkpointing.handoff import Checkpoint
from two_stage.command_line.exits import Refusal, say
from two_stage.data.duplicates import check_leakage, conflicting_rows
from two_stage.data.files import file_format
from two_stage.data.sources import SampleFlags, Source, SourceFlags, split_sources, training_sample
from two_stage.data.tables import TAG, PlacedRow, TagColumns, broken_text, has_words, text_value, told, word_list
from two_stage.data.tag_schemes import detect_scheme, split_tag, tag_names, to_iob2

ENTITY_MODELS = ("BertForTokenClassification",)
LONG_SENTENCE = 1000  # words; in a file of columns, a sign that blank lines are missing
NUMBER = "\0number"  # where a row that is answered has its document's; no column of a file is called so


class TagFlags(SourceFlags, SampleFlags, TagColumns, Protocol):
    """The flags that say what is read; the script's settings have them."""

    labels: list[str] | None
    document_column: str
    allow_leakage: bool


# --- One row → words and tags -----------------------------------------------------------------------------------------


class Sentence(NamedTuple):
    """One row: words, where they stand in its text, and their tags as they were read."""

    words: list[str]
    text: str
    spans: np.ndarray  # first character of each word and the one behind its last: int (words, 2)
    tags: list[str] | None
    widened: int = 0  # entities that began or ended within a word


# What BERT itself takes for words: cut at white space, with punctuation and Chinese characters apart
CHINESE = "[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002fa1f]"
WORDS = pre_tokenizers.Sequence([pre_tokenizers.BertPreTokenizer(), pre_tokenizers.Split(Regex(CHINESE), "isolated")])


def read_sentence(row: PlacedRow, settings: TagColumns, names: list[str] | None) -> Sentence:
    """The words and tags of a row, be it of words or of text.

    Args:
        row: with its place.
        settings: names of the columns.
        names: of numbered tags, in their order.

    Raises:
        Refusal: neither words nor a text in it, or what `tag_list` and `span_tags` refuse.
    """
    place, values = row
    if has_words(values, settings):
        words = word_list(row, settings.tokens_column)
        tags = tag_list(row, settings.tags_column, names) if values.get(settings.tags_column) is not None else None
        if tags is not None and len(tags) != len(words):
            raise Refusal(f"{place}: {len(words)} tokens but {len(tags)} tags; give every token its tag")
        stops = np.cumsum([len(word) + 1 for word in words]) - 1
        return Sentence(words, " ".join(words), np.stack([stops - list(map(len, words)), stops], axis=1), tags)
    if settings.text_column not in values:
        raise Refusal(
            f"{place}: no column {settings.tokens_column} (--tokens_column) and no column {settings.text_column} "
            f"(--text_column); found {told(values)}{ending_hint(place)}"
        )
    text = text_value(row, settings.text_column, "text_column")
    cut = WORDS.pre_tokenize_str(text)
    spans = np.array([span for _, span in cut])
    words, widened = [text[start:stop] for start, stop in spans], 0
    tags = None
    if values.get(settings.entities_column) is not None:
        tags, widened = span_tags(row, text, spans, settings.entities_column)
    return Sentence(words, text, spans, tags, widened)


def ending_hint(place: str) -> str:
    """For a refusal: columns of words and tags often go by an ending that says something else."""
    is_other = file_format(place.rpartition(" row ")[0]) in ("txt", "csv", "tsv")
    return "; name a file of CoNLL columns .conll" if is_other else ""


def tag_list(row: PlacedRow, column: str, names: list[str] | None) -> list[str]:
    """A column's list of tags; numbers, or texts of them as CoNLL has, are named.

    Raises:
        Refusal: no list, tags of no scheme, or numbers without a name.
    """
    place, values = row[0], row[1][column]
    if not isinstance(values, list):
        raise Refusal(f'{place}: column {column} must hold a list of tags such as ["O", "B-ORG"]')
    if any(isinstance(value, str) and broken_text(value) for value in values):
        raise Refusal(f"{place}: column {column} holds half of a character (a lone surrogate); mend the tag")
    # of many digits none is a label's, and of thousands int makes no number
    is_digits = [isinstance(value, str) and value.isdecimal() and len(value) < 10 for value in values]
    numbered = [type(value) is int or digits for value, digits in zip(values, is_digits, strict=True)]
    if any(numbered) and not all(numbered):
        raise Refusal(f"{place}: tags {values[:20]} are numbers and names; write them all as one or the other")
    if any(numbered):
        if not names:
            raise Refusal(f"{place}: tags are numbers; name them in their order, --labels O B-PER I-PER ...")
        numbers = list(map(int, values))
        if not 0 <= min(numbers) <= max(numbers) < len(names):
            raise Refusal(f"{place}: tags {values[:20]} are not all numbers from 0 to {len(names) - 1} (--labels)")
        values = [names[number] for number in numbers]
    elif names and (other := {value for value in values if isinstance(value, str)}.difference(names)):
        raise Refusal(f"{place}: tag {min(other)[:60]!r} is none of --labels, which names numbered tags; leave it out")
    for value in values:
        try:
            split_tag(value if isinstance(value, str) else "")
        except ValueError:
            hint = "mend --labels" if any(numbered) else "is it the right --tags_column?"
            shown = repr(value)[:60]
            raise Refusal(f"{place}: tag {shown} is none such as O, B-ORG, I-ORG, E-ORG, S-ORG; {hint}") from None
    return values


def span_tags(row: PlacedRow, text: str, spans: np.ndarray, column: str) -> tuple[list[str], int]:
    """Entities as character spans → the words' IOB2 tags.

    An entity that begins or ends within a word is widened to the whole word: words are what is predicted.

    Args:
        row: with its place.
        text: the row's.
        spans: where its words stand: int (words, 2).
        column: where the row has its entities, `{"start", "end", "label"}` or `[start, end, label]` each.

    Returns:
        A tag a word, and how many entities were widened.

    Raises:
        Refusal: no such list, offsets outside of the text, no label, or two entities that share a word.
    """
    tags, widened = ["O"] * len(spans), 0
    for start, stop, label in entity_list(row, text, column):
        first = int(np.searchsorted(spans[:, 1], start, side="right"))
        last = int(np.searchsorted(spans[:, 0], stop, side="left"))
        shown = text[start:stop]
        if first >= last:
            raise Refusal(f"{row[0]}: entity {start} to {stop} holds no word; take it out, or mend its offsets")
        if taken := [i for i in range(first, last) if tags[i] != "O"]:
            word = text[slice(*spans[taken[0]])]
            raise Refusal(f"{row[0]}: two entities share the word {word!r} ({shown!r} is one); keep one of them")
        widened += bool(spans[first, 0] < start or spans[last - 1, 1] > stop)
        tags[first:last] = [f"B-{label}"] + [f"I-{label}"] * (last - first - 1)
    return tags, widened


def entity_list(row: PlacedRow, text: str, column: str) -> list[tuple[int, int, str]]:
    """A row's entities as (start, end, label), checked against its text."""
    entities = row[1][column]
    asked = f'column {column} must hold a list such as [{{"start": 0, "end": 4, "label": "ORG"}}]'
    if not isinstance(entities, list):
        raise Refusal(f"{row[0]}: {asked}")
    found = []
    for entity in entities:
        if isinstance(entity, dict):
            label = entity.get("label", entity.get("labels"))  # Label Studio: a list of one
            label = label[0] if isinstance(label, list) and len(label) == 1 else label
            values = [*(entity.get(key, entity.get(f"{key}_offset")) for key in ("start", "end")), label]  # doccano
        else:
            values = list(entity) if isinstance(entity, list | tuple) and len(entity) == 3 else [None] * 3
        start, stop, label = values
        if type(start) is not int or type(stop) is not int or not isinstance(label, str) or not label.strip():
            raise Refusal(f"{row[0]}: {asked}, not {str(entity)[:60]}")
        if broken_text(label):
            raise Refusal(f"{row[0]}: a label holds half of a character (a lone surrogate); mend the label")
        if not 0 <= start < stop <= len(text):
            raise Refusal(
                f"{row[0]}: entity {start} to {stop} of a text of {len(text)} characters; must be 0 <= start < end"
            )
        said = entity.get("text") if isinstance(entity, dict) else None
        if said not in (None, text[start:stop]):
            raise Refusal(
                f"{row[0]}: entity {start} to {stop} is {text[start:stop]!r}, not {said!r}; offsets count characters"
            )
        found.append((start, stop, label.strip()))
    return found


# --- Splits -----------------------------------------------------------------------------------------------------------


@dataclass
class Sentences:
    """One split, in the file's order: what is asked of the model, word by word, and the words around it."""

    sentences: list[Sentence]
    places: list[str]  # where each came from
    # the number of each sentence's document, a file being one at least: int (sentences,); None: one file, none marked
    documents: np.ndarray | None
    chosen: np.ndarray  # which sentences count: all but where a sample leaves some out: int (chosen,)
    gold: np.ndarray | None = None  # the tag of every word, of all sentences: 0 is O, 1 + 2k B-, 2 + 2k I- of type k

    def __len__(self) -> int:
        return len(self.chosen)

    @cached_property
    def lengths(self) -> np.ndarray:
        """Words of every sentence: int (sentences,)."""
        return np.array([len(sentence.words) for sentence in self.sentences])

    @property
    def gold_chosen(self) -> np.ndarray:
        """The tags of the words that count: int (words,)."""
        is_chosen = np.zeros(len(self.sentences), dtype=bool)
        is_chosen[self.chosen] = True
        return self.gold[np.repeat(is_chosen, self.lengths)] if self.gold is not None else np.zeros(0, dtype=int)

    @property
    def texts(self) -> list[str]:
        """The words of the sentences that count, as one text each."""
        return [" ".join(self.sentences[i].words) for i in self.chosen]


def load_splits(settings: TagFlags, checkpoint: Checkpoint) -> tuple[dict[str, Sentences], list[str], dict[str, str]]:
    """The splits that were given: read, brought to IOB2, and checked against each other.

    Returns:
        name → split, in the order train, validation, test; the types of entities, sorted; facts for the model card.

    Raises:
        Refusal: among others a type that train, or a folder that predicts, has not, or a sentence in two splits.
    """
    if settings.labels and len(set(settings.labels)) < len(settings.labels):
        raise Refusal(f"--labels {' '.join(settings.labels)}: each must be there once")
    types = trained_types(checkpoint)
    sources = split_sources(settings)
    if types is None and "train" not in sources:
        raise Refusal(f"checkpoint {checkpoint.name}: is no entity model, and there is no --train_file to make one")
    splits: dict[str, Sentences] = {}
    facts: dict[str, str] = {}
    scheme = None
    for name, source in sources.items():
        split = read_sentences(source, settings, name)
        if name == "train":
            split.chosen = training_sample(settings).of(len(split.sentences))
        splits[name] = split
        if split.sentences[0].tags is not None:
            scheme = detect_scheme(sentence.tags or [] for sentence in split.sentences) or scheme or "IOB2"
            types = number_tags(split, scheme, types, checkpoint.name if trained_types(checkpoint) else "train")
        facts[name] = split_line(split, types or [], scheme)
        say(f"{name}: {facts[name]}{split_warnings(name, split)}")
    texts = {name: split.texts for name, split in splits.items()}
    places = {name: [split.places[i] for i in split.chosen] for name, split in splits.items()}
    if copies := check_leakage(texts, places, settings.allow_leakage):
        facts["sentences in two splits"] = ", ".join(f"{n} {kind.replace('_', ' ')}" for kind, n in copies.items())
    return splits, types or [], facts


def trained_types(checkpoint: Checkpoint) -> list[str] | None:
    """The types of entities that a checkpoint was trained to find, sorted; None of an encoder.

    Raises:
        Refusal: its labels are not O and a B- and an I- a type.
    """
    labels = checkpoint.trained_labels(*ENTITY_MODELS)
    if labels is None:
        return None
    types = sorted({label[2:] for label in labels} - {""})
    if sorted(labels) != sorted(tag_names(types)):
        raise Refusal(f"checkpoint {checkpoint.name}: its labels are not O, and B- and I- of each type: {labels[:20]}")
    return types


def read_sentences(source: Source, settings: TagFlags, split: str) -> Sentences:
    """The sentences of a split, with their tags as they stand in the file.

    Rows of a data set that hold no word are left out, which is said: some on the Hub end in one.

    Args:
        source: where they come from.
        settings: names of the columns, and of numbered tags.
        split: train, validation or test; only a test file may be without tags.

    Raises:
        Refusal: no row, a document in parts, tags in one row but not in another, or what `read_sentence` refuses.
    """
    sentences, places, documents, empty = [], [], [], []
    for row in source.rows():
        row = without_predictions(row, settings, split)
        words, tags = row[1].get(settings.tokens_column), row[1].get(settings.tags_column)
        if source.dataset and words == [] and not tags and has_words(row[1], settings):  # the user cannot mend it
            empty.append(row[0])
            continue
        sentences.append(read_sentence(row, settings, settings.labels))
        places.append(row[0])
        documents.append((row[0].rpartition(" row ")[0], row[1].get(settings.document_column)))
        if sentences[-1].tags is None and split != "test":
            raise Refusal(
                f"{row[0]}: no tags in a column {settings.tags_column} (--tags_column), and no list of a text's "
                f"entities, if only [], in a column {settings.entities_column} (--entities_column); found "
                f"{told(row[1])}{ending_hint(row[0])}"
            )
    if not sentences:
        raise Refusal(f"{source.name}: no row in it; write some, or leave the file out")
    if split == "test" and sentences[0].tags is None:
        say_untagged(source, settings)
    if empty:
        say(f"! {len(empty):,} rows hold no word and are left out, first {empty[0]}")
    untagged = [place for place, sentence in zip(places, sentences, strict=True) if sentence.tags is None]
    if 0 < len(untagged) < len(sentences):
        raise Refusal(f"{untagged[0]}: has no tags, other rows have; tag all or none")
    marked = any(document is not None for _, document in documents) or documents[0][0] != documents[-1][0]
    numbers = document_numbers(documents, places, settings.document_column) if marked else None
    return Sentences(sentences, places, numbers, np.arange(len(sentences)))


def say_untagged(source: Source, settings: TagFlags) -> None:
    """Say why a test file is not scored, where the user may have thought that it is."""
    values = next(source.rows())[1]
    if "gold_tags" in values:
        say(f"! {source.name}: holds predictions; to score them against their gold tags, add --tags_column gold_tags")
    for flag, stock in (("tags_column", "ner_tags"), ("entities_column", "entities")):
        if (column := getattr(settings, flag)) != stock and column not in values:
            say(f"! {source.name}: no column {column} (--{flag}), so there is nothing to score by")


def without_predictions(row: PlacedRow, settings: TagFlags, split: str) -> PlacedRow:
    """A row as it is scored: of predictions.jsonl its entities are no gold, though a model may be trained on them.

    So are numbers of hidden tags, all -1, which test splits on the Hub have.
    """
    place, values = row
    tags = values.get(settings.tags_column)
    if split != "train" and "predicted_tags" in values and tags is None:
        return place, {name: value for name, value in values.items() if name != settings.entities_column}
    if split == "test" and isinstance(tags, list) and all(tag in (-1, None) for tag in tags):
        return place, values | {settings.tags_column: None}
    return row


def untagged(row: PlacedRow, settings: TagFlags) -> PlacedRow:
    """A row without its tags and entities, which are nothing to a prediction but for what they belong to.

    Where a test file is read by its text, as its entities are of that, the row is left without its words.
    """
    place, values = without_predictions(row, settings, "test")
    said = {settings.tags_column, settings.entities_column}
    if not has_words(values, settings):
        said.add(settings.tokens_column)
    return place, {name: value for name, value in values.items() if name not in said}


class RowsToAnswer:
    """How rows that come one by one are read as a test file's are; they are gone over twice, see `bulk`."""

    def __init__(self, settings: TagFlags, several: bool) -> None:
        """Begin.

        Args:
            settings: name the columns.
            several: whether there are several files, each of which is a document at least.
        """
        self.settings, self.is_marked = settings, several

    def check(self, row: PlacedRow) -> None:
        """Refuse a row that has neither words nor a text, and heed one that says what document it is of."""
        read_sentence(untagged(row, self.settings), self.settings, None)
        self.is_marked |= row[1].get(self.settings.document_column) is not None

    def number(self, rows: Iterator[PlacedRow]) -> Iterator[PlacedRow]:
        """All rows, once they were checked, each with its document's number, as `document_numbers` has it."""
        number, before = 0, None
        for place, values in rows:
            current = (place.rpartition(" row ")[0], values.get(self.settings.document_column))
            number += before is not None and current != before
            before = current
            yield place, values | {NUMBER: number}

    def sentences(self, rows: list[PlacedRow]) -> Sentences:
        """Some of these rows, whatever their tags."""
        sentences = [read_sentence(untagged(row, self.settings), self.settings, None) for row in rows]
        documents = np.array([values[NUMBER] for _, values in rows]) if self.is_marked else None
        return Sentences(sentences, [place for place, _ in rows], documents, np.arange(len(rows)))


def document_numbers(documents: list[tuple[str, Any]], places: list[str], column: str) -> np.ndarray:
    """The number of each row's document, ascending: int (rows,).

    Args:
        documents: of each row its file and what names its document there; rows of None in a row are of one.
        places: where each row came from.
        column: what names the documents.

    Raises:
        Refusal: a document that was left comes back, so that neither its context nor its extent can be told.
    """
    seen: set[str] = set()
    numbers, number = [0], 0
    for i in range(1, len(documents)):
        if documents[i] != documents[i - 1]:
            seen.add(repr(documents[i - 1]))
            number += 1
            if documents[i][1] is not None and repr(documents[i]) in seen:
                raise Refusal(
                    f"{places[i]}: its document {documents[i][1]!r} was left before and comes back; sort the rows by "
                    f"column {column}, or name a column that is not there with --document_column to take no notice"
                )
        numbers.append(number)
    return np.array(numbers)


def number_tags(split: Sentences, scheme: str, types: list[str] | None, whose: str) -> list[str]:
    """Bring a split's tags to IOB2 and to numbers, and say what broke its scheme.

    Args:
        split: as read; gets `gold`.
        scheme: that its tags are written in.
        types: those there may be; None takes those of this split.
        whose: types, for a refusal.

    Returns:
        The types, sorted.

    Raises:
        Refusal: a type that there may not be, or none at all to learn.
    """
    tags: list[str] = []
    odd: list[str] = []
    for sentence, place in zip(split.sentences, split.places, strict=True):
        mended, broken = to_iob2(sentence.tags or [], scheme)
        odd += [f"{place} word {i + 1}, {told([(sentence.tags or [])[i]])}" for i in broken]
        tags += mended
    found = {tag[2:] for tag in tags} - {""}
    if types is None:
        types = sorted(found)
        if not types:
            raise Refusal(f"{split.places[0]} to {split.places[-1]}: no entity in any of them; tag some to learn from")
    elif unknown := sorted(found.difference(types)):
        is_odd = (
            i for i, sentence in enumerate(split.sentences) if any(t[2:] == unknown[0] for t in sentence.tags or [])
        )
        raise Refusal(
            f"{split.places[next(is_odd)]}: type {told(unknown[:1])} is none of {whose}'s: {told(types)}; mend the "
            "tag, or take the entity out"
        )
    number = {tag: i for i, tag in enumerate(tag_names(types))}
    split.gold = np.array([number[tag] for tag in tags])
    if odd:
        say(f"! {len(odd):,} tags break {scheme}, first {odd[0]}: a tag that goes on with no entity opens one")
    return types


def split_line(split: Sentences, types: list[str], scheme: str | None) -> str:
    """What a split holds: sentences, words, and entities of each type."""
    chosen = [split.sentences[i] for i in split.chosen]
    line = f"{len(chosen):,} sentences, {sum(len(sentence.words) for sentence in chosen):,} words"
    if split.gold is None:
        return f"{line}: no tags"
    counts = Counter(split.gold_chosen.tolist())
    found = ", ".join(f"{counts[1 + 2 * k]:,} {told([kind])}" for k, kind in enumerate(types) if counts[1 + 2 * k])
    return f"{line}, {scheme}: {found or 'no entity'}"


def split_warnings(name: str, split: Sentences) -> str:
    """What is odd in a split; often nothing."""
    warnings = ""
    if widened := sum(split.sentences[i].widened for i in split.chosen):
        warnings += f"\n! {widened:,} entities begin or end within a word, and were widened to whole words"
    longest = int(split.lengths.argmax())
    if split.lengths[longest] > LONG_SENTENCE:
        warnings += f"\n! {split.places[longest]} has {split.lengths[longest]:,} words; is a blank line missing?"
    lines = [sentence.text.split() for sentence in split.sentences] if split.gold is None else [[]]
    if all(len(cells) > 1 and TAG.fullmatch(cells[-1]) for cells in lines):
        warnings += f"\n! each of these texts ends in a tag, such as {lines[0][-1]}{ending_hint(split.places[0])}"
    if name == "train":
        first: dict[tuple[str, ...], int] = {}
        tagging = [first.setdefault(tuple(split.sentences[i].tags or ()), len(first)) for i in split.chosen]
        if odd := conflicting_rows(split.texts, tagging):
            places = " and ".join(split.places[split.chosen[i]] for i in odd[0])
            warnings += f"\n! {len(odd)} training sentences stand there twice with different tags, first {places}"
    return warnings
