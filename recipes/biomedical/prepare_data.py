"""Get the data of the biomedical recipe into the forms that the scripts read.

    python recipes/biomedical/prepare_data.py --source hub --documents 200000
    python recipes/biomedical/prepare_data.py --source files --files ~/downloads

From the Hub: BC5CDR (chemicals and diseases) sentence by sentence, and titles and abstracts of PubMed. From files,
whichever of these lie in the folder: the PubTator files of BC5CDR (CDR_TrainingSet.PubTator.txt,
CDR_DevelopmentSet.PubTator.txt, CDR_TestSet.PubTator.txt) or, with --corpus ncbi, of the NCBI disease corpus
(NCBItrainset_corpus.txt, NCBIdevelopset_corpus.txt, NCBItestset_corpus.txt), an abstract a row; and PubMed's own
pubmed*.xml or .xml.gz, which make corpus.jsonl.
"""

import gzip
import math
import re
import sys
import zlib
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from xml.etree import ElementTree

sys.path.insert(0, str(Path(__file__).parents[2]))  # runs from a clone with no install

from two_stage.command_line.exits import Refusal, run_script, say
from two_stage.data.data_sets import open_split
from two_stage.data.prepared import (
    SPLITS,
    data_parser,
    decoded,
    entities_apart,
    find_splits,
    hub_file,
    keep_apart,
    tell_missing,
    write_files,
)
from two_stage.data.tables import PlacedRow, Row, column_value, read_rows

FILES = {
    "bc5cdr": ("CDR_TrainingSet.PubTator.txt", "CDR_DevelopmentSet.PubTator.txt", "CDR_TestSet.PubTator.txt"),
    "ncbi": ("NCBItrainset_corpus.txt", "NCBIdevelopset_corpus.txt", "NCBItestset_corpus.txt"),
}
TYPES = {"bc5cdr": None, "ncbi": "Disease"}  # NCBI's four kinds of mention are one type, as in published scores
TAGS = ("O", "B-Chemical", "B-Disease", "I-Disease", "I-Chemical")  # the order of T-NER's numbers
TEXT = re.compile(r"(\d+)\|([ta])\|(.*)")

# --- PubTator: a text and its entities --------------------------------------------------------------------------------


def pubtator_rows(path: Path, one_type: str | None) -> list[Row]:
    """The abstracts of a PubTator file, each with its title, and their entities as character spans.

    Args:
        path: lines `ID|t|title` and `ID|a|abstract`, then `ID, start, end, mention, type, ...` parted by tabs. Offsets
            count characters of the title, one for the line break, and the abstract. Relations are passed over.
        one_type: what all entities are called; None takes the file's types.

    Raises:
        Refusal: a line of no such form, or a mention that does not stand at its offsets.
    """
    rows: list[Row] = []
    shared = 0
    for number, line in enumerate(decoded(path).split("\n"), start=1):
        line, place = line.rstrip("\r"), f"{path} line {number}"
        if match := TEXT.fullmatch(line):
            document, part, text = match.groups()
            if part == "t":
                rows.append({"text": text, "entities": [], "document": document})
            elif rows and rows[-1]["document"] == document:
                rows[-1]["text"] += f"\n{text}"
            else:
                raise Refusal(f"{place}: an abstract without its title before it; is a line missing?")
        elif line.strip():
            cells = line.split("\t")
            if len(cells) == 4 and cells[1] == "CID":  # a relation of two concepts
                continue
            if len(cells) < 5 or not cells[1].isdecimal() or not cells[2].isdecimal() or not rows:
                raise Refusal(f"{place}: is no line of PubTator: ID, start, end, mention and type, parted by tabs")
            start, stop, mention = int(cells[1]), int(cells[2]), cells[3]
            if rows[-1]["document"] != cells[0] or rows[-1]["text"][start:stop] != mention:
                raise Refusal(f"{place}: {mention!r} does not stand at {start} to {stop} of the text before it")
            rows[-1]["entities"].append({"start": start, "end": stop, "label": one_type or cells[4]})
    for row in rows:
        kept = entities_apart(row["text"], row["entities"])
        shared += len(row["entities"]) - len(kept)
        row["entities"] = kept
    if not rows:
        raise Refusal(f"{path}: no text in it; is it PubTator?")
    if shared:
        say(f"{path.name}: left out {shared:,} entities that share a word with a longer one")
    return rows


