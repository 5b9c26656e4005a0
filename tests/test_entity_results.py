"""What an entity run leaves: scores of words in rows, their intervals, predictions, and the card's tables."""

import json
import re
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from seqeval.metrics.v1 import precision_recall_fscore_support
from seqeval.scheme import IOB2
from transformers.trainer_utils import EvalPrediction

import run_ner
from two_stage.checkpointing.handoff import open_checkpoint
from two_stage.data.tag_schemes import tag_names
from two_stage.data.tagged_sentences import Sentence, Sentences, load_splits, read_sentence
from two_stage.results import entity_results, score_tables
from two_stage.results.entity_results import (
    EntitySplit,
    entity_table,
    spoken_counts,
    write_label_scores,
    write_predictions,
)

TYPES = ["LOC", "ORG", "PER"]
COLUMNS = SimpleNamespace(
    tokens_column="tokens", tags_column="ner_tags", text_column="text", entities_column="entities"
)  # fmt: skip
WORDS = 'Oslo Inc. of 東京 Gewinn 🚀 U+2028 \u0085 a\u2028b \u2029 \x1c " \\ {} e\u0301'.split(" ")
Entity = tuple[int, int, int, int]  # sentence, first word in it, the one behind the last, type


def legal_tags(rng: np.random.Generator, lengths: list[int], types: int) -> np.ndarray:
    """Made-up gold tags; an entity often goes on."""
    tags = [0]
    for goes_on, tag in zip(
        rng.random(sum(lengths)) < 0.4, rng.integers(1 + 2 * types, size=sum(lengths)), strict=True
    ):
        tags.append(tags[-1] + tags[-1] % 2 if goes_on else int(tag))
    return np.array(mended(tags[1:], lengths), dtype=np.int64)


def mended(tags: list[int], lengths: list[int]) -> list[int]:
    """Tags with B- for every I- that goes on with nothing."""
    found, place = list(tags), 0
    for length in lengths:
        for i in range(place, place + length):
            opens = i == place or found[i - 1] not in (found[i], found[i] - 1)
            found[i] -= bool(found[i] and found[i] % 2 == 0 and opens)
        place += length
    return found


def token_row(words: list[str]) -> Sentence:
    """As a row of words is read."""
    return read_sentence(("a row", {"tokens": words}), COLUMNS, None)


def split_of(lengths: list[int], types: int, seed: int = 0, **changed: Any) -> Sentences:
    """Made-up sentences of so many words, with tags."""
    rng = np.random.default_rng(seed)
    sentences = [token_row(rng.choice(WORDS[:6], length).tolist()) for length in lengths]
    content = {"sentences": sentences, "documents": None, "gold": legal_tags(rng, lengths, types)}
    places = [f"row {i}" for i in range(len(lengths))]
    return Sentences(places=places, chosen=np.arange(len(lengths)), **content | changed)


def evaluation(logits: np.ndarray, lengths: list[int], numbers: np.ndarray, seed: int = 0) -> EvalPrediction:
    """What a trainer gives of words' logits: rows of a few words each, in any order, padded with -100."""
    rng, rows, first = np.random.default_rng(seed), [], 0
    for length in lengths:
        cuts = sorted({0, length} | set(rng.integers(0, length + 1, 2).tolist()))
        rows += [(first + a, b - a) for a, b in pairwise(cuts)]
        first += length
    rng.shuffle(rows)
    of_model = np.empty_like(logits)
    of_model[:, numbers] = logits
    predictions = np.full((len(rows), max(count for _, count in rows) + 2, logits.shape[1]), -100, dtype=np.float32)
    for row, (first, count) in enumerate(rows):
        predictions[row, :count] = of_model[first : first + count]
    return EvalPrediction(predictions=predictions, label_ids=np.array(rows))


def scored_split(lengths: list[int], types: list[str] = TYPES, seed: int = 0, **changed: Any) -> EntitySplit:
    """A split with the logits of a model that is often right; rows and label order made up."""
    how = {name: changed.pop(name) for name in ("legal", "is_calibrated") if name in changed}
    split = split_of(lengths, len(types), seed, **changed)
    rng = np.random.default_rng(seed + 1)
    numbers = rng.permutation(1 + 2 * len(types))
    gold = legal_tags(np.random.default_rng(seed), lengths, len(types)) if split.gold is None else split.gold
    logits = (2 * rng.normal(size=(sum(lengths), len(numbers))) + 3 * np.eye(len(numbers))[gold]).astype(np.float32)
    scored = EntitySplit(split, None, types, numbers, **how)
    scored(evaluation(logits, lengths, numbers, seed))
    return scored


