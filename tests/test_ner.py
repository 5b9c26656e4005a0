"""Words and word pieces: every word keeps its tag, every word gets one answer, and the folder is a stock model's."""

import json
import math
import random
import shutil
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import nn
from transformers import AutoModelForTokenClassification, AutoTokenizer, BertConfig, PreTrainedTokenizerBase, pipeline
from transformers.modeling_outputs import TokenClassifierOutput

import run_ner
from two_stage.command_line.exits import Refusal
from two_stage.data.tagged_sentences import Sentence, Sentences

WORDS = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=12) | st.sampled_from(
    ["profit", "U.S.", "3,5%", "\u200b", "\u00ad", "ﬁrm", "東京", "e\u0301", " ", "", "[SEP]", "x" * 200]
)
SENTENCES = st.lists(st.lists(WORDS, min_size=1, max_size=12), min_size=1, max_size=4)
QUICK = ["--use_cpu", "--logging_steps", "5", "--save_strategy", "no"]


@pytest.fixture(scope="module")
def tokenizer(tiny_folder: Path) -> PreTrainedTokenizerBase:
    """The tiny checkpoint's."""
    return AutoTokenizer.from_pretrained(tiny_folder)


def split_of(words: list[list[str]], gold: list[list[int]] | None = None) -> Sentences:
    """A split of these words, with these tag numbers."""
    sentences = [
        Sentence(sentence, " ".join(sentence), np.zeros((len(sentence), 2), dtype=int), None) for sentence in words
    ]
    numbers = None if gold is None else np.array([tag for sentence in gold for tag in sentence])
    places = [f"a row {i + 1}" for i in range(len(words))]
    return Sentences(sentences, places, None, np.arange(len(words)), numbers)


# --- Alignment --------------------------------------------------------------------------------------------------------


def pieces_of(word: str, tokenizer: PreTrainedTokenizerBase, room: int) -> list[int]:
    """One word's pieces, alone; one that vanishes is [UNK]."""
    ids = tokenizer([word], is_split_into_words=True, add_special_tokens=False, verbose=False)["input_ids"]
    return ids[:room] or [tokenizer.unk_token_id]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    words=SENTENCES,
    max_length=st.integers(8, 24),
    stride=st.integers(0, 12),
    every=st.booleans(),
    seed=st.integers(0, 99),
)
def test_alignment_equals_the_naive_twin(
    words: list[list[str]], max_length: int, stride: int, every: bool, seed: int, tokenizer: PreTrainedTokenizerBase
) -> None:
    """Whatever the windows are, a row is [CLS], the pieces of its words, [SEP], with labels on its own words alone."""
    rng = np.random.default_rng(seed)
    gold = [rng.integers(0, 5, len(sentence)).tolist() for sentence in words]
    numbers = rng.permutation(5)  # a model's own order of O, B-A, I-A, B-B, I-B
    reading = run_ner.Reading(max_length, stride, label_pieces="all" if every else "first")
    rows = run_ner.build_rows("train", split_of(words, gold), reading, numbers, tokenizer)
    flat_words, flat_gold = list(chain.from_iterable(words)), list(chain.from_iterable(gold))
    answered = []
    for row in rows:
        first, count = row["first_word"], len(row["word_tokens"])
        answered += range(first, first + count)
        expected = [-100] * len(row["input_ids"])
        for word, token in zip(range(first, first + count), row["word_tokens"], strict=True):
            pieces = pieces_of(flat_words[word], tokenizer, max_length - 2)
            assert row["input_ids"][token : token + len(pieces)] == pieces
            tag = flat_gold[word]
            expected[token] = numbers[tag]
            for further in range(token + 1, token + len(pieces)) if every else ():
                expected[further] = numbers[{1: 2, 3: 4}.get(tag, tag)]  # B-A goes on as I-A
        assert row["labels"] == expected
        assert row["input_ids"][0] == tokenizer.cls_token_id
        assert row["input_ids"][-1] == tokenizer.sep_token_id
        assert len(row["input_ids"]) <= max_length
    assert answered == list(range(len(flat_words)))


