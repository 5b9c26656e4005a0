"""Tagged files of any kind become the same sentences; what cannot be read is refused by its row."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, List, Value
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from transformers import BertConfig

from run_ner import Settings
from two_stage.checkpointing.handoff import Checkpoint
from two_stage.command_line.exits import Refusal
from two_stage.data.sources import Source
from two_stage.data.tables import sample_indices
from two_stage.data.tagged_sentences import (
    Sentence,
    Sentences,
    load_splits,
    read_sentence,
    read_sentences,
    trained_types,
)

ENCODER = Checkpoint("the folder", BertConfig(), None, None, None)  # type: ignore[arg-type]
WITH_FILES = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def tagger(*labels: str, head: str = "BertForTokenClassification") -> Checkpoint:
    """A checkpoint that was trained to give these labels."""
    config = BertConfig(architectures=[head], id2label=dict(enumerate(labels)))
    return Checkpoint("the folder", config, None, None, None)  # type: ignore[arg-type]


def file_of(folder: Path, name: str, content: str | list[Any]) -> list[str]:
    """A file of this text, or of these rows as JSONL; as a data flag has it."""
    rows = content if isinstance(content, str) else "".join(json.dumps(row) + "\n" for row in content)
    (folder / name).write_text(rows, encoding="utf-8", newline="")
    return [str(folder / name)]


def tagged(*sentences: str) -> list[dict[str, Any]]:
    """Rows of "word/TAG word/TAG" each."""
    pairs = [[item.rsplit("/", 1) for item in sentence.split()] for sentence in sentences]
    return [{"tokens": [word for word, _ in row], "ner_tags": [tag for _, tag in row]} for row in pairs]


def train_on(
    folder: Path, name: str, content: str | list[Any], checkpoint: Checkpoint = ENCODER, **flags: Any
) -> tuple[Sentences, list[str]]:
    """A training file's sentences and types."""
    splits, types, _ = load_splits(Settings(train_file=file_of(folder, name, content), **flags), checkpoint)
    return splits["train"], types


def refusal_of(
    folder: Path, name: str, content: str | list[Any], checkpoint: Checkpoint = ENCODER, **flags: Any
) -> str:
    """What is said of a training file that is refused."""
    with pytest.raises(Refusal) as refusal:
        train_on(folder, name, content, checkpoint, **flags)
    return str(refusal.value)


def read(values: dict[str, Any], **flags: Any) -> Sentence:
    """One row, read alone."""
    asked = Settings(**flags)
    return read_sentence(("train.jsonl row 7", values), asked, asked.labels)


def cut(sentence: Sentence) -> list[str]:
    """The words that `spans` cut out of the text."""
    return [sentence.text[start:stop] for start, stop in sentence.spans.tolist()]


# --- Texts with character spans ---------------------------------------------------------------------------------------

# words that nothing cuts, and those that stand alone even without a space
WHOLE = [
    "Oslo",
    "a",
    "😀",
    "👩\u200d🚀",
    "e\u0301te\u0301",
    "x\u200by",
    "\u200b",
    "مرحبا",
    "Zürich",
    "𝔘ni",
    "ﬁrm",
    "สวัสดี",
    "カナ",
]
ALONE = [".", "-", "«", "%", "東", "京", "𠀀", "豈", "，", "$", "\u061f"]
SPACES = [" ", "  ", "\t", "\u00a0", "\n", "\u3000", " \u2009", "\r\n"]
TYPES = ["LOC", "GPE-LOC", "a b", "人"]


@st.composite
def texts_with_entities(draw: st.DrawFn) -> tuple[str, list[str], list[str], list[list[Any]]]:
    """A text, its words, their IOB2 tags, and the entities as character spans in any order."""
    text, words, places = draw(st.sampled_from(["", " ", "\u00a0"])), [], []
    for word in draw(st.lists(st.sampled_from(WHOLE + ALONE), min_size=1, max_size=10)):
        needs_space = words and words[-1] in WHOLE and word in WHOLE
        text += draw(st.sampled_from(SPACES + ([] if needs_space else ["", ""]))) if words else ""
        places.append((len(text), len(text) + len(word)))
        words.append(word)
        text += word
    tags, entities, first = ["O"] * len(words), [], 0
    while first < len(words):
        last = min(first + draw(st.integers(0, 3)), len(words))  # no word: it is O
        if first < last:
            label = draw(st.sampled_from(TYPES))
            tags[first:last] = [f"B-{label}", *[f"I-{label}"] * (last - first - 1)]
            entities.append([places[first][0], places[last - 1][1], label])
        first = max(last, first + 1)
    return text + draw(st.sampled_from(SPACES)), words, tags, draw(st.permutations(entities))


@given(row=texts_with_entities())
def test_spans_come_back_as_tags_of_words(row: tuple[str, list[str], list[str], list[list[Any]]]) -> None:
    """Whatever is written around the words, and whether entities are triples or objects, with or without their text."""
    text, words, tags, entities = row
    objects = [{"start": a, "end": b, "label": label, "text": text[a:b], "id": 3} for a, b, label in entities]
    doccano = [{"start_offset": a, "end_offset": b, "label": label} for a, b, label in entities]
    label_studio = [{"start": a, "end": b, "labels": [label]} for a, b, label in entities]
    for written in (entities, objects, doccano, label_studio):
        sentence = read({"text": text, "entities": written})
        assert (sentence.words, sentence.tags, sentence.widened) == (words, tags, 0)
        assert cut(sentence) == words
        assert sentence.text == text


@given(
    text=st.text(st.sampled_from("ab😀é\u0301東京.- \u00a0\t\u200b\x1c𠀀ع"), min_size=1, max_size=20).filter(str.strip),
    ends=st.lists(st.tuples(st.integers(0, 19), st.integers(1, 6)), max_size=3),
)
def test_spans_cut_anywhere_are_widened_to_the_words_they_touch(text: str, ends: list[tuple[int, int]]) -> None:
    """As going character by character has it; a span of no word, or of another's word, is refused."""
    entities = [[a, min(a + length, len(text)), f"T{i}"] for i, (a, length) in enumerate(ends) if a < len(text)]
    spans = read({"text": text}).spans.tolist()
    word_at = {character: word for word, (start, stop) in enumerate(spans) for character in range(start, stop)}
    assert all(text[i].isspace() for i in range(len(text)) if i not in word_at)
    tags, widened, error = ["O"] * len(spans), 0, ""
    for start, stop, label in entities:
        touched = sorted({word_at[i] for i in range(start, stop) if i in word_at})
        if not touched or any(tags[word] != "O" for word in touched):
            error = "two entities share the word" if touched else f"entity {start} to {stop} holds no word"
            break
        for i, word in enumerate(touched):
            tags[word] = f"{'I' if i else 'B'}-{label}"
        widened += any(not start <= i < stop for i, word in word_at.items() if word in touched)
    if error:
        with pytest.raises(Refusal, match=rf"train\.jsonl row 7: {error}"):
            read({"text": text, "entities": entities})
    else:
        sentence = read({"text": text, "entities": entities})
        assert (sentence.tags, sentence.widened) == (tags, widened)


