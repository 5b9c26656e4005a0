"""Heads that a checkpoint lacks learn first, the encoder held still; and what was scored before the first step."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertModel

import run_pretraining
from run_pretraining import SparseBertForPreTraining
from two_stage.checkpointing.handoff import load_model, new_tensors, open_checkpoint
from two_stage.command_line.exits import Failure
from two_stage.training.trainer import ExactTrainer

Tensors = dict[str, torch.Tensor]
NEW = ("cls.", "bert.pooler.")


def changed_checkpoint(source: Path, folder: Path, without: tuple[str, ...] = (), old_names: bool = False) -> Path:
    """A copy of a checkpoint whose file lacks some tensors, or calls LayerNorm's as bert-base-uncased's does."""
    shutil.copytree(source, folder)
    tensors = {name: t for name, t in load_file(source / "model.safetensors").items() if not name.startswith(without)}
    if old_names:
        renamed = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
        for new_end, old_end in renamed.items():
            tensors = {name.replace(new_end, old_end): tensor for name, tensor in tensors.items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="session")
def bare_encoder(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BertModel's folder: encoder and pooler, names without `bert.`, no head."""
    folder = Path(shutil.copytree(tiny_folder, tmp_path_factory.mktemp("bare") / "encoder"))
    BertModel.from_pretrained(tiny_folder).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def no_pooler(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder's folder without pooler and heads."""
    return changed_checkpoint(tiny_folder, tmp_path_factory.mktemp("no-pooler") / "encoder", without=NEW)


def call(checkpoint: Path, data: Path, output: Path, **flags: Any) -> list[str]:
    """A short run on the tiny corpus: by default one step at a rate of 0, so that the run itself changes nothing."""
    defaults = {"max_steps": 1, "max_length": 32, "learning_rate": 0, "logging_steps": 1}
    given = defaults | {"warmup_steps": 0, "save_strategy": "no", "validation_fraction": 0.1, "use_cpu": "true"} | flags
    typed = [f"--{name}={value}" for name, value in given.items()]
    return [f"--checkpoint={checkpoint}", f"--train_file={data / 'corpus.txt'}", f"--output_dir={output}", *typed]


def weights(folder: Path) -> Tensors:
    """A folder's tensors by today's names."""
    return load_file(folder / "model.safetensors")


def assert_untouched(after: Tensors, before: Tensors, *prefixes: str) -> None:
    """All tensors under `prefixes` are bit-equal, and there are some."""
    names = [name for name in after if name.startswith(prefixes)]
    assert names
    for name in names:
        assert torch.equal(after[name], before[name]), name


def log_of(folder: Path) -> list[dict[str, float]]:
    """What a run logged, line by line."""
    return json.loads((folder / "trainer_state.json").read_text())["log_history"]


# --- What is new ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("without", "old_names", "new"),
    [
        ((), False, ()),
        ((), True, ()),
        (("cls.seq_relationship.",), False, ("cls.seq_relationship.",)),
        (("cls.seq_relationship.", "bert.pooler."), True, ("cls.seq_relationship.", "bert.pooler.")),
        (NEW, False, NEW),
        (("cls.predictions.bias",), False, ("cls.predictions.bias",)),
    ],
)
def test_new_tensors_are_those_that_the_file_lacks(
    tiny_folder: Path, tmp_path: Path, without: tuple[str, ...], old_names: bool, new: tuple[str, ...]
) -> None:
    """Each missing parameter and no other, also in a file that calls LayerNorm's weights gamma and beta."""
    checkpoint = open_checkpoint(str(changed_checkpoint(tiny_folder, tmp_path / "copy", without, old_names)))
    model = load_model(SparseBertForPreTraining, checkpoint, new=NEW)
    expected = [name for name, _ in model.named_parameters() if new and name.startswith(new)]
    assert new_tensors(model, checkpoint) == expected
    assert bool(expected) == bool(new)


def test_all_heads_of_a_bare_encoder_are_new(bare_encoder: Path) -> None:
    """Its tensors have no `bert.` in front; its tied word embeddings are not new, its pooler neither."""
    checkpoint = open_checkpoint(str(bare_encoder))
    model = load_model(SparseBertForPreTraining, checkpoint, new=NEW)
    assert new_tensors(model, checkpoint) == [name for name, _ in model.named_parameters() if name.startswith("cls.")]