@pytest.mark.parametrize("context", [0, 2])
def test_a_row_knows_its_sentence(context: int, tokenizer: PreTrainedTokenizerBase) -> None:
    """Whatever it is cut into, and whatever is read around it."""
    nouns = ["profit", "cash", "bank"]
    split = split_of([[noun] * length for noun, length in zip(nouns, (9, 1, 30), strict=True)])
    rows, _ = run_ner.cut_rows(split, run_ner.Reading(10, 2, context=context), np.arange(3), tokenizer)
    places = run_ner.row_places(split, rows)
    assert len(places) > 3
    own = [row["input_ids"][row["word_tokens"][0]] for row in rows]  # of the words that the row answers for
    assert [nouns[int(place[-1]) - 1] for place in places] == tokenizer.convert_ids_to_tokens(own)


def test_a_short_sentence_is_what_the_tokenizer_makes_of_it(tokenizer: PreTrainedTokenizerBase) -> None:
    """One row, bit for bit, of words that have pieces."""
    words = [["Profit", "rose", "3,5%", "in", "Oslo", "ﬁrm", "."]]
    row = run_ner.build_rows("train", split_of(words), run_ner.Reading(), np.arange(3), tokenizer)[0]
    assert row["input_ids"] == tokenizer(words[0], is_split_into_words=True)["input_ids"]


def test_odd_words_are_told_and_keep_their_label(
    tokenizer: PreTrainedTokenizerBase, capsys: pytest.CaptureFixture[str]
) -> None:
    """A zero-width word is read as [UNK]; one longer than a row begins it and is cut."""
    split = split_of([["\u200b", "x" * 90, "rose"]], [[1, 2, 0]])
    rows = run_ner.build_rows("test", split, run_ner.Reading(16, 0, label_pieces="first"), np.arange(3), tokenizer)
    labels = sorted((row["first_word"], [label for label in row["labels"] if label != -100]) for row in rows)
    assert labels == [(0, [1]), (1, [2]), (2, [0])]
    told = capsys.readouterr().out
    assert "test: 2 rows more than sentences" in told
    assert "! test: 1 words are longer than a window" in told
    assert "! test: 1 words have no word piece: read as [UNK]" in told


