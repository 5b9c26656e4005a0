"""Files larger than memory: the ordinary predictions, whole or not at all, gone on with where they stood."""

import csv
import gzip
import json
import random
import re
from pathlib import Path
from typing import Any

import pytest

import run_ner
import run_sentiment
from tests.conftest import SHADES, made_up_sentence
from two_stage.command_line.exits import Refusal
from two_stage.results import bulk

QUICK = ["--max_length", "16", "--use_cpu", "--disable_tqdm", "true", "--save_strategy", "no"]
MAINS = {"sentiment": run_sentiment.main, "ner": run_ner.main}
PREDICTIONS = {"sentiment": "predictions.csv", "ner": "predictions.jsonl"}


@pytest.fixture(scope="module")
def trained(tiny_folder: Path, data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder of each script, hardly trained."""
    folder = tmp_path_factory.mktemp("trained")
    call = ["--checkpoint", str(tiny_folder), "--max_steps", "6", "--head_learning_rate", "0.1", *QUICK]
    texts, sentences = str(data_folder / "texts.csv"), str(data_folder / "sentences.jsonl")
    run_sentiment.main([*call, "--train_file", texts, "--labels", *SHADES, "--output_dir", str(folder / "sentiment")])
    run_ner.main([*call, "--train_file", sentences, "--output_dir", str(folder / "ner")])
    return {name: folder / name for name in MAINS}


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """97 lines of text, some of more than a window, in documents; repeated ones among them."""
    path, rng = tmp_path_factory.mktemp("texts") / "new.txt", random.Random(1)
    lines = [" ".join(made_up_sentence(rng) for _ in range(rng.choice([1, 1, 1, 3]))) for _ in range(97)]
    path.write_text("".join(line + "\n" * rng.choice([1, 1, 2]) for line in lines), encoding="utf-8")
    return path


def as_csv(texts: Path, folder: Path) -> Path:
    """The same texts as a table."""
    lines = [line for line in texts.read_text(encoding="utf-8").splitlines() if line]
    with open(folder / "new.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["text"], *([line] for line in lines)])
    return folder / "new.csv"


def call_of(name: str, trained: dict[str, Path], out: Path, *more: str) -> list[str]:
    """A script's command that predicts."""
    return ["--checkpoint", str(trained[name]), "--output_dir", str(out), "--use_cpu", "--disable_tqdm", "true", *more]


def predictions(name: str, folder: Path) -> list[dict[str, Any]]:
    """What was predicted, row by row."""
    text = (folder / PREDICTIONS[name]).read_text(encoding="utf-8")
    return (
        list(csv.DictReader(text.splitlines())) if name == "sentiment" else [json.loads(x) for x in text.splitlines()]
    )


def numbers_apart(row: dict[str, Any]) -> tuple[dict[str, Any], list[float]]:
    """A row without its probabilities, and these."""
    if "entities" in row:
        return {**row, "entities": [e | {"score": 0} for e in row["entities"]]}, [e["score"] for e in row["entities"]]
    return {**row, **dict.fromkeys(SHADES)}, [float(row[label]) for label in SHADES]


@pytest.mark.parametrize("name", MAINS)
@pytest.mark.parametrize("at_once", [4096, pytest.param(10, marks=pytest.mark.slow)])
def test_predictions_are_those_of_the_ordinary_path(
    name: str, at_once: int, trained: dict[str, Path], texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Byte for byte where all rows are one part; of more parts in all but the last digit of what is computed."""
    monkeypatch.setattr(bulk, "ROWS_AT_ONCE", at_once)
    given = as_csv(texts, tmp_path) if name == "sentiment" else texts
    MAINS[name](call_of(name, trained, tmp_path / "whole", "--test_file", str(given)))
    packed = tmp_path / f"{given.name}.gz"
    packed.write_bytes(gzip.compress(given.read_bytes()))
    scores = MAINS[name](call_of(name, trained, tmp_path / "parts", "--predict_file", str(packed)))
    assert (scores["predict_samples"], scores["predict_skipped"]) == (97, 0)
    made = {path.name for path in (tmp_path / "parts").iterdir()}
    assert made == {"recipe.yaml", "lineage.json", "all_results.json", PREDICTIONS[name]}
    if at_once > 97:
        file = PREDICTIONS[name]
        assert (tmp_path / "parts" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
    rows = zip(predictions(name, tmp_path / "parts"), predictions(name, tmp_path / "whole"), strict=True)
    for part, whole in rows:
        (said, found), (expected, numbers) = numbers_apart(part), numbers_apart(whole)
        assert said == expected
        assert found == pytest.approx(numbers, abs=2e-6)


WORDS_AND_TEXT = {"text": "Oslo-Lima rose.", "tokens": ["Oslo-Lima", "rose."]}
ROWS = {
    # read by the text, as the entities are of that, or by the words
    "words and a text": [WORDS_AND_TEXT | {"entities": [[0, 4, "LOC"]]}, WORDS_AND_TEXT | {"ner_tags": ["O", "O"]}],
    "hidden tags": [WORDS_AND_TEXT | {"entities": [[0, 4, "LOC"]], "ner_tags": [-1, -1]}],
    "documents": [{"text": "profit rose", "document": name} for name in ("a", "a", None, None, "b")],
    "documents behind the first rows": [{"text": "profit rose", "document": name} for name in (None, None, "a", "b")],
    "texts in the column of documents": [{"document": text} for text in ("profit rose", "cash fell")],
}


@pytest.mark.parametrize("kind", ROWS)
@pytest.mark.parametrize("at_once", [4096, 2])
def test_rows_are_read_as_a_test_files_are(
    kind: str, at_once: int, trained: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same words, and the same number for each row's document, whichever part it falls into."""
    monkeypatch.setattr(bulk, "ROWS_AT_ONCE", at_once)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS[kind]), encoding="utf-8")
    flags = ["--text_column", "document"] if "column" in kind else []
    for flag in ("test", "predict"):
        call = call_of("ner", trained, tmp_path / flag, f"--{flag}_file", str(tmp_path / "rows.jsonl"), *flags)
        run_ner.main(call)
    part, whole = predictions("ner", tmp_path / "predict"), predictions("ner", tmp_path / "test")
    for row in whole:
        row.pop("gold_tags", None)
    assert [numbers_apart(row)[0] for row in part] == [numbers_apart(row)[0] for row in whole]


