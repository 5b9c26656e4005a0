"""What becomes of others' data: their own formats read, splits that share no text, nothing written over."""

import csv
import gzip
import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import REPOSITORY
from two_stage.command_line.exits import Refusal
from two_stage.data import prepared
from two_stage.data.duplicates import twins_across
from two_stage.data.prepared import (
    distinct_rows,
    draw_splits,
    entities_apart,
    keep_apart,
    split_rows,
    tell_missing,
    write_files,
)
from two_stage.data.tables import read_rows

# --- Splits -----------------------------------------------------------------------------------------------------------

WORDS = "profit loss margin order cash cost debt sales ship mine bank drug price share unit plan".split()
TEXTS = st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=9).map(" ".join), min_size=3, max_size=40)


@given(TEXTS, st.integers(0, 9), st.data())
def test_drawn_splits_hold_each_row_once_and_share_no_text(texts: list[str], seed: int, data: st.DataObject) -> None:
    """Whatever the texts and groups are: all rows, groups whole, no copy nor near copy across, the same every time."""
    groups = data.draw(st.lists(st.integers(0, 30), min_size=len(texts), max_size=len(texts)))
    try:
        drawn = draw_splits(texts, seed, list(groups))
    except Refusal:  # too few or too alike: two tests below are about that
        return
    assert sorted(i for rows in drawn.values() for i in rows) == list(range(len(texts)))
    assert all(rows and rows == sorted(rows) for rows in drawn.values())
    split = {i: name for name, rows in drawn.items() for i in rows}
    assert len({(group, split[i]) for i, group in enumerate(groups)}) == len(set(groups))
    assert twins_across({name: [texts[i] for i in rows] for name, rows in drawn.items()}) == []
    assert draw_splits(texts, seed, list(groups)) == drawn


def different_texts(count: int) -> list[str]:
    """Texts that have no two words in common."""
    return [" ".join(f"w{i}x{j}" for j in range(5)) for i in range(count)]


def test_a_tenth_is_held_out_twice_and_evenly_from_each_label() -> None:
    """Of 200 texts 20 each, and of a label that every tenth has two each."""
    labels = ["rare" if i % 10 == 0 else "common" for i in range(200)]
    draws = [draw_splits(different_texts(200), seed, strata=labels) for seed in range(5)]
    for drawn in draws:
        assert [len(drawn[name]) for name in prepared.SPLITS] == [160, 20, 20]
        assert [sum(labels[i] == "rare" for i in drawn[name]) for name in prepared.SPLITS] == [16, 2, 2]
    assert draws[0] != draws[1]


@pytest.mark.parametrize("count", [1, 2])
def test_too_few_texts_are_refused(count: int) -> None:
    """Three splits need three texts, and copies are one."""
    with pytest.raises(Refusal, match="three at least"):
        draw_splits(different_texts(count) * 4, 0)


def test_texts_of_one_mould_are_refused() -> None:
    """Where all are near copies of each other none can be held out."""
    mould = "shares of the maker of paper and pulp in the far north fell by {} per cent on Monday"
    with pytest.raises(Refusal, match="so alike that none is left for"):
        draw_splits([mould.format(i) for i in range(30)], 0)


def test_published_splits_lose_copies_from_train_and_never_from_test(capsys: pytest.CaptureFixture[str]) -> None:
    """The test split stays as published, so that figures compare; what goes is told."""
    first, second, third, *others = different_texts(9)
    splits = {
        "train": [{"text": text} for text in (first, second.upper(), *others)],
        "validation": [{"text": second}, {"text": third}],
        "test": [{"text": first}, {"tokens": third.split()}],
    }
    kept = keep_apart(splits)
    assert kept["test"] == splits["test"]
    assert kept["validation"] == [{"text": second}]
    assert [row["text"] for row in kept["train"]] == others
    assert capsys.readouterr().out.splitlines() == [
        "validation: left out 1 exact and 0 near copies of texts that are held out",
        "train: left out 2 exact and 0 near copies of texts that are held out",
    ]