def test_white_space_around_an_entity_widens_nothing() -> None:
    """Annotators often mark the space behind a word."""
    sentence = read({"text": "In  New York today", "entities": [[3, 13, "LOC"]]})
    assert (sentence.tags, sentence.widened) == (["O", "B-LOC", "I-LOC", "O"], 0)
    sentence = read({"text": "pre-Oslo's", "entities": [[5, 7, "LOC"]]})
    assert (sentence.words, sentence.widened) == (["pre", "-", "Oslo", "'", "s"], 1)
    assert sentence.tags == ["O", "O", "B-LOC", "O", "O"]


SHOWN_LIST = r'column entities must hold a list such as \[\{"start": 0, "end": 4, "label": "ORG"\}\]'


@pytest.mark.parametrize(
    ("entities", "found"),
    [
        ("ORG", SHOWN_LIST + "$"),
        ({"start": [0], "end": [4], "label": ["ORG"]}, SHOWN_LIST + "$"),
        ([[0, 4]], SHOWN_LIST + r", not \[0, 4\]$"),
        ([[0, 4, "ORG", 1]], SHOWN_LIST),
        (["ORG"], SHOWN_LIST + ", not ORG$"),
        ([[0, 4, None]], SHOWN_LIST),
        ([[0, 4, 3]], SHOWN_LIST),
        ([[0, 4, " "]], SHOWN_LIST),
        ([["0", "4", "ORG"]], SHOWN_LIST),
        ([[0.0, 4.0, "ORG"]], SHOWN_LIST),
        ([[False, 4, "ORG"]], SHOWN_LIST),
        ([{"start": 0, "label": "ORG"}], SHOWN_LIST),
        ([{"start": 0, "end": 4, "labels": ["ORG", "LOC"]}], SHOWN_LIST),
        ([{"start": 0, "end": 4, "labels": []}], SHOWN_LIST),
        ([[-1, 4, "ORG"]], "entity -1 to 4 of a text of 10 characters; must be 0 <= start < end$"),
        ([[4, 4, "ORG"]], "entity 4 to 4 of a text of 10 characters"),
        ([[5, 4, "ORG"]], "entity 5 to 4 of a text of 10 characters"),
        ([[5, 11, "ORG"]], "entity 5 to 11 of a text of 10 characters"),
        ([[4, 5, "ORG"]], "entity 4 to 5 holds no word; take it out, or mend its offsets$"),
        (
            [[0, 4, "A"], [0, 10, "B"]],
            r"two entities share the word 'Oslo' \('Oslo rose\.' is one\); keep one of them$",
        ),
        ([[0, 2, "A"], [2, 4, "B"]], r"two entities share the word 'Oslo' \('lo' is one\)"),
        (
            [{"start": 1, "end": 5, "label": "A", "text": "Oslo"}],
            "entity 1 to 5 is 'slo ', not 'Oslo'; offsets count characters$",
        ),
    ],
)
def test_bad_entities_are_refused(entities: Any, found: str) -> None:
    """What is no list of spans, spans of nothing or outside, and two of one word, by row and with the mending."""
    with pytest.raises(Refusal, match=rf"^train\.jsonl row 7: {found}"):
        read({"text": "Oslo rose.", "entities": entities})


def test_offsets_of_bytes_or_of_utf_16_are_caught_by_the_text() -> None:
    """Behind an emoji they count one more; what is found there is shown."""
    text = "😀 Oslo"
    entity = {"start": 3, "end": len(text.encode("utf-16-le")) // 2, "label": "LOC", "text": "Oslo"}
    with pytest.raises(Refusal, match="entity 3 to 7 of a text of 6 characters"):
        read({"text": text, "entities": [entity]})
    with pytest.raises(Refusal, match="entity 3 to 7 is 'slo ', not 'Oslo'; offsets count characters"):
        read({"text": f"{text} rose", "entities": [entity]})


# --- Words with tags --------------------------------------------------------------------------------------------------


@given(words=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=6), min_size=1, max_size=8))
@example(words=["👩\u200d🚀", "", "e\u0301", "\u200b", "New York", "\t", "東京", "مرحبا", "\u00a0"])
def test_spans_cut_each_word_out_of_the_text(words: list[str]) -> None:
    """Of any words; and no word is changed, cut or lost on the way."""
    sentence = read({"tokens": words, "ner_tags": ["O"] * len(words)})
    assert sentence.words == cut(sentence) == words
    assert sentence.text == " ".join(words)


def test_which_of_words_and_text_is_read() -> None:
    """Words, but where a text has entities and the words have no tags; null is as good as no column."""
    both: dict[str, Any] = {"text": "Oslo-rose", "tokens": ["Oslo", "-rose"]}
    assert read(both).words == ["Oslo", "-rose"]
    assert read(both | {"ner_tags": ["B-LOC", "O"], "entities": [[0, 4, "ORG"]]}).tags == ["B-LOC", "O"]
    for missing in ({}, {"ner_tags": None}):
        sentence = read(both | {"entities": [[0, 4, "ORG"]]} | missing)
        assert (sentence.words, sentence.tags) == (["Oslo", "-", "rose"], ["B-ORG", "O", "O"])
    for other in (None, "2", 2, "Oslo -rose"):  # such as how many they are
        assert read(both | {"tokens": other}).words == ["Oslo", "-", "rose"]
    assert read({"tokens": ["Oslo"], "ner_tags": None}).tags is None
    assert read({"text": "Oslo", "entities": None}).tags is None
    assert read({"text": "Oslo rose", "entities": []}).tags == ["O", "O"]


