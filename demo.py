"""A page to try trained folders on: type a sentence, see its shades and its entities, with and without stage one.

    python demo.py outputs/quickstart/sentiment outputs/quickstart/ner
    python demo.py outputs/quickstart/sentiment outputs/quickstart/ner --before outputs/base/sentiment outputs/base/ner
    python demo.py outputs/quickstart/ner --port 8001

Folders are those that run_sentiment.py and run_ner.py left, also a comparison's cells (--keep_models). A text is read
as those scripts read a test file, and the numbers are those of predictions.csv and predictions.jsonl.

The page is served by Python's own http.server to this machine alone, and asks nothing of any other: Gradio and its like
bring some forty packages, load fonts and scripts from elsewhere and count their users.
"""

import base64
import csv
import hashlib
import itertools
import json
import re
import sys
from argparse import Namespace
from collections.abc import Iterator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import TCPServer, ThreadingMixIn
from threading import Lock
from typing import Any, Protocol

import numpy as np
import torch
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from torch import nn
from transformers import BertForTokenClassification, EvalPrediction

import run_ner
import run_sentiment
from two_stage.checkpointing.handoff import Checkpoint, load_model, open_checkpoint, settled_reading
from two_stage.checkpointing.runs import RESULTS
from two_stage.command_line.exits import OneLineParser, Refusal, Stopped, run_script, say
from two_stage.command_line.redaction import redacted
from two_stage.data.labelled_texts import SENTIMENT_MODELS, Reading, Scale, Texts, tokenize_texts, trained_scale
from two_stage.data.tables import broken_text
from two_stage.data.tag_schemes import tag_names
from two_stage.data.tagged_sentences import Sentences, read_sentence, trained_types
from two_stage.data.windows import plan_windows
from two_stage.results.entity_results import EntitySplit, spans_found
from two_stage.results.report import score_lines
from two_stage.results.sentiment_results import SplitScores, safe_cell

HERE = "127.0.0.1"  # no other machine can ask
MOST_LETTERS = 20_000  # of a text; some hundred windows, seconds of a BERT-base on a CPU
MOST_BYTES = 12 * MOST_LETTERS + 100  # of a request: JSON may write an emoji in twelve
ROWS_AT_ONCE = 16
EXAMPLES = (
    "Profit may edge up if demand holds.",
    "Marlow Shipping cut its forecast again, and its chief executive left for Oslo.",
)

# --- Folders → what reads a text --------------------------------------------------------------------------------------


class Model(Protocol):
    """A trained folder, loaded."""

    task: str  # sentiment or entities
    checkpoint: Checkpoint

    def read(self, text: str, pair: str) -> dict[str, Any]:
        """What the page shows of a text.

        Raises:
            FloatingPointError: the model's weights are broken.
        """


class Shades:
    """A folder of run_sentiment.py."""

    task = "sentiment"

    def __init__(self, checkpoint: Checkpoint, scale: Scale) -> None:
        self.checkpoint, self.scale = checkpoint, scale
        self.reading = settled_reading(Reading(), dict.fromkeys(Reading._fields), checkpoint)
        self.reads_pairs = bool(checkpoint.reads_pairs)
        self.model = load_model(run_sentiment.SentimentModel, checkpoint, new=()).eval()

    def read(self, text: str, pair: str) -> dict[str, Any]:
        """Each shade's share, and which is likeliest; of a model of scores, the score and its shade.

        Args:
            text: the text.
            pair: what the sentiment is toward, for a model that was trained on pairs.

        Raises:
            Refusal: a model of pairs, and no second text.
        """
        if self.reads_pairs and not pair.strip():
            raise Refusal("This model tells the sentiment toward somebody: say toward whom, in the second field.")
        split = Texts([text], [pair] if self.reads_pairs else None, [""], None, np.zeros((1, self.scale.outputs)))
        tokenize_texts(split, self.reading, self.checkpoint.tokenizer, np.ones(1))
        rows = list(split.rows)
        results = np.zeros((len(rows), 1 + self.scale.outputs), dtype=np.float32)  # the first is a loss, not asked for
        padding = self.checkpoint.tokenizer.pad_token_id
        for start in range(0, len(rows), ROWS_AT_ONCE):
            batch = run_sentiment.collate(rows[start : start + ROWS_AT_ONCE], padding)
            for name in ("targets", "weights", "text"):
                del batch[name]
            results[start : start + ROWS_AT_ONCE, 1:] = logits_of(self.model, batch)
        scored = SplitScores(split, self.scale)
        scored(EvalPrediction(results, np.array([row["text"] for row in rows])))
        notes = [f"read in {len(rows)} windows"] if len(rows) > 1 else []
        notes += ["too long for the model: a part of it was not read"] if split.cut else []
        likeliest = int(scored.predicted[0])
        answer: dict[str, Any] = {"likeliest": likeliest if self.scale.labels else None, "notes": notes}
        if self.scale.is_regression:
            shade = self.scale.labels[likeliest] if self.scale.labels else ""
            return answer | {"score": round(float(scored.logits[0, 0]), 6), "shade": shade, "shades": []}
        shares = scored.probabilities[0].tolist()
        shades = [
            {"label": label, "share": round(share, 6)} for label, share in zip(self.scale.labels, shares, strict=True)
        ]
        return answer | {"shades": shades}


