"""The hand-off: what stage two received is stage one's, bit for bit, or the run is refused."""

import json
import re
import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForSequenceClassification,
    BertForMaskedLM,
    BertForPreTraining,
    BertForTokenClassification,
    BertModel,
)
from transformers.integrations import deepspeed

from run_pretraining import SparseBertForPreTraining
from run_sentiment import SentimentModel
from two_stage.checkpointing.checkpoints import seal
from two_stage.checkpointing.handoff import load_model, open_checkpoint, tokenizer_sha256, verify_handoff
from two_stage.checkpointing.lineage import check_unseen, trace_lineage
from two_stage.checkpointing.runs import changed_inputs, saved_hashes
from two_stage.command_line.exits import Refusal

CLASSIFIER = ("classifier.",)


@pytest.fixture
def checkpoint_copy(tiny_folder: Path, tmp_path: Path) -> Path:
    """A checkpoint that a test may damage."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "checkpoint"))


def change_weights(folder: Path, change: dict[str, torch.Tensor | None]) -> None:
    """Write the folder's weights again with some tensors replaced, or taken out where None."""
    tensors = load_file(folder / "model.safetensors") | change
    kept = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("model_class", [SentimentModel, BertForTokenClassification])
def test_every_encoder_tensor_arrives(tiny_folder: Path, model_class: type) -> None:
    """Encoder, and the pooler where the model has one, equal stage one's; the head alone is new."""
    stage_one = BertForPreTraining.from_pretrained(tiny_folder).state_dict()
    model = load_model(model_class, open_checkpoint(str(tiny_folder)), CLASSIFIER, id2label={0: "a", 1: "b", 2: "c"})
    received = model.state_dict()
    assert {name for name in received if name not in stage_one} == {"classifier.weight", "classifier.bias"}
    for name in received.keys() & stage_one.keys():
        assert torch.equal(received[name], stage_one[name]), name
    assert ("bert.pooler.dense.weight" in received) == (model_class is SentimentModel)
    assert model.config.num_labels == 3


def test_the_check_sees_one_changed_bit(tiny_folder: Path) -> None:
    """Whichever tensor differs in its last bit is found, and named."""
    checkpoint = open_checkpoint(str(tiny_folder))
    model = load_model(SentimentModel, checkpoint, CLASSIFIER)
    verify_handoff(model, checkpoint, CLASSIFIER)
    for name, tensor in model.bert.state_dict().items():
        first, before = tensor.flatten()[:1], tensor.flatten()[0].clone()
        first.copy_(torch.nextafter(before, torch.tensor(2.0)))
        with pytest.raises(Refusal, match=f"bert.{re.escape(name)} did not arrive"):
            verify_handoff(model, checkpoint, CLASSIFIER)
        first.copy_(before)


def test_a_missing_encoder_tensor_is_refused(checkpoint_copy: Path) -> None:
    """Not left to chance, as transformers would."""
    change_weights(checkpoint_copy, {"bert.encoder.layer.0.attention.self.query.weight": None})
    with pytest.raises(Refusal, match=r"lacks bert\.encoder\.layer\.0\.attention\.self\.query\.weight"):
        load_model(SentimentModel, open_checkpoint(str(checkpoint_copy)), CLASSIFIER)