def test_columns_of_other_names() -> None:
    """Each flag picks its column, and a number one of CoNLL's."""
    row = {"words": ["Oslo"], "tags": ["B-LOC"], "ner_tags": "not read"}
    assert read(row, tokens_column="words", tags_column="tags").tags == ["B-LOC"]
    row = {"body": "Oslo", "label": [[0, 4, "LOC"]], "text": "not read"}
    assert read(row, text_column="body", entities_column="label").tags == ["B-LOC"]


WORD_LIST = r'column tokens must hold a list of words such as \["Oslo", "rose"\], at least one$'
NO_TAG = "is none such as O, B-ORG, I-ORG, E-ORG, S-ORG; is it the right --tags_column\\?$"
UNNAMED = "tags are numbers; name them in their order, --labels O B-PER I-PER \\.\\.\\.$"
NAMED = {"labels": ["O", "B-PER", "I-PER"]}


@pytest.mark.parametrize(
    ("row", "flags", "found"),
    [
        ({"tokens": ["a"] * 9, "ner_tags": ["O"] * 8}, {}, "9 tokens but 8 tags; give every token its tag$"),
        ({"tokens": ["a"], "ner_tags": ["O", "O"]}, {}, "1 tokens but 2 tags; give every token its tag$"),
        ({"tokens": "Oslo rose", "ner_tags": []}, {}, WORD_LIST),
        ({"tokens": [], "ner_tags": []}, {}, WORD_LIST),
        ({"tokens": None, "ner_tags": []}, {}, WORD_LIST),
        ({"tokens": ["a", None], "ner_tags": []}, {}, WORD_LIST),
        ({"tokens": [{"text": "a"}]}, {}, WORD_LIST),
        (
            {"tokens": ["a", "\ud800"]},
            {},
            r"column tokens holds half of a character \(a lone surrogate\); mend the text$",
        ),
        (
            {"words": ["a"], "id": 3},
            {},
            r"no column tokens \(--tokens_column\) and no column text \(--text_column\); found words, id$",
        ),
        ({"text": "  "}, {}, "column text is empty"),
        ({"text": ["a"]}, {}, "column text holds .*no text"),
        ({"tokens": ["a"], "ner_tags": "O"}, {}, r'column ner_tags must hold a list of tags such as \["O", "B-ORG"\]$'),
        ({"tokens": ["a"], "ner_tags": ["NN"]}, {}, f"tag 'NN' {NO_TAG}"),
        ({"tokens": ["a"], "ner_tags": ["PER"]}, {}, f"tag 'PER' {NO_TAG}"),
        ({"tokens": ["a"], "ner_tags": ["B"]}, {}, f"tag 'B' {NO_TAG}"),
        ({"tokens": ["a"], "ner_tags": [None]}, {}, f"tag None {NO_TAG}"),
        ({"tokens": ["a"], "ner_tags": [["O"]]}, {}, rf"tag \['O'\] {NO_TAG}"),
        ({"tokens": ["a"], "ner_tags": [True]}, NAMED, f"tag True {NO_TAG}"),
        ({"tokens": ["a"], "ner_tags": [1.0]}, NAMED, f"tag 1\\.0 {NO_TAG}"),
        ({"tokens": ["a"], "ner_tags": [1]}, {}, UNNAMED),
        ({"tokens": ["a"], "ner_tags": ["1"]}, {}, UNNAMED),
        ({"tokens": ["a"], "ner_tags": [3]}, NAMED, r"tags \[3\] are not all numbers from 0 to 2 \(--labels\)$"),
        ({"tokens": ["a"], "ner_tags": [-1]}, NAMED, r"tags \[-1\] are not all numbers from 0 to 2 \(--labels\)$"),
        (
            {"tokens": ["a", "b"], "ner_tags": [1, "O"]},
            NAMED,
            r"tags \[1, 'O'\] are numbers and names; write them all as one or the other$",
        ),
        ({"tokens": ["a"], "ner_tags": [1]}, {"labels": ["O", "PER"]}, "tag 'PER' is none such as .*; mend --labels$"),
        ({"tokens": ["a"], "ner_tags": ["1" * 5000]}, NAMED, "tag '1{60}' is none of --labels, which names"),
        ({"tokens": ["a"], "ner_tags": ["1" * 5000]}, {}, f"tag '1{{59}} {NO_TAG}"),
    ],
)
def test_bad_rows_are_refused(row: dict[str, Any], flags: dict[str, Any], found: str) -> None:
    """By the row, with what was found and how to mend it."""
    with pytest.raises(Refusal, match=rf"^train\.jsonl row 7: {found}"):
        read(row, **flags)


def test_numbers_are_named_by_labels() -> None:
    """As JSON has them, and as the texts that CoNLL has; names need no --labels and are left alone by them."""
    for tags in ([0, 2, 1], ["0", "2", "1"], ["O", "I-PER", "B-PER"]):
        assert read({"tokens": ["a", "b", "c"], "ner_tags": tags}, **NAMED).tags == ["O", "I-PER", "B-PER"]


# --- The same sentences in every form ---------------------------------------------------------------------------------

PARTS = st.lists(
    st.none() | st.tuples(st.sampled_from(["PER", "LOC", "X-Y"]), st.integers(1, 3)), min_size=1, max_size=6
)
SENTENCES = st.lists(PARTS, min_size=1, max_size=4).filter(lambda rows: any(map(any, rows)))  # some entity


def written(parts: list[tuple[str, int] | None], scheme: str) -> list[str]:
    """The tags of a sentence of O (None) and entities of so many words, in one of four schemes."""
    tags, before = [], None
    for part in parts:
        if part is None:
            tags.append("O")
        else:
            kind, count = part
            letters = ["B"] + ["I"] * (count - 1)
            if scheme == "IOB1" and before != kind:
                letters[0] = "I"
            if scheme in ("IOBES", "BILOU"):
                end, single = "ES" if scheme == "IOBES" else "LU"
                letters = [single] if count == 1 else [*letters[:-1], end]
            tags += [f"{letter}-{kind}" for letter in letters]
        before = part and part[0]
    return tags


def numbers_of(part: tuple[str, int] | None, types: list[str]) -> list[int]:
    """The numbers of a part's words: 0 is O, 1 + 2k B-, 2 + 2k I- of type k."""
    if part is None:
        return [0]
    first = 1 + 2 * types.index(part[0])
    return [first] + [first + 1] * (part[1] - 1)