def tner_sentences(rows: Iterable[PlacedRow]) -> list[Row]:
    """The sentences of T-NER's JSON lines, their tags by name."""
    sentences = []
    for row in rows:
        tokens, tags = column_value(row, "tokens", "source"), column_value(row, "tags", "source")
        if any(type(tag) is not int or not 0 <= tag < len(TAGS) for tag in tags):
            raise Refusal(f"{row[0]}: tags {tags[:20]} are not all numbers from 0 to {len(TAGS) - 1}")
        sentences.append({"tokens": tokens, "ner_tags": [TAGS[tag] for tag in tags]})
    return sentences


# --- PubMed: a corpus -------------------------------------------------------------------------------------------------


def pubmed_documents(path: Path) -> Iterator[Row]:
    """The articles of one of PubMed's own files that have an abstract: the title, then the abstract's parts.

    Raises:
        Refusal: no such XML.
    """
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rb") as file:
            for _, element in ElementTree.iterparse(file):
                if element.tag == "PubmedArticle":
                    article = element.find("MedlineCitation/Article")
                    parts = [] if article is None else [article.find("ArticleTitle"), *article.iter("AbstractText")]
                    lines = [" ".join("".join(part.itertext()).split()) for part in parts if part is not None]
                    if len(lines) > 1 and all(lines[1:]):
                        yield {"text": "\n".join(line for line in lines if line)}
                    element.clear()
    except (ElementTree.ParseError, OSError, EOFError, zlib.error) as error:
        raise Refusal(f"{path}: is no XML of PubMed, or broken off: {error}; fetch it anew") from error


def hub_abstracts(count: int) -> Iterator[Row]:
    """The first `count` articles of PubMed as MedRAG keeps them, read as they come."""
    for row in islice(open_split("MedRAG/pubmed", None, None, "train", streamed=True), count):
        if row["content"]:
            yield {"text": f"{row['title']}\n{row['content']}"}


# --- Main -------------------------------------------------------------------------------------------------------------


def from_hub(documents: int) -> dict[str, list[Row]]:
    """All files that the Hub's data sets make."""
    names = zip(SPLITS, ("train", "valid", "test"), strict=True)
    splits = {
        split: tner_sentences(read_rows(hub_file("tner/bc5cdr", f"dataset/{name}.json"))) for split, name in names
    }
    files = {f"ner_{split}.jsonl": rows for split, rows in keep_apart(splits).items()}
    return files | {"corpus.jsonl": list(hub_abstracts(documents))}


def from_files(folder: Path | None, corpus: str) -> dict[str, list[Row]]:
    """The files that what lies in the folder makes."""
    paths = find_splits(folder, [[name] for name in FILES[corpus]])
    splits = keep_apart({split: pubtator_rows(path, TYPES[corpus]) for split, path in paths.items()})
    files = {f"ner_{split}.jsonl": rows for split, rows in splits.items()}
    assert folder is not None
    articles = [path for name in ("pubmed*.xml", "pubmed*.xml.gz") for path in sorted(folder.rglob(name))]
    if documents := [row for path in articles for row in pubmed_documents(path)]:
        files["corpus.jsonl"] = documents
    if not files:
        raise Refusal(f"--files {folder}: holds none of {', '.join(FILES[corpus])} and no pubmed*.xml")
    return files


def main(argv: list[str] | None = None) -> None:
    """Write all files that can be made."""
    parser = data_parser(__doc__, Path(__file__).parent)
    parser.add_argument("--corpus", choices=FILES, default="bc5cdr", help="which PubTator files (%(default)s)")
    parser.add_argument("--documents", type=int, default=100_000, help="articles from the Hub (%(default)s)")
    args = parser.parse_args(argv)
    from two_stage.command_line.recipe import check_range  # takes seconds to import, and --help must not wait for it

    check_range(args, 1, math.inf, "documents")
    made = from_hub(args.documents) if args.source == "hub" else from_files(args.files, args.corpus)
    write_files(args.output_dir, made)
    tell_missing(Path(__file__).parent, args.output_dir)


if __name__ == "__main__":
    run_script(main)