def test_a_checkpoint_without_pooler(checkpoint_copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Sentiment refuses a checkpoint of masked words alone and says what to do; stage one makes a pooler."""
    BertForMaskedLM.from_pretrained(checkpoint_copy).save_pretrained(checkpoint_copy)
    with pytest.raises(Refusal, match=r"pooler.*with run_pretraining\.py first, or take --pooling mean"):
        load_model(SentimentModel, open_checkpoint(str(checkpoint_copy)), CLASSIFIER)
    load_model(SparseBertForPreTraining, open_checkpoint(str(checkpoint_copy)), ("cls.", "bert.pooler."))
    assert "bert.pooler.dense.weight" in capsys.readouterr().out


def test_a_bare_encoder_is_taken(checkpoint_copy: Path) -> None:
    """A BertModel's folder, whose tensors have no prefix, is compared like any other."""
    expected = BertModel.from_pretrained(checkpoint_copy)
    expected.save_pretrained(checkpoint_copy)
    model = load_model(SentimentModel, open_checkpoint(str(checkpoint_copy)), CLASSIFIER)
    for name, tensor in expected.state_dict().items():
        assert torch.equal(model.bert.state_dict()[name], tensor), name


@pytest.mark.parametrize("changed", [False, True])
def test_weights_as_old_as_bert_base_uncased_are_taken(checkpoint_copy: Path, changed: bool) -> None:
    """Files that call LayerNorm's weights gamma and beta are compared under these names, and not waved through."""
    tensors = load_file(checkpoint_copy / "model.safetensors")
    renamed = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    old = {name: name for name in tensors}
    for new_end, old_end in renamed.items():
        old |= {name: name.replace(new_end, old_end) for name in tensors if name.endswith(new_end)}
    save_file({old[name]: tensor for name, tensor in tensors.items()}, checkpoint_copy / "model.safetensors")
    checkpoint = open_checkpoint(str(checkpoint_copy))
    model = load_model(SentimentModel, checkpoint, CLASSIFIER)
    load_model(SparseBertForPreTraining, open_checkpoint(str(checkpoint_copy)), ("cls.", "bert.pooler."))
    if changed:
        with torch.no_grad():
            model.bert.embeddings.LayerNorm.weight[3] += 1e-6
        with pytest.raises(Refusal, match=r"bert\.embeddings\.LayerNorm\.weight did not arrive"):
            verify_handoff(model, checkpoint, CLASSIFIER)


def test_no_layer_is_left_behind(checkpoint_copy: Path) -> None:
    """A config with fewer layers than the file would drop the others in silence."""
    config = json.loads((checkpoint_copy / "config.json").read_text())
    (checkpoint_copy / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 1}))
    with pytest.raises(Refusal, match=r"makes a model without bert\.encoder\.layer\.1\.attention"):
        load_model(SentimentModel, open_checkpoint(str(checkpoint_copy)), CLASSIFIER)


@pytest.mark.parametrize("task", ["BertForSequenceClassification", "BertForTokenClassification"])
def test_a_task_model_without_weights_is_refused(checkpoint_copy: Path, task: str) -> None:
    """It was trained, so it does not start from scratch."""
    (checkpoint_copy / "model.safetensors").unlink()
    config = json.loads((checkpoint_copy / "config.json").read_text())
    (checkpoint_copy / "config.json").write_text(json.dumps(config | {"architectures": [task]}))
    with pytest.raises(Refusal, match="is gone"):
        open_checkpoint(str(checkpoint_copy))


def test_another_tasks_head_is_not_taken_for_this_ones(tiny_folder: Path, tmp_path: Path) -> None:
    """A sentiment model with as many shades as there are tags would hand its classifier to the entities."""
    model = load_model(SentimentModel, open_checkpoint(str(tiny_folder)), CLASSIFIER)
    model.save_pretrained(tmp_path)
    open_checkpoint(str(tiny_folder)).tokenizer.save_pretrained(tmp_path)
    checkpoint = open_checkpoint(str(tmp_path))
    assert checkpoint.trained_labels("BertForSequenceClassification") == ["LABEL_0", "LABEL_1"]
    with pytest.raises(Refusal, match="is a BertForSequenceClassification; start from the folder that stage one left"):
        checkpoint.trained_labels("BertForTokenClassification")


def test_half_precision_weights_arrive_as_fp32(checkpoint_copy: Path) -> None:
    """Weights kept in bf16 are widened, not left narrow, and still count as equal."""
    narrow = BertForPreTraining.from_pretrained(checkpoint_copy, dtype=torch.bfloat16)
    narrow.save_pretrained(checkpoint_copy)
    model = load_model(SentimentModel, open_checkpoint(str(checkpoint_copy)), CLASSIFIER)
    assert model.dtype == torch.float32