@WITH_FILES
@given(rows=SENTENCES, seed=st.integers(0, 99))
def test_one_gold_whatever_the_form(rows: list[list[tuple[str, int] | None]], seed: int, tmp_path: Path) -> None:
    """Four schemes of CoNLL, tags and ids in JSONL, ids in parquet, character spans: numbers worked out by hand."""
    rng = np.random.default_rng(seed)
    types = sorted({part[0] for parts in rows for part in parts if part})
    golds = [[number for part in parts for number in numbers_of(part, types)] for parts in rows]
    words = [rng.choice([word for word in WHOLE + ALONE if word.strip()], len(gold)).tolist() for gold in golds]
    iob2 = [written(parts, "IOB2") for parts in rows]
    names = rng.permutation(["O", *(f"{letter}-{kind}" for kind in [*types, "NONE"] for letter in "BI")]).tolist()
    ids = [[names.index(tag) for tag in tags] for tags in iob2]
    files: dict[str, tuple[str | list[Any], dict[str, Any]]] = {}
    for scheme in ("IOB1", "IOB2", "IOBES", "BILOU"):
        lines = [
            "".join(f"{word}\t_\t{tag}\n" for word, tag in zip(row, written(parts, scheme), strict=True))
            for row, parts in zip(words, rows, strict=True)
        ]
        files[f"{scheme}.conll"] = ("\n".join(lines), {})
    columns = [{"tokens": row} for row in words]
    files["tags.jsonl"] = ([a | {"ner_tags": tags} for a, tags in zip(columns, iob2, strict=True)], {})
    files["ids.jsonl"] = ([a | {"ner_tags": row} for a, row in zip(columns, ids, strict=True)], {"labels": names})
    files["spans.jsonl"] = ([spans_of(row, parts) for row, parts in zip(words, rows, strict=True)], {})
    found = {name: train_on(tmp_path, name, content, **flags) for name, (content, flags) in files.items()}
    features = Features({"tokens": List(Value("string")), "ner_tags": List(ClassLabel(names=names))})
    parquet = str(tmp_path / "ids.parquet")
    Dataset.from_dict({"tokens": words, "ner_tags": ids}, features).to_parquet(parquet)
    splits, parquet_types, _ = load_splits(Settings(train_file=[parquet]), ENCODER)
    for split, split_types in [*found.values(), (splits["train"], parquet_types)]:
        assert split_types == types
        assert split.gold is not None
        assert split.gold.tolist() == split.gold_chosen.tolist() == [n for gold in golds for n in gold]
        assert [sentence.words for sentence in split.sentences] == words
        assert [cut(sentence) for sentence in split.sentences] == words
        assert split.lengths.tolist() == [len(row) for row in words]


def spans_of(words: list[str], parts: list[tuple[str, int] | None]) -> dict[str, Any]:
    """The sentence as a text with character spans."""
    starts = [len(" ".join([*words[:i], ""])) for i in range(len(words))]
    entities, first = [], 0
    for part in parts:
        last = first + (part[1] if part else 1)
        if part:
            entities.append([starts[first], starts[last - 1] + len(words[last - 1]), part[0]])
        first = last
    return {"text": " ".join(words), "entities": entities}


# --- Files as they are found ------------------------------------------------------------------------------------------

OSLO = "Oslo Bank rose in Lima."
FOUND = (["LOC", "ORG"], [3, 4, 0, 0, 1, 0])
CONLL_2003 = (
    "-DOCSTART- -X- -X- O\n\nU.N. NNP I-NP I-ORG\nsaid VBD I-VP O\n\nOslo NNP I-NP I-LOC\nLima NNP B-NP B-LOC\n"
)
GERMEVAL = "#\thttp://de.example/wiki [2009-10-17]\n1\tFC\tB-ORG\tO\n2\tKöln\tI-ORG\tB-LOC\n3\tsiegt\tO\tO\n"


@pytest.mark.parametrize(
    ("row", "column"),
    [
        ({"id": 1, "text": OSLO, "label": [[0, 9, "ORG"], [18, 22, "LOC"]], "Comments": []}, "label"),  # doccano
        (
            {
                "text": OSLO,
                "entities": [
                    {"id": 1, "label": "ORG", "start_offset": 0, "end_offset": 9},
                    {"id": 2, "label": "LOC", "start_offset": 18, "end_offset": 22},
                ],
                "relations": [],
            },
            "entities",
        ),
        (  # Prodigy, and spaCy's to_json
            {
                "text": OSLO,
                "tokens": [{"text": "Oslo", "start": 0, "end": 4, "id": 0}],
                "spans": [
                    {"start": 0, "end": 9, "label": "ORG", "token_start": 0},
                    {"start": 18, "end": 22, "label": "LOC"},
                ],
            },
            "spans",
        ),
        (  # Label Studio's JSON_MIN
            {
                "text": OSLO,
                "label": [
                    {"start": 0, "end": 9, "text": "Oslo Bank", "labels": ["ORG"]},
                    {"start": 18, "end": 22, "text": "Lima", "labels": ["LOC"]},
                ],
            },
            "label",
        ),
        (  # this project's predictions.jsonl
            {
                "tokens": ["Oslo", "Bank", "rose", "in", "Lima", "."],
                "predicted_tags": [],
                "text": OSLO,
                "entities": [
                    {"start": 0, "end": 9, "label": "ORG", "text": "Oslo Bank", "score": 0.9},
                    {"start": 18, "end": 22, "label": "LOC", "text": "Lima", "score": 0.8},
                ],
            },
            "entities",
        ),
    ],
    ids=["doccano", "doccano with relations", "Prodigy", "Label Studio", "predictions"],
)
def test_what_annotation_tools_write(row: dict[str, Any], column: str, tmp_path: Path) -> None:
    """As they write it; only the column's name may have to be given."""
    split, types = train_on(tmp_path, "a.jsonl", [row], entities_column=column)
    assert (types, split.gold_chosen.tolist()) == FOUND
    assert split.sentences[0].words == ["Oslo", "Bank", "rose", "in", "Lima", "."]


def test_prodigys_rows_are_texts_without_their_spans_too() -> None:
    """As --predict_file and an unlabelled test file read them: what it calls tokens are places, no words."""
    row = {"text": OSLO, "tokens": [{"text": "Oslo", "start": 0, "end": 4, "id": 0}]}
    assert read_sentence(("a.jsonl row 1", row), Settings(), None).words == ["Oslo", "Bank", "rose", "in", "Lima", "."]