def test_context_is_read_and_not_labelled(
    tokenizer: PreTrainedTokenizerBase, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every word still has its label once; a file without documents is told that it has none."""
    words = [["profit", "rose"], ["cash", "fell", "in", "oslo"], ["debt", "grew"]]
    gold = [[1, 0], [0, 0, 0, 1], [2, 0]]
    reading = run_ner.Reading(context=2, label_pieces="first")
    rows = run_ner.build_rows("train", split_of(words, gold), reading, np.arange(3), tokenizer)
    assert [tokenizer.decode(row["input_ids"]) for row in rows] == [
        "[CLS] profit rose cash fell [SEP]",
        "[CLS] profit rose cash fell in oslo debt grew [SEP]",
        "[CLS] oslo debt grew [SEP]",  # "in" is two pieces
    ]
    assert [[label for label in row["labels"] if label != -100] for row in rows] == gold
    assert "no documents are marked" in capsys.readouterr().out


# --- Loss -------------------------------------------------------------------------------------------------------------


class Fixed(nn.Module):
    """A model that always gives the same logits."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, **_: Any) -> TokenClassifierOutput:
        """Whatever it is asked."""
        return TokenClassifierOutput(logits=self.logits)


def test_the_loss_by_hand() -> None:
    """Two words of two tags, smoothed by 0.2 and weighted 0.5 and 1.5; a piece without a label adds nothing."""
    logits = torch.tensor([[[math.log(3.0), 0.0], [0.0, 0.0], [5.0, -5.0]]])
    trainer = SimpleNamespace(
        loss=run_ner.chosen_loss("cross_entropy", 0.2, None),
        tag_weights=torch.tensor([0.5, 1.5]),
        step_mean=lambda sums, items: (sums / items).sum(),
    )
    inputs = {name: torch.zeros(1, 3) for name in ("input_ids", "attention_mask")}
    inputs["labels"] = torch.tensor([[0, 1, run_ner.NO_LABEL]])
    loss = run_ner.NerTrainer.compute_loss(trainer, Fixed(logits), inputs, num_items_in_batch=torch.tensor([2]))
    smoothed = -0.9 * math.log(0.75) - 0.1 * math.log(0.25)
    assert float(loss) == pytest.approx((0.5 * smoothed + 1.5 * math.log(2)) / 2)


@pytest.mark.parametrize("pieces", ["first", "all"])
def test_weights_are_of_what_is_learned_from(pieces: str, tokenizer: PreTrainedTokenizerBase) -> None:
    """`balanced` gives every label the same in all, however many pieces carry it, in the model's own order."""
    words, gold = [["profit", "3,5%", "xyz", "rose"], ["xyz", "oslo", "abc"]], [[0, 1, 2, 0], [3, 4, 0]]
    numbers = np.array([3, 0, 4, 2, 1])
    reading = run_ner.Reading(label_pieces=pieces)
    rows = run_ner.build_rows("train", split_of(words, gold), reading, numbers, tokenizer)
    labels = np.array([label for row in rows for label in row["labels"] if label != -100])
    weights = run_ner.tag_weights(["balanced"], rows, numbers)
    sums = np.bincount(labels, weights=weights[labels], minlength=5)
    assert sums == pytest.approx(np.full(5, len(labels) / 5))
    typed = run_ner.tag_weights(["1", "2", "2", "4", "8"], rows, numbers)
    assert typed[numbers] / typed[numbers[0]] == pytest.approx([1, 2, 2, 4, 8])
    assert typed[labels].mean() == pytest.approx(1)


def test_row_results_are_of_first_pieces() -> None:
    """The logits at each word's first piece; rows of fewer words are filled up, and say how many they have."""
    logits = torch.arange(24.0).reshape(2, 4, 3)
    inputs = {name: torch.zeros(2, 4) for name in ("input_ids", "attention_mask")}
    inputs |= {"word_tokens": torch.tensor([[1, 3], [2, -1]]), "first_word": torch.tensor([7, 0])}
    words, which = run_ner.NerTrainer.row_results(SimpleNamespace(), Fixed(logits), inputs)
    assert words[0].tolist() == [logits[0, 1].tolist(), logits[0, 3].tolist()]
    assert words[1, 0].tolist() == logits[1, 2].tolist()
    assert which.tolist() == [[7, 2], [0, 1]]


# --- The script -------------------------------------------------------------------------------------------------------


PHRASES = [["profit"], ["rose"], ["cash"], ["fell"], ["debt"], ["in"], [","], [":"], ["."], ["turin"], ["oslo", "lima"]]


def tagged(count: int, length: int, seed: int) -> list[dict[str, Any]]:
    """Made-up sentences of so many words, with two places: Turin, and Oslo Lima."""
    rng = random.Random(seed)
    rows = []
    for _ in range(count):
        words: list[str] = []
        while len(words) < length:
            words += rng.choice(PHRASES if len(words) < length - 1 else PHRASES[:-1])
        rows.append(
            {
                "tokens": words,
                "ner_tags": [{"turin": "B-LOC", "oslo": "B-LOC", "lima": "I-LOC"}.get(word, "O") for word in words],
            }
        )
    return rows


def write_rows(path: Path, rows: list[dict[str, Any]]) -> str:
    """As JSON lines; returns the path."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of predictions.jsonl."""
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


@pytest.fixture(scope="module")
def trained(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that learned the places, calibrated, from sentences of 30 words in windows of 16 pieces."""
    folder = tmp_path_factory.mktemp("ner")
    files = {
        name: write_rows(folder / f"{name}.jsonl", tagged(60, 30, i)) for i, name in enumerate(("train", "dev", "test"))
    }
    call = ["--checkpoint", str(tiny_folder), "--output_dir", str(folder / "made"), "--train_file", files["train"]]
    call += ["--validation_file", files["dev"], "--test_file", files["test"], "--max_length", "16", "--stride", "4"]
    call += ["--learning_rate", "5e-3", "--head_learning_rate", "5e-3", "--num_train_epochs", "6", "--calibrate"]
    run_ner.main([*call, *QUICK])
    return folder / "made"


def test_long_sentences_lose_nothing(trained: Path) -> None:
    """30 words in rows of 14: one answer a word, and right ones, behind the first row as in it."""
    scores = json.loads((trained / "all_results.json").read_text())
    assert scores["test_f1"] > 0.98
    assert scores["test_f1_low"] <= scores["test_f1"] <= scores["test_f1_high"]
    assert scores["test_conlleval_f1"] == scores["test_f1"]  # gold and predictions are legal
    for row in read_rows(trained / "predictions.jsonl"):
        assert len(row["predicted_tags"]) == len(row["tokens"]) == 30


def test_two_hundred_words_in_rows_of_64(trained: Path, tmp_path: Path) -> None:
    """Nothing is lost at the ends of windows: a sentence is read as its parts are; --max_length is the user's."""
    rows = tagged(5, 200, seed=9)
    made = tmp_path / "made"
    call = ["--checkpoint", str(trained), "--test_file", write_rows(tmp_path / "long.jsonl", rows), "--use_cpu"]
    scores = run_ner.main([*call, "--max_length", "64", "--output_dir", str(made)])
    assert [len(row["predicted_tags"]) for row in read_rows(made / "predictions.jsonl")] == [200] * 5
    assert scores["test_f1"] > 0.95


def test_plain_text_is_predicted(trained: Path, tmp_path: Path) -> None:
    """A line a row, with entities as spans of characters; the folder knows how it reads."""
    (tmp_path / "news.txt").write_text("Profit rose in Oslo Lima, cash fell.\n\nTurin: debt\n", encoding="utf-8")
    made = tmp_path / "made"
    call = ["--checkpoint", str(trained), "--test_file", str(tmp_path / "news.txt"), "--output_dir", str(made)]
    run_ner.main([*call, "--use_cpu"])
    rows = read_rows(made / "predictions.jsonl")
    assert [row["text"] for row in rows] == ["Profit rose in Oslo Lima, cash fell.", "Turin: debt"]
    found = [[(entity["start"], entity["end"], entity["text"]) for entity in row["entities"]] for row in rows]
    assert found == [[(15, 24, "Oslo Lima")], [(0, 5, "Turin")]]
    assert all(0.5 < entity["score"] <= 1 for row in rows for entity in row["entities"])
    assert "max_length: 16" in (made / "recipe.yaml").read_text()
    again = ["--checkpoint", str(trained), "--test_file", str(made / "predictions.jsonl"), "--check_only", "--use_cpu"]
    assert run_ner.main(again) == {}


def test_the_stock_pipeline_finds_the_same(trained: Path, tmp_path: Path) -> None:
    """Loaded by nothing of ours: each word's likeliest tag is the same, and where it is legal the entities are."""
    texts = [" ".join(row["tokens"]) for row in tagged(30, 9, seed=5)]
    (tmp_path / "texts.txt").write_text("\n".join(texts) + "\n", encoding="utf-8")
    call = [
        "--checkpoint",
        str(trained),
        "--test_file",
        str(tmp_path / "texts.txt"),
        "--use_cpu",
        "--decoding",
        "argmax",
    ]
    run_ner.main([*call, "--output_dir", str(tmp_path / "made")])
    rows = read_rows(tmp_path / "made" / "predictions.jsonl")
    assert sum(len(row["entities"]) for row in rows) > 30
    for strategy in ("simple", "first"):
        entities = pipeline("token-classification", model=str(trained), aggregation_strategy=strategy, device="cpu")
        for row in rows:
            found = [(entity["start"], entity["end"], entity["entity_group"]) for entity in entities(row["text"])]
            assert found == [(entity["start"], entity["end"], entity["label"]) for entity in row["entities"]]


def test_decoding_is_what_the_flag_says(trained: Path, tmp_path: Path) -> None:
    """A head that says I- of every word: argmax gives it, though illegal; by default no I- is left without its B-."""
    model = AutoModelForTokenClassification.from_pretrained(trained)
    with torch.no_grad():
        model.classifier.weight.zero_()
        model.classifier.bias.copy_(torch.tensor([0.0, 1.0, 2.0]))
    model.save_pretrained(tmp_path / "inside")
    AutoTokenizer.from_pretrained(trained).save_pretrained(tmp_path / "inside")
    file = write_rows(tmp_path / "rows.jsonl", [{"tokens": ["cash", "rose", "in"]}])
    tags = {}
    for decoding in ("argmax", "legal"):
        made = tmp_path / decoding
        call = ["--checkpoint", str(tmp_path / "inside"), "--test_file", file, "--use_cpu", "--output_dir", str(made)]
        run_ner.main([*call, "--decoding", decoding])
        tags[decoding] = read_rows(made / "predictions.jsonl")[0]["predicted_tags"]
    assert tags == {"argmax": ["I-LOC"] * 3, "legal": ["B-LOC", "I-LOC", "I-LOC"]}


@pytest.mark.parametrize("decoding", ["legal", "argmax"])
def test_the_card_promises_what_the_folder_does(decoding: str) -> None:
    """Legal tags where the folder's reading gives them, and nothing of them where each word stands alone."""
    model: Any = SimpleNamespace(config=BertConfig())
    limits = " ".join(run_ner.model_card(model, run_ner.Reading(decoding=decoding)).limits)
    assert "reads all of a text, in windows" in limits
    assert ("legal tags" in limits) == (decoding == "legal")


def test_predictions_are_no_gold(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of predictions.jsonl the gold tags score, if they are named; the entities that were found never do."""
    predictions = str(trained / "predictions.jsonl")
    call = ["--checkpoint", str(trained), "--test_file", predictions, "--use_cpu"]
    scores = run_ner.main([*call, "--output_dir", str(tmp_path / "unscored")])
    assert "test_f1" not in scores
    assert "to score them against their gold tags, add --tags_column gold_tags" in capsys.readouterr().out
    again = run_ner.main([*call, "--tags_column", "gold_tags", "--output_dir", str(tmp_path / "scored")])
    made = json.loads((trained / "all_results.json").read_text())
    assert again["test_f1"] == made["test_f1"]
    assert again["test_calibration_error"] == pytest.approx(made["test_calibration_error"], abs=1e-5)


def test_a_temperature_is_in_the_weights(trained: Path) -> None:
    """The head was divided, and says by how much."""
    scores = json.loads((trained / "all_results.json").read_text())
    config = json.loads((trained / "config.json").read_text())
    assert config["head_temperature"] == scores["temperature"] != 1
    assert "test_calibration_error_uncalibrated" in scores
    assert load_file(trained / "model.safetensors")["classifier.weight"].shape == (3, 32)


@pytest.mark.slow  # it trains whole runs
@pytest.mark.parametrize(
    "more",
    [
        ["--loss", "focal"],
        ["--class_weights", "1", "2", "2"],
        ["--label_pieces", "first"],
        ["--context", "8"],
        ["--decoding", "argmax"],
    ],
)
def test_other_ways_to_learn(more: list[str], tiny_folder: Path, tmp_path: Path) -> None:
    """Each trains, scores, and predicts one tag a word."""
    file = write_rows(tmp_path / "rows.jsonl", tagged(16, 9, 0))
    call = ["--checkpoint", str(tiny_folder), "--train_file", file, "--test_file", file, "--allow_leakage"]
    scores = run_ner.main([*call, *more, *QUICK, "--max_steps", "2", "--output_dir", str(tmp_path / "made")])
    assert math.isfinite(scores["test_loss"])
    assert all(len(row["predicted_tags"]) == 9 for row in read_rows(tmp_path / "made" / "predictions.jsonl"))
    if more[0] in ("--context", "--decoding", "--label_pieces"):  # the folder keeps them
        kept = json.loads((tmp_path / "made" / "config.json").read_text())["reading"]
        assert str(kept[more[0].removeprefix("--")]) == more[1]


def test_a_frozen_encoder_and_few_sentences(tiny_folder: Path, tmp_path: Path) -> None:
    """A quarter of 16 sentences, counted as sentences and not as windows, for ten steps; the head alone has moved."""
    file = write_rows(tmp_path / "rows.jsonl", tagged(16, 30, 0))
    call = ["--checkpoint", str(tiny_folder), "--train_file", file, "--output_dir", str(tmp_path / "made"), *QUICK]
    call += ["--train_fraction", "0.25", "--sample_seed", "2", "--freeze_encoder", "--num_train_epochs", "2"]
    scores = run_ner.main([*call, "--min_steps", "10", "--max_length", "16", "--stride", "4"])
    assert scores["train_samples"] == 4
    assert json.loads((tmp_path / "made" / "all_results.json").read_text())["train_samples"] == 4
    # 12 rows of up to 14 pieces a step of 16: 6 times make 5 steps an epoch
    assert json.loads((tmp_path / "made" / "trainer_state.json").read_text())["global_step"] == 10
    before, after = load_file(tiny_folder / "model.safetensors"), load_file(tmp_path / "made" / "model.safetensors")
    encoder = {name for name in after if name.startswith("bert.")}
    assert len(encoder) == 37
    assert [name for name in encoder if not torch.equal(before[name], after[name])] == []
    assert after["classifier.bias"].abs().min() > 0  # it began as zeros


@pytest.mark.slow  # it trains whole runs
def test_seeds_are_trained_one_by_one(tiny_folder: Path, tmp_path: Path) -> None:
    """A folder a seed, and the mean; each seed has a head of its own."""
    file = write_rows(tmp_path / "rows.jsonl", tagged(16, 9, 0))
    call = ["--checkpoint", str(tiny_folder), "--train_file", file, "--test_file", file, "--allow_leakage", *QUICK]
    run_ner.main([*call, "--max_steps", "1", "--seeds", "3", "4", "--output_dir", str(tmp_path / "made")])
    summary = json.loads((tmp_path / "made" / "seeds.json").read_text())
    assert summary["seeds"] == [3, 4]
    assert len(set(summary["scores"]["test_loss"]["each"])) == 2


def test_a_model_from_elsewhere_has_its_own_order(trained: Path, tmp_path: Path) -> None:
    """Labels in another order, as most models on the Hub have them: the same predictions."""
    model = AutoModelForTokenClassification.from_pretrained(trained)
    order = [2, 0, 1]
    with torch.no_grad():
        for parameter in model.classifier.parameters():
            parameter.copy_(parameter[order].clone())
    names = ["O", "B-LOC", "I-LOC"]
    model.config.id2label = {i: names[j] for i, j in enumerate(order)}
    model.config.label2id = {name: i for i, name in model.config.id2label.items()}
    model.save_pretrained(tmp_path / "elsewhere")
    AutoTokenizer.from_pretrained(trained).save_pretrained(tmp_path / "elsewhere")
    file = write_rows(tmp_path / "rows.jsonl", tagged(4, 12, 3))
    made = []
    for folder in (trained, tmp_path / "elsewhere"):
        output = tmp_path / f"of_{folder.name}"
        run_ner.main(["--checkpoint", str(folder), "--test_file", file, "--use_cpu", "--output_dir", str(output)])
        made.append(read_rows(output / "predictions.jsonl"))
    assert made[0] == made[1]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--focal_gamma", "1"], "--focal_gamma 1.0: only --loss focal has it"),
        (["--loss", "focal", "--focal_gamma", "inf"], "--focal_gamma inf: must be between 0 and 100"),
        (["--calibrate"], "--calibrate: needs a --validation_file"),
        (["--stride", "-1"], "--stride -1"),
        (["--seeds", "-1"], "--seeds -1: must be between 0"),
        (["--class_weights", "1", "2"], "--class_weights: `balanced`, or 3 numbers above 0"),
        (["--load_best_model_at_end"], "--load_best_model_at_end"),
        (["--eval_do_concat_batches", "False"], "--eval_do_concat_batches False: does not go"),
        (["--dataset", "x"], "--train_file and --dataset: give one or the other"),
        (["--dataset_config", "x"], "--dataset_config: says which --dataset; there is none"),
        (["--label_smoothing_factor", "0.1", "--loss", "focal"], "only --loss cross_entropy has it"),
    ],
)
def test_calls_that_cannot_work(more: list[str], message: str, tiny_folder: Path, tmp_path: Path) -> None:
    """Refused before a model is loaded or a folder made."""
    file = write_rows(tmp_path / "rows.jsonl", tagged(4, 9, 0))
    call = ["--checkpoint", str(tiny_folder), "--train_file", file, "--output_dir", str(tmp_path / "made"), *QUICK]
    with pytest.raises(Refusal) as refused:
        run_ner.main([*call, *more])
    assert message in str(refused.value)
    assert not (tmp_path / "made").exists()


def test_a_score_that_is_none_cannot_tell_the_best(tiny_folder: Path, tmp_path: Path) -> None:
    """Refused with those that there are, before anything is trained."""
    files = [write_rows(tmp_path / f"{name}.jsonl", tagged(9, 9, i)) for i, name in enumerate(("train", "dev"))]
    call = ["--checkpoint", str(tiny_folder), "--train_file", files[0], "--validation_file", files[1], *QUICK]
    with pytest.raises(Refusal, match="--metric_for_best_model acc: is none of loss, precision, recall, f1, "):
        run_ner.main([*call, "--metric_for_best_model", "acc", "--output_dir", str(tmp_path / "made")])


def test_a_folder_is_trained_further(trained: Path, tmp_path: Path) -> None:
    """With fewer types than it has, too; its temperature holds no more."""
    rows = [{"tokens": ["profit", "rose"], "ner_tags": ["O", "O"]}, *tagged(7, 9, 1)]
    file = write_rows(tmp_path / "rows.jsonl", rows)
    call = ["--checkpoint", str(trained), "--train_file", file, *QUICK, "--max_steps", "1"]
    run_ner.main([*call, "--output_dir", str(tmp_path / "made")])
    config = json.loads((tmp_path / "made" / "config.json").read_text())
    assert config["head_temperature"] is None
    assert config["label2id"] == {"O": 0, "B-LOC": 1, "I-LOC": 2}
    file = write_rows(tmp_path / "other.jsonl", [{"tokens": ["cash"], "ner_tags": ["B-ORG"]}])
    with pytest.raises(Refusal, match=r"row 1: type ORG is none of .*'s: LOC"):
        run_ner.main(["--checkpoint", str(trained), "--train_file", file, "--output_dir", str(tmp_path / "other")])


@pytest.mark.parametrize("how", ["file", "data set"])
def test_what_was_trained_on_is_not_scored(how: str, tiny_folder: Path, tmp_path: Path) -> None:
    """The very file, or a data set's split of the same rows."""
    rows = tagged(12, 9, 0)
    (tmp_path / "set").mkdir()
    file = write_rows(tmp_path / "set" / "train.jsonl", rows)
    train = ["--train_file", file] if how == "file" else ["--dataset", str(tmp_path / "set")]
    made = ["--output_dir", str(tmp_path / "made")]
    run_ner.main(["--checkpoint", str(tiny_folder), *train, *made, *QUICK, "--max_steps", "1"])
    (tmp_path / "again").mkdir()
    copy = write_rows(tmp_path / "again" / "test.jsonl", rows)
    test = ["--test_file", copy] if how == "file" else ["--dataset", str(tmp_path / "again")]
    with pytest.raises(Refusal, match=r"trained .* on this very file"):
        run_ner.main(["--checkpoint", str(tmp_path / "made"), *test, "--use_cpu", "--output_dir", str(tmp_path / "x")])
    card = (tmp_path / "made" / "README.md").read_text(encoding="utf-8")
    assert "(SHA-256 " in card
    assert "None" not in card


@pytest.mark.parametrize(
    "flag",
    [
        ["--calibrate"],
        ["--class_weights", "balanced"],
        ["--seeds", "1", "2"],
        ["--train_fraction", "0.5"],
        ["--max_train_samples", "5"],
        ["--sample_seed", "0"],
    ],
)
def test_a_data_set_that_is_only_predicted_trains_nothing(flag: list[str], trained: Path, tmp_path: Path) -> None:
    """What means something to training alone is refused, of a data set without train as of files."""
    (tmp_path / "set").mkdir()
    write_rows(tmp_path / "set" / "test.jsonl", tagged(4, 9, 7))
    call = ["--checkpoint", str(trained), "--dataset", str(tmp_path / "set"), "--use_cpu", *flag]
    with pytest.raises(Refusal, match=f"{flag[0]}: needs a --train_file"):
        run_ner.main([*call, "--output_dir", str(tmp_path / "made")])


@pytest.mark.parametrize("reading", [None, [1], {"max_length": "64"}, {"stride": None}])
def test_a_reading_that_is_none_is_refused(reading: Any, trained: Path, tmp_path: Path) -> None:
    """As a config that was edited by hand may have it."""
    folder = tmp_path / "edited"
    shutil.copytree(trained, folder)
    (folder / "lineage.json").unlink()  # which knows the config as it was
    config = json.loads((folder / "config.json").read_text()) | {"reading": reading}
    (folder / "config.json").write_text(json.dumps(config))
    file = write_rows(tmp_path / "rows.jsonl", tagged(2, 9, 0))
    with pytest.raises(Refusal, match=r"config\.json says it reads"):
        run_ner.main(["--checkpoint", str(folder), "--test_file", file, "--output_dir", str(tmp_path / "made")])


def test_a_model_of_broken_weights_says_so(trained: Path, tmp_path: Path) -> None:
    """Its logits are no numbers, so there is no likeliest tag."""
    model = AutoModelForTokenClassification.from_pretrained(trained)
    model.classifier.bias.data[0] = math.nan
    model.save_pretrained(tmp_path / "broken")
    AutoTokenizer.from_pretrained(trained).save_pretrained(tmp_path / "broken")
    file = write_rows(tmp_path / "rows.jsonl", tagged(2, 9, 0))
    call = ["--checkpoint", str(tmp_path / "broken"), "--test_file", file, "--use_cpu"]
    with pytest.raises(FloatingPointError, match="its weights are broken"):
        run_ner.main([*call, "--output_dir", str(tmp_path / "made")])
