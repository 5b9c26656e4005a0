"""`make recipe`: what it guesses of files, what it refuses, and that the folder which it leaves runs at once."""

import importlib.util
import json
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

import run_comparison
import run_ner
import run_pretraining
import run_sentiment
from tests.conftest import REPOSITORY, SHADES
from two_stage.command_line.exits import Refusal
from two_stage.command_line.recipe import parse_settings


def loaded() -> ModuleType:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("new_recipe", REPOSITORY / "recipes" / "new_recipe.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


new_recipe = loaded()


@pytest.fixture
def mine(tmp_path: Path, tiny_folder: Path, data_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with a user's files and the tiny checkpoint."""
    monkeypatch.chdir(tmp_path)
    for name in ("corpus.txt", "texts.csv", "sentences.jsonl"):
        shutil.copy(data_folder / name, tmp_path / name)
    shutil.copytree(tiny_folder, tmp_path / "tiny")
    return tmp_path


def make(*flags: str) -> None:
    """Run the script on the user's corpus and the tiny checkpoint."""
    new_recipe.main(["mine", "--corpus", "corpus.txt", "--checkpoint", "tiny", *flags])


def recipe(name: str) -> dict[str, Any]:
    """One of the recipes that were written."""
    found = yaml.safe_load(Path("recipes/mine", f"{name}.yaml").read_text(encoding="utf-8"))
    assert isinstance(found, dict)
    return found


@pytest.mark.slow
def test_a_recipe_from_three_files_runs_at_once(mine: Path) -> None:
    """All four recipes, as they are written but for the number of steps; and the commands of its README exist."""
    make("--sentiment", "texts.csv", "--entities", "sentences.jsonl")
    short = ["--use_cpu", "--max_steps", "2"]
    run_pretraining.main(["--recipe", "recipes/mine/pretraining.yaml", "--check_only", "--use_cpu"])
    assert not Path("outputs").exists()
    run_pretraining.main(["--recipe", "recipes/mine/pretraining.yaml", *short])
    for module, name in ((run_sentiment, "sentiment"), (run_ner, "ner")):
        module.main(["--recipe", f"recipes/mine/{name}.yaml", "--check_only", "--use_cpu"])
        assert not Path(f"outputs/mine/{name}").exists()
        module.main(["--recipe", f"recipes/mine/{name}.yaml", "--min_steps", "0", *short])
        results = json.loads(Path(f"outputs/mine/{name}/all_results.json").read_text(encoding="utf-8"))
        assert any(key.startswith("test_") for key in results)
    run_comparison.main(["--recipe", "recipes/mine/comparison.yaml", "--check_only"])
    readme = Path("recipes/mine/README.md").read_text(encoding="utf-8")
    for command in ("run_pretraining", "run_sentiment", "run_ner", "run_comparison"):
        assert f"python {command}.py --recipe recipes/mine/" in readme


def test_files_of_one_are_split_and_those_of_three_are_kept(mine: Path) -> None:
    """One file gives 80, 10 and 10 %; of three, the test file keeps every row."""
    make("--sentiment", "texts.csv")
    files = [Path(f"recipes/mine/data/sentiment_{split}.csv") for split in new_recipe.SPLITS]
    counts = [len(path.read_text(encoding="utf-8").splitlines()) - 1 for path in files]
    assert sum(counts) == 48
    assert min(counts) >= 1
    rows = (mine / "texts.csv").read_text(encoding="utf-8").splitlines()
    for name, part in (("a.csv", rows[1:30]), ("b.csv", rows[30:40]), ("c.csv", rows[40:])):
        (mine / name).write_text("\n".join(["text,label", *part]) + "\n", encoding="utf-8")
    shutil.rmtree("recipes")
    make("--sentiment", "a.csv", "b.csv", "c.csv")
    kept = Path("recipes/mine/data/sentiment_test.csv").read_text(encoding="utf-8").splitlines()
    assert kept == ["text,label", *rows[40:]]


def test_labels_in_no_known_order_are_to_be_checked(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They stand as found, marked in the recipe and said at the end."""
    texts = (mine / "texts.csv").read_text(encoding="utf-8")
    Path("odd.csv").write_text(texts.replace(",good", ",gut").replace(",bad", ",schlecht"), encoding="utf-8")
    make("--sentiment", "odd.csv")
    assert set(recipe("sentiment")["labels"]) == {"gut", "schlecht", "so-so"}
    assert "CHECK" in Path("recipes/mine/sentiment.yaml").read_text(encoding="utf-8")
    assert "! recipes/mine/sentiment.yaml: labels stand in the order in which" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("found", "ordered"),
    [
        (["3 stars", "1 star", "10 stars"], ["1 star", "3 stars", "10 stars"]),
        (["0", "-1", "1"], ["-1", "0", "1"]),
        (["positive", "negative", "neutral"], ["negative", "neutral", "positive"]),
        (["Optimistic", "neutral", "Pessimistic"], ["Pessimistic", "neutral", "Optimistic"]),
        (SHADES[::-1], SHADES),
        (["b", "a"], None),
        (["1st", "2nd"], None),
        (["positive", "mixed"], None),
    ],
)
def test_orders_that_labels_tell(found: list[str], ordered: list[str] | None) -> None:
    """Numbers, and scales that everyone knows; else the order found, and it is not called known."""
    assert new_recipe.ordered_labels(found) == (ordered or found, ordered is not None)


@pytest.mark.parametrize(
    ("label", "number"),
    [
        ("4 stars", 4),
        ("-7.5e-05", -7.5e-5),
        (".5", 0.5),
        ("+1.", 1),
        ("1E3", 1000),
        ("4th", None),
        ("e5", None),
        ("", None),
    ],
)
def test_numbers_that_labels_begin_with(label: str, number: float | None) -> None:
    """However pandas or a hand writes them."""
    assert new_recipe.as_number(label) == number


def test_scores_with_a_unit_are_written_as_numbers(mine: Path) -> None:
    """For run_sentiment.py takes nothing else."""
    lines = [f"profit rose {i} %,{i} points" for i in range(60)]
    (mine / "points.csv").write_text("\n".join(["text,label", *lines]) + "\n", encoding="utf-8")
    make("--sentiment", "points.csv")
    run_sentiment.main(["--recipe", "recipes/mine/sentiment.yaml", "--checkpoint", "tiny", "--use_cpu", "--check_only"])


@pytest.mark.parametrize(
    "entity",
    [
        {"start": 0, "end": 4, "labels": ["LOC"]},  # Label Studio
        {"start": 0, "end": 4, "label": ["LOC"]},
        {"start_offset": 0, "end_offset": 4, "label": "LOC"},  # doccano
        [0, 4, "LOC"],
    ],
)
def test_entities_of_other_tools_are_written_in_one_form(mine: Path, entity: Any) -> None:
    """Whatever form run_ner.py reads."""
    rows = [{"text": f"Oslo grew {i} % .", "entities": [entity]} for i in range(40)]
    (mine / "spans.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    make("--entities", "spans.jsonl")
    row = json.loads(Path("recipes/mine/data/ner_test.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert row["entities"] == [{"start": 0, "end": 4, "label": "LOC"}]


@pytest.mark.parametrize(
    "tokens",
    [
        [{"text": "Oslo", "start": 0, "end": 4, "id": 0}],  # Prodigy's, each with its place in the text
        "Oslo grew",
    ],
)
def test_tokens_that_are_no_words_are_passed_over(mine: Path, tokens: Any) -> None:
    """Where a row has a text and its entities, as run_ner.py does."""
    spans = [{"start": 0, "end": 4, "label": "LOC"}]
    rows = [{"text": f"Oslo grew {i} % .", "tokens": tokens, "spans": spans} for i in range(40)]
    (mine / "spans.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    make("--entities", "spans.jsonl")
    row = json.loads(Path("recipes/mine/data/ner_test.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert row.keys() == {"text", "entities"}
    assert row["entities"] == spans


def test_columns_in_a_bio_file_are_read(mine: Path) -> None:
    """As run_ner.py reads them, by either of the two usual endings."""
    text = "".join(f"Oslo B-LOC\ngrew O\n{i} O\n\n" for i in range(40))
    (mine / "places.bio").write_text(text, encoding="utf-8")
    make("--entities", "places.bio")
    assert len(Path("recipes/mine/data/ner_train.jsonl").read_text(encoding="utf-8").splitlines()) == 32


def test_many_numbers_are_scores(mine: Path) -> None:
    """They are predicted as they are."""
    rows = (mine / "texts.csv").read_text(encoding="utf-8").splitlines()[1:]
    lines = [f"{row.rpartition(',')[0]},{i / 48}" for i, row in enumerate(rows)]
    Path("scores.csv").write_text("\n".join(["review,score", *lines]) + "\n", encoding="utf-8")
    make("--sentiment", "scores.csv")
    found = recipe("sentiment")
    assert (found["score_column"], found["loss"]) == ("score", "regression")
    assert "labels" not in found
    run_sentiment.main(["--recipe", "recipes/mine/sentiment.yaml", "--checkpoint", "tiny", "--check_only", "--use_cpu"])
    flags = ["--recipe", "recipes/mine/comparison.yaml"]
    settings, _ = parse_settings(flags, run_comparison.Settings, run_comparison.QUICKSTART, "")
    run_comparison.check_stage_two(run_comparison.Plan(settings))  # scores alone have no macro-F1


def test_a_document_stays_in_one_split(mine: Path) -> None:
    """CoNLL files mark documents; their sentences come out together."""
    lines = [json.loads(line) for line in (mine / "sentences.jsonl").read_text(encoding="utf-8").splitlines()]
    text = ""
    for i, row in enumerate(lines):
        text += "-DOCSTART- O\n\n" * (i % 4 == 0)
        text += "".join(f"{word} {tag}\n" for word, tag in zip(row["tokens"], row["ner_tags"], strict=True)) + "\n"
    Path("mine.conll").write_text(text, encoding="utf-8")
    make("--entities", "mine.conll")
    splits = [
        {json.loads(line)["document"] for line in Path(f"recipes/mine/data/ner_{split}.jsonl").read_text().splitlines()}
        for split in new_recipe.SPLITS
    ]
    assert sum(map(len, splits)) == len(set.union(*splits)) == 12
    assert recipe("comparison")["task"] == "ner"


def test_lengths_and_epochs_come_from_the_rows() -> None:
    """The least usual length that holds 99 % of the texts; 300 steps, but no more than 20 epochs."""
    assert new_recipe.row_length([20] * 99 + [400], 512)[0] == 32
    assert new_recipe.row_length([20] * 98 + [100] * 2, 512)[0] == 128
    assert new_recipe.row_length([600] * 10, 512)[0] == 512
    assert new_recipe.row_length([50] * 10, 48)[0] == 48
    assert [new_recipe.epochs_for(rows, 16)[0] for rows in (10, 480, 1600, 100_000)] == [20, 10, 3, 3]


def test_documents_of_one_sentence_have_no_next(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Stage one then masks words alone, which is said: they may be paragraphs of one line each."""
    lines = [line for line in (mine / "corpus.txt").read_text(encoding="utf-8").splitlines() if line]
    Path("corpus.txt").write_text("\n\n".join(lines) + "\n", encoding="utf-8")
    make("--sentiment", "texts.csv")
    assert recipe("pretraining")["no_next_sentence"] is True
    assert "! recipes/mine/pretraining.yaml: 100% of the documents are one sentence" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ([], "give one at least"),
        (["--sentiment", "texts.csv", "texts.csv"], "2 files; give one, or three"),
        (["--sentiment", "none.csv"], "none.csv: no such file"),
        (["--sentiment", "texts.csv", "--label_column", "mood"], "texts.csv row 1: no column mood"),
        (["--sentiment", "one.csv"], "one label alone, bad"),
        (["--sentiment", "odd.csv"], "no column of a usual name"),
        (["--sentiment", "hole.csv"], "hole.csv row 2: column label is empty"),
        (["--sentiment", "ids.csv"], "is it the right column"),
        (["--sentiment", "case.csv"], "case.csv row 3: label 'Bad', and 'bad' in other rows"),
        (["--sentiment", "ones.csv"], "ones.csv row 3: label '1.0', and '1' in other rows"),
        (["--sentiment", "flag.csv"], "flag.csv row 2: label -- is no word"),
        (["--sentiment", "metals.csv"], "metals.csv row 2: label gold is a column of predictions.csv"),
        (["--sentiment", "huge.csv"], "huge.csv row 1: label 1e400 is no word"),
        (["--sentiment", "texts.csv", "--folder", "texts.csv/x"], "a file is in the way"),
        (["--entities", "numbers.jsonl"], "--labels O B-PER"),
        (["--entities", "texts.csv"], "texts.csv row 1: no tokens and ner_tags"),
        (["--entities", "bare.jsonl"], "no entity in any row"),
        (["--entities", "short.jsonl"], "short.jsonl row 1: 2 tokens but 1 tags"),
        (["--sentiment", "texts.csv", "--corpus", "few.txt"], "few.txt: 1 document"),
        (["--sentiment", "texts.csv", "--checkpoint", "nowhere/at-all"], "nowhere/at-all"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(mine: Path, flags: list[str], told: str) -> None:
    """Before anything is written."""
    Path("one.csv").write_text("text,label\nA.,bad\nB.,bad\n", encoding="utf-8")
    Path("odd.csv").write_text("a,b\nA.,bad\n", encoding="utf-8")
    Path("hole.csv").write_text("text,label\nA.,bad\nB.,\n", encoding="utf-8")
    Path("ids.csv").write_text("text,label\n" + "".join(f"t {i},x{i}\n" for i in range(30)), encoding="utf-8")
    rows = [{"tokens": [word, "rose"], "ner_tags": ["O", "O"]} for word in "abcdefghijkl"]
    Path("bare.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    Path("short.jsonl").write_text('{"tokens": ["a", "b"], "ner_tags": ["O"]}\n', encoding="utf-8")
    for name, labels in {
        "case": "bad bad Bad good",
        "ones": "1 1 1.0 2",
        "flag": "o --",
        "huge": "1e400 2",
        "metals": "tin gold",
    }.items():
        rows_of = "".join(f"t {i},{label}\n" for i, label in enumerate(labels.split()))
        Path(f"{name}.csv").write_text(f"text,label\n{rows_of}", encoding="utf-8")
    Path("numbers.jsonl").write_text('{"tokens": ["a", "b"], "ner_tags": [1, 0]}\n', encoding="utf-8")
    Path("few.txt").write_text("One.\nTwo.\n", encoding="utf-8")
    with pytest.raises(Refusal, match=told) as refusal:
        make(*flags)
    assert "\n" not in str(refusal.value)
    assert not Path("recipes").exists()


@pytest.mark.parametrize("end", ["\n", "\x85", "\u2028", "\r"])
def test_a_type_is_no_line_of_a_recipe(mine: Path, end: str) -> None:
    """Nor a cell of the README; what a file calls its entities stays within the comment."""
    kind = f"ORG|{end}push_to_hub: true{end}# x"
    spans = [{"text": f"Ajax {word} rose", "entities": [[0, 4, kind]]} for word in "abcdefghijkl"]
    Path("odd.jsonl").write_text("".join(json.dumps(row) + "\n" for row in spans), encoding="utf-8")
    make("--entities", "odd.jsonl")
    assert "push_to_hub" not in recipe("ner")
    assert [line for line in Path("recipes/mine/ner.yaml").read_text().splitlines() if line.startswith("push")] == []
    assert "ORG\\|" in Path("recipes/mine/README.md").read_text(encoding="utf-8")


def test_columns_of_other_names(mine: Path) -> None:
    """One flag for each file's; --text_column may be of one labelled file alone."""
    Path("news.csv").write_text("id,story\n" + "".join(f"{i},Cash {i} rose.\n" for i in range(9)), encoding="utf-8")
    texts = "".join(f"Sales {i} fell.,{'good' if i % 2 else 'bad'}\n" for i in range(30))
    Path("moods.csv").write_text("tweet,mood\n" + texts, encoding="utf-8")
    spans = [{"phrase": f"Ajax {word} rose", "marks": [[0, 4, "ORG"]]} for word in "abcdefghijkl"]
    Path("marked.jsonl").write_text("".join(json.dumps(row) + "\n" for row in spans), encoding="utf-8")
    flags = ["mine", "--corpus", "news.csv", "--corpus_column", "story", "--checkpoint", "tiny"]
    new_recipe.main([*flags, "--sentiment", "moods.csv", "--text_column", "tweet", "--label_column", "mood"])
    assert recipe("pretraining")["text_column"] == "story"
    assert recipe("sentiment")["labels"] == ["bad", "good"]
    shutil.rmtree("recipes/mine")
    new_recipe.main([*flags, "--entities", "marked.jsonl", "--text_column", "phrase", "--entities_column", "marks"])
    row = json.loads(Path("recipes/mine/data/ner_train.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert row["entities"] == [{"start": 0, "end": 4, "label": "ORG"}]


def test_numbered_tags_are_named(mine: Path) -> None:
    """By --labels, as run_ner.py takes them, and written as names, so that the recipe needs no flag for them."""
    rows = [{"tokens": ["Ajax", word, "rose"], "ner_tags": [1, 2, 0]} for word in "abcdefghijkl"]
    Path("numbers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    make("--entities", "numbers.jsonl", "--labels", "O", "B-ORG", "I-ORG")
    row = json.loads(Path("recipes/mine/data/ner_train.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert row["ner_tags"] == ["B-ORG", "I-ORG", "O"]


def test_a_folder_is_whole_or_not_there(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of one would be "there already" to the next call."""
    monkeypatch.setattr(new_recipe, "readme_text", lambda *_: (_ for _ in ()).throw(OSError("the disk is full")))
    with pytest.raises(OSError, match="full"):
        make("--sentiment", "texts.csv")
    assert not Path("recipes/mine").exists()


def test_a_folder_that_another_call_made_meanwhile_is_left_alone(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both began when there was none, and the other was done first."""
    own = new_recipe.read_corpus

    def overtaken(*args: Any) -> Any:
        monkeypatch.setattr(new_recipe, "read_corpus", own)
        make("--sentiment", "texts.csv")
        return own(*args)

    monkeypatch.setattr(new_recipe, "read_corpus", overtaken)
    with pytest.raises(Refusal, match="recipes/mine: is there already"):
        make("--entities", "sentences.jsonl")
    assert {path.name for path in Path("recipes/mine").glob("*.yaml")} == {
        "pretraining.yaml",
        "sentiment.yaml",
        "comparison.yaml",
    }
    assert Path("recipes/mine/README.md").exists()


@pytest.mark.parametrize("name", ["../up", "a b", "", "-x.yaml"])
def test_names_that_are_no_folders_name_are_refused(name: str) -> None:
    """A name becomes a path."""
    with pytest.raises(Refusal, match="a name of letters"):
        new_recipe.main(["--corpus", "x.txt", "--sentiment", "x.csv", "--", name])


def test_a_folder_that_is_there_is_left_alone(mine: Path) -> None:
    """Nothing is written over."""
    Path("recipes/mine").mkdir(parents=True)
    with pytest.raises(Refusal, match="recipes/mine: is there already"):
        make("--sentiment", "texts.csv")
    assert list(Path("recipes/mine").iterdir()) == []