def naive_entities(tags: list[list[str]], types: list[str]) -> list[Entity]:
    """Read word by word, by name: B- and every I- of its type directly behind."""
    found = []
    for number, sentence in enumerate(tags):
        for start, tag in enumerate(sentence):
            if tag[0] == "B":
                stop = start + 1
                while stop < len(sentence) and sentence[stop] == f"I-{tag[2:]}":
                    stop += 1
                found.append((number, start, stop, types.index(tag[2:])))
    return found


def named(tags: np.ndarray, lengths: list[int], types: list[str]) -> list[list[str]]:
    """Tag names a sentence."""
    stops = np.cumsum(lengths)
    return [[tag_names(types)[tag] for tag in tags[stop - n : stop]] for stop, n in zip(stops, lengths, strict=True)]


def cross_entropy(scored: EntitySplit, temperature: float = 1.0) -> float:
    """The mean over words, as torch has it."""
    logits = torch.tensor(scored.logits, dtype=torch.float64) * temperature
    return float(torch.nn.functional.cross_entropy(logits, torch.tensor(scored.gold_tags)))


def refuse(constant: str) -> None:
    """Of nan and its like, which JSON does not know."""
    raise AssertionError(f"{constant} is no JSON")


# --- Scores -----------------------------------------------------------------------------------------------------------

LENGTHS = st.lists(st.integers(1, 6), min_size=1, max_size=6)


@given(lengths=LENGTHS, types=st.integers(1, 3), seed=st.integers(0, 9999), legal=st.booleans())
def test_words_are_collected_from_rows_and_scored(lengths: list[int], types: int, seed: int, legal: bool) -> None:
    """Whatever the rows' order, their padding and the model's order of labels; scores are torch's and seqeval's."""
    rng = np.random.default_rng(seed)
    numbers = rng.permutation(1 + 2 * types)
    logits = rng.normal(size=(sum(lengths), len(numbers))).astype(np.float32) * 3
    scored = EntitySplit(split_of(lengths, types, seed), None, TYPES[:types], numbers, legal)
    found = scored(evaluation(logits, lengths, numbers, seed))
    assert (scored.logits == logits).all()
    tags = named(scored.tags, lengths, TYPES)
    if legal:
        assert mended(scored.tags.tolist(), lengths) == scored.tags.tolist()
    else:
        assert tags == named(logits.argmax(axis=1), lengths, TYPES)
    assert found["loss"] == pytest.approx(cross_entropy(scored), rel=1e-6)
    gold = named(scored.gold_tags, lengths, TYPES)
    there_are_entities = naive_entities(tags, TYPES) or naive_entities(gold, TYPES)  # seqeval has no score of none
    for prefix, average in {"": "micro", "macro_": "macro"}.items() if there_are_entities else ():
        expected = precision_recall_fscore_support(
            gold, tags, average=average, scheme=IOB2, zero_division=0, warn_for=()
        )
        assert [found[prefix + name] for name in ("precision", "recall", "f1")] == pytest.approx(expected[:3])
    assert found["word_accuracy"] == pytest.approx(np.mean(scored.tags == scored.gold_tags))
    assert all(type(value) is float for value in found.values())


def test_only_legal_tags_come_out_unless_each_word_stands_alone() -> None:
    """O I-A by each word; legally I- needs a B- before it, which here costs 1, and O in its place 3."""
    logits = np.array([[2, 1, 0], [0, -5, 3]], dtype=np.float32)
    split = split_of([2], 1, gold=np.array([1, 2]))
    tags = {}
    for legal in (True, False):
        scored = EntitySplit(split, None, ["A"], np.arange(3), legal)
        scored(evaluation(logits, [2], np.arange(3)))
        tags[legal] = scored.tags.tolist()
    assert tags == {True: [1, 2], False: [0, 2]}