class Finder:
    """A folder of run_ner.py."""

    task = "entities"

    def __init__(self, checkpoint: Checkpoint, types: list[str]) -> None:
        self.checkpoint, self.types = checkpoint, types
        self.settings = run_ner.Settings()
        self.reading = settled_reading(run_ner.Reading(), vars(self.settings), checkpoint)
        labels = [checkpoint.config.id2label[i] for i in range(checkpoint.config.num_labels)]
        self.numbers = np.array([labels.index(tag) for tag in tag_names(types)])
        self.model = load_model(BertForTokenClassification, checkpoint, new=()).eval()

    def read(self, text: str, pair: str = "") -> dict[str, Any]:
        """The text in parts, of which those that are entities have their type and how probable they are."""
        sentence = read_sentence(("the text", {"text": text}), self.settings, None)
        split, tokenizer = Sentences([sentence], ["the text"], None, np.arange(1)), self.checkpoint.tokenizer
        room = self.reading.max_length - 2
        pieces = run_ner.word_pieces(sentence.words, tokenizer, room)
        windows = plan_windows(pieces.starts, split, room, self.reading.stride, self.reading.context)
        rows = list(run_ner.align_labels(pieces, windows, None, np.zeros(len(self.numbers)), tokenizer))
        logits: list[np.ndarray] = []  # of the words that each row answers for: (words, labels)
        for start in range(0, len(rows), ROWS_AT_ONCE):
            several = rows[start : start + ROWS_AT_ONCE]
            batch = run_ner.collate(several, tokenizer.pad_token_id)
            inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
            found = logits_of(self.model, inputs)
            logits += [of_row[row["word_tokens"]] for of_row, row in zip(found, several, strict=True)]
        scored = EntitySplit(split, run_ner.Dataset.from_dict({}), self.types, self.numbers, self.is_legal)
        counts = [(row["first_word"], len(row["word_tokens"])) for row in rows]
        scored(EvalPrediction(logits, np.array(counts)))
        notes = [f"read in {len(rows)} windows"] if len(rows) > 1 else []
        notes += [f"{pieces.shortened} words are longer than a window: their end was not read"] * bool(pieces.shortened)
        return {"parts": list(text_parts(text, spans_found(scored)[0])), "notes": notes}

    @property
    def is_legal(self) -> bool:
        """Whether only legal sequences of tags come out."""
        return self.reading.decoding == "legal"


def logits_of(model: nn.Module, inputs: dict[str, torch.Tensor]) -> np.ndarray:
    """The logits of a batch, (rows, …, labels)."""
    with torch.inference_mode():
        return model(**inputs).logits.float().numpy()