@pytest.mark.parametrize("has_entities", [False, True], ids=["labels", "entities"])
def test_a_label_that_a_drawn_split_lacks_is_told(capsys: pytest.CaptureFixture[str], has_entities: bool) -> None:
    """A label, or a type of entity, of one row is in one split: each of the two others has its line."""
    labels = ["common"] * 199 + ["rare"]
    rows: list[dict[str, Any]]
    if has_entities:
        rows = [
            {"tokens": text.split(), "ner_tags": [f"B-{label}", "O", "O", "O", "O"]}
            for text, label in zip(different_texts(200), labels, strict=True)
        ]
    else:
        rows = [{"text": text, "label": label} for text, label in zip(different_texts(200), labels, strict=True)]
    splits = split_rows(rows, 0, None if has_entities else "label")
    lacking = [name for name in prepared.SPLITS if rows[199] not in splits[name]]
    told = capsys.readouterr().out.splitlines()
    assert len(told) == len(lacking) == 2
    for line, name in zip(told, lacking, strict=True):
        assert line.startswith(f"CHECK: {name} has no row of rare: not to be ")


def test_few_held_out_rows_are_told_and_scores_are_no_labels(capsys: pytest.CaptureFixture[str]) -> None:
    """Of 40 rows four each; that a score stands in one split alone is as it should be."""
    split_rows(
        [{"text": text, "score": i / 40} for i, text in enumerate(different_texts(40))], 0, "score", stem="shades"
    )
    assert capsys.readouterr().out.splitlines() == [
        f"CHECK: shades_{name} has 4 rows, and a score on fewer than 20 says little" for name in ("validation", "test")
    ]


def test_each_text_is_kept_once_and_none_with_two_labels(capsys: pytest.CaptureFixture[str]) -> None:
    """The first copy stays, in its place; a text at odds with itself goes."""
    rows = [{"text": text, "label": label} for text, label in zip("aBbcA", "11212", strict=True)]
    assert distinct_rows([*rows, {"text": "c", "label": "1"}], "label") == [rows[3]]
    assert "left out 1 copies, and 4 rows" in capsys.readouterr().out


def test_of_entities_that_share_a_word_the_longest_stays() -> None:
    """Also where they share but a part of one."""
    text = "non-small cell lung cancer and asthma"
    spans = [(15, 26), (0, 26), (20, 26), (31, 37), (31, 34)]
    kept = entities_apart(text, [{"start": a, "end": b, "label": "X"} for a, b in spans])
    assert [(entity["start"], entity["end"]) for entity in kept] == [(0, 26), (31, 37)]


def test_a_text_of_any_lines_is_read_back(tmp_path: Path) -> None:
    """What is written here the scripts read, old line breaks too, which the csv module of Python 3.11 leaves bare."""
    rows = [{"text": text, "label": "good"} for text in ("a\rb", "a\r\nb", "a\nb", ' "a", ', "\\r", "a")]
    write_files(tmp_path, {"a.csv": rows, "a.jsonl": rows})
    for name in ("a.csv", "a.jsonl"):
        assert [row for _, row in read_rows(str(tmp_path / name))] == rows
    assert (tmp_path / "a.csv").read_text().endswith("\na,good\n")


def test_nothing_is_written_over(tmp_path: Path) -> None:
    """One file that is there keeps all others from being written."""
    (tmp_path / "b.csv").write_text("mine", encoding="utf-8")
    with pytest.raises(Refusal, match=r"b\.csv: is there already"):
        write_files(tmp_path, {"a.jsonl": [{"text": "x"}], "b.csv": [{"text": "y"}]})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.csv"]


def rows_until(error: BaseException) -> Iterator[dict[str, str]]:
    """A row, then an error."""
    yield {"text": "x"}
    raise error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("no such label")])
def test_no_table_is_half_written(error: BaseException, tmp_path: Path) -> None:
    """Of those before the one that breaks off nothing is left either, so that the same call can be given again."""
    with pytest.raises(type(error)):
        write_files(tmp_path, {"a.csv": [{"text": "x"}], "b.jsonl": rows_until(error)})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_what_no_file_can_hold_is_refused(name: str, tmp_path: Path) -> None:
    """Half of a character, by its row; a date is text; a file where the folder should be."""
    with pytest.raises(Refusal, match=f"{name} row 2: holds half of a character"):
        write_files(tmp_path, {name: [{"text": "x"}, {"text": "\ud83d"}]})
    assert list(tmp_path.iterdir()) == []
    write_files(tmp_path, {name: [{"text": "x", "document": date(2026, 1, 2)}]})
    assert "2026-01-02" in (tmp_path / name).read_text(encoding="utf-8")
    with pytest.raises(Refusal, match="cannot be made"):
        write_files(tmp_path / name, {"b.csv": [{"text": "x"}]})


