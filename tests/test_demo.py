"""The demo: it reads as the scripts do, shows what it is asked to, and lets nobody else in."""

import csv
import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, BertConfig, BertForTokenClassification, set_seed

import demo
import run_ner
import run_sentiment
from demo import DemoServer, open_models
from run_sentiment import SentimentModel
from tests.browser import ENTER, NO_KEYS, SHIFT, TAB, Browser, open_browser
from tests.conftest import NOUNS, SHADES
from two_stage.command_line.exits import Refusal

TAGS = ["O", "B-LOC", "I-LOC", "B-ORG", "I-ORG"]
LONG = " ".join(NOUNS * 8)
TEXTS = [
    "profit rose in oslo .",
    "  loss ,  margin fell .\n",
    "Ünïcode 😀 profit rose in Oslo 👩‍👩‍👧 .",
    "ارتفعت الأرباح في أوسلو 12.",
    '<script>alert("x")</script> & <b>profit</b>',
    LONG,
]


def trained(folder: Path, tiny_folder: Path, model_class: Any, labels: list[str], **settings: Any) -> Path:
    """A folder as stage two leaves it, with a head that says something without having been trained."""
    settings |= {"id2label": dict(enumerate(labels)), "label2id": {label: i for i, label in enumerate(labels)}}
    config = BertConfig.from_pretrained(tiny_folder)
    for name, value in settings.items():
        setattr(config, name, value)
    set_seed(1)
    model = model_class.from_pretrained(tiny_folder, config=config)
    with torch.no_grad():
        model.classifier.weight.normal_(std=1.5)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_folder).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> dict[str, str]:
    """One of each kind: two of windows, one of pairs, one of scores, one of a head that no stock class has."""
    root = tmp_path_factory.mktemp("trained")
    windows = {"reading": {"max_length": 24, "long_text": "windows", "stride": 8}}
    made = {
        "sentiment": (SentimentModel, SHADES, windows),
        "pairs": (SentimentModel, SHADES, {"reads_pairs": True}),
        "mean": (SentimentModel, SHADES, {"pooling": "mean"}),
        "scores": (SentimentModel, ["score"], {"problem_type": "regression", "shades": SHADES, "bins": [-0.5, 0.5]}),
        "ner": (BertForTokenClassification, TAGS, {"reading": {"max_length": 24, "stride": 8}}),
        "argmax": (BertForTokenClassification, TAGS, {"reading": {"decoding": "argmax"}}),
    }
    for name, (model_class, labels, settings) in made.items():
        trained(root / name, tiny_folder, model_class, labels, **settings)
    return {name: str(root / name) for name in made}


@contextmanager
def served(*folders: str, before: tuple[str, ...] = ()) -> Iterator[DemoServer]:
    """The demo of some folders, on a port of its own."""
    with DemoServer(open_models(list(folders), list(before)), 0) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def server(folders: dict[str, str]) -> Iterator[DemoServer]:
    """The demo of a sentiment and an entity folder."""
    with served(folders["sentiment"], folders["ner"]) as server:
        yield server


def reply(
    server: DemoServer, method: str, path: str, body: Any = None, **headers: str
) -> tuple[int, dict[str, str], str]:
    """Status, headers and content of an answer; headers override what the page itself would send."""
    connection = HTTPConnection("127.0.0.1", server.port, timeout=20)
    content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    given = {"Host": f"127.0.0.1:{server.port}"} | ({"Content-Type": "application/json"} if body is not None else {})
    connection.request(
        method, path, content, given | {name.replace("_", "-"): value for name, value in headers.items()}
    )
    answer = connection.getresponse()
    found = answer.status, dict(answer.getheaders()), answer.read().decode()
    connection.close()
    return found


def asked(server: DemoServer, text: str, pair: str = "") -> list[dict[str, Any]]:
    """What the models say of a text."""
    status, _, content = reply(server, "POST", "/read", {"text": text, "pair": pair})
    assert status == 200, content
    return json.loads(content)["answers"]


def told(server: DemoServer, body: Any, path: str = "/read", **headers: str) -> tuple[int, str]:
    """How a question is refused."""
    status, _, content = reply(server, "POST", path, body, **headers)
    return status, json.loads(content)["error"]


# --- The numbers ------------------------------------------------------------------------------------------------------