def test_conll_2003_as_it_was_given_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """IOB1 of four columns; two entities side by side; any column may be the tags."""
    split, types = train_on(tmp_path, "eng.train.conll", CONLL_2003)
    assert (types, split.gold_chosen.tolist()) == (["LOC", "ORG"], [3, 0, 1, 1])
    assert capsys.readouterr().out == "train: 2 sentences, 4 words, IOB1: 2 LOC, 1 ORG\n"
    chunks, types = train_on(tmp_path, "eng.train.conll", CONLL_2003, tags_column="3", tokens_column="1")
    assert (types, chunks.gold_chosen.tolist()) == (["NP", "VP"], [1, 3, 1, 1])
    said = refusal_of(tmp_path, "eng.train.conll", CONLL_2003, tags_column="2")
    assert said.endswith("eng.train.conll row 1: tag 'NNP' " + NO_TAG.replace("\\", "").rstrip("$"))
    said = refusal_of(tmp_path, "eng.train.conll", CONLL_2003, tokens_column="9")
    assert "row 1: no column 9 (--tokens_column) and no column text" in said


def test_germeval_and_wnut(tmp_path: Path) -> None:
    """Outer and nested entities behind a line of their source; tabs, hashtags, and blank lines that hold a tab."""
    for column, expected in (("3", (["ORG"], [1, 2, 0])), ("4", (["LOC"], [0, 1, 0]))):
        split, types = train_on(tmp_path, "de.conll", GERMEVAL, tokens_column="2", tags_column=column)
        assert (types, split.gold_chosen.tolist()) == expected
        assert split.sentences[0].words == ["FC", "Köln", "siegt"]
    wnut = "@paul\tO\nEmpire\tB-location\nState\tI-location\n\t\n#oslo\tB-location\n:)\tO\n"
    split, types = train_on(tmp_path, "wnut17.conll", wnut)
    assert (types, split.gold_chosen.tolist()) == (["location"], [0, 1, 2, 1, 0])
    assert split.sentences[1].words == ["#oslo", ":)"]


@pytest.mark.parametrize(("name", "found"), [("train.txt", "found text, document"), ("train.tsv", "found U.N., I-ORG")])
def test_columns_under_another_ending_are_told(name: str, found: str, tmp_path: Path) -> None:
    """Such files are often called .txt and .tsv, which stand for other things here."""
    content = "U.N.\tI-ORG\nsaid\tO\n\nOslo\tI-LOC\n"
    said = refusal_of(tmp_path, name, content)
    assert f"{name} row 1: no " in said
    assert said.endswith(f"{found}; name a file of CoNLL columns .conll")


def test_columns_to_predict_that_are_read_as_lines_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where each line ends in a tag; one that does not makes a file of texts, and tagged words are no lines."""
    checkpoint = tagger("O", "B-LOC", "I-LOC")
    load_splits(Settings(test_file=file_of(tmp_path, "test.txt", CONLL_2003)), checkpoint)
    warning = "! each of these texts ends in a tag, such as O; name a file of CoNLL columns .conll"
    assert capsys.readouterr().out == f"test: 5 sentences, 46 words: no tags\n{warning}\n".replace(
        "46", str(sum(len(read({"text": line}).words) for line in CONLL_2003.splitlines() if line))
    )
    for content in ("Vitamin B-12\nWe took it\n", "O\n"):
        load_splits(Settings(test_file=file_of(tmp_path, "test.txt", content)), checkpoint)
        assert "!" not in capsys.readouterr().out
    load_splits(Settings(test_file=file_of(tmp_path, "test.jsonl", tagged("Vitamin/O B-12/O"))), checkpoint)
    assert "!" not in capsys.readouterr().out


# --- Splits -----------------------------------------------------------------------------------------------------------


def split_of(source: Source, **flags: Any) -> Sentences:
    """A split as it is read, before its tags are looked at."""
    return read_sentences(source, Settings(**flags), "test")


def test_a_split_of_several_files(tmp_path: Path) -> None:
    """Sentences and places in their order, whatever each file's kind; tags as they stand there."""
    paths = file_of(tmp_path, "a.conll", "Oslo I-LOC\n\nLima I-LOC\n")
    paths += file_of(tmp_path, "b.jsonl", [{"text": "In Perth.", "entities": [[3, 8, "LOC"]]}])
    split = split_of(Source(tuple(paths)))
    assert split.places == [f"{paths[0]} row 1", f"{paths[0]} row 2", f"{paths[1]} row 1"]
    assert [sentence.tags for sentence in split.sentences] == [["I-LOC"], ["I-LOC"], ["O", "B-LOC", "O"]]
    assert split.texts == ["Oslo", "Lima", "In Perth ."]
    assert (len(split), split.gold) == (3, None)
    assert split.documents is not None
    assert split.documents.tolist() == [0, 0, 1]
    assert split.gold_chosen.tolist() == []


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"a.conll": "a\n\n-DOCSTART- O\n\nb\n\nc\n\n-DOCSTART-\n\nd\n"}, [0, 1, 1, 2]),
        ({"a.conll": "a\n\nb\n"}, None),
        ({"a.txt": "a\nb\n\nc\n"}, [0, 0, 1]),
        ({"a.txt": "a\n", "b.txt": "b\n\nc\n"}, [0, 1, 2]),
        ({"a.conll": "-DOCSTART-\n\na\n", "b.conll": "-DOCSTART-\n\nb\n\nc\n"}, [0, 1, 1]),
        ({"a.conll": "-DOCSTART-\n\na\n", "b.conll": "b\n\nc\n"}, [0, 1, 1]),
        (
            {"a.jsonl": [{"text": "a", "document": name} for name in ("x", "x", "y", None, None, "z", 0)]},
            [0, 0, 1, 2, 2, 3, 4],
        ),
        ({"a.jsonl": [{"text": "a", "document": ["x"]}], "b.jsonl": [{"text": "a", "document": ["x"]}]}, [0, 1]),
        ({"a.jsonl": [{"text": "a"}], "b.jsonl": [{"text": "a"}, {"text": "b"}]}, [0, 1, 1]),
    ],
)
def test_documents(files: dict[str, Any], expected: list[int] | None, tmp_path: Path) -> None:
    """Marks, blank lines of a txt, or a column; two files are never one document, one file without a mark has none."""
    source = Source(tuple(path for name, content in files.items() for path in file_of(tmp_path, name, content)))
    found = split_of(source).documents
    assert (None if found is None else found.tolist()) == expected