# --- The authors' own formats, made up --------------------------------------------------------------------------------


def preparer(name: str) -> ModuleType:
    """The module of a recipe's prepare_data.py."""
    path = REPOSITORY / "recipes" / name / "prepare_data.py"
    spec = importlib.util.spec_from_file_location(f"prepare_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


finance, biomedical, legal, reviews = map(preparer, ("finance", "biomedical", "legal", "reviews"))


def test_the_names_of_splits_stand_in_one_place() -> None:
    """Files, rows and recipes go by them."""
    assert all(module.SPLITS is prepared.SPLITS for module in (finance, biomedical, legal))


def rows_of(path: Path) -> list[dict[str, Any]]:
    """The rows of a file that was written."""
    text = path.read_text(encoding="utf-8")
    return (
        list(csv.DictReader(text.splitlines(True)))
        if path.suffix == ".csv"
        else list(map(json.loads, text.splitlines()))
    )


def phrasebank(folder: Path) -> Path:
    """A made-up Sentences_50Agree.txt, in latin-1, with a mail address and a copy."""
    lines = [f"{text} grew in Jyväskylä .@positive" for text in different_texts(12)]
    lines += [f"{text} was sold to EUR 3 m @ par .@neutral" for text in different_texts(30)[12:]]
    path = folder / "FinancialPhraseBank-v1.0" / "Sentences_50Agree.txt"
    path.parent.mkdir()
    path.write_bytes("\r\n".join([*lines, lines[0]]).encode("latin-1"))
    return path


def test_phrasebank_is_read_as_its_authors_publish_it(tmp_path: Path) -> None:
    """Latin-1, the label behind the last @, Windows' line ends, in a folder within the folder."""
    phrasebank(tmp_path)
    finance.main(["--source", "files", "--files", str(tmp_path), "--output_dir", str(tmp_path / "data")])
    splits = {split: rows_of(tmp_path / "data" / f"sentiment_{split}.csv") for split in prepared.SPLITS}
    rows = [row for split in splits.values() for row in split]
    assert len(rows) == 30
    assert sum("Jyväskylä" in row["text"] for row in rows) == 12
    assert all(row["label"] == ("positive" if "Jyväskylä" in row["text"] else "neutral") for row in rows)
    assert any(row["text"].endswith("3 m @ par .") for row in rows)
    assert [len(splits[split]) for split in prepared.SPLITS] == [24, 3, 3]


def test_phrasebank_in_utf8_is_read_too(tmp_path: Path) -> None:
    """As some copies of it are kept."""
    path = tmp_path / "x.txt"
    path.write_text("Profit grew in Jyväskylä .@positive\n", encoding="utf-8")
    assert finance.phrasebank_rows(path) == [{"text": "Profit grew in Jyväskylä .", "label": "positive"}]


def test_phrasebank_of_the_hub_is_its_parquet_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers or names, whichever the file has; asked for by the path that the Hub's converter gives it."""
    path = tmp_path / "0000.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"sentence": ["a b", "c d"], "label": [0, 2]}), path)
    asked = []
    monkeypatch.setattr(finance, "hub_file", lambda *names: asked.append(names) or str(path))
    assert [row["label"] for row in finance.hub_phrasebank("all")] == ["negative", "positive"]
    assert asked == [("takala/financial_phrasebank", "sentences_allagree/train/0000.parquet", "refs/convert/parquet")]


def test_the_hub_without_a_network_is_refused_in_one_line(tmp_path: Path) -> None:
    """The tests are offline, and so may a user be."""
    with pytest.raises(Refusal, match="take --source files") as refusal:
        finance.main(["--source", "hub", "--output_dir", str(tmp_path / "data")])
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "data").exists()


