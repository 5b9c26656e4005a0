"""A tiny BERT and tiny data, made once; no test reaches a network or the user's caches."""

import os
import tempfile

# before any import of Hugging Face's packages, which read these once
os.environ |= {
    "HF_HUB_OFFLINE": "1",
    "HF_HOME": tempfile.mkdtemp(prefix="two_stage_tests_"),
    "CUDA_VISIBLE_DEVICES": "",
}

import gc
import json
import random
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# torch and transformers are imported where they are used: a process that only starts the others need not wait for them

# The same examples every time, so that a run can be repeated; `make fuzz` draws others, and more.
settings.register_profile("fixed", derandomize=True, deadline=None, max_examples=40)
settings.register_profile("random", derandomize=False, deadline=None, max_examples=200)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))

LONGEST = {"test_real_data.py", "test_dead_processes.py", "test_run_comparison.py", "test_speed.py"}
REPOSITORY = Path(__file__).parent.parent
SHADES = ["bad", "so-so", "good"]
NOUNS = "profit loss margin order cash cost debt sales ship mine bank drug price share unit plan".split()
VERBS = "rose fell grew sank held slid jumped dropped eased firmed".split()
PLACES = "Oslo Lima Turin Perth Quito".split()


def pytest_collection() -> None:
    """Import all tests with no look for garbage, which would take a tenth of the time."""
    gc.disable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files that take minutes first, so that no worker has one left when the other is done."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


def pytest_collection_finish() -> None:
    """Set up a process that is about to run tests."""
    import torch

    torch.set_num_threads(1)  # sums come out alike on every machine, and tiny models gain nothing from a second
    gc.enable()
    gc.freeze()  # a run ends with a collection of garbage: a quarter of a second, if it looked at what was imported


def made_up_sentence(rng: random.Random) -> str:
    """A sentence of four to twelve words of the tiny vocabulary."""
    words = [rng.choice(NOUNS + VERBS + PLACES) for _ in range(rng.randint(3, 11))]
    return " ".join([*words, "."])


@pytest.fixture(autouse=True)
def own_signals() -> Iterator[None]:
    """A script that ends in a test leaves no handler behind."""
    from two_stage.command_line.exits import STOPS

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
    STOPS.asked, STOPS.waits = 0, False


@pytest.fixture(autouse=True)
def blank_pictures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fast tests draw in the modules that are about pictures alone: elsewhere it takes half the time of a run."""
    is_drawn = request.node.get_closest_marker("slow") or request.path.stem.endswith(("pictures", "results", "report"))
    if not is_drawn:
        from two_stage.results import pictures

        for name in ("confusion_figure", "reliability_figure"):
            monkeypatch.setattr(pictures, name, lambda *_: "blank")
        monkeypatch.setattr(pictures, "learning_curves_figure", lambda log, _: pictures.logged(log, "loss") or None)
        monkeypatch.setattr(pictures, "write_png", lambda path, _: path.write_bytes(b"blank"))


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A two-layer BERT without dropout, all heads included, as a checkpoint folder."""
    from transformers import BertConfig, BertForPreTraining, BertTokenizer, set_seed

    folder = tmp_path_factory.mktemp("tiny-bert")
    pieces = [*"abcdefghijklmnopqrstuvwxyz.,-%0123456789"]
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *pieces, *(f"##{piece}" for piece in pieces)]
    words += [word.lower() for word in NOUNS + VERBS + PLACES]
    tokenizer = BertTokenizer(vocab={word: i for i, word in enumerate(words)}, model_max_length=64)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    set_seed(0)
    BertForPreTraining(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """corpus.txt, texts.csv and sentences.jsonl over the tiny vocabulary."""
    folder, rng = tmp_path_factory.mktemp("data"), random.Random(0)
    documents = ["\n".join(made_up_sentence(rng) for _ in range(rng.randint(1, 8))) for _ in range(60)]
    (folder / "corpus.txt").write_text("\n\n".join(documents) + "\n", encoding="utf-8")
    rows = [f"{made_up_sentence(rng)},{rng.choice(SHADES)}" for _ in range(48)]
    (folder / "texts.csv").write_text("\n".join(["text,label", *rows]) + "\n", encoding="utf-8")
    with open(folder / "sentences.jsonl", "w", encoding="utf-8") as file:
        for _ in range(48):
            tokens = made_up_sentence(rng).split()
            tags = ["B-LOC" if token in PLACES else "O" for token in tokens]
            file.write(json.dumps({"tokens": tokens, "ner_tags": tags}) + "\n")
    return folder