def test_a_second_evaluation_leaves_nothing_of_the_first() -> None:
    """What was worked out of the first logits and kept is worked out anew."""
    lengths = [5, 4, 6]
    one, other = scored_split(lengths, seed=1), scored_split(lengths, seed=1)
    before = [one.scores(), one.counts().tolist(), one.probabilities().tolist(), one.tags.tolist()]
    logits = np.random.default_rng(5).normal(size=one.logits.shape).astype(np.float32)
    evaluated = evaluation(logits, lengths, one.numbers)
    fresh = EntitySplit(other.split, None, TYPES, other.numbers)
    assert one(evaluated) == fresh(evaluated)
    after = [one.scores(), one.counts().tolist(), one.probabilities().tolist(), one.tags.tolist()]
    assert after == [fresh.scores(), fresh.counts().tolist(), fresh.probabilities().tolist(), fresh.tags.tolist()]
    assert all(a != b for a, b in zip(before, after, strict=True))


def test_a_split_without_tags_is_predicted_alone() -> None:
    """Nothing to score by, but tags all the same."""
    scored = scored_split([3, 4], gold=None)
    assert not scored.is_labelled
    assert scored(evaluation(scored.logits, [3, 4], scored.numbers)) == {}
    assert scored.tags.any()


def test_before_any_evaluation_there_are_names_of_scores() -> None:
    """All 0 but for the share of words that are O, as nothing is found yet."""
    split = split_of([4, 4], 3, gold=np.array([1, 2, 0, 0, 0, 3, 0, 0]))
    found = EntitySplit(split, None, TYPES, np.arange(7)).scores()
    assert found.pop("loss") == pytest.approx(np.log(7))
    assert found.pop("word_accuracy") == 5 / 8
    assert set(found.values()) == {0.0}
    assert "f1" in found


# --- Intervals --------------------------------------------------------------------------------------------------------


def naive_intervals(scored: EntitySplit, lengths: list[int], unit: list[int]) -> dict[str, tuple[float, float]]:
    """2,000 resamples of the units, each scored from its entities one by one."""
    gold, found = (set(naive_entities(named(t, lengths, TYPES), TYPES)) for t in (scored.gold_tags, scored.tags))
    names = sorted(set(unit))
    counts = {  # of each unit: right, found and gold entities
        name: [sum(unit[entity[0]] == name for entity in side) for side in (gold & found, found, gold)]
        for name in names
    }
    draws: dict[str, list[float]] = {"precision": [], "recall": [], "f1": []}
    for drawn in np.random.default_rng(0).integers(len(names), size=(2000, len(names))):
        right, predicted, there = (sum(column) for column in zip(*(counts[names[i]] for i in drawn), strict=True))
        draws["precision"].append(right / predicted if predicted else 0.0)
        draws["recall"].append(right / there if there else 0.0)
        draws["f1"].append(2 * right / (predicted + there) if predicted + there else np.nan)
    return {name: tuple(np.nanquantile(values, [0.025, 0.975])) for name, values in draws.items()}