def test_finer_ord_becomes_sentences(tmp_path: Path) -> None:
    """A word a row, numbered tags; a word that pandas lost is NA; copies of held-out sentences leave train."""
    header = "gold_label,gold_token,doc_idx,sent_idx\n"
    sentences = {
        "train": "5,Tarn,1,0\n6,Lines,1,0\n0,fell,1,0\n0,,1,1\n1,Ida,2,0\n",
        "val": "0,So,3,0\n",
        "test": "1,Ida,9,0\n",
    }
    for name, rows in sentences.items():
        (tmp_path / f"{name}.csv").write_text(header + rows, encoding="utf-8")
    finance.main(["--source", "files", "--files", str(tmp_path), "--output_dir", str(tmp_path / "data")])
    assert rows_of(tmp_path / "data" / "ner_train.jsonl") == [
        {"tokens": ["Tarn", "Lines", "fell"], "ner_tags": ["B-ORG", "I-ORG", "O"], "document": "1"},
        {"tokens": ["NA"], "ner_tags": ["O"], "document": "1"},
    ]
    assert rows_of(tmp_path / "data" / "ner_test.jsonl") == [
        {"tokens": ["Ida"], "ner_tags": ["B-PER"], "document": "9"}
    ]


def test_semeval_headlines_stay_with_all_their_companies(tmp_path: Path) -> None:
    """One headline, scored for two companies, is in one split."""
    rows = [
        {"id": i, "company": f"C{i % 2}", "title": text, "sentiment": i / 40 - 0.5}
        for i, text in enumerate(text for text in different_texts(20) for _ in range(2))
    ]
    (tmp_path / "Headline_Trainingdata.json").write_text(json.dumps(rows), encoding="utf-8")
    finance.main(["--source", "files", "--files", str(tmp_path), "--output_dir", str(tmp_path / "data")])
    splits = [{row["text"] for row in rows_of(tmp_path / "data" / f"shades_{split}.csv")} for split in prepared.SPLITS]
    assert sum(map(len, splits)) == 20
    row = rows_of(tmp_path / "data" / "shades_train.csv")[0]
    assert list(row) == ["text", "company", "score"]
    assert -0.5 <= float(row["score"]) <= 0.5


def test_reuters_stories_are_unwrapped(tmp_path: Path) -> None:
    """Title and paragraphs are lines; entities, the signature and stories without a body are gone."""
    story = (
        '<REUTERS NEWID="1"><TEXT>&#2;\n<TITLE>TARN &lt;TRN> LIFTS\nDIVIDEND</TITLE>'
        "<DATELINE>    OSLO, March 1 - </DATELINE><BODY>Tarn Lines said\nit will pay more.\n    The board"
        " meets\non Friday.\n Reuter\n&#3;</BODY></TEXT>\n</REUTERS>\n"
        '<REUTERS NEWID="2"><TEXT><TITLE>X</TITLE></TEXT></REUTERS>'
    )
    (tmp_path / "reut2-000.sgm").write_bytes(story.encode("latin-1"))
    finance.main(["--source", "files", "--files", str(tmp_path), "--output_dir", str(tmp_path / "data")])
    assert rows_of(tmp_path / "data" / "corpus.jsonl") == [
        {"text": "TARN <TRN> LIFTS DIVIDEND\nTarn Lines said it will pay more.\nThe board meets on Friday."}
    ]


PUBTATOR = (
    "11|t|Lithium and tremor\n11|a|Fine tremor under lithium carbonate.\n"
    "11\t0\t7\tLithium\tChemical\tD008094\n11\t12\t18\ttremor\tDisease\tD014202\n"
    "11\t37\t54\tlithium carbonate\tChemical\tD016651\n11\t37\t44\tlithium\tChemical\tD008094\n"
    "11\tCID\tD008094\tD014202\n\n"
)


