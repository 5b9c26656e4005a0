"""Get the data of the legal recipe into the forms that the scripts read.

    python recipes/legal/prepare_data.py --source hub
    python recipes/legal/prepare_data.py --source files --files ~/downloads

LEDGAR (provisions of contracts, 100 types) and CUAD (510 contracts, whose openings name the document, the parties and
the date). From files, whichever of these lie in the folder: CUAD_v1.json, and LexGLUE's three parquet files of LEDGAR
(train-00000-of-00001.parquet and so on). CUAD gives two things: corpus.jsonl, all contracts but those held out, and
ner_*.jsonl, the opening of each.
"""

import json
import sys
from collections.abc import Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # runs from a clone with no install

from two_stage.command_line.exits import Refusal, run_script, say
from two_stage.data.data_sets import dataset_rows
from two_stage.data.prepared import (
    SPLITS,
    data_parser,
    decoded,
    entities_apart,
    find_file,
    find_splits,
    hub_file,
    keep_apart,
    split_rows,
    tell_missing,
    write_files,
)
from two_stage.data.tables import PlacedRow, Row, read_rows, text_value

KINDS = {"Document Name": "DOCUMENT", "Parties": "PARTY", "Agreement Date": "DATE"}  # of CUAD's 41, those of openings
OPENING = 2000  # characters: a page, on which a contract says who agrees and when

# --- CUAD: contracts --------------------------------------------------------------------------------------------------


def cuad_contracts(path: Path) -> list[Row]:
    """The contracts of the authors' JSON, which has SQuAD's form: text, and entities as character spans.

    Raises:
        Refusal: another form, or an answer that does not stand at its place.
    """
    rows = []
    try:
        for contract in json.loads(decoded(path))["data"]:
            for paragraph in contract["paragraphs"]:
                text, entities = paragraph["context"], []
                for question in paragraph["qas"]:
                    kind = KINDS.get(question["id"].rpartition("__")[2])
                    for answer in question["answers"] if kind else ():
                        start, stop = answer["answer_start"], answer["answer_start"] + len(answer["text"])
                        if text[start:stop] != answer["text"]:
                            raise Refusal(f"{path}: {question['id']}: {answer['text']!r} does not stand at {start}")
                        entities.append({"start": start, "end": stop, "label": kind})
                rows.append({"text": text, "entities": entities, "document": contract["title"]})
    except (ValueError, TypeError, KeyError) as error:
        raise Refusal(f"{path}: is not of the form of CUAD_v1.json: {error!r}") from error
    return rows


def opening(contract: Row) -> Row:
    """The first page of a contract, cut at a line's end, with the entities that lie on it whole."""
    text = contract["text"]
    stop = len(text) if len(text) <= OPENING else max(text.rfind("\n", 0, OPENING), 0) or OPENING
    entities = [entity for entity in contract["entities"] if entity["end"] <= stop]
    kept = entities_apart(text[:stop], entities)
    return {"text": text[:stop], "entities": kept, "document": contract["document"]}


def unwrapped(text: str) -> str:
    """A contract as lines of paragraphs: a blank line parts them, and single line breaks are the page's."""
    paragraphs = (" ".join(part.split()) for part in text.replace("\r\n", "\n").split("\n\n"))
    return "\n".join(part for part in paragraphs if part)


def contract_files(contracts: list[Row], seed: int) -> dict[str, list[Row]]:
    """The openings, split by contract, and the text of all contracts that are not held out."""
    pages = {row["document"]: opening(row) for row in contracts}
    splits = split_rows([page for page in pages.values() if page["text"].strip()], seed, stem="ner")
    held_out = {row["document"] for split in SPLITS[1:] for row in splits[split]}
    corpus = [{"text": unwrapped(row["text"])} for row in contracts if row["document"] not in held_out]
    say(f"corpus: {len(contracts) - len(corpus):,} contracts are left out, whose openings validate and test")
    return {f"ner_{split}.jsonl": rows for split, rows in splits.items()} | {
        "corpus.jsonl": [row for row in corpus if row["text"]]
    }


# --- LEDGAR: provisions -----------------------------------------------------------------------------------------------


def ledgar_rows(rows: Iterable[PlacedRow]) -> list[Row]:
    """Provisions and the names of their types.

    Raises:
        Refusal: a row without a text, or whose label is a number without a name.
    """
    found = []
    for row in rows:
        if not isinstance(row[1].get("label"), str):
            raise Refusal(f"{row[0]}: no name of a type in column label; is it LexGLUE's LEDGAR?")
        found.append({"text": text_value(row, "text", "source"), "label": row[1]["label"]})
    return found


# --- Main -------------------------------------------------------------------------------------------------------------


def provision_files(splits: dict[str, list[Row]]) -> dict[str, list[Row]]:
    """LexGLUE's own splits, without copies of texts that are held out."""
    return {f"sentiment_{split}.csv": rows for split, rows in keep_apart(splits).items()}


def from_hub(seed: int) -> dict[str, list[Row]]:
    """All files that the Hub's data sets make."""
    contracts = cuad_contracts(Path(hub_file("theatticusproject/cuad", "CUAD_v1/CUAD_v1.json")))
    ledgar = {split: ledgar_rows(dataset_rows("coastalcph/lex_glue", "ledgar", None, split)) for split in SPLITS}
    return contract_files(contracts, seed) | provision_files(ledgar)


def from_files(folder: Path | None, seed: int) -> dict[str, list[Row]]:
    """The files that what lies in the folder makes."""
    files: dict[str, list[Row]] = {}
    if path := find_file(folder, "CUAD_v1.json", "CUADv1.json"):
        files |= contract_files(cuad_contracts(path), seed)
    tables = find_splits(folder, [[f"{split}-00000-of-00001.parquet"] for split in SPLITS])
    files |= provision_files({split: ledgar_rows(read_rows(str(path))) for split, path in tables.items()})
    if not files:
        raise Refusal(f"--files {folder}: holds neither CUAD_v1.json nor the three parquet files of LEDGAR")
    return files


def main(argv: list[str] | None = None) -> None:
    """Write all files that can be made."""
    args = data_parser(__doc__, Path(__file__).parent).parse_args(argv)
    made = from_hub(args.seed) if args.source == "hub" else from_files(args.files, args.seed)
    write_files(args.output_dir, made)
    tell_missing(Path(__file__).parent, args.output_dir)


if __name__ == "__main__":
    run_script(main)