def write_rows(path: Path, rows: list[dict[str, str]]) -> str:
    """A JSONL file."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sentiment", "mean", "pairs", "scores"])
def test_shades_are_those_of_predictions_csv(folders: dict[str, str], tmp_path: Path, name: str) -> None:
    """Text by text, to the last digit written, give or take one where a batch was padded."""
    pairs = ["--text_pair_column", "company"] if name == "pairs" else []
    file = write_rows(tmp_path / "texts.jsonl", [{"text": text, "company": "ship plan"} for text in TEXTS])
    predict = ["--checkpoint", folders[name], "--test_file", file, "--output_dir", str(tmp_path / "out"), "--use_cpu"]
    run_sentiment.main([*predict, *pairs])
    (model,) = open_models([folders[name]], [])
    with open(tmp_path / "out" / "predictions.csv", encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert [demo.plain_cell(row["text"]) for row in rows] == TEXTS
    for row in rows:
        found = model.read(demo.plain_cell(row["text"]), "ship plan")
        if name == "scores":
            assert found["score"] == pytest.approx(float(row["predicted_score"]), abs=1.1e-6)
            assert found["shade"] == row["predicted"]
            continue
        assert [shade["label"] for shade in found["shades"]] == SHADES
        shares = [shade["share"] for shade in found["shades"]]
        assert shares == pytest.approx([float(row[label]) for label in SHADES], abs=1.1e-6)
        assert SHADES[found["likeliest"]] == row["predicted"]
    assert len({tuple(row.values())[-1] for row in rows}) > 3  # the models say something


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ner", "argmax"])
def test_entities_are_those_of_predictions_jsonl(folders: dict[str, str], tmp_path: Path, name: str) -> None:
    """Text by text: where they stand, their type, and how probable they are; the parts make up the text."""
    file = write_rows(tmp_path / "texts.jsonl", [{"text": text} for text in TEXTS])
    predict = ["--checkpoint", folders[name], "--test_file", file, "--output_dir", str(tmp_path / "out"), "--use_cpu"]
    run_ner.main(predict)
    (model,) = open_models([folders[name]], [])
    lines = (tmp_path / "out" / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    for line, text in zip(lines, TEXTS, strict=True):
        row, parts = json.loads(line), model.read(text, "")["parts"]
        assert "".join(part["text"] for part in parts) == text == row["text"]
        starts = [sum(len(part["text"]) for part in parts[:i]) for i in range(len(parts))]
        found = [(at, part["text"], part["label"]) for at, part in zip(starts, parts, strict=True) if "label" in part]
        assert found == [(entity["start"], entity["text"], entity["label"]) for entity in row["entities"]]
        scores = [part["score"] for part in parts if "label" in part]
        assert scores == pytest.approx([entity["score"] for entity in row["entities"]], abs=1.1e-6)
    assert sum(line.count('"label"') for line in lines) > len(TEXTS)  # the models find something


def test_a_long_text_is_read_in_windows_and_it_is_said(server: DemoServer) -> None:
    """Of a short one nothing is said."""
    assert [answer["notes"] for answer in asked(server, "profit rose .")] == [[], []]
    for answer in asked(server, LONG):
        assert re.fullmatch(r"read in \d+ windows", answer["notes"][0])


def test_what_is_cut_is_said(folders: dict[str, str]) -> None:
    """Of a folder that reads the head alone."""
    (model,) = open_models([folders["mean"]], [])
    assert model.read(LONG, "")["notes"] == ["too long for the model: a part of it was not read"]


def test_a_text_without_a_word_piece_is_read(server: DemoServer) -> None:
    """An emoji that the vocabulary has not, and a control character: as the scripts read them."""
    assert "".join(part["text"] for part in asked(server, "😀")[1]["parts"]) == "😀"
    assert len(asked(server, "\u0007")) == 2


# --- Folders ----------------------------------------------------------------------------------------------------------


def test_folders_are_known_by_their_config(folders: dict[str, str]) -> None:
    """Sentiment comes first, and of each task what stands behind --before."""
    models = open_models([folders["ner"], folders["sentiment"]], [folders["argmax"], folders["mean"]])
    names = [Path(model.checkpoint.name).name for model in models]
    assert names == ["mean", "sentiment", "argmax", "ner"]


@pytest.mark.parametrize(
    ("names", "before", "line"),
    [
        (
            ["sentiment", "mean"],
            [],
            "mean: finds sentiment, as .*sentiment does; name the one without",
        ),
        (["ner"], ["ner", "argmax"], "--before .*argmax: finds entities, as .*ner does; name one"),
    ],
)
def test_two_of_a_task_on_one_side_are_refused(
    folders: dict[str, str], names: list[str], before: list[str], line: str
) -> None:
    """In a line that says what to do."""
    with pytest.raises(Refusal, match=line):
        open_models([folders[name] for name in names], [folders[name] for name in before])


def test_what_is_no_model_of_stage_two_is_refused(tiny_folder: Path) -> None:
    """Stage one's folder is none, and a folder that is not there is said to be missing."""
    with pytest.raises(Refusal, match="is no model of sentiment or entities; name a folder that stage two left"):
        open_models([str(tiny_folder)], [])
    with pytest.raises(Refusal, match="no such folder"):
        open_models(["./nowhere"], [])