def test_pubtator_is_read_with_its_offsets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Offsets count through title and abstract; relations are passed over, and of two mentions the longer stays."""
    for name, document in zip(biomedical.FILES["bc5cdr"], ("11", "12", "13"), strict=True):
        text = (
            PUBTATOR.replace("11", document)
            if document == "11"
            else f"{document}|t|{different_texts(20)[int(document)]}\n{document}|a|\n"
        )
        (tmp_path / name).write_text(text, encoding="utf-8")
    biomedical.main(["--source", "files", "--files", str(tmp_path), "--output_dir", str(tmp_path / "data")])
    row = rows_of(tmp_path / "data" / "ner_train.jsonl")[0]
    found = [(row["text"][e["start"] : e["end"]], e["label"]) for e in row["entities"]]
    assert found == [("Lithium", "Chemical"), ("tremor", "Disease"), ("lithium carbonate", "Chemical")]
    assert row["document"] == "11"
    assert "left out 1 entities" in capsys.readouterr().out


def test_ncbis_kinds_are_one_type(tmp_path: Path) -> None:
    """As they are in published scores."""
    path = tmp_path / "NCBItrainset_corpus.txt"
    path.write_text("\n7|t|Ataxia\n7|a|Rare.\n7\t0\t6\tAtaxia\tSpecificDisease\tD001259\n", encoding="utf-8")
    assert biomedical.pubtator_rows(path, "Disease")[0]["entities"] == [{"start": 0, "end": 6, "label": "Disease"}]


def test_tner_sentences_get_the_names_of_their_tags() -> None:
    """The order of T-NER's numbers is not that of the types."""
    rows = biomedical.tner_sentences([("x row 1", {"tokens": ["a", "b", "c"], "tags": [2, 3, 1]})])
    assert rows == [{"tokens": ["a", "b", "c"], "ner_tags": ["B-Disease", "I-Disease", "B-Chemical"]}]


@pytest.mark.parametrize("packed", [False, True], ids=["xml", "xml.gz"])
def test_pubmed_articles_become_documents(tmp_path: Path, packed: bool) -> None:
    """Marked-up titles, abstracts in parts; articles without one are left out."""
    article = "<PubmedArticle><MedlineCitation><Article><ArticleTitle>{}</ArticleTitle>{}</Article></MedlineCitation>"
    parts = "<AbstractText Label='A'>One\n two.</AbstractText><AbstractText>Three <i>four</i>.</AbstractText>"
    found = article.format("Iron in <sub>x</sub> runners", f"<Abstract>{parts}</Abstract>")
    articles = "".join(f"{each}</PubmedArticle>" for each in (found, article.format("None", "")))
    text = f"<PubmedArticleSet>{articles}</PubmedArticleSet>"
    path = tmp_path / ("pubmed1.xml.gz" if packed else "pubmed1.xml")
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    assert list(biomedical.pubmed_documents(path)) == [{"text": "Iron in x runners\nOne two.\nThree four."}]


def cuad(count: int) -> dict[str, Any]:
    """Made-up contracts in the form of CUAD_v1.json."""
    contracts = []
    for i, words in enumerate(different_texts(count)):
        text = f"LEASE\n\nbetween {words} and Tenant{i} Ltd\nof 4 May\n\n" + f"clause{i} " * 400
        answers = {
            "Document Name": "LEASE",
            "Parties": f"Tenant{i} Ltd",
            "Agreement Date": "4 May",
            "Governing Law": "of",
        }
        questions = [
            {"id": f"C{i}__{kind}", "answers": [{"text": said, "answer_start": text.index(said)}]}
            for kind, said in answers.items()
        ]
        contracts.append({"title": f"C{i}", "paragraphs": [{"context": text, "qas": questions}]})
    return {"version": "aok_v1.0", "data": contracts}