@pytest.mark.parametrize(
    "documents",
    [None, [9, 2, 2, 9, 40, 3, 3, 9, 40, 2, 7, 7, 7, 3, 0, 0]],
    ids=["sentences", "documents"],
)
def test_intervals_are_those_of_a_naive_bootstrap(documents: list[int] | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over sentences, or over documents where they are marked, in whatever order and by whatever numbers."""
    if documents is not None:
        few = scored_split([6, 7, 8, 5] * 4, seed=3, documents=np.array(documents))
        assert few.item_counts().tolist() == few.counts().tolist()  # 6 documents are too few to be drawn
        monkeypatch.setattr(entity_results, "LEAST_DOCUMENTS", 6)
    lengths = [6, 7, 8, 5] * 4
    marked = None if documents is None else np.array(documents)
    scored = scored_split(lengths, seed=3, documents=marked)
    found = scored.final_scores("test_")
    expected = naive_intervals(scored, lengths, documents or list(range(16)))
    for name, (low, high) in expected.items():
        assert (found[f"test_{name}_low"], found[f"test_{name}_high"]) == pytest.approx((low, high)), name
        assert low < found[f"test_{name}"] < high


def test_the_names_of_the_final_scores() -> None:
    """Every score of entities with an interval, the loss and the share of words without; plain numbers."""
    found = scored_split([6] * 10).final_scores("eval_")
    entity = {f"{prefix}{name}" for prefix in ("", "macro_") for name in ("precision", "recall", "f1")}
    expected = {f"eval_{name}{end}" for name in entity for end in ("", "_low", "_high")}
    expected |= {f"eval_conlleval_{name}" for name in ("accuracy", "precision", "recall", "f1")}
    assert set(found) == expected | {"eval_loss", "eval_word_accuracy", "eval_calibration_error"}
    assert all(type(value) is float for value in found.values())


@pytest.mark.parametrize(
    ("gold", "tags"),
    [([0] * 6, [0] * 6), ([0] * 6, [1, 2, 0, 1, 0, 0]), ([1, 2, 0, 1, 0, 0], [0] * 6)],
    ids=["no entity", "invented ones alone", "none found"],
)
def test_a_split_of_no_right_entity_has_scores_and_files(gold: list[int], tags: list[int], tmp_path: Path) -> None:
    """Scores are 0 and no nan gets into a file; a calibration error needs an entity that was found."""
    scored = EntitySplit(split_of([3, 3], 1, gold=np.array(gold)), None, ["A"], np.arange(3))
    scored(evaluation(np.eye(3, dtype=np.float32)[tags] * 9, [3, 3], np.arange(3)))
    assert scored.tags.tolist() == tags
    found = scored.final_scores("test_")
    assert [found[f"test_{name}"] for name in ("precision", "recall", "f1", "macro_f1")] == [0.0] * 4
    assert not np.isnan(list(found.values())).any()
    assert ("test_calibration_error" in found) == any(tags)
    findings = write_label_scores(tmp_path, {"test": scored}, [], {})
    assert {path.name for path in tmp_path.iterdir()} == {"label_scores.json", "confusion_matrix.png"} | (
        {"reliability.png"} if any(tags) else set()
    )
    assert "| A | 0.000 | 0.000 | 0.000 [0.000, 0.000] |" in findings.sections[0]
    table = json.loads((tmp_path / "label_scores.json").read_text(encoding="utf-8"), parse_constant=refuse)["test"]
    assert ("reliability" in table) == any(tags)
    assert write_predictions(tmp_path / "predictions.jsonl", scored) == {"A": sum(tag == 1 for tag in tags)}


def test_a_model_of_no_type(tmp_path: Path) -> None:
    """All words are O: no picture and no table, a score of 0 all the same."""
    scored = EntitySplit(split_of([2, 3], 0), None, [], np.arange(1))
    assert scored(evaluation(np.ones((5, 1), np.float32), [2, 3], np.arange(1)))["f1"] == 0
    assert scored.final_scores("test_")["test_word_accuracy"] == 1
    assert write_label_scores(tmp_path, {"test": scored}, [], {}).sections == ()
    assert list(tmp_path.iterdir()) == []


# --- Calibration ------------------------------------------------------------------------------------------------------


def shares_as_logits(shares: list[list[float]]) -> np.ndarray:
    """Logits of words with these probabilities."""
    return np.log(np.array(shares)).astype(np.float32) + 1.5


def test_the_calibration_error_by_hand() -> None:
    """Four entities in three of fifteen bins, one of them of two words; a wrong type and a wrong end are wrong."""
    lengths = [1, 1, 2, 2]
    shares = [
        [0.08, 0.92, 0.0 + 1e-9],  # right, of 0.92
        [0.12, 0.88, 1e-9],  # invented, of 0.88: in the same bin, 0.8667 to 0.9333
        [0.1, 0.9, 1e-9],  # B- of 0.9, then I- of 0.8: 0.72, and right
        [0.1, 0.1, 0.8],
        [0.3, 0.7, 1e-9],  # B- of 0.7, then not I- of 0.6: 0.42, and too short
        [0.5, 0.1, 0.4],
    ]
    split = split_of(lengths, 1, gold=np.array([1, 0, 1, 2, 1, 2]))
    scored = EntitySplit(split, None, ["A"], np.arange(3), legal=False)
    scored(evaluation(shares_as_logits(shares), lengths, np.arange(3)))
    assert scored.probabilities() == pytest.approx([0.92, 0.88, 0.72, 0.42], abs=1e-6)
    assert scored.sure_and_right()[1].tolist() == [[1.0], [0.0], [1.0], [0.0]]
    expected = (abs(1 - (0.92 + 0.88)) + abs(1 - 0.72) + abs(0 - 0.42)) / 4
    assert scored.final_scores("")["calibration_error"] == pytest.approx(expected, abs=1e-6)
    bins = scored.reliability()
    assert {i: (int(bins.count[i]), bins.accuracy[i]) for i in np.flatnonzero(bins.count)} == {
        6: (1, 0.0),
        10: (1, 1.0),
        13: (2, 0.5),
    }


def test_an_entity_under_the_rules_by_hand() -> None:
    """One word cannot be I-, so 0.6 of the 0.8 that O and B- have is 0.75; a type more is another label."""
    scored = EntitySplit(split_of([1], 1, gold=np.array([1])), None, ["A"], np.arange(3))
    scored(evaluation(shares_as_logits([[0.2, 0.6, 0.2]]), [1], np.arange(3)))
    assert scored.probabilities() == pytest.approx([0.75], abs=1e-6)
    scored = EntitySplit(split_of([1], 2, gold=np.array([1])), None, ["A", "B"], np.arange(5))
    scored(evaluation(shares_as_logits([[0.1, 0.1, 0.1, 0.6, 0.1]]), [1], np.arange(5)))
    assert scored.sure_and_right()[1].tolist() == [[0.0]]  # its ends, but not its type


@pytest.mark.parametrize("legal", [True, False], ids=["legal", "argmax"])
@pytest.mark.parametrize("temperature", [0.4, 2.5])
def test_a_temperature_changes_probabilities_and_no_tag(legal: bool, temperature: float) -> None:
    """A sequence's score is a sum of logits, which a temperature divides as a whole: the best stays the best."""
    lengths = [5, 8, 3] * 8
    scored = scored_split(lengths, seed=2, legal=legal)
    tags, shares, loss = scored.tags, scored.probabilities(), scored.loss()
    words, before = scored.logits.argmax(axis=1), scored.final_scores("")
    scored.divide(temperature)
    assert (scored.logits.argmax(axis=1) == words).all()
    assert (scored.tags == tags).all()
    assert np.abs(scored.probabilities() - shares).max() > 0.05
    assert scored.probabilities(temperature) == pytest.approx(shares, abs=1e-5)
    fresh = EntitySplit(scored.split, None, TYPES, scored.numbers, legal)
    fresh(evaluation(scored.logits, lengths, scored.numbers))
    assert (fresh.tags == scored.tags).all()
    assert fresh.probabilities() == pytest.approx(scored.probabilities())
    assert scored.loss() == pytest.approx(cross_entropy(scored), rel=1e-6)
    assert scored.loss() != pytest.approx(loss, rel=1e-2)
    after = scored.final_scores("")
    assert after["loss_uncalibrated"] == pytest.approx(loss, rel=1e-5)
    assert after["loss"] == scored.loss()
    assert after["calibration_error_uncalibrated"] == pytest.approx(before["calibration_error"], abs=1e-5)
    assert after["calibration_error"] != pytest.approx(before["calibration_error"], abs=1e-3)
    assert not any("uncalibrated" in name for name in before)
    same = set(before) - {"loss", "calibration_error"}
    assert {name: after[name] for name in same} == {name: before[name] for name in same}


def test_what_a_temperature_is_fitted_on() -> None:
    """Every word's logits in the order of tags, and its tag."""
    scored = scored_split([4, 5])
    logits, tags = scored.logits_and_targets
    assert (logits == scored.logits).all()
    assert (tags == scored.split.gold).all()


# --- predictions.jsonl ------------------------------------------------------------------------------------------------


def read_back(path: Path) -> list[dict[str, Any]]:
    """The rows of a written file, by lines as a file has them."""
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


TEXT = st.lists(st.sampled_from(WORDS), min_size=1, max_size=8)


@st.composite
def rows_read(draw: st.DrawFn) -> list[Sentence]:
    """Rows of words and rows of text; a word of a row may hold white space."""
    rows = []
    for words, is_text in draw(st.lists(st.tuples(TEXT, st.booleans()), min_size=1, max_size=5)):
        content = {"text": draw(st.sampled_from(["", "  "])) + "Oslo " + " \u2028 ".join(words)}
        rows.append(read_sentence(("a row", content if is_text else {"tokens": words}), COLUMNS, None))
    return rows


@given(sentences=rows_read(), seed=st.integers(0, 999), legal=st.booleans(), is_labelled=st.booleans())
def test_predictions_read_back(
    sentences: list[Sentence], seed: int, legal: bool, is_labelled: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """One line a row for every reader, a tag a word, and of every entity the letters that stand there."""
    path = tmp_path_factory.getbasetemp() / "predictions.jsonl"
    lengths = [len(sentence.words) for sentence in sentences]
    scored = scored_split(lengths, seed=seed, legal=legal, sentences=sentences, gold=None)
    if is_labelled:
        scored.split.gold = legal_tags(np.random.default_rng(seed), lengths, 3)
    counts = write_predictions(path, scored)
    rows = read_back(path)
    assert [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] == rows
    assert [row["tokens"] for row in rows] == [sentence.words for sentence in sentences]
    assert [row["text"] for row in rows] == [sentence.text for sentence in sentences]
    assert [row["predicted_tags"] for row in rows] == named(scored.tags, lengths, TYPES)
    assert [row.get("gold_tags") for row in rows] == (
        named(scored.gold_tags, lengths, TYPES) if is_labelled else [None] * len(rows)
    )
    entities = naive_entities([row["predicted_tags"] for row in rows], TYPES)
    assert counts == {kind: sum(entity[3] == k for entity in entities) for k, kind in enumerate(TYPES)}
    for number, row in enumerate(rows):
        here = [entity[1:] for entity in entities if entity[0] == number]
        assert len(row["entities"]) == len(here)
        for entity, (first, stop, kind) in zip(row["entities"], here, strict=True):
            assert list(entity) == ["start", "end", "label", "text", "score"]
            assert row["text"][entity["start"] : entity["end"]] == entity["text"]
            assert re.sub(r"\s", "", entity["text"]) == re.sub(r"\s", "", "".join(row["tokens"][first:stop]))
            letters = sum(len(re.sub(r"\s", "", word)) for word in row["tokens"][:first])
            assert len(re.sub(r"\s", "", row["text"][: entity["start"]])) == letters
            assert entity["label"] == TYPES[kind]
            assert 0 <= entity["score"] <= 1
    scores = [entity["score"] for row in rows for entity in row["entities"]]
    assert scores == pytest.approx(scored.probabilities(), abs=5e-7)


def test_letters_stay_letters_and_line_ends_do_not(tmp_path: Path) -> None:
    """The file is read by people too; JSON of its own leaves U+0085, U+2028 and U+2029, at which many readers split."""
    scored = scored_split([4], sentences=[token_row(["東京", "a\u2028b", "\u0085", "\u2029ü"])])
    write_predictions(tmp_path / "predictions.jsonl", scored)
    written = (tmp_path / "predictions.jsonl").read_text(encoding="utf-8")
    assert written.count("\n") == len(written.splitlines()) == 1
    assert '"東京", "a\\u2028b", "\\u0085", "\\u2029ü"' in written
    assert len(json.dumps(scored.split.sentences[0].words, ensure_ascii=False).splitlines()) > 1


@pytest.mark.parametrize("legal", [True, False], ids=["legal", "argmax"])
def test_predictions_train_the_next_model(legal: bool, tiny_folder: Path, tmp_path: Path) -> None:
    """`--tags_column predicted_tags` reads the same words and entities; so does the text with its entities."""
    texts = ["Oslo Inc. rose, 東京 fell.", "a\u2028b U.S. bank", "Gewinn 🚀 of Lima (Peru)"]
    sentences = [read_sentence(("a row", {"text": text}), COLUMNS, None) for text in texts]
    lengths = [len(sentence.words) for sentence in sentences]
    scored = scored_split(lengths, seed=4, legal=legal, sentences=sentences)
    write_predictions(tmp_path / "predictions.jsonl", scored)
    checkpoint = open_checkpoint(str(tiny_folder))
    call: dict[str, Any] = {"train_file": [str(tmp_path / "predictions.jsonl")]}
    for columns in ({"tags_column": "predicted_tags"}, {"tokens_column": "no"}):
        if columns != {"tokens_column": "no"} or legal:  # else an I- without its B- is a tag, but no entity
            splits, types, _ = load_splits(run_ner.Settings(**call | columns), checkpoint)
            assert types == sorted({TYPES[(tag - 1) // 2] for tag in scored.tags if tag})
            assert [sentence.words for sentence in splits["train"].sentences] == [row.words for row in sentences]
            again = splits["train"].gold
            assert again is not None
            assert named(again, lengths, types) == named(
                np.array(mended(scored.tags.tolist(), lengths)), lengths, TYPES
            )


# --- The folder and the card ------------------------------------------------------------------------------------------

HISTORY = [{"loss": 1.0, "step": 2}, {"eval_loss": 0.9, "eval_f1": 0.5, "step": 2}, {"loss": 0.5, "step": 4}]
BECAME = ["right", "type", "boundary", "boundary_and_type", "missed", "invented"]


def test_the_files_of_a_run(tmp_path: Path) -> None:
    """Exactly these, strict JSON, every picture in the card once, and counts that add up."""
    scored = {"validation": scored_split([9] * 12, seed=1), "test": scored_split([8, 3] * 10, seed=2)}
    findings = write_label_scores(tmp_path, scored, HISTORY, {"train": "5 sentences"})
    pictures = ["confusion_matrix.png", "learning_curves.png", "reliability.png"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["label_scores.json", *pictures])
    assert all((tmp_path / name).read_bytes().startswith(b"\x89PNG") for name in pictures)
    card = "\n".join(findings.sections)
    assert sorted(re.findall(r"\((\w+\.png)\)", card)) == pictures
    assert all(section.startswith("## ") for section in findings.sections)
    assert findings.facts == {"train": "5 sentences"}
    tables = json.loads((tmp_path / "label_scores.json").read_text(encoding="utf-8"), parse_constant=refuse)
    assert list(tables) == ["validation", "test"]
    for name, table in tables.items():
        split = scored[name]
        lengths = split.lengths.tolist()
        gold, found = (set(naive_entities(named(t, lengths, TYPES), TYPES)) for t in (split.gold_tags, split.tags))
        confusion = np.array(table["confusion_matrix"])
        assert confusion.shape == (4, 4)
        assert sum(table["reliability"]["count"]) == len(found)
        assert None in table["reliability"]["accuracy"]  # of an empty bin
        assert list(table["labels"]) == TYPES
        for k, kind in enumerate(TYPES):
            ours = table["labels"][kind]
            right, there, said = (sum(e[3] == k for e in side) for side in (gold & found, gold, found))
            assert (ours["became"]["right"], ours["support"], ours["predicted"]) == (right, there, said)
            assert (ours["precision"], ours["recall"]) == pytest.approx((right / said, right / there))
            assert ours["f1"] == pytest.approx(2 * right / (said + there))
            assert list(ours["became"]) == BECAME
            assert sum(ours["became"][fate] for fate in BECAME[:-1]) == there == confusion[k].sum()
            assert (ours["became"]["missed"], ours["became"]["invented"]) == (confusion[k, 3], confusion[3, k])


def test_a_run_without_tags_or_training_leaves_nothing(tmp_path: Path) -> None:
    """Sentences that were only predicted have no scores to write; beside others, those of the others are written."""
    untagged = scored_split([4], gold=None)
    findings = write_label_scores(tmp_path, {"test": untagged}, [], {"test": "1 sentence: no tags"})
    assert list(tmp_path.iterdir()) == []
    assert findings.sections == ()
    assert findings.facts == {"test": "1 sentence: no tags"}
    findings = write_label_scores(tmp_path, {"validation": scored_split([9] * 4), "test": untagged}, [], {})
    assert list(json.loads((tmp_path / "label_scores.json").read_text())) == ["validation"]
    assert "| type (validation) |" in findings.sections[0]


def test_the_cards_table_says_what_the_file_says(tmp_path: Path) -> None:
    """The test split's, rounded, with what became of the entities in words."""
    scored = {"validation": scored_split([9] * 4, seed=1), "test": scored_split([9] * 6, seed=2)}
    lines = write_label_scores(tmp_path, scored, [], {}).sections[0].splitlines()
    table = json.loads((tmp_path / "label_scores.json").read_text(encoding="utf-8"))["test"]["labels"]
    expected = []
    for kind, found in table.items():
        shares = [f"{found[name]:.3f}" for name in ("precision", "recall", "f1")]
        shares[-1] += f" [{found['f1_low']:.3f}, {found['f1_high']:.3f}]"
        counts = [found["support"], *(found["became"][name] for name in BECAME)]
        expected.append("| " + " | ".join([kind, *shares, *map(str, counts)]) + " |")
    assert lines[2].startswith("| type (test) | precision | recall | F1 | entities | right |")
    assert lines[4:7] == expected
    assert {line.count("|") for line in lines[2:7]} == {12}


def test_each_type_has_intervals_and_conllevals_figures() -> None:
    """The interval of one type alone is that of all; legal tags have conlleval's scores as their own."""
    one = scored_split([9] * 30, ["A"], seed=4)
    (found,) = entity_table(one)["labels"].values()
    scores = one.final_scores("test_")
    for name in ("precision", "recall", "f1"):
        assert found[f"{name}_low"] == pytest.approx(scores[f"test_{name}_low"])
        assert found[f"{name}_high"] == pytest.approx(scores[f"test_{name}_high"])
        assert found[f"{name}_low"] < found[name] < found[f"{name}_high"]
        assert found[f"conlleval_{name}"] == found[name] == pytest.approx(scores[f"test_conlleval_{name}"])
    two = entity_table(scored_split([9] * 30, ["A", "B"], seed=5))["labels"]
    assert two["A"]["f1_low"] != two["B"]["f1_low"]


def test_a_type_cannot_break_the_cards_table(tmp_path: Path) -> None:
    """A bar or a tag in it stays in its cell; the JSON has it as it is."""
    types = ["<img src=x>", "a | b", "東京"]
    card = write_label_scores(tmp_path, {"test": scored_split([9] * 8, types)}, [], {}).sections[0]
    rows = [line for line in card.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + len(types)
    for row in rows:
        assert len(re.split(r"(?<!\\)\|", row)) == 13  # eleven cells and the two ends
    assert "<" not in card
    assert list(json.loads((tmp_path / "label_scores.json").read_text(encoding="utf-8"))["test"]["labels"]) == types
    write_predictions(tmp_path / "predictions.jsonl", scored_split([9] * 8, types))
    found = {entity["label"] for row in read_back(tmp_path / "predictions.jsonl") for entity in row["entities"]}
    assert found == set(types)


def test_what_the_pictures_are_asked_to_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Entities, not texts; no number where neither side has an entity; both curves of a model that was calibrated."""
    drawn: list[tuple[Any, ...]] = []
    for module, name in ((entity_results, "draw_confusion_matrix"), (score_tables, "draw_reliability")):
        monkeypatch.setattr(module, name, lambda path, *rest: drawn.append(rest))
    scored = scored_split([9] * 8)
    write_label_scores(tmp_path, {"test": scored}, [], {})
    scored.divide(2.0)
    write_label_scores(tmp_path, {"test": scored}, [], {})
    write_label_scores(tmp_path, {"test": scored_split([9] * 8, is_calibrated=True)}, [], {})
    matrix, labels, title, items = drawn[0]
    assert np.ma.getmaskarray(matrix).tolist() == [[i == j == 3 for i in range(4)] for j in range(4)]
    assert labels == [*TYPES, "(none)"]
    assert f"{len(scored.gold.start)} test entities" in title
    assert items == "entities"
    curves = [bins for bins, *_ in drawn[1::2]]
    assert [list(bins) for bins in curves] == [["as trained"], ["as trained", "calibrated"], ["calibrated"]]
    before, after = (bins["as trained"].count.tolist() for bins in curves[:2])
    assert before == after != curves[1]["calibrated"].count.tolist()
    assert {items for *_, items in drawn[1::2]} == {"entities"}


def test_thirty_types(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All in the table, in their order, and in the picture."""
    drawn: list[int] = []
    monkeypatch.setattr(entity_results, "draw_confusion_matrix", lambda path, counts, *rest: drawn.append(len(counts)))
    types = [f"type {i:02}" for i in range(30)]
    card = write_label_scores(tmp_path, {"test": scored_split([20] * 10, types)}, [], {}).sections[0]
    assert re.findall(r"^\| (type \d\d) ", card, flags=re.MULTILINE) == types
    assert drawn == [31]


def test_counts_are_spoken() -> None:
    """Types of which there is one at least."""
    assert spoken_counts({"LOC": 1234, "ORG": 0, "PER": 1}) == "1,234 LOC, 1 PER"
    assert spoken_counts({"LOC": 0}) == "no entity"
    assert spoken_counts({}) == "no entity"
    assert spoken_counts({"A\nFound": 2}) == r"2 'A\nFound'"  # a type of two lines makes no line of its own
