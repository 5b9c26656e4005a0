"""Get the data of the finance recipe into the forms that the scripts read.

    python recipes/finance/prepare_data.py --source hub
    python recipes/finance/prepare_data.py --source files --files ~/downloads

From the Hub: Financial PhraseBank (three shades), FiQA (scores, for seven shades) and FiNER-ORD (entities). From
files, whichever of these lie in the folder: Sentences_50Agree.txt (or another of its kind, --agreement), FiNER-ORD's
train.csv, val.csv and test.csv, SemEval-2017's Headline_Trainingdata.json, and Reuters-21578's reut2-*.sgm, which make
corpus.jsonl. For stage one any other news will do: one document a row in a column `text`.
"""

import html
import json
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # runs from a clone with no install

from two_stage.command_line.exits import Refusal, run_script, say
from two_stage.data.data_sets import dataset_rows
from two_stage.data.prepared import (
    SPLITS,
    data_parser,
    decoded,
    distinct_rows,
    find_file,
    find_splits,
    hub_file,
    keep_apart,
    split_rows,
    tell_missing,
    write_files,
)
from two_stage.data.tables import PlacedRow, Row, column_value, number_value, read_rows

AGREEMENT = {"50": "50Agree", "66": "66Agree", "75": "75Agree", "all": "AllAgree"}  # of annotators, per cent
SHADES = ("negative", "neutral", "positive")
TAGS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC", "B-ORG", "I-ORG")  # the order of FiNER-ORD's numbers
Splits = dict[str, list[Row]]

# --- Financial PhraseBank: three shades -------------------------------------------------------------------------------


def phrasebank_rows(path: Path) -> list[Row]:
    """The rows of the authors' file: `sentence@label` a line, in latin-1.

    Raises:
        Refusal: a line without one of the three labels.
    """
    rows = []
    for number, line in enumerate(decoded(path).split("\n"), start=1):
        if not line.strip():
            continue
        text, _, label = line.strip().rpartition("@")
        if label not in SHADES or not text.strip():
            raise Refusal(f"{path} line {number}: does not end in @negative, @neutral or @positive; is it PhraseBank?")
        rows.append({"text": text.strip(), "label": label})
    return rows


def hub_phrasebank(agreement: str) -> list[Row]:
    """The same rows of the Hub's parquet revision: the data set itself is a script, which `datasets` no longer runs."""
    name = f"sentences_{AGREEMENT[agreement].lower()}/train/0000.parquet"
    path = hub_file("takala/financial_phrasebank", name, "refs/convert/parquet")
    rows = [(column_value(row, "sentence", "source"), column_value(row, "label", "source")) for row in read_rows(path)]
    return [{"text": text, "label": SHADES[label] if isinstance(label, int) else label} for text, label in rows]


def phrasebank_splits(rows: list[Row], seed: int) -> Splits:
    """Each sentence once, in splits that are drawn, evenly from each label: PhraseBank has none."""
    return split_rows(distinct_rows(rows, "label"), seed, "label", stem="sentiment")


# --- SemEval-2017 and FiQA: scores for seven shades -------------------------------------------------------------------


def semeval_rows(path: Path) -> list[Row]:
    """Headlines, the company that each is scored for, and the score from -1 to 1, of the authors' JSON.

    Raises:
        Refusal: no list of objects with title, company and sentiment.
    """
    try:
        found = json.loads(decoded(path))
        return [
            {"text": row["title"].strip(), "company": row["company"].strip(), "score": float(row["sentiment"])}
            for row in found
        ]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise Refusal(f"{path}: is no list of objects with title, company and sentiment: {error!r}") from error


def fiqa_splits() -> Splits:
    """FiQA's headlines and posts of the Hub, in its own splits."""
    splits = {}
    for name, theirs in zip(SPLITS, ("train", "valid", "test"), strict=True):
        rows = dataset_rows("TheFinAI/fiqa-sentiment-classification", None, None, theirs)
        splits[name] = [
            {"text": row[1]["sentence"], "company": row[1]["target"], "score": number_value(row, "score", "source")}
            for row in rows
            if row[1]["sentence"] and row[1]["target"]
        ]
    return splits


# --- FiNER-ORD: entities ----------------------------------------------------------------------------------------------