def test_cuad_gives_first_pages_and_a_corpus_without_what_is_held_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three of the 41 questions are entities of the opening; contracts that validate and test are not in the corpus."""
    (tmp_path / "CUAD_v1.json").write_text(json.dumps(cuad(20)), encoding="utf-8")
    legal.main(["--source", "files", "--files", str(tmp_path), "--output_dir", str(tmp_path / "data")])
    assert "CHECK: ner_test has 2 rows" in capsys.readouterr().out
    splits = {split: rows_of(tmp_path / "data" / f"ner_{split}.jsonl") for split in prepared.SPLITS}
    assert [len(splits[split]) for split in prepared.SPLITS] == [16, 2, 2]
    row = splits["test"][0]
    found = [(e["label"], row["text"][e["start"] : e["end"]]) for e in row["entities"]]
    assert found == [("DOCUMENT", "LEASE"), ("PARTY", f"Tenant{row['document'][1:]} Ltd"), ("DATE", "4 May")]
    assert len(row["text"]) <= legal.OPENING
    corpus = rows_of(tmp_path / "data" / "corpus.jsonl")
    assert len(corpus) == 16
    assert not any(
        f"Tenant{row['document'][1:]} Ltd" in document["text"] for document in corpus for row in splits["test"]
    )
    assert corpus[0]["text"].count("\n") == 2  # paragraphs are lines, and single line breaks are not


def test_ledgars_parquet_gives_the_names_of_types(tmp_path: Path) -> None:
    """As `datasets` writes them: numbers, and their names in the file."""
    features = {
        "label": {"names": ["Fees", "Notices"], "_type": "ClassLabel"},
        "text": {"dtype": "string", "_type": "Value"},
    }
    stored = {"huggingface": json.dumps({"info": {"features": features}})}
    for i, split in enumerate(prepared.SPLITS):
        table = pyarrow.table({"text": different_texts(6)[2 * i : 2 * i + 2], "label": [1, 0]}).replace_schema_metadata(
            stored
        )
        pyarrow.parquet.write_table(table, tmp_path / f"{split}-00000-of-00001.parquet")
    legal.main(["--source", "files", "--files", str(tmp_path), "--output_dir", str(tmp_path / "data")])
    assert [row["label"] for row in rows_of(tmp_path / "data" / "sentiment_test.csv")] == ["Notices", "Fees"]


def test_yelp_reviews_are_drawn_apart(tmp_path: Path) -> None:
    r"""No header, doubled quotes, \n for line breaks; the corpus has none of the labelled reviews."""
    texts = different_texts(90)
    rows = [f'"{i % 5 + 1}","{text} was ""fine""\\nReally."' for i, text in enumerate(texts)]
    (tmp_path / "train.csv").write_text("\n".join(rows[:60]), encoding="utf-8")
    (tmp_path / "test.csv").write_text("\n".join(rows[60:]), encoding="utf-8")
    sizes = ["--train_rows", "20", "--corpus_rows", "15", "--test_rows", "10"]
    reviews.main(["--source", "files", "--files", str(tmp_path), "--output_dir", str(tmp_path / "data"), *sizes])
    splits = {split: rows_of(tmp_path / "data" / f"sentiment_{split}.csv") for split in prepared.SPLITS}
    assert [len(splits[split]) for split in prepared.SPLITS] == [20, 2, 10]
    row = splits["train"][0]
    number = texts.index(row["text"].split(" was ")[0])
    assert row == {"text": f'{texts[number]} was "fine"\nReally.', "label": reviews.STARS[number % 5]}
    corpus = {document["text"] for document in rows_of(tmp_path / "data" / "corpus.jsonl")}
    assert len(corpus) == 15
    assert corpus.isdisjoint(row["text"] for split in splits.values() for row in split)


def yelp(folder: Path, count: int) -> list[str]:
    """Sources of so many made-up reviews to train and 30 to test, as flags."""
    rows = [f'"{i % 5 + 1}","{text}"' for i, text in enumerate(different_texts(count + 30))]
    (folder / "train.csv").write_text("\n".join(rows[:count]), encoding="utf-8")
    (folder / "test.csv").write_text("\n".join(rows[count:]), encoding="utf-8")
    return ["--source", "files", "--files", str(folder), "--output_dir", str(folder / "data")]


def test_all_reviews_to_learn_from_are_the_corpus_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With --train_rows 0 one review is in no split: it alone would be stage one's corpus."""
    reviews.main([*yelp(tmp_path, 60), "--train_rows", "0"])
    told = capsys.readouterr().out
    assert "CHECK: corpus.jsonl: 1 review(s) stand in no split, so those learnt from" in told
    assert "CHECK: sentiment_validation has 5 rows" in told
    splits = {split: rows_of(tmp_path / "data" / f"sentiment_{split}.csv") for split in prepared.SPLITS}
    corpus = {document["text"] for document in rows_of(tmp_path / "data" / "corpus.jsonl")}
    assert [len(splits[split]) for split in prepared.SPLITS] == [54, 5, 30]
    assert len(corpus) == 55
    assert corpus.isdisjoint(row["text"] for split in ("validation", "test") for row in splits[split])


@pytest.mark.parametrize(("others", "asked", "made"), [(499, 0, 501), (500, 0, 500), (499, 499, 499), (1, 2, 2)])
def test_a_corpus_is_of_other_reviews_where_they_are_enough(others: int, asked: int, made: int) -> None:
    """Enough is what was asked for, and five hundred where it is more or all."""
    rows = [{"text": text, "label": "1 star"} for text in different_texts(others + 2)]
    corpus = reviews.corpus_documents(rows[:others], rows[others:], asked)
    assert corpus == [{"text": row["text"]} for row in rows[:made]]