@pytest.mark.parametrize("argv", [[], ["x", "--port", "70000"], ["x", "--port", "y"], ["x", "--host", "0.0.0.0"]])
def test_wrong_flags_are_refused(argv: list[str]) -> None:
    """In one line, before a model is loaded."""
    with pytest.raises(Refusal):
        demo.main(argv)


def test_a_port_that_is_taken_is_refused(server: DemoServer, folders: dict[str, str]) -> None:
    """And another is asked for."""
    with pytest.raises(Refusal, match=f"--port {server.port}: cannot be had"):
        demo.main([folders["ner"], "--port", str(server.port)])


def test_stage_one_is_told_from_the_lineage(folders: dict[str, str], tmp_path: Path) -> None:
    """However far back it lies; a folder without a lineage goes by its name."""
    (model,) = open_models([folders["ner"]], [])
    assert demo.model_facts(model)["title"] == "ner"
    for lineage, title in (
        ({"script": "run_ner.py", "checkpoint": {"lineage": None}}, "Without stage one"),
        ({"script": "run_ner.py", "checkpoint": {"lineage": {"script": "run_pretraining.py"}}}, "With stage one"),
    ):
        object.__setattr__(model.checkpoint, "lineage", lineage)
        assert demo.stage_one_title(model.checkpoint) == title


def test_examples_are_the_models_own_test_texts(folders: dict[str, str], tmp_path: Path) -> None:
    """One of each shade, and the sentences with the most entities; without predictions some that are made up."""
    models = open_models([folders["sentiment"], folders["ner"]], [])
    assert [example["text"] for example in demo.example_texts(models)] == list(demo.EXAMPLES)
    for model in models:
        object.__setattr__(model.checkpoint, "name", str(tmp_path))
    rows = [["text", "gold", "predicted", *SHADES]]
    rows += [
        [f"{sign}a text number {i}, long enough", "", SHADES[i % 3], "0", "0", "1"] for i in range(9) for sign in "="
    ]
    rows = [rows[0], *([demo.safe_cell(cell) for cell in row] for row in rows[1:])]
    with open(tmp_path / "predictions.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    entity = {"label": "LOC"}
    found = [{"text": f"profit rose in place number {i}", "entities": [entity] * i} for i in (1, 3, 2, 0)]
    write_rows(tmp_path / "predictions.jsonl", found)
    texts = [example["text"] for example in demo.example_texts(models)]
    assert texts[:2] == ["profit rose in place number 3", "profit rose in place number 2"]
    assert texts[2:] == [f"=a text number {i}, long enough" for i in range(3)]
    (tmp_path / "predictions.jsonl").write_text("[1]\n", encoding="utf-8")  # damaged
    assert len(demo.example_texts(models)) == 3


# --- Who is let in ----------------------------------------------------------------------------------------------------


def test_only_this_machine_is_listened_to(server: DemoServer) -> None:
    """The address is the loopback's, and no flag changes it."""
    assert server.server_address[0] == "127.0.0.1"
    with socket.socket(socket.AF_INET6) as other, pytest.raises(OSError):
        other.connect(("::1", server.port))


def test_many_may_ask_at_once(folders: dict[str, str]) -> None:
    """Nobody is turned away who comes while the server is busy."""
    with DemoServer(open_models([folders["ner"]], []), 0) as server, ExitStack() as stack:  # and serves nobody yet
        for _ in range(40):
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=1))


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "127.0.0.1"},
        {"Host": "127.0.0.1.evil.example:8000"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
    ],
)
def test_other_sites_are_not_let_in(server: DemoServer, headers: dict[str, str]) -> None:
    """A page elsewhere that has its name point here, or that posts to here, gets nothing."""
    for method, path, body in (("GET", "/", None), ("POST", "/read", {"text": "profit"})):
        status, sent, content = reply(server, method, path, body, **headers)
        assert status == 403
        assert "answers" not in content
        assert "Access-Control-Allow-Origin" not in sent