def finer_sentences(rows: Iterable[PlacedRow]) -> list[Row]:
    """FiNER-ORD's rows, a word each, as sentences of words and tags, those of an article together.

    Raises:
        Refusal: a column is missing, or a label is none of the seven.
    """
    sentences: dict[tuple[str, str], Row] = {}
    blank = 0
    for row in rows:
        document, sentence, token, label = (
            column_value(row, column, "source") for column in ("doc_idx", "sent_idx", "gold_token", "gold_label")
        )
        if not str(label).isdecimal() or int(label) >= len(TAGS):
            raise Refusal(f"{row[0]}: gold_label {label!r} is none of 0 to {len(TAGS) - 1}; is it FiNER-ORD?")
        if token is None or not str(token).strip():  # on its way through pandas the word NA became none
            token, blank = "NA", blank + 1
        said = sentences.setdefault((document, sentence), {"tokens": [], "ner_tags": [], "document": str(document)})
        said["tokens"].append(str(token))
        said["ner_tags"].append(TAGS[int(label)])
    if blank:
        say(f"{blank:,} words that are missing in the file are written as NA")
    order = {document: i for i, document in enumerate(dict.fromkeys(document for document, _ in sentences))}
    return [sentences[key] for key in sorted(sentences, key=lambda key: order[key[0]])]


# --- Reuters-21578: a corpus ------------------------------------------------------------------------------------------

STORY = re.compile(r"<REUTERS.*?</REUTERS>", re.DOTALL)


def reuters_documents(path: Path) -> Iterator[Row]:
    """The stories of one of the authors' .sgm files that have a body: title, then its paragraphs, a line each."""
    for story in STORY.findall(decoded(path)):
        title, body = (re.search(f"<{tag}>(.*?)</{tag}>", story, re.DOTALL) for tag in ("TITLE", "BODY"))
        if body is None:
            continue
        text = html.unescape(body[1]).strip()  # which drops the control characters that end a story
        text = re.sub(r"\s+reuter$", "", text, flags=re.IGNORECASE)  # each story is signed so
        paragraphs = [" ".join(part.split()) for part in re.split(r"\n(?= {4})", text)]
        head = " ".join(html.unescape(title[1]).split()) if title else ""
        yield {"text": "\n".join(part for part in (head, *paragraphs) if part)}


# --- Main -------------------------------------------------------------------------------------------------------------


def named(stem: str, splits: Splits, ending: str) -> Splits:
    """Rows by the name of the file that they go to."""
    return {f"{stem}_{split}.{ending}": rows for split, rows in splits.items()}


def from_hub(agreement: str, seed: int) -> Splits:
    """All files that the Hub's data sets make."""
    phrasebank = phrasebank_splits(hub_phrasebank(agreement), seed)
    finer = {split: finer_sentences(dataset_rows("gtfintechlab/finer-ord", None, None, split)) for split in SPLITS}
    files = named("sentiment", phrasebank, "csv") | named("shades", keep_apart(fiqa_splits()), "csv")
    say("no corpus: no news on the Hub has its owner's licence; put your own into corpus.jsonl, or take --source files")
    return files | named("ner", keep_apart(finer), "jsonl")


def from_files(folder: Path | None, agreement: str, seed: int) -> Splits:
    """The files that what lies in the folder makes."""
    files: Splits = {}
    if path := find_file(folder, f"Sentences_{AGREEMENT[agreement]}.txt"):
        files |= named("sentiment", phrasebank_splits(phrasebank_rows(path), seed), "csv")
    if path := find_file(folder, "Headline_Trainingdata.json"):
        rows = semeval_rows(path)
        files |= named("shades", split_rows(rows, seed, "score", stem="shades"), "csv")
    tables = find_splits(folder, [["train.csv"], ["val.csv", "validation.csv"], ["test.csv"]])
    finer = {split: finer_sentences(read_rows(str(path))) for split, path in tables.items()}
    files |= named("ner", keep_apart(finer), "jsonl")
    assert folder is not None
    if stories := [row for path in sorted(folder.rglob("reut2-*.sgm")) for row in reuters_documents(path)]:
        files["corpus.jsonl"] = stories
    if not files:
        raise Refusal(f"--files {folder}: holds none of the files that --help names")
    return files


def main(argv: list[str] | None = None) -> None:
    """Write all files that can be made."""
    parser = data_parser(__doc__, Path(__file__).parent)
    parser.add_argument("--agreement", choices=AGREEMENT, default="50", help="PhraseBank's annotators (%(default)s)")
    args = parser.parse_args(argv)
    is_hub = args.source == "hub"
    made = from_hub(args.agreement, args.seed) if is_hub else from_files(args.files, args.agreement, args.seed)
    write_files(args.output_dir, made)
    tell_missing(Path(__file__).parent, args.output_dir)


if __name__ == "__main__":
    run_script(main)