COUNTS = {
    "train_rows": (reviews, "-1", 0),
    "corpus_rows": (reviews, "-1", 0),
    "test_rows": (reviews, "-1", 0),
    "documents": (biomedical, "0", 1),
}


@pytest.mark.parametrize(("flag", "module", "value", "least"), [(flag, *given) for flag, given in COUNTS.items()])
def test_counts_below_their_range_are_refused(flag: str, module: ModuleType, value: str, least: int) -> None:
    """Before a file is looked for or fetched."""
    with pytest.raises(Refusal, match=f"--{flag} {value}: must be at least {least}"):
        module.main(["--source", "files", "--files", "no-such", f"--{flag}", value])


def test_hub_reviews_have_the_same_labels() -> None:
    """The Hub's names leave the plural out at two."""
    rows = [("x row 1", {"label": "2 star", "text": "So so.\\nOk."}), ("x row 2", {"label": "5 stars", "text": "Yes!"})]
    assert [row["label"] for row in reviews.hub_rows(rows)] == ["2 stars", "5 stars"]


BAD = {
    "phrasebank without a label": (
        finance,
        "Sentences_50Agree.txt",
        "All fine .@positive\nNo label\n",
        "line 2: does not end",
    ),
    "semeval of other keys": (finance, "Headline_Trainingdata.json", '[{"title": "x"}]', "no list of objects"),
    "pubtator moved": (
        biomedical,
        "CDR_TrainingSet.PubTator.txt",
        PUBTATOR.replace("\t12\t", "\t13\t"),
        "line 4: 'tremor' does not",
    ),
    "pubtator of spaces": (
        biomedical,
        "CDR_TrainingSet.PubTator.txt",
        PUBTATOR.replace("\t", " "),
        "line 3: is no line of",
    ),
    "pubtator without title": (
        biomedical,
        "CDR_TrainingSet.PubTator.txt",
        PUBTATOR.replace("11|t|", "12|t|"),
        "line 2: an abstract",
    ),
    "cuad of another form": (legal, "CUAD_v1.json", '{"data": [{}]}', "is not of the form"),
    "cuad moved": (legal, "CUAD_v1.json", json.dumps(cuad(1)).replace("4 May\\n", "5 May\\n"), "does not stand at"),
    "yelp with a header": (reviews, "train.csv", "stars,text\n", "row 1: is not"),
    "yelp left open": (reviews, "train.csv", '"1","x', "quote left open"),
    "nothing known": (finance, "notes.txt", "x", "holds none of the files"),
}


@pytest.mark.parametrize(("module", "name", "text", "told"), BAD.values(), ids=BAD)
def test_what_is_not_of_its_form_is_refused_in_one_line(
    tmp_path: Path, module: ModuleType, name: str, text: str, told: str
) -> None:
    """By file and line or row, and nothing is written."""
    (tmp_path / name).write_text(text, encoding="utf-8")
    for other in (*biomedical.FILES["bc5cdr"], "test.csv") if module in (biomedical, reviews) else ():
        (tmp_path / other).touch()
    with pytest.raises(Refusal, match=told) as refusal:
        module.main(["--source", "files", "--files", str(tmp_path), "--output_dir", str(tmp_path / "data")])
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(("flags", "told"), [([], "needs --files"), (["--files", "no-such"], "no such folder")])
def test_a_folder_must_be_given(flags: list[str], told: str) -> None:
    """With --source files there is nothing to guess."""
    with pytest.raises(Refusal, match=told):
        finance.main(["--source", "files", *flags])


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    """Which one is meant only the user knows."""
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "Sentences_50Agree.txt").touch()
    with pytest.raises(Refusal, match="which of them"):
        finance.main(["--source", "files", "--files", str(tmp_path)])


TWO_OF_THREE = {
    "finance": (finance, ["train.csv", "test.csv"], "train.csv, test.csv without val.csv or validation.csv; the three"),
    "biomedical": (
        biomedical,
        biomedical.FILES["bc5cdr"][:2],
        "CDR_DevelopmentSet.PubTator.txt without CDR_TestSet.PubTator.txt; the three",
    ),
    "legal": (
        legal,
        ["test-00000-of-00001.parquet"],
        "test-00000-of-00001.parquet without train-00000-of-00001.parquet, validation-00000-of-00001.parquet; the",
    ),
}