def test_the_page_itself_is_let_in(server: DemoServer) -> None:
    """Under both names of this machine."""
    for name in ("127.0.0.1", "localhost"):
        host = f"{name}:{server.port}"
        sent = {"text": "profit rose ."}
        assert reply(server, "POST", "/read", sent, Host=host, Origin=f"http://{host}")[0] == 200


@pytest.mark.parametrize("path", ["/etc/passwd", "/../demo.py", "/demo.py", "//x", "/?x", "/%2e%2e/x"])
def test_there_is_one_page_and_no_file(server: DemoServer, path: str) -> None:
    """Whatever is asked for."""
    assert reply(server, "GET", path)[0] == 404


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "HEAD"])
def test_other_methods_do_nothing(server: DemoServer, method: str) -> None:
    """An OPTIONS that is not answered keeps other sites' JSON out."""
    assert reply(server, method, "/read")[0] == 501


@pytest.mark.parametrize(
    ("body", "line"),
    [
        ({"text": ""}, "Type a sentence first"),
        ({"text": " \n\t"}, "Type a sentence first"),
        ({"text": 7}, "A text is asked for"),
        ({"text": "x", "pair": None}, "A text is asked for"),
        ({"text": "\ud800"}, "of whole characters"),
        ({"text": "x" * (demo.MOST_LETTERS + 1)}, "longer than 20,000 characters"),
        ({"other": "x"}, "must be JSON"),
        ([], "must be JSON"),
        (b"{", "must be JSON"),
        (b"\xff\xfe", "must be JSON"),
        (b"[" * 100_000, "must be JSON"),
    ],
)
def test_what_cannot_be_read_is_said_kindly(server: DemoServer, body: Any, line: str) -> None:
    """In a sentence that the page shows, and the next question is answered as ever."""
    status, error = told(server, body)
    assert (status, line in error) == (400, True), error
    assert asked(server, "profit rose .")


def test_too_much_is_refused_before_it_is_read(server: DemoServer) -> None:
    """By its length alone, also one of more digits than a number should have; and a form of another site is none."""
    assert told(server, None, Content_Length="900000", Content_Type="application/json")[0] == 400
    assert told(server, None, Content_Length="9" * 5000, Content_Type="application/json")[0] == 400
    assert told(server, b"text=profit", Content_Type="text/plain")[1] == "Texts are asked for at /read, as JSON."
    assert told(server, {"text": "profit"}, path="/")[0] == 400


def test_a_model_of_pairs_asks_toward_whom(folders: dict[str, str]) -> None:
    """The page then has a second field."""
    with served(folders["pairs"]) as server:
        assert "toward whom" in told(server, {"text": "profit rose ."})[1]
        assert asked(server, "profit rose .", "ship")[0] != asked(server, "profit rose .", "bank loss")[0]
        assert 'id="pair"' in reply(server, "GET", "/")[2]


@pytest.mark.parametrize("name", ["sentiment", "ner"])
def test_broken_weights_are_said(folders: dict[str, str], name: str) -> None:
    """Not shown as probabilities."""
    with served(folders[name]) as server:
        with torch.no_grad():
            server.models[0].model.classifier.bias[0] = torch.nan  # type: ignore[attr-defined]
        status, error = told(server, {"text": "profit rose ."})
        assert (status, "no finite numbers" in error) == (500, True)