def test_no_weights_is_from_scratch(checkpoint_copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder of config and tokenizer starts from scratch, and the script says so."""
    (checkpoint_copy / "model.safetensors").unlink()
    load_model(SentimentModel, open_checkpoint(str(checkpoint_copy)), CLASSIFIER)
    assert "has no weights: starting from scratch" in capsys.readouterr().out


def test_lineage_knows_changed_weights_configs_and_tokenizers(checkpoint_copy: Path, tmp_path: Path) -> None:
    """A folder that a run left is taken as it is, and refused once its weights, config or tokenizer are others."""
    checkpoint = open_checkpoint(str(checkpoint_copy))
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("one .\n", encoding="utf-8")
    data = {"train_file": [str(corpus)], "validation_file": None}
    lineage = trace_lineage("run_pretraining.py", checkpoint, data, ("txt",), rows_a_step=16)
    lineage |= saved_hashes(checkpoint_copy)
    assert lineage["weights_sha256"] == checkpoint.weights_sha256
    (checkpoint_copy / "lineage.json").write_text(json.dumps(lineage), encoding="utf-8")
    made = open_checkpoint(str(checkpoint_copy)).lineage
    assert made is not None
    assert made["tokenizer_sha256"] == tokenizer_sha256(checkpoint.tokenizer)
    assert list(made["data"]["train_file"]) == [str(corpus)]

    config = json.loads((checkpoint_copy / "config.json").read_text(encoding="utf-8"))
    for fields, is_taken in (({}, True), ({"transformers_version": "9.0"}, True), ({"layer_norm_eps": 1e-5}, False)):
        (checkpoint_copy / "config.json").write_text(json.dumps(config | fields), encoding="utf-8")  # in one line
        with nullcontext() if is_taken else pytest.raises(Refusal, match=r"config\.json says other things"):
            open_checkpoint(str(checkpoint_copy))
    (checkpoint_copy / "config.json").write_text(json.dumps(config), encoding="utf-8")
    options = json.loads((checkpoint_copy / "tokenizer_config.json").read_text())
    (checkpoint_copy / "tokenizer_config.json").write_text(json.dumps(options | {"do_lower_case": False}))
    with pytest.raises(Refusal, match="tokenizer is not the one"):
        open_checkpoint(str(checkpoint_copy))
    change_weights(checkpoint_copy, {"bert.pooler.dense.bias": torch.ones(32)})
    with pytest.raises(Refusal, match=r"model\.safetensors is not the file"):
        open_checkpoint(str(checkpoint_copy))


def test_a_run_that_has_not_finished_is_no_checkpoint(checkpoint_copy: Path) -> None:
    """Its last weights may lie there already, and its scores do not."""
    for name in ("recipe.yaml", "lineage.json"):
        (checkpoint_copy / name).write_text("{}", encoding="utf-8")
    with pytest.raises(Refusal, match="has not finished; run its command again"):
        open_checkpoint(str(checkpoint_copy))


def test_a_runs_checkpoint_is_verified(checkpoint_copy: Path) -> None:
    """A checkpoint-N may be started from, and one byte of it that is another is refused before any model loads."""
    (checkpoint_copy / "trainer_state.json").write_text("{}", encoding="utf-8")
    seal(checkpoint_copy)
    open_checkpoint(str(checkpoint_copy))
    weights = bytearray((checkpoint_copy / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (checkpoint_copy / "model.safetensors").write_bytes(weights)
    with pytest.raises(Refusal, match=r"model\.safetensors is not the file that was written; take another"):
        open_checkpoint(str(checkpoint_copy))


def test_padding_and_cutting_do_not_change_a_tokenizers_hash(tiny_folder: Path) -> None:
    """Calls leave their padding and truncation in a tokenizer; its hash is of what it cuts."""
    tokenizer = open_checkpoint(str(tiny_folder)).tokenizer
    before = tokenizer_sha256(tokenizer)
    tokenizer(["profit rose .", "loss"], padding=True, truncation=True, max_length=5)
    assert tokenizer_sha256(tokenizer) == before


def test_the_sentiment_folder_is_a_stock_one(tiny_folder: Path, tmp_path: Path) -> None:
    """AutoModelForSequenceClassification loads it with nothing of ours, to identical logits."""
    labels = {0: "bad", 1: "so-so", 2: "good"}
    model = load_model(SentimentModel, open_checkpoint(str(tiny_folder)), CLASSIFIER, id2label=labels).eval()
    model.save_pretrained(tmp_path)
    stock, info = AutoModelForSequenceClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert type(stock).__name__ == stock.config.architectures[0] == "BertForSequenceClassification"
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert stock.config.id2label == labels
    ids = torch.randint(5, 90, (3, 11))
    assert torch.equal(stock.eval()(ids).logits, model(ids).logits)


@pytest.mark.parametrize(("name", "refused"), [("test.jsonl", True), ("train.csv.gz", True), ("test.txt", False)])
def test_what_an_ancestor_was_trained_on_is_not_scored(name: str, refused: bool) -> None:
    """However far back, and whatever the file is called now; plain text has nothing to be scored by."""
    first = {"script": "run_pretraining.py", "data": {"train_file": {"a": "0" * 64}}, "checkpoint": {"lineage": None}}
    second = {"script": "run_ner.py", "data": {"train_file": {"b": "1" * 64}}, "checkpoint": {"lineage": first}}
    lineage = {"checkpoint": {"name": "made", "lineage": second}, "data": {"test_file": {name: "0" * 64}}}
    if refused:
        with pytest.raises(Refusal, match=r"run_pretraining\.py trained made on this very file"):
            check_unseen(lineage, allow=False)
    check_unseen(lineage, allow=refused)


@pytest.mark.parametrize(
    "fields",
    [{"hidden_size": "x"}, {"vocab_size": None}, {"id2label": [1, 2]}, {"id2label": {"a": "b"}}, {"architectures": 5}],
)
def test_a_config_that_makes_no_bert_is_refused(checkpoint_copy: Path, fields: dict[str, object]) -> None:
    """In one line, whatever transformers would raise."""
    config = json.loads((checkpoint_copy / "config.json").read_text(encoding="utf-8"))
    (checkpoint_copy / "config.json").write_text(json.dumps(config | fields), encoding="utf-8")
    with pytest.raises(Refusal, match=r"config\.json makes no BERT"):
        open_checkpoint(str(checkpoint_copy))


def test_the_whole_model_is_read_under_zero3(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Transformers shares none of it out while it is loaded and compared, and knows of ZeRO-3 again behind that."""

    class Config:
        def is_zero3(self) -> bool:
            return True

    config, seen = Config(), []
    deepspeed.set_hf_deepspeed_config(config)
    monkeypatch.setattr(
        SentimentModel, "_init_weights", lambda *_: seen.append(deepspeed.is_deepspeed_zero3_enabled()), raising=False
    )
    try:
        load_model(SentimentModel, open_checkpoint(str(tiny_folder)), CLASSIFIER)
        assert set(seen) == {False}
        assert deepspeed.is_deepspeed_zero3_enabled()
    finally:
        deepspeed.unset_hf_deepspeed_config()


def test_a_checkpoint_that_may_not_be_read_is_refused(checkpoint_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one line that says why, whichever file it is; so is a name that is too long for one."""
    with pytest.raises(Refusal, match=r"cannot be read \(File name too long\); mend that"):
        open_checkpoint(f"./{'a' * 300}")
    read_text = Path.read_text

    def forbidden(path: Path, *args: Any, **kwargs: Any) -> str:
        if path.name == "config.json":
            raise PermissionError(13, "Permission denied")
        return read_text(path, *args, **kwargs)

    monkeypatch.setattr(Path, "read_text", forbidden)
    with pytest.raises(Refusal, match=r"cannot be read \(Permission denied\)"):
        open_checkpoint(str(checkpoint_copy))


@pytest.mark.parametrize(
    "text", ['{"data": 1}', '{"checkpoint": []}', '{"data": {"train_file": {"a": []}}}', "[" * 100_000]
)
def test_a_broken_lineage_is_refused(checkpoint_copy: Path, text: str) -> None:
    """Of whatever shape."""
    (checkpoint_copy / "lineage.json").write_text(text, encoding="utf-8")
    with pytest.raises(Refusal, match=r"lineage\.json is not"):
        open_checkpoint(str(checkpoint_copy))


@pytest.mark.parametrize("key", ["tokenizer_sha256", "config_sha256"])
def test_another_tokenizer_or_config_is_another_run(tmp_path: Path, key: str) -> None:
    """A run knows the tokenizer and the config that it began with."""
    made = {"checkpoint": {"name": "bert", "weights_sha256": "1", key: "2"}, "data": {}, "rows_a_step": 16}
    made["precision"] = "fp32"
    (tmp_path / "lineage.json").write_text(json.dumps(made), encoding="utf-8")
    assert changed_inputs(tmp_path / "lineage.json", made, resuming=True) is None
    other = made | {"checkpoint": made["checkpoint"] | {key: "3"}}  # type: ignore[operator]
    assert "of bert changed" in str(changed_inputs(tmp_path / "lineage.json", other, resuming=True))
    told = changed_inputs(tmp_path / "lineage.json", made | {"precision": "bf16"}, resuming=True)
    assert told == "precision changed from fp32 to bf16"