def test_a_document_in_parts_is_refused(tmp_path: Path) -> None:
    """Of shuffled rows neither context nor extent of a document can be told; rows of none may stand anywhere."""
    rows = [{"text": "a", "document": name} for name in ("x", None, "y", None, "x")]
    with pytest.raises(Refusal, match=r"a\.jsonl row 5: its document 'x' was left before and comes back; sort the"):
        split_of(Source(tuple(file_of(tmp_path, "a.jsonl", rows))))
    found = split_of(Source(tuple(file_of(tmp_path, "a.jsonl", rows))), document_column="none")
    assert found.documents is None


def test_hidden_tags_are_none(tmp_path: Path) -> None:
    """As test splits on the Hub have them; of train they are refused."""
    rows = [{"tokens": ["a", "b"], "ner_tags": [-1, -1]}, {"tokens": ["c"], "ner_tags": []}]
    source = Source(tuple(file_of(tmp_path, "a.jsonl", rows)))
    assert [sentence.tags for sentence in split_of(source).sentences] == [None, None]
    with pytest.raises(Refusal, match="tags are numbers"):
        read_sentences(source, Settings(), "train")


@pytest.mark.parametrize(
    ("row", "flags", "message"),
    [
        ({"tokens": ["a"], "ner_tags": ["B-\ud800"]}, {}, "column ner_tags holds half of a character"),
        ({"text": "Oslo", "entities": [[0, 4, "\ud800"]]}, {}, "a label holds half of a character"),
        ({"tokens": ["a"], "ner_tags": ["B-ORG"]}, {"labels": ["O", "B-X", "I-X"]}, "tag 'B-ORG' is none of --labels"),
    ],
)
def test_labels_that_cannot_be(row: dict[str, Any], flags: dict[str, Any], message: str, tmp_path: Path) -> None:
    """Half characters could not be written; --labels that are not the file's were looked over."""
    with pytest.raises(Refusal, match=f"row 1: {message}"):
        split_of(Source(tuple(file_of(tmp_path, "a.jsonl", [row]))), **flags)


def test_a_column_that_was_asked_for_and_is_not_there_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A test file needs no tags, but a misspelt column is hardly meant."""
    source = Source(tuple(file_of(tmp_path, "a.jsonl", [{"tokens": ["a"], "ner_tags": ["O"]}])))
    assert split_of(source, tags_column="ner_tag").sentences[0].tags is None
    assert "no column ner_tag (--tags_column), so there is nothing to score by" in capsys.readouterr().out


def test_a_document_column_of_another_name(tmp_path: Path) -> None:
    """Only the one that is named counts."""
    paths = file_of(tmp_path, "a.jsonl", [{"text": "a", "article": i // 2, "document": 0} for i in range(4)])
    found = split_of(Source(tuple(paths)), document_column="article").documents
    assert found is not None
    assert found.tolist() == [0, 0, 1, 1]


def test_a_sample_keeps_its_neighbours_and_all_types(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is trained on is drawn; types, scheme and repairs come from all rows, which stay there to be read around."""
    rows = [f"w{i}/B-T{i} x{i}/I-T{i} y{i}/O" for i in range(8)]
    split, types = train_on(tmp_path, "a.jsonl", tagged(*rows), max_train_samples=3)
    chosen = sample_indices(8, 3).tolist()
    assert split.chosen.tolist() == chosen
    assert (len(split), len(split.sentences), types) == (3, 8, [f"T{i}" for i in range(8)])
    assert split.gold is not None
    assert split.gold.tolist() == [n for i in range(8) for n in (1 + 2 * i, 2 + 2 * i, 0)]
    assert split.gold_chosen.tolist() == [n for i in chosen for n in (1 + 2 * i, 2 + 2 * i, 0)]
    assert split.texts == [f"w{i} x{i} y{i}" for i in chosen]
    counts = ", ".join(f"1 T{i}" for i in chosen)
    assert capsys.readouterr().out == f"train: 3 sentences, 9 words, IOB2: {counts}\n"


def test_a_share_of_another_seed(tmp_path: Path) -> None:
    """A fraction is of the file's sentences, and the seed says which."""
    rows = tagged(*(f"w{i}/B-T x{i}/O" for i in range(8)))
    split, _ = train_on(tmp_path, "a.jsonl", rows, train_fraction=0.5, sample_seed=9)
    assert split.chosen.tolist() == sample_indices(8, 4, seed=9).tolist() != sample_indices(8, 4).tolist()


def test_what_is_left_out_of_a_sample_may_stand_in_the_test(tmp_path: Path) -> None:
    """It is not trained on, so it gives nothing away."""
    rows = tagged(*(f"w{i}/B-T x{i}/O" for i in range(8)))
    left_out = sorted(set(range(8)) - set(sample_indices(8, 3).tolist()))[0]
    train, test = file_of(tmp_path, "a.jsonl", rows), file_of(tmp_path, "b.jsonl", [rows[left_out]])
    assert len(load_splits(Settings(train_file=train, test_file=test, max_train_samples=3), ENCODER)[0]["test"]) == 1
    with pytest.raises(Refusal, match=rf"b\.jsonl row 1 is .*a\.jsonl row {left_out + 1}"):
        load_splits(Settings(train_file=train, test_file=test), ENCODER)


def three_splits(folder: Path, train: Any, validation: Any, test: Any, **flags: Any) -> Settings:
    """Settings of three files."""
    rows = {"train": train, "validation": validation, "test": test}
    files: dict[str, Any] = {f"{name}_file": file_of(folder, f"{name}.jsonl", rows[name]) for name in rows}
    return Settings(**files | flags)