def text_parts(text: str, entities: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """A text cut where entities begin and end: JavaScript counts other letters than Python, so no offsets are sent."""
    done = 0
    for entity in entities:
        if entity["start"] > done:
            yield {"text": text[done : entity["start"]]}
        yield {name: entity[name] for name in ("text", "label", "score")}
        done = entity["end"]
    if done < len(text):
        yield {"text": text[done:]}


def open_model(folder: str) -> Model:
    """The model of a folder, by what its config says it is.

    Raises:
        Refusal: it is no folder of stage two, or see `open_checkpoint` and `load_model`.
    """
    checkpoint = open_checkpoint(folder)
    if checkpoint.task_model is None:
        raise Refusal(f"checkpoint {folder}: is no model of sentiment or entities; name a folder that stage two left")
    if checkpoint.task_model in SENTIMENT_MODELS:
        scale = trained_scale(checkpoint)
        assert scale is not None
        return Shades(checkpoint, scale)
    types = trained_types(checkpoint)
    assert types is not None
    return Finder(checkpoint, types)


def open_models(folders: list[str], before: list[str]) -> list[Model]:
    """The models of all folders, sentiment first, of each task that of before first.

    Raises:
        Refusal: two folders of one task that should stand on the same side, or see `open_model`.
    """
    models: list[Model] = []
    for flag, side in (("--before ", before), ("", folders)):
        tasks: dict[str, str] = {}
        for folder in side:
            model = open_model(folder)
            if model.task in tasks:
                hint = "name one" if flag else "name the one without stage one behind --before"
                raise Refusal(f"{flag}{folder}: finds {model.task}, as {tasks[model.task]} does; {hint}")
            tasks[model.task] = folder
            models.append(model)
    return sorted(models, key=lambda model: model.task, reverse=True)


# --- What the page says of them ---------------------------------------------------------------------------------------


def model_facts(model: Model) -> dict[str, str]:
    """What stands above a model's answers: whether stage one went before, its folder, how good it was found to be."""
    folder, config = Path(model.checkpoint.name), model.checkpoint.config
    facts = {"folder": redacted(model.checkpoint.name), "title": stage_one_title(model.checkpoint)}
    try:
        scores = json.loads((folder / RESULTS).read_text(encoding="utf-8"))
        lines = {name: f"{name} {value} ({split})" for split, name, value in score_lines(scores)}
        facts["score"] = lines.get("macro-F1" if model.task == "sentiment" else "entity F1", "")
    except (OSError, ValueError, TypeError, AttributeError):  # a folder from elsewhere has none
        facts["score"] = ""
    temperature = getattr(config, "head_temperature", None)
    facts["calibrated"] = f"calibrated, temperature {temperature:.2f}" if temperature else "not calibrated"
    if getattr(config, "problem_type", None) == "regression":
        facts["calibrated"] = ""
    return facts


def stage_one_title(checkpoint: Checkpoint) -> str:
    """Whether stage one went before, where the folder's lineage tells."""
    ancestor = checkpoint.lineage
    if ancestor is None:
        return Path(checkpoint.name).name
    while isinstance(ancestor, dict):
        if ancestor.get("script") == "run_pretraining.py":
            return "With stage one"
        started_from = ancestor.get("checkpoint")
        ancestor = started_from.get("lineage") if isinstance(started_from, dict) else None
    return "Without stage one"


def example_texts(models: list[Model]) -> list[dict[str, str]]:
    """Some texts to begin with: of the models' own test texts where they lie beside them, else two made up."""
    found: dict[str, dict[str, str]] = {}
    for model in reversed(models):  # those after stage one first
        try:
            some = (shade_examples if model.task == "sentiment" else entity_examples)(Path(model.checkpoint.name))
        except (OSError, ValueError, KeyError, TypeError, csv.Error):  # gone, or none of ours
            continue
        if not any(example["task"] == model.task for example in found.values()):
            found |= {example["text"]: example | {"task": model.task} for example in some}
    return list(found.values()) or [{"text": text, "pair": ""} for text in EXAMPLES]


def is_handy(text: str) -> bool:
    """Whether a text makes a button."""
    return 20 <= len(text) <= 160 and "\n" not in text and not broken_text(text)


def shade_examples(folder: Path) -> list[dict[str, str]]:
    """A text of up to four shades, from one end to the other, as predictions.csv has them."""
    of_shade: dict[str, dict[str, str]] = {}
    with open(folder / "predictions.csv", encoding="utf-8", newline="") as file:
        header, *rows = itertools.islice(csv.reader(file), 2000)
    for row in rows:
        cells = {name: plain_cell(cell) for name, cell in zip(header, row, strict=True)}
        if is_handy(cells["text"]):
            example = {"text": cells["text"], "pair": cells.get("text_pair", "")}
            of_shade.setdefault(cells["predicted"], example)
    shades = [shade for shade in map(plain_cell, header) if shade in of_shade] or list(of_shade)
    places = sorted({round(place) for place in np.linspace(0, len(shades) - 1, 4)}) if shades else []
    return [of_shade[shades[place]] for place in places]


def plain_cell(cell: str) -> str:
    """A cell of predictions.csv without the ' that keeps a spreadsheet from running it."""
    return cell[1:] if cell.startswith("'") and safe_cell(cell[1:]) == cell else cell


def entity_examples(folder: Path) -> list[dict[str, str]]:
    """The two texts of predictions.jsonl with entities of the most types, then with the most entities."""
    with open(folder / "predictions.jsonl", encoding="utf-8") as file:
        rows = [json.loads(line) for line in itertools.islice(file, 2000)]
    handy = [row for row in rows if is_handy(row["text"])]
    handy.sort(key=lambda row: (len({entity["label"] for entity in row["entities"]}), len(row["entities"])))
    return [{"text": row["text"], "pair": ""} for row in handy[:-3:-1]]


def demo_page(models: list[Model]) -> tuple[str, str]:
    """The page, and the policy that lets a browser run and load what stands in it and nothing else."""
    pages = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "two_stage" / "results"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    html = pages.get_template("demo.html.jinja").render(
        models=[model_facts(model) | {"task": model.task, "number": i} for i, model in enumerate(models)],
        tasks={"sentiment": "Sentiment", "entities": "Entities"},
        examples=example_texts(models),
        reads_pairs=any(isinstance(model, Shades) and model.reads_pairs for model in models),
        most_letters=MOST_LETTERS,
    )
    hashes = {
        name: " ".join(f"'sha256-{sha256_base64(text)}'" for text in re.findall(rf"<{name}>(.*?)</{name}>", html, re.S))
        for name in ("script", "style")
    }
    policy = (
        f"default-src 'none'; script-src {hashes['script']}; style-src {hashes['style']}; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return html, policy


def sha256_base64(text: str) -> str:
    """A hash as a content security policy has it."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


# --- Server -----------------------------------------------------------------------------------------------------------


class DemoServer(ThreadingMixIn, TCPServer):
    """Serves one page and answers one question; http.server's own would look its name up in the network."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128  # the stock 5 turn away who asks at the same moment

    def __init__(self, models: list[Model], port: int) -> None:
        """Listen; port 0 takes any that is free."""
        super().__init__((HERE, port), DemoHandler)
        self.models, self.one_at_a_time = models, Lock()
        self.html, self.policy = demo_page(models)
        self.port = self.server_address[1]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a browser that has gone; whatever else went wrong, show it in the terminal."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    def answers(self, text: str, pair: str) -> list[dict[str, Any]]:
        """What each model makes of a text."""
        with self.one_at_a_time:
            return [model.read(text, pair) for model in self.models]


class DemoHandler(BaseHTTPRequestHandler):
    """GET / is the page; POST /read asks the models."""

    server: DemoServer
    timeout = 20  # seconds without a byte
    server_version, sys_version = "demo", ""

    def do_GET(self) -> None:
        """Send the page."""
        if self.is_let_in():
            if self.path != "/":
                return self.send_json(HTTPStatus.NOT_FOUND, {"error": "There is one page here, at /."})
            self.send_bytes(HTTPStatus.OK, "text/html; charset=utf-8", self.server.html.encode())

    def do_POST(self) -> None:
        """Answer one text."""
        if not self.is_let_in():
            return
        try:
            self.send_json(HTTPStatus.OK, {"answers": self.server.answers(*self.asked())})
        except Refusal as refusal:
            self.send_json(HTTPStatus.BAD_REQUEST, {"error": str(refusal)})
        except FloatingPointError as error:
            self.send_json(HTTPStatus.INTERNAL_SERVER_ERROR, {"error": f"It cannot be read: {error}."})

    def is_let_in(self) -> bool:
        """Whether the page itself asks: no other site that a browser shows, not even under a name of its own."""
        names = [f"{name}:{self.server.port}" for name in (HERE, "localhost")]
        origin = self.headers.get("Origin")
        if self.headers.get("Host") in names and origin in (None, *(f"http://{name}" for name in names)):
            return True
        self.send_json(HTTPStatus.FORBIDDEN, {"error": f"Only http://{names[0]} is answered."})
        return False

    def asked(self) -> tuple[str, str]:
        """The text and the second text of a request.

        Raises:
            Refusal: it is no such request, or too long.
        """
        length = self.headers.get("Content-Length", "")
        if self.path != "/read" or self.headers.get("Content-Type") != "application/json" or not length.isdecimal():
            raise Refusal("Texts are asked for at /read, as JSON.")
        too_long = f"This is longer than {MOST_LETTERS:,} characters: try a part of it."
        if len(length) > 9 or int(length) > MOST_BYTES:
            raise Refusal(too_long)
        try:
            question = json.loads(self.rfile.read(int(length)))
            text, pair = question["text"], question.get("pair", "")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise Refusal('The question must be JSON such as {"text": "Profit rose."}.') from None
        if not isinstance(text, str) or not isinstance(pair, str) or broken_text(text + pair):
            raise Refusal("A text is asked for, of whole characters.")
        if len(text) + len(pair) > MOST_LETTERS:
            raise Refusal(too_long)
        if not text.strip():
            raise Refusal("Type a sentence first.")
        return text, pair

    def send_json(self, status: HTTPStatus, answer: dict[str, Any]) -> None:
        """Send an answer."""
        self.send_bytes(status, "application/json", json.dumps(answer).encode())

    def send_bytes(self, status: HTTPStatus, kind: str, content: bytes) -> None:
        """Send anything, with what keeps browsers from making more of it."""
        self.send_response(status)
        for name, value in {
            "Content-Type": kind,
            "Content-Length": str(len(content)),
            "Content-Security-Policy": self.server.policy,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cross-Origin-Opener-Policy": "same-origin",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Cache-Control": "no-store",
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: what is typed is the user's own."""


# --- Main -------------------------------------------------------------------------------------------------------------


def parse_demo(argv: list[str] | None) -> Namespace:
    """The typed flags.

    Raises:
        Refusal: a flag that there is not, or a port that is none.
    """
    parser = OneLineParser(prog="demo.py", description=__doc__)
    parser.add_argument("folders", nargs="+", metavar="FOLDER", help="of sentiment, of entities, or one of each")
    parser.add_argument(
        "--before", nargs="+", metavar="FOLDER", default=[], help="to show beside them, as those without stage one"
    )
    parser.add_argument("--port", type=int, default=8000, help="where the page is (8000); 0 takes any that is free")
    flags = parser.parse_args(argv)
    if not 0 <= flags.port <= 65535:
        raise Refusal(f"--port {flags.port}: must be between 0 and 65535")
    return flags


def main(argv: list[str] | None = None) -> None:
    """Serve the page until Ctrl-C."""
    flags = parse_demo(argv)
    models = open_models(flags.folders, flags.before)
    try:
        server = DemoServer(models, flags.port)
    except OSError as error:
        raise Refusal(f"--port {flags.port}: cannot be had ({error.strerror}); give another, or 0 for any") from error
    with server:
        say(f"The page is at http://{HERE}:{server.port}, on this machine alone; Ctrl-C ends it")
        try:
            server.serve_forever()
        except (KeyboardInterrupt, Stopped):
            say("Closed")


if __name__ == "__main__":
    run_script(main)