class CutOff(Exception):
    """The process was killed."""


@pytest.mark.slow  # it predicts three times
@pytest.mark.parametrize("name", MAINS)
def test_a_prediction_that_was_cut_off_goes_on(
    name: str, trained: dict[str, Path], texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing that looks final is left; the same command answers the rest alone, and all is as if in one go."""
    monkeypatch.setattr(bulk, "ROWS_AT_ONCE", 10)
    MAINS[name](call_of(name, trained, tmp_path / "whole", "--predict_file", str(texts)))
    module = run_sentiment if name == "sentiment" else run_ner
    answer, parts = module.answer, []

    def until_killed(rows: list[Any], **kwargs: Any) -> str:
        parts.append(len(rows))
        if len(parts) == 4:
            raise CutOff
        return answer(rows, **kwargs)

    call = call_of(name, trained, tmp_path / "cut", "--predict_file", str(texts))
    with monkeypatch.context() as patch:
        patch.setattr(module, "answer", until_killed)
        with pytest.raises(CutOff):
            MAINS[name](call)
    assert not (tmp_path / "cut" / PREDICTIONS[name]).exists()
    assert not (tmp_path / "cut" / "all_results.json").exists()
    with open(tmp_path / "cut" / f".unfinished-{PREDICTIONS[name]}", "ab") as file:
        file.write(b"half a li")  # which had not reached the disk when progress was noted
    with pytest.raises(Refusal, match="other settings"):
        MAINS[name]([*call, "--max_length", "12"])
    with monkeypatch.context() as patch:
        patch.setattr(module, "answer", lambda rows, **kwargs: parts.append(len(rows)) or answer(rows, **kwargs))
        MAINS[name](call)
    assert parts == [10] * 4 + [10] * 6 + [7]
    for file in (tmp_path / "whole").iterdir():
        assert (tmp_path / "cut" / file.name).exists()
    file = PREDICTIONS[name]
    assert (tmp_path / "cut" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
    assert {path.name for path in (tmp_path / "cut").iterdir()} == {
        path.name for path in (tmp_path / "whole").iterdir()
    }
    MAINS[name](call)  # finished: left as it is


@pytest.mark.parametrize("name", MAINS)
def test_what_was_let_pass_is_told(
    name: str, trained: dict[str, Path], texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """Gone on with other settings by --resume_anyway, a file of predictions is of two kinds, and says so for ever."""
    monkeypatch.setattr(bulk, "ROWS_AT_ONCE", 60)
    module = run_sentiment if name == "sentiment" else run_ner
    answer, call = module.answer, call_of(name, trained, tmp_path / "cut", "--predict_file", str(texts))
    answers = iter([answer])  # the second part finds none
    with monkeypatch.context() as patch, pytest.raises(StopIteration):  # noqa: PT012
        patch.setattr(module, "answer", lambda rows, **kwargs: next(answers)(rows, **kwargs))
        MAINS[name](call)
    MAINS[name]([*call, "--max_length", "12", "--resume_anyway"])
    (change,) = json.loads((tmp_path / "cut" / "lineage.json").read_text())["changes"]
    assert re.fullmatch(r"holds a run with other settings \(max_length \d+ → 12\)", change)
    assert f"{change}: going on all the same" in capsys.readouterr().out


def bad_rows(folder: Path) -> Path:
    """Six rows, of which the second, fourth and sixth have nothing to read."""
    values = ["profit rose .", " ", "cash fell .", None, "mine held .", 7]
    path = folder / "some.jsonl"
    path.write_text("".join(json.dumps({"text": value}) + "\n" for value in values), encoding="utf-8")
    return path


@pytest.mark.parametrize("name", MAINS)
def test_bad_rows_are_refused_or_left_out_and_told(
    name: str, trained: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With their numbers, before a model is loaded; left out, they stand in a file and the others keep their order."""
    call = call_of(name, trained, tmp_path / "out", "--predict_file", str(bad_rows(tmp_path)))
    module = run_sentiment if name == "sentiment" else run_ner
    with monkeypatch.context() as patch:
        patch.setattr(module, "load_model", lambda *_, **__: pytest.fail("a model is loaded"))
        with pytest.raises(Refusal, match=r"some\.jsonl row 2: .*--skip_bad_rows"):
            MAINS[name](call)
    assert not (tmp_path / "out").exists()
    scores = MAINS[name]([*call, "--skip_bad_rows"])
    assert (scores["predict_samples"], scores["predict_skipped"]) == (3, 3)
    assert [row["text"][:4] for row in predictions(name, tmp_path / "out")] == ["prof", "cash", "mine"]
    skipped = [json.loads(line) for line in (tmp_path / "out" / "skipped_rows.jsonl").read_text().splitlines()]
    assert [row["row"].rpartition(" ")[2] for row in skipped] == ["2", "4", "6"]


@pytest.mark.parametrize("name", MAINS)
@pytest.mark.parametrize(
    ("flags", "needle"),
    [
        (["--test_file", "x.csv", "--predict_file", "y.csv"], "give one or the other"),
        (["--train_file", "x.csv", "--predict_file", "y.csv"], "give one or the other"),
        (["--test_file", "x.csv", "--skip_bad_rows"], "goes with --predict_file"),
        (["--predict_file", "none.txt"], "no such file"),
        (["--predict_file", "y.csv", "--calibrate"], "needs a --train_file"),
    ],
)
def test_flags_that_do_not_go_together(
    name: str, flags: list[str], needle: str, trained: dict[str, Path], tmp_path: Path
) -> None:
    """In one line, and no folder is made."""
    with pytest.raises(Refusal, match=needle):
        MAINS[name](call_of(name, trained, tmp_path / "out", *flags))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", MAINS)
def test_an_encoder_predicts_nothing(name: str, tiny_folder: Path, texts: Path, tmp_path: Path) -> None:
    """And a model that reads the document around a sentence no file of any length."""
    call = call_of(name, {name: tiny_folder}, tmp_path / "out", "--predict_file", str(texts))
    with pytest.raises(Refusal, match=r"is no (sentiment|entity) model"):
        MAINS[name](call)


@pytest.mark.parametrize("name", MAINS)
def test_a_bar_where_it_is_wanted(
    name: str, trained: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One over all rows; --disable_tqdm true takes it away, and a run that was cut off still knows where it stood."""
    (tmp_path / "new.txt").write_text("profit rose .\ncash fell .\n", encoding="utf-8")
    for is_quiet in ("false", "true"):
        call = call_of(name, trained, tmp_path / is_quiet, "--predict_file", str(tmp_path / "new.txt"))
        MAINS[name]([*call, "--disable_tqdm", is_quiet])
        assert ("2.00/2.00" in capsys.readouterr().err) == (is_quiet == "false")


def test_context_needs_the_whole_file(trained: dict[str, Path], texts: Path, tmp_path: Path) -> None:
    """A document may be as long as the file."""
    with pytest.raises(Refusal, match="--context 4"):
        run_ner.main(call_of("ner", trained, tmp_path / "out", "--predict_file", str(texts), "--context", "4"))


def test_a_finished_prediction_of_another_file_is_refused(
    trained: dict[str, Path], texts: Path, tmp_path: Path
) -> None:
    """The files' hashes are in the lineage."""
    call = call_of("sentiment", trained, tmp_path / "out", "--predict_file", str(tmp_path / "a.txt"))
    (tmp_path / "a.txt").write_text("profit rose .\n", encoding="utf-8")
    run_sentiment.main(call)
    (tmp_path / "a.txt").write_text("profit fell .\n", encoding="utf-8")
    with pytest.raises(Refusal, match=r"a\.txt changed"):
        run_sentiment.main(call)