def test_from_scratch_no_tensor_is_newer_than_the_others(tiny_folder: Path, tmp_path: Path) -> None:
    """Without weights everything starts together."""
    shutil.copytree(tiny_folder, tmp_path / "copy", ignore=shutil.ignore_patterns("*.safetensors"))
    checkpoint = open_checkpoint(str(tmp_path / "copy"))
    assert new_tensors(load_model(SparseBertForPreTraining, checkpoint, new=NEW), checkpoint) == []


# --- Warming up -------------------------------------------------------------------------------------------------------


def parts_of(folder: Path, data: Path, output: Path, **flags: Any) -> tuple[Any, dict[str, Any]]:
    """Training arguments, and what a trainer is given besides the model."""
    tokenizer = open_checkpoint(str(folder)).tokenizer
    settings = run_pretraining.Settings(train_file=[str(data / "corpus.txt")], max_length=32)
    documents = run_pretraining.read_corpora(settings, tokenizer).train
    collator = run_pretraining.RowKeyedMasking(tokenizer, mlm_probability=0.15)
    pairs = run_pretraining.SentencePairs(documents, tokenizer, settings, 42)
    training = run_pretraining.PretrainingArguments(output_dir=str(output), use_cpu=True, report_to=[], **flags)
    return training, {"train_dataset": pairs, "processing_class": tokenizer, "data_collator": collator}


@pytest.mark.parametrize("kind", ["bare_encoder", "no_pooler"])
def test_only_new_tensors_learn(
    kind: str, data_folder: Path, tmp_path: Path, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    """All that came from the checkpoint is bit-equal, each new tensor has changed, and all are trainable again."""
    checkpoint = open_checkpoint(str(request.getfixturevalue(kind)))
    model = load_model(SparseBertForPreTraining, checkpoint, new=NEW)
    new = set(new_tensors(model, checkpoint))
    assert ("bert.pooler.dense.weight" in new) == (kind == "no_pooler")
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    model.bert.embeddings.position_embeddings.weight.requires_grad_(False)  # as someone may have had it
    training, parts = parts_of(
        checkpoint.weights.parent, data_folder, tmp_path / "run", weight_decay=0.1, learning_rate=0.0, layer_decay=0.5
    )
    arguments = training.to_dict()
    run_pretraining.warm_up_heads(model, new, 3, training, **parts)
    assert f"{len(new)} new tensors learn first, for 3 steps" in capsys.readouterr().out
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]) == (name not in new), name
        assert parameter.requires_grad == (name != "bert.embeddings.position_embeddings.weight"), name
    assert model.cls.predictions.decoder.weight is model.bert.embeddings.word_embeddings.weight
    assert training.to_dict() == arguments  # the run's own are as they were
    assert not list((tmp_path / "run").glob("checkpoint-*"))