def test_texts_of_folders_stand_on_the_page_as_texts(folders: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders may come from anybody."""
    nasty = '</button><script>alert("x")</script>'
    monkeypatch.setattr(demo, "example_texts", lambda _: [{"text": nasty, "pair": '"><img src=x>'}])
    monkeypatch.setattr(demo, "model_facts", lambda _: dict.fromkeys(("folder", "title", "score", "calibrated"), nasty))
    html, policy = demo.demo_page(open_models([folders["ner"]], []))
    assert html.count("<script>") == 1
    assert "<img" not in html
    assert policy.startswith("default-src 'none'")
    assert policy.count("sha256-") == 2


def test_the_page_names_no_other_address(server: DemoServer) -> None:
    """But the namespace of its own icon; and its policy forbids what it does not name."""
    _, headers, html = reply(server, "GET", "/")
    assert set(re.findall(r"\w+://[^\s'\"<]+", html)) == {"http://www.w3.org/2000/svg"}
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cache-Control"] == "no-store"


# --- In a browser -----------------------------------------------------------------------------------------------------

READ = "document.getElementById('said').textContent.endsWith('.') && !document.querySelector('.busy')"

# Of every text on the page: the least contrast to what lies behind it, and what sticks out or is too small to be hit.
SEEN = """
const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
const rgb = (colour) => {
  canvas.fillStyle = colour;
  canvas.clearRect(0, 0, 1, 1);
  canvas.fillRect(0, 0, 1, 1);
  return [...canvas.getImageData(0, 0, 1, 1).data];
};
const linear = (value) => value <= .04045 ? value / 12.92 : ((value + .055) / 1.055) ** 2.4;
const light = ([r, g, b]) => .2126 * linear(r / 255) + .7152 * linear(g / 255) + .0722 * linear(b / 255);
const behind = (element) => {
  for (; element; element = element.parentElement) {
    const colour = rgb(getComputedStyle(element).backgroundColor);
    if (colour[3] === 255) return colour;
  }
  return [255, 255, 255];
};
const out = [], small = [], root = document.documentElement;
let least = 21, texts = 0;
for (const element of document.querySelectorAll("body *")) {
  const box = element.getBoundingClientRect(), isHit = element.matches("button, textarea, input");
  if (!box.width || element.closest(".unseen, caption, script, noscript")) continue;
  if (box.right > root.clientWidth + .5 || box.left < -.5) out.push(element.tagName + "." + element.className);
  if (isHit && Math.min(box.width, box.height) < 24) small.push(element.textContent);
  if (![...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim())) continue;
  const [a, b] = [rgb(getComputedStyle(element).color), behind(element)].map(light).sort((x, y) => y - x);
  least = Math.min(least, (a + .05) / (b + .05));
  texts += 1;
}
return {least, texts, out, small, scroll: root.scrollWidth - root.clientWidth};
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A window for all these tests."""
    with open_browser(tmp_path_factory.mktemp("browser")) as browser:
        yield browser


def show(browser: Browser, server: DemoServer, width: int = 1200, dark: bool = False) -> None:
    """Open the page, and wait until the first example is read."""
    browser.size(width, 900, dark)
    browser.open(f"http://127.0.0.1:{server.port}/")
    browser.wait_for(READ)


def typed(browser: Browser, text: str) -> None:
    """Write a text over what stands in the field, and read it."""
    browser.run("const field = document.getElementById('text'); field.focus(); field.value = arguments[0]", text)
    browser.type(ENTER)
    browser.wait_for(READ)


@pytest.fixture(scope="module")
def both(folders: dict[str, str]) -> Iterator[DemoServer]:
    """Both tasks, before and after."""
    before = (folders["mean"], folders["argmax"])
    with served(folders["sentiment"], folders["ner"], before=before) as server:
        yield server


@pytest.mark.slow
@pytest.mark.parametrize("text", TEXTS)
def test_the_page_shows_what_the_models_say(browser: Browser, both: DemoServer, text: str) -> None:
    """Shades in their order, with their bars; the text whole, with its entities marked; nothing runs."""
    show(browser, both)
    typed(browser, text)
    for number, answer in enumerate(asked(both, text)):
        panel = f"document.getElementById('answer-{number}')"
        if "shades" in answer:
            rows = browser.run(
                f"return [...{panel}.querySelectorAll('tr')].map((row) => [row.querySelector('th').textContent,"
                "row.querySelector('.share').textContent, row.className, row.querySelector('.bar').style.width])"
            )
            assert [row[0] for row in rows] == SHADES
            shares = [shade["share"] for shade in answer["shades"]]
            assert [float(row[1].removesuffix(" %")) for row in rows] == pytest.approx(
                [100 * share for share in shares], abs=0.0501
            )
            assert [float(row[3].removesuffix("%")) for row in rows] == pytest.approx(
                [100 * s for s in shares], rel=1e-4
            )
            assert [row[2] for row in rows].index("likeliest") == answer["likeliest"]
            continue
        marks = browser.run(
            f"return [...{panel}.querySelectorAll('mark')].map((mark) => [mark.firstChild.textContent,"
            "mark.lastChild.textContent])"
        )
        found = [part for part in answer["parts"] if "label" in part]
        assert [mark[0] for mark in marks] == [part["text"] for part in found]
        assert [mark[1].split(" ")[0] for mark in marks] == [part["label"] for part in found]
        whole = browser.run(
            f"const text = {panel}.querySelector('.text').cloneNode(true);"
            "text.querySelectorAll('small').forEach((tag) => tag.remove()); return text.textContent"
        )
        assert whole == text
    assert browser.run("return document.scripts.length") == 1
    assert browser.run(SEEN)["out"] == []


@pytest.mark.slow
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [360, 1200])
def test_the_page_fits_and_can_be_read(browser: Browser, both: DemoServer, width: int, dark: bool) -> None:
    """On a phone and at a desk, in light and in dark: contrast as WCAG's AA has it, and buttons that can be hit."""
    show(browser, both, width, dark)
    for text in ("profit " * 40 + "x" * 300, "profit rose in oslo ."):
        typed(browser, text)
        seen = browser.run(SEEN)
        assert seen["scroll"] == 0
        assert seen["out"] == []
        assert seen["small"] == []
        assert seen["least"] >= 4.5
        assert seen["texts"] > 30
    background = browser.run("return getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(19, 23, 28)") is dark


@pytest.mark.slow
def test_keys_alone_do_all(browser: Browser, both: DemoServer) -> None:
    """Tab to the field, type, Enter; Shift and Enter make a line; Tab on to the button and to an example."""
    show(browser, both)
    browser.type(TAB)
    assert browser.run("return document.activeElement.id") == "text"
    browser.run("document.activeElement.value = ''")
    browser.type(f"loss fell{SHIFT}{ENTER}{NO_KEYS}in lima")
    assert browser.run("return document.activeElement.value") == "loss fell\nin lima"
    browser.type(ENTER)
    browser.wait_for(READ)
    assert "loss fell\nin lima" in browser.run("return document.querySelector('.text').textContent")
    browser.type(TAB)
    assert browser.run("return document.activeElement.textContent") == "Read it"
    outline = browser.run("return getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    browser.type(TAB)
    browser.type(ENTER)
    browser.wait_for(f"{READ} && document.getElementById('text').value === {json.dumps(demo.EXAMPLES[0])}")


@pytest.mark.slow
def test_what_is_read_is_spoken_and_named(browser: Browser, both: DemoServer) -> None:
    """A live region says the answer, and every field, table and part has a name."""
    show(browser, both)
    said = browser.run("return document.getElementById('said').textContent")
    assert "%" in said
    assert re.search(r"Entities: \w+ \(.*\)\.$", said)
    assert browser.run("return document.getElementById('said').getAttribute('aria-live')") == "polite"
    nodes = browser.devtools("Accessibility.getFullAXTree", {})["nodes"]
    named = [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes if not node["ignored"]]
    for role in ("textbox", "button", "table", "region", "article", "list"):
        names = [name for kind, name in named if kind == role]
        assert names, role
        assert all(names), (role, names)


@pytest.mark.slow
def test_errors_are_told_kindly(browser: Browser, folders: dict[str, str]) -> None:
    """An empty field, a text that is too long, and a demo that was ended."""
    error = "document.getElementById('error').textContent"
    with served(folders["ner"]) as server:
        show(browser, server)
        for text, line in (("", "Type a sentence first."), ("😀" * 20_001, "longer than 20,000 characters")):
            browser.run("const f = document.getElementById('text'); f.value = arguments[0]; f.focus()", text)
            browser.type(ENTER)
            assert line in browser.wait_for(error)
        typed(browser, "profit rose .")
        assert browser.run(f"return {error}") == ""
        browser.console()
    browser.run("const f = document.getElementById('text'); f.value = 'profit'; f.focus()")
    browser.type(ENTER)
    assert browser.wait_for(error) == "The models do not answer. Is demo.py still running in its terminal?"
    assert browser.run("return document.querySelector('.busy')") is None
    browser.console()


@pytest.mark.slow
def test_no_other_address_is_asked(browser: Browser, both: DemoServer) -> None:
    """The page and its questions are all that goes over the wire, and the browser complains of nothing."""
    browser.console()
    show(browser, both)
    typed(browser, TEXTS[4])
    loaded = browser.run("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert set(loaded) == {f"http://127.0.0.1:{both.port}/read"}
    assert browser.console() == []
    blocked = browser.run(  # the policy holds: nothing else could be asked
        "return fetch('http://127.0.0.2:9/').then(() => 'let through', (error) => 'blocked')"
    )
    assert blocked == "blocked"
    assert any("Content Security Policy" in line for line in browser.console())