@pytest.mark.parametrize(("module", "names", "told"), TWO_OF_THREE.values(), ids=TWO_OF_THREE)
def test_a_split_that_is_missing_is_refused(tmp_path: Path, module: ModuleType, names: list[str], told: str) -> None:
    """Its task would be left out without a word, while others are made."""
    phrasebank(tmp_path)
    (tmp_path / "CUAD_v1.json").write_text(json.dumps(cuad(20)), encoding="utf-8")
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(Refusal, match=told):
        module.main(["--source", "files", "--files", str(tmp_path), "--output_dir", str(tmp_path / "data")])
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("module", [finance, biomedical, legal, reviews])
@pytest.mark.parametrize("flags", [["--sourc", "hub"], ["--source", "disk"], []])
def test_wrong_flags_are_refused_in_one_line(module: ModuleType, flags: list[str]) -> None:
    """As the scripts refuse them: no usage text."""
    with pytest.raises(Refusal, match=r"--source.* \(--help lists the flags\)$") as refusal:
        module.main(flags)
    assert "\n" not in str(refusal.value)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["finance", "biomedical", "legal", "reviews"])
def test_help_waits_for_no_library(name: str) -> None:
    """Transformers and torch take seconds to import."""
    asked = (
        "import runpy, sys, contextlib; sys.argv = [sys.argv[1], '--help']\n"
        "with contextlib.suppress(SystemExit): runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "print(sorted({'torch', 'transformers', 'datasets', 'scipy'} & set(sys.modules)))"
    )
    path = str(REPOSITORY / "recipes" / name / "prepare_data.py")
    run = subprocess.run([sys.executable, "-c", asked, path], capture_output=True, text=True, check=True)
    assert "--output_dir" in run.stdout
    assert run.stdout.splitlines()[-1] == "[]"


# --- What was not made ------------------------------------------------------------------------------------------------


def without_lines_told(told: str, recipe: Path) -> dict[str, Any]:
    """The recipe without the lines that are to be taken out."""
    found = re.search(rf"CHECK: {re.escape(str(recipe))}: take out lines? ([\d, ]+): ", told)
    assert found
    lines = recipe.read_text(encoding="utf-8").splitlines()
    return yaml.safe_load("\n".join(line for i, line in enumerate(lines, 1) if str(i) not in found[1].split(", ")))


def test_the_lines_of_what_was_not_made_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Stage one of finance looks for three files of test texts, and here PhraseBank alone was there."""
    phrasebank(tmp_path)
    finance.main(["--source", "files", "--files", str(tmp_path), "--output_dir", str(tmp_path / "data")])
    told, folder = capsys.readouterr().out, REPOSITORY / "recipes/finance"
    recipe = without_lines_told(told, folder / "pretraining.yaml")
    assert recipe["held_out_file"] == ["recipes/finance/data/sentiment_test.csv"]
    assert "max_length" in recipe
    assert f"CHECK: {folder / 'pretraining.yaml'} reads corpus.jsonl, not in" in told
    assert f"CHECK: {folder / 'ner.yaml'} reads ner_train.jsonl, ner_validation.jsonl, ner_test.jsonl, not in" in told
    assert f"{folder / 'sentiment.yaml'}" not in told


@pytest.mark.parametrize("name", ["finance", "biomedical", "legal"])
def test_where_no_test_text_was_made_the_key_goes_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """A key without a value is refused."""
    recipe = REPOSITORY / "recipes" / name / "pretraining.yaml"
    tell_missing(recipe.parent, tmp_path)
    left = without_lines_told(capsys.readouterr().out, recipe)
    assert left == {
        key: value for key, value in yaml.safe_load(recipe.read_text("utf-8")).items() if key != "held_out_file"
    }


@pytest.mark.parametrize("name", ["finance", "biomedical", "legal", "reviews"])
def test_of_what_is_all_there_nothing_is_told(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The samples have every file by its name."""
    tell_missing(REPOSITORY / "recipes" / name, REPOSITORY / "recipes" / name / "sample")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("text", ["", "a: [", "- a\n"], ids=["empty", "broken", "a list"])
def test_what_is_no_recipe_is_left_to_its_script(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    """The data is written by then."""
    (tmp_path / "mine.yaml").write_text(text, encoding="utf-8")
    tell_missing(tmp_path, tmp_path)
    assert capsys.readouterr().out == ""