def test_no_gradient_goes_through_the_encoder(
    bare_encoder: Path, data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hidden states need none, so a step costs a forward pass and the heads."""
    checkpoint = open_checkpoint(str(bare_encoder))
    model = load_model(SparseBertForPreTraining, checkpoint, new=NEW)
    training, parts = parts_of(bare_encoder, data_folder, tmp_path / "run")
    needed = []
    model.bert.register_forward_hook(lambda _, __, outputs: needed.extend(state.requires_grad for state in outputs[:2]))
    run_pretraining.warm_up_heads(model, set(new_tensors(model, checkpoint)), 2, training, **parts)
    assert needed == [False] * 4


def test_heads_learn(no_pooler: Path, data_folder: Path, tmp_path: Path) -> None:
    """After twenty steps of eight rows the loss of rows like theirs has fallen."""
    checkpoint = open_checkpoint(str(no_pooler))
    torch.manual_seed(0)
    model = load_model(SparseBertForPreTraining, checkpoint, new=NEW)
    training, parts = parts_of(no_pooler, data_folder, tmp_path / "run", per_device_train_batch_size=8)
    batch = parts["data_collator"]([parts["train_dataset"][i] for i in range(32)])
    trainer = run_pretraining.PretrainingTrainer(model=model, args=training, **parts)

    def loss() -> float:
        with torch.no_grad():
            return trainer.compute_loss(model.eval(), batch, num_items_in_batch=trainer.count_items(batch)).item()

    before = loss()
    run_pretraining.warm_up_heads(model, set(new_tensors(model, checkpoint)), 20, training, **parts)
    assert loss() < before - 0.05


def test_heads_have_a_schedule_of_their_own(
    bare_encoder: Path, data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that itself takes 1,000 steps to its full rate does not keep its heads from learning in ten."""
    checkpoint = open_checkpoint(str(bare_encoder))
    model = load_model(SparseBertForPreTraining, checkpoint, new=NEW)
    training, parts = parts_of(
        bare_encoder, data_folder, tmp_path / "run", warmup_steps=1000, per_device_train_batch_size=8
    )
    rates: list[float] = []
    monkeypatch.setattr(
        run_pretraining.PretrainingTrainer, "log", lambda _, logs, *rest: rates.append(logs.get("learning_rate", 0.0))
    )
    run_pretraining.warm_up_heads(model, set(new_tensors(model, checkpoint)), 10, training, **parts)
    assert max(rates) > run_pretraining.HEAD_WARMUP_RATE / 2


@pytest.mark.slow  # it trains whole runs
def test_a_run_that_is_scored_at_its_start_warms_up(bare_encoder: Path, data_folder: Path, tmp_path: Path) -> None:
    """--eval_on_start asks for the run's scores; the warm-up has no rows to score."""
    flags = call(bare_encoder, data_folder, tmp_path / "run", head_warmup_steps=2, eval_on_start="true")
    assert "eval_mlm_loss" in run_pretraining.main(flags)


@pytest.mark.slow  # it trains whole runs
@pytest.mark.parametrize("steps", [0, 3])
def test_a_run_begins_with_warm_heads(bare_encoder: Path, data_folder: Path, tmp_path: Path, steps: int) -> None:
    """Through main: the encoder that is saved is the checkpoint's, and the heads have learnt only where asked."""
    flags = call(bare_encoder, data_folder, tmp_path / "run", head_warmup_steps=steps)
    scores = run_pretraining.main(flags)
    after, before = weights(tmp_path / "run"), weights(bare_encoder)
    assert_untouched(after, {f"bert.{name}": tensor for name, tensor in before.items()}, "bert.")
    assert len([name for name in after if name.startswith("bert.")]) == len(before)
    for name in ("cls.seq_relationship.bias", "cls.predictions.bias", "cls.predictions.transform.LayerNorm.bias"):
        assert after[name].any() == (steps > 0), name  # they start at zero
    assert [line["step"] for line in log_of(tmp_path / "run") if "grad_norm" in line] == [1]  # the run's own steps
    assert scores["before_mlm_loss"] == pytest.approx(scores["eval_mlm_loss"], rel=1e-4)


@pytest.mark.slow  # it trains whole runs
def test_a_run_with_all_heads_is_not_warmed_up(tiny_folder: Path, data_folder: Path, tmp_path: Path) -> None:
    """Nothing is new, so nothing learns ahead of the run, and the scores before it are the checkpoint's own."""
    scores = run_pretraining.main(call(tiny_folder, data_folder, tmp_path / "run", head_warmup_steps=3))
    after, before = weights(tmp_path / "run"), weights(tiny_folder)
    for name in before:
        assert torch.equal(after[name], before[name]), name
    assert scores["before_mlm_loss"] == pytest.approx(scores["eval_mlm_loss"], rel=1e-6)


@pytest.mark.slow
def test_warming_up_takes_no_draw_of_the_run(
    bare_encoder: Path, data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run's rows, masks and dropout are those of a run that was not warmed up, also behind many epochs of heads."""
    seen: dict[str, list[Any]] = {}
    compute_loss = run_pretraining.PretrainingTrainer.compute_loss

    def note(trainer: Any, model: Any, inputs: Any, *rest: Any, **named: Any) -> Any:
        if trainer.args.learning_rate == 0:
            seen[name].append((inputs["input_ids"].tolist(), torch.get_rng_state()[:40].tolist()))
        return compute_loss(trainer, model, inputs, *rest, **named)

    monkeypatch.setattr(run_pretraining.PretrainingTrainer, "compute_loss", note)
    for name, steps in {"cold": 0, "warm": 6}.items():
        seen[name] = []
        run_pretraining.main(call(bare_encoder, data_folder, tmp_path / name, head_warmup_steps=steps, max_steps=2))
    assert seen["warm"] == seen["cold"]
    assert len(seen["cold"]) == 2


# --- Masked words alone -----------------------------------------------------------------------------------------------


@pytest.mark.slow  # it trains whole runs
@pytest.mark.parametrize("kind", ["tiny_folder", "bare_encoder"])
def test_without_next_sentences_pooler_and_head_stay(
    kind: str, data_folder: Path, tmp_path: Path, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    """Bit-equal after steps with weight decay and a warm-up of the other heads; everything else learns."""
    checkpoint = request.getfixturevalue(kind)
    flags = {"max_steps": 2, "learning_rate": 1e-3, "weight_decay": 0.1, "head_warmup_steps": 2}
    scores = run_pretraining.main(call(checkpoint, data_folder, tmp_path / "run", no_next_sentence="true", **flags))
    assert not [name for name in scores if "nsp" in name]
    assert {"before_mlm_loss", "eval_mlm_loss"} <= scores.keys()
    after, before = weights(tmp_path / "run"), weights(checkpoint)
    if kind == "tiny_folder":
        assert_untouched(after, before, "bert.pooler.", "cls.seq_relationship.")
        assert not torch.equal(
            after["bert.embeddings.word_embeddings.weight"], before["bert.embeddings.word_embeddings.weight"]
        )
    else:
        assert_untouched(after, {f"bert.{name}": tensor for name, tensor in before.items()}, "bert.pooler.")
        assert not [name for name in after if name.startswith("cls.seq_relationship.")]  # never trained, not saved
        assert "5 new tensors learn first" in capsys.readouterr().out  # of cls.predictions alone


def test_a_corpus_of_lone_sentences_leaves_pooler_and_head(
    tiny_folder: Path, data_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Headlines have no next sentence, so it is as if --no_next_sentence had been given."""
    lines = [line for line in (data_folder / "corpus.txt").read_text().splitlines() if line]
    (tmp_path / "corpus.txt").write_text("\n\n".join(lines), encoding="utf-8")
    flags = {"max_steps": 2, "learning_rate": 1e-3, "weight_decay": 0.1}
    scores = run_pretraining.main(call(tiny_folder, tmp_path, tmp_path / "run", **flags))
    assert "No pair has a next sentence" in capsys.readouterr().out
    assert not [name for name in scores if "nsp" in name]
    assert_untouched(weights(tmp_path / "run"), weights(tiny_folder), "bert.pooler.", "cls.seq_relationship.")


# --- Before and after -------------------------------------------------------------------------------------------------


def test_scores_before_are_the_checkpoints_own(tiny_folder: Path, data_folder: Path, tmp_path: Path) -> None:
    """Held-out and general text, in before.json and in the results, equal an evaluation of the untouched checkpoint."""
    general = tmp_path / "general.txt"
    general.write_text("\n\n".join((data_folder / "corpus.txt").read_text().split("\n\n")[:9]), encoding="utf-8")
    flags = {"learning_rate": 1e-3, "forgetting_file": general, "max_steps": 3}
    scores = run_pretraining.main(call(tiny_folder, data_folder, tmp_path / "run", **flags))
    kept = json.loads((tmp_path / "run" / "before.json").read_text())
    names = ("mlm_loss", "mlm_accuracy", "nsp_loss", "nsp_accuracy")
    assert kept.keys() == {f"{prefix}_{name}" for prefix in ("before", "general_before") for name in names}
    results = json.loads((tmp_path / "run" / "all_results.json").read_text())
    for found in (scores, results):
        assert {name: found[name] for name in kept} == kept
        assert {f"{prefix}_{name}" for prefix in ("eval", "general") for name in names} <= found.keys()
    checkpoint = open_checkpoint(str(tiny_folder))
    settings = run_pretraining.Settings(
        train_file=[str(data_folder / "corpus.txt")],
        forgetting_file=[str(general)],
        max_length=32,
        validation_fraction=0.1,
    )
    corpora = run_pretraining.read_corpora(settings, checkpoint.tokenizer)
    training = run_pretraining.PretrainingArguments(output_dir=str(tmp_path / "again"), use_cpu=True, report_to=[])
    trainer = run_pretraining.PretrainingTrainer(
        model=load_model(SparseBertForPreTraining, checkpoint, new=NEW),
        args=training,
        data_collator=run_pretraining.RowKeyedMasking(checkpoint.tokenizer, mlm_probability=0.4),
        compute_metrics=run_pretraining.pretraining_scores,
    )
    for prefix, documents in (("before", corpora.held_out), ("general_before", corpora.general)):
        pairs = run_pretraining.SentencePairs(documents, checkpoint.tokenizer, settings, None)
        found = trainer.evaluate(pairs, metric_key_prefix=prefix)
        for name in names:
            assert kept[f"{prefix}_{name}"] == pytest.approx(found[f"{prefix}_{name}"], rel=1e-6), name
    assert scores["eval_mlm_loss"] != scores["before_mlm_loss"]
    assert scores["general_mlm_loss"] != scores["general_before_mlm_loss"]


def test_scores_before_that_find_no_room_are_told_in_one_line(
    tiny_folder: Path, data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full before the first step."""

    def full(path: Path, text: str) -> None:
        if path.name == "before.json":
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(run_pretraining, "write_whole", full)
    with pytest.raises(Failure, match=r"before\.json: could not be written: No space left .* nothing was trained yet"):
        run_pretraining.main(call(tiny_folder, data_folder, tmp_path / "run", max_steps=1))


@pytest.mark.slow
def test_scores_before_know_neither_seed_nor_masking(tiny_folder: Path, data_folder: Path, tmp_path: Path) -> None:
    """Runs of other seeds and other masks are scored on the same documents, pairs and masked words."""
    scores = [
        run_pretraining.main(call(tiny_folder, data_folder, tmp_path / str(i), **flags))
        for i, flags in enumerate(({"seed": 1}, {"seed": 2, "mask_probability": 0.4, "whole_word_masking": "true"}))
    ]
    for name in ("before_mlm_loss", "before_mlm_accuracy", "before_nsp_loss", "before_nsp_accuracy"):
        assert scores[0][name] == pytest.approx(scores[1][name], rel=1e-6)


@pytest.mark.slow  # it trains whole runs
def test_scores_before_are_kept_when_a_run_goes_on(
    bare_encoder: Path, data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A resumed run tells the scores from before its first step, not from before the resume, and warms nothing up."""
    steps = {"max_steps": 4, "learning_rate": 1e-3, "save_strategy": "steps", "save_steps": 2, "head_warmup_steps": 2}
    flags = call(bare_encoder, data_folder, tmp_path / "run", **steps)
    train = ExactTrainer.train

    def cut_off(trainer: ExactTrainer, *args: Any, **kwargs: Any) -> Any:
        if trainer.eval_dataset is not None:  # not the warm-up's
            trainer.args.max_steps = 2
            train(trainer, *args, **kwargs)
            raise KeyboardInterrupt
        return train(trainer, *args, **kwargs)

    monkeypatch.setattr(ExactTrainer, "train", cut_off)
    with pytest.raises(KeyboardInterrupt):
        run_pretraining.main(flags)
    monkeypatch.undo()
    kept = json.loads((tmp_path / "run" / "before.json").read_text())
    monkeypatch.setattr(run_pretraining, "warm_up_heads", lambda *_, **__: pytest.fail("warmed up again"))
    scores = run_pretraining.main(flags)
    assert kept["before_mlm_loss"] == scores["before_mlm_loss"]
    assert scores["eval_mlm_loss"] < scores["before_mlm_loss"]


# --- Gradient checkpointing -------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_gradient_checkpointing_changes_no_step(tiny_folder: Path, data_folder: Path, tmp_path: Path) -> None:
    """Loss and gradient norm of the first steps are the same."""
    curves = []
    for name, flag in {"plain": "false", "checkpointing": "true"}.items():
        flags = {"gradient_checkpointing": flag, "max_steps": 2, "learning_rate": 1e-3}
        run_pretraining.main(call(tiny_folder, data_folder, tmp_path / name, **flags))
        curves.append([(line["loss"], line["grad_norm"]) for line in log_of(tmp_path / name) if "grad_norm" in line])
    assert len(curves[0]) == 2
    assert curves[1][0] == pytest.approx(curves[0][0], rel=1e-5)
    assert curves[1][1] == pytest.approx(curves[0][1], rel=1e-4)


def test_checking_makes_no_folder(tiny_folder: Path, data_folder: Path, tmp_path: Path) -> None:
    """--check_only trains nothing that is kept and leaves nothing behind."""
    report = run_pretraining.main([*call(tiny_folder, data_folder, tmp_path / "run"), "--check_only"])
    assert report["pairs"] > 0
    assert not (tmp_path / "run").exists()