def test_each_split_has_its_own_scheme_and_trains_types(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Numbers mean the same in all; a test without tags has none; the card is told what was said."""
    asked = three_splits(
        tmp_path,
        tagged("Oslo/I-LOC rose/O", "Bank/I-ORG fell/O today/O"),
        tagged("Perth/O Mining/B-ORG Group/E-ORG"),
        [{"text": "Quito slid."}],
    )
    splits, types, facts = load_splits(asked, ENCODER)
    assert (list(splits), types) == (["train", "validation", "test"], ["LOC", "ORG"])
    assert [splits[name].gold_chosen.tolist() for name in splits] == [[1, 0, 3, 0, 0], [0, 3, 4], []]
    assert splits["test"].gold is None
    assert facts == {
        "train": "2 sentences, 5 words, IOB1: 1 LOC, 1 ORG",
        "validation": "1 sentences, 3 words, IOBES: 1 ORG",
        "test": "1 sentences, 3 words: no tags",
    } | {key: value for key, value in facts.items() if key.startswith("sentences")}
    assert capsys.readouterr().out == "".join(f"{name}: {facts[name]}\n" for name in splits)


def test_a_split_without_entities_says_so(tmp_path: Path) -> None:
    """In the scheme of the one before; from such a training file nothing can be learnt but by a trained folder."""
    asked = three_splits(
        tmp_path, tagged("Oslo/S-LOC rose/O"), tagged("it/O rained/O"), [{"text": "dry", "entities": []}]
    )
    _, _, facts = load_splits(asked, ENCODER)
    assert facts["validation"] == "1 sentences, 2 words, IOBES: no entity"
    assert facts["test"] == "1 sentences, 1 words, IOBES: no entity"
    said = refusal_of(tmp_path, "bare.jsonl", tagged("it/O rained/O", "and/O rained/O"))
    file = str(tmp_path / "bare.jsonl")
    assert said == f"{file} row 1 to {file} row 2: no entity in any of them; tag some to learn from"
    split, types = train_on(tmp_path, "bare.jsonl", tagged("it/O rained/O"), tagger("O", "B-LOC", "I-LOC"))
    assert (types, split.gold_chosen.tolist()) == (["LOC"], [0, 0])


@pytest.mark.parametrize("name", ["validation", "test"])
def test_a_type_that_train_has_not_is_refused(name: str, tmp_path: Path) -> None:
    """By its own row, which need not be the first; a trained folder's types are asked of train too."""
    odd = tagged("nothing/O here/O", "Hill/B-PER rose/O", "Hill/B-PER again/O")
    rows: dict[str, Any] = {"validation": tagged("Oslo/B-LOC"), "test": tagged("Lima/B-LOC fell/O")} | {name: odd}
    mending = "; mend the tag, or take the entity out"
    with pytest.raises(Refusal) as refusal:
        load_splits(three_splits(tmp_path, tagged("Perth/B-LOC Bank/B-ORG"), **rows), ENCODER)
    assert str(refusal.value) == f"{tmp_path}/{name}.jsonl row 2: type PER is none of train's: LOC, ORG{mending}"
    said = refusal_of(tmp_path, "new.jsonl", odd, tagger("O", "B-LOC", "I-LOC"))
    assert said == f"{tmp_path}/new.jsonl row 2: type PER is none of the folder's: LOC{mending}"


def test_tags_that_break_a_scheme_are_counted_and_mended(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the first one's place and word, all of the split; an I- with nothing before it opens an entity."""
    rows = tagged("Oslo/B-LOC rose/O", "in/O Lima/I-LOC Bank/I-ORG Group/I-ORG", "Perth/I-ORG")
    split, _ = train_on(tmp_path, "a.jsonl", rows)
    assert split.gold_chosen.tolist() == [1, 0, 0, 1, 3, 4, 3]
    first = f"{tmp_path}/a.jsonl row 2 word 2, I-LOC"
    assert capsys.readouterr().out == (
        f"! 3 tags break IOB2, first {first}: a tag that goes on with no entity opens one\n"
        "train: 3 sentences, 7 words, IOB2: 2 LOC, 2 ORG\n"
    )


def test_a_type_of_two_lines_is_told_in_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """JSON can write such; no line on the screen is made up by a file."""
    train_on(tmp_path, "a.jsonl", [{"tokens": ["Oslo", "rose"], "ner_tags": ["B-P\n! all", "I-Q\n! bad"]}])
    odd, counted = capsys.readouterr().out.splitlines()
    assert counted.endswith(r"IOB2: 1 'P\n! all', 1 'Q\n! bad'")
    assert r"a.jsonl row 1 word 2, 'I-Q\n! bad': a tag that goes on" in odd


def test_widened_entities_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """How many, of those that count."""
    rows = [{"text": f"Oslo Bank{i} rose", "entities": [[0, 7, "ORG"], [12, 13, "X"]]} for i in range(4)]
    train_on(tmp_path, "a.jsonl", rows)
    assert capsys.readouterr().out == (
        "train: 4 sentences, 12 words, IOB2: 4 ORG, 4 X\n"
        "! 8 entities begin or end within a word, and were widened to whole words\n"
    )
    train_on(tmp_path, "a.jsonl", rows, max_train_samples=1)
    assert "! 2 entities begin" in capsys.readouterr().out


def test_a_sentence_of_a_thousand_words_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As columns without blank lines are one; a thousand are not yet odd."""
    train_on(tmp_path, "a.conll", "Oslo B-LOC\n\n" + "up O\n" * 1001)
    found = f"! {tmp_path}/a.conll row 2 has 1,001 words; is a blank line missing?\n"
    assert capsys.readouterr().out == f"train: 2 sentences, 1,002 words, IOB2: 1 LOC\n{found}"
    train_on(tmp_path, "a.conll", "Oslo B-LOC\n\n" + "up O\n" * 1000)
    assert "!" not in capsys.readouterr().out


def test_one_sentence_of_two_taggings_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of train alone, whatever the letter case; the same tagging twice is no matter."""
    rows = tagged("Oslo/B-LOC rose/O", "Lima/B-LOC fell/O", "OSLO/B-ORG rose/O", "Lima/B-LOC fell/O")
    train_on(tmp_path, "a.jsonl", rows)
    file = str(tmp_path / "a.jsonl")
    assert capsys.readouterr().out.splitlines()[1:] == [
        f"! 1 training sentences stand there twice with different tags, first {file} row 1 and {file} row 3"
    ]
    load_splits(Settings(validation_file=[file]), tagger("O", "B-LOC", "I-LOC", "B-ORG", "I-ORG"))
    assert "!" not in capsys.readouterr().out


def test_a_sentence_of_two_splits_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever its case and form; --allow_leakage goes on, and the card says so."""
    train = tagged("Lima/B-LOC fell/O ./O", "Oslo/B-LOC rose/O ./O")
    rows = (train, tagged("Quito/B-LOC slid/O"), [{"text": "OSLO rose."}])
    with pytest.raises(Refusal, match="--allow_leakage") as refusal:
        load_splits(three_splits(tmp_path, *rows), ENCODER)
    assert f"{tmp_path}/test.jsonl row 1 is {tmp_path}/train.jsonl row 2" in str(refusal.value)
    capsys.readouterr()
    splits, _, facts = load_splits(three_splits(tmp_path, *rows, allow_leakage=True), ENCODER)
    assert len(splits["test"]) == 1
    assert "1 test exact copies" in facts["sentences in two splits"]
    assert "0 validation exact copies" in facts["sentences in two splits"]
    assert "test has 1 exact" in capsys.readouterr().out


@pytest.mark.parametrize("row", [{"text": "Up"}, {"text": "Up", "entities": None}, {"tokens": ["a"], "tags": ["O"]}])
@pytest.mark.parametrize("name", ["train", "validation"])
def test_only_a_test_file_may_lack_tags(name: str, row: dict[str, Any], tmp_path: Path) -> None:
    """What is trained on, or scored every epoch, needs them; the message names both columns and what is there."""
    rows: dict[str, Any] = {"train": tagged("Oslo/B-LOC"), "validation": tagged("Lima/B-LOC"), "test": [row]}
    load_splits(three_splits(tmp_path, **rows), ENCODER)
    with pytest.raises(Refusal) as refusal:
        load_splits(three_splits(tmp_path, **rows | {name: [row]}), ENCODER)
    assert str(refusal.value) == (
        f"{tmp_path}/{name}.jsonl row 1: no tags in a column ner_tags (--tags_column), and no list of a text's "
        f"entities, if only [], in a column entities (--entities_column); found {', '.join(row)}"
    )


def test_a_test_file_has_all_tags_or_none(tmp_path: Path) -> None:
    """Scores would be of some rows alone."""
    rows = tagged("Oslo/B-LOC", "Lima/B-LOC")
    asked = three_splits(tmp_path, rows, tagged("Perth/B-LOC"), [*tagged("Turin/B-LOC"), {"text": "up"}, {"text": "x"}])
    with pytest.raises(Refusal, match=r"test\.jsonl row 2: has no tags, other rows have; tag all or none$"):
        load_splits(asked, ENCODER)


def test_a_file_without_a_row_is_refused(tmp_path: Path) -> None:
    """Of blank lines or comments alone; so is a data set's split."""
    for name, content in (("a.jsonl", "\n\n"), ("a.conll", "# a comment\n\n"), ("a.txt", " \n")):
        found = f"{tmp_path}/{name}: no row in it; write some, or leave the file out"
        assert refusal_of(tmp_path, name, content) == found
    Dataset.from_dict({"tokens": [[]], "ner_tags": [[]]}).to_parquet(tmp_path / "set" / "train.parquet")
    with pytest.raises(Refusal, match=r"set train: no row in it; "):
        load_splits(Settings(dataset=str(tmp_path / "set")), ENCODER)


def test_rows_of_data_sets_that_hold_no_word_are_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Some on the Hub end in one, and nobody can take it out there; in a file it is refused."""
    tokens: list[list[str]] = [[], ["Oslo"], ["Lima"], []]
    tags: list[list[str]] = [[], ["B-LOC"], ["O"], []]
    Dataset.from_dict({"tokens": tokens, "ner_tags": tags}).to_parquet(tmp_path / "set" / "train.parquet")
    splits, _, facts = load_splits(Settings(dataset=str(tmp_path / "set")), ENCODER)
    assert splits["train"].gold_chosen.tolist() == [1, 0]
    assert splits["train"].places == [f"{tmp_path}/set train row {i}" for i in (2, 3)]
    said = f"! 2 rows hold no word and are left out, first {tmp_path}/set train row 1\ntrain: {facts['train']}\n"
    assert capsys.readouterr().out == said
    with pytest.raises(Refusal, match=r"train\.parquet row 1: column tokens must hold a list of words"):
        load_splits(Settings(train_file=[str(tmp_path / "set" / "train.parquet")]), ENCODER)
    Dataset.from_dict({"tokens": [[]], "ner_tags": [["O"]]}).to_parquet(tmp_path / "odd" / "train.parquet")
    with pytest.raises(Refusal, match="train row 1: column tokens must hold a list of words"):
        load_splits(Settings(dataset=str(tmp_path / "odd")), ENCODER)


# --- Checkpoints ------------------------------------------------------------------------------------------------------


def test_a_trained_folder_knows_its_types(tmp_path: Path) -> None:
    """In any order of its labels; what is not in the file stays a type; the numbers of a file are not its numbers."""
    assert trained_types(ENCODER) is None
    checkpoint = tagger("B-PER", "O", "I-LOC", "I-PER", "B-LOC")
    assert trained_types(checkpoint) == ["LOC", "PER"]
    splits, types, _ = load_splits(
        Settings(test_file=file_of(tmp_path, "a.jsonl", tagged("Hill/B-PER rose/O"))), checkpoint
    )
    assert (types, splits["test"].gold_chosen.tolist()) == (["LOC", "PER"], [3, 0])
    numbers = file_of(tmp_path, "b.jsonl", [{"tokens": ["Hill", "rose"], "ner_tags": [1, 0]}])
    with pytest.raises(Refusal, match="row 1: tags are numbers; name them in their order, --labels"):
        load_splits(Settings(test_file=numbers), checkpoint)
    splits, _, _ = load_splits(Settings(test_file=numbers, labels=["O", "B-PER"]), checkpoint)
    assert splits["test"].gold_chosen.tolist() == [3, 0]


@pytest.mark.parametrize(
    "labels", [("LABEL_0", "LABEL_1"), ("O", "B-LOC"), ("B-LOC", "I-LOC"), ("O", "S-LOC", "B-LOC"), ("O", "I-LOC")]
)
def test_a_folder_of_other_labels_is_refused(labels: tuple[str, ...]) -> None:
    """With those that it has; only O, and B- and I- of each type, can be predicted."""
    with pytest.raises(Refusal) as refusal:
        trained_types(tagger(*labels))
    found = f"its labels are not O, and B- and I- of each type: {list(labels)}"
    assert str(refusal.value) == f"checkpoint the folder: {found}"


def test_a_folder_that_cannot_predict_is_refused(tmp_path: Path) -> None:
    """An encoder that is not trained, or a model of sentiment."""
    asked = Settings(test_file=file_of(tmp_path, "a.txt", "Oslo rose\n"))
    with pytest.raises(Refusal, match=r"the folder: is no entity model, and there is no --train_file to make one$"):
        load_splits(asked, ENCODER)
    with pytest.raises(Refusal, match="the folder: is a BertForSequenceClassification"):
        load_splits(asked, tagger("bad", "good", head="BertForSequenceClassification"))
