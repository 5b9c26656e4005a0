"""The hand-off: what a run must receive from its checkpoint, checked tensor by tensor.

A checkpoint is a folder (or a Hub id) with a BERT's config, its tokenizer and safetensors weights. A folder without
weights starts from scratch, and the script says so.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from transformers import (
    AutoTokenizer,
    BertConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.integrations import deepspeed
from transformers.utils import cached_file, logging

from two_stage.checkpointing.checkpoints import MANIFEST, what_is_wrong
from two_stage.checkpointing.runs import LINEAGE, RECIPE, RESULTS, config_file_sha256
from two_stage.command_line.exits import Refusal, say
from two_stage.data.files import file_sha256

ModelT = TypeVar("ModelT", bound=PreTrainedModel)
ReadingT = TypeVar("ReadingT", bound=NamedTuple)
WEIGHTS = "model.safetensors"
TASK_MODELS = ("BertForSequenceClassification", "BertForTokenClassification", "SentimentModel")
# what stage two's heads keep in their config.json, beside what any BERT has there
HEAD_FIELDS = ("pooling", "head_hidden_size", "head_temperature", "reading", "reads_pairs", "bins", "shades")
MODEL_TYPES = ("bert", "bert_sentiment")  # the second: run_sentiment.py's heads that no stock class has
# what a file may have and a model not: entities need no pooler, and positions are counted anew
MAY_STAY_BEHIND = ("bert.pooler.", "bert.embeddings.position_ids")
# what a config.json may name that transformers would fetch and run, or build in place of a plain BERT
NAMES_CODE = ("auto_map", "custom_pipelines", "attn_implementation", "_attn_implementation", "experts_implementation")


class SavedAsStock:
    """A mixin for a model of ours with a stock model's tensors: its saved folder names the stock class."""

    stock_class: str
    untrained: frozenset[str] | set[str] = frozenset()  # parameters that started from nothing and were not trained

    def save_pretrained(self, save_directory: Any, **kwargs: Any) -> None:
        """Save as transformers does, without what was never trained, and name the class that loads the folder."""
        if self.untrained:
            state = kwargs.get("state_dict") or self.state_dict()  # type: ignore[attr-defined]
            kwargs["state_dict"] = {name: tensor for name, tensor in state.items() if name not in self.untrained}
        super().save_pretrained(save_directory, **kwargs)  # type: ignore[misc]
        if kwargs.get("is_main_process", True):
            self.config_to_save().save_pretrained(save_directory)

    def config_to_save(self) -> BertConfig:
        """The config that the folder gets: a stock BERT's, whatever class the model was loaded by."""
        config = BertConfig.from_dict(self.config.to_dict())  # type: ignore[attr-defined]
        config.architectures = [self.stock_class]
        return config


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was found fit to start from; its weights are not loaded yet."""

    name: str
    config: BertConfig
    tokenizer: PreTrainedTokenizerBase
    weights: Path | None  # None: start from scratch
    lineage: dict[str, Any] | None  # of the run that made it, if one of this project did

    @cached_property
    def weights_sha256(self) -> str | None:
        """The SHA-256 of the weights' file, as it stands when it is first asked for."""
        return file_sha256(self.weights) if self.weights else None

    @cached_property
    def tokenizer_sha256(self) -> str:
        """See the function; of the tokenizer as it is when it is first asked for."""
        return tokenizer_sha256(self.tokenizer)

    @property
    def config_sha256(self) -> str:
        """The SHA-256 of the config as it is now, whatever version of transformers wrote it."""
        fields = self.config.to_dict() | {"transformers_version": None}
        return hashlib.sha256(json.dumps(fields, sort_keys=True, default=str).encode()).hexdigest()

    @property
    def task_model(self) -> str | None:
        """The class of stage two whose trained folder this is; None of an encoder."""
        return next((name for name in self.config.architectures or [] if name in TASK_MODELS), None)

    @property
    def reads_pairs(self) -> bool | None:
        """Whether a trained folder reads two texts a row; None where it does not say."""
        return getattr(self.config, "reads_pairs", None)

    def check_length(self, max_length: int) -> None:
        """Refuse rows longer than the model's positions, or too short to hold a token between the special ones."""
        limit = self.config.max_position_embeddings
        if not 8 <= max_length <= limit:
            raise Refusal(f"--max_length {max_length}: {self.name} takes 8 to {limit} tokens")

    def trained_labels(self, *architectures: str) -> list[str] | None:
        """The labels of a checkpoint that already is a model of this task, in their order; None of an encoder.

        Raises:
            Refusal: it is a model of another task, whose head would be taken for this one's; or labels that are none.
        """
        if self.task_model not in (None, *architectures):
            raise Refusal(f"checkpoint {self.name}: is a {self.task_model}; start from the folder that stage one left")
        if self.task_model is None:
            return None
        labels = [self.config.id2label.get(i) for i in range(self.config.num_labels)]
        if not all(isinstance(label, str) for label in labels) or len(set(labels)) < len(labels):
            raise Refusal(
                f"checkpoint {self.name}: config.json calls its labels {self.config.id2label}; mend id2label: a name "
                f"for each of 0 to {len(labels) - 1}, none of them twice"
            )
        return labels

    def forget_head(self) -> None:
        """Take what a head of stage two left out of the config: one that is made later would be made like it."""
        fresh = BertConfig()
        for name in HEAD_FIELDS:
            vars(self.config).pop(name, None)
        for name in ("id2label", "label2id", "classifier_dropout", "problem_type"):
            setattr(self.config, name, getattr(fresh, name))


def open_checkpoint(name: str | None) -> Checkpoint:
    """Check a checkpoint without loading its weights.

    Args:
        name: a folder, or a Hub id.

    Raises:
        Refusal: none given, not there, not a BERT, no tokenizer, a tokenizer larger than the model's vocabulary,
            pickled weights only, an adapter, quantized weights, a run that has not finished, a run's checkpoint whose
            files are not those of its manifest, weights, a config or a tokenizer that are not those of the lineage, or
            files that may not be read.
    """
    if name is None:
        raise Refusal("no --checkpoint given: a folder with a BERT, or a Hub id such as bert-base-uncased")
    try:
        return _open(name)
    except OSError as error:
        why = error.strerror or _one_line(error)
        raise Refusal(f"checkpoint {name[:200]}: cannot be read ({why}); mend that, or name another") from error


def _open(name: str) -> Checkpoint:
    """`open_checkpoint` of what may turn out unreadable."""
    if not Path(name).is_dir() and _looks_like_a_path(name):  # and no Hub is asked for it
        raise Refusal(f"checkpoint {name}: no such folder; is it the --output_dir of a run that has finished?")
    _check_finished(Path(name))
    config_file = _checkpoint_file(name, "config.json")
    if config_file is None:
        raise Refusal(f"checkpoint {name}: no such folder with a config.json; nor a model on the Hub or in its cache")
    try:
        fields = json.loads(config_file.read_text(encoding="utf-8"))
        model_type = fields.pop("model_type", None)
    except (ValueError, AttributeError, RecursionError) as error:
        raise Refusal(f"checkpoint {name}: config.json is not a JSON object: {error}") from error
    if model_type not in MODEL_TYPES:
        raise Refusal(f"checkpoint {name}: its config.json says model_type {model_type}; only bert will do")
    if "quantization_config" in fields:
        raise Refusal(f"checkpoint {name}: its weights are quantized, and such cannot be trained; take the full ones")
    config = _make_config(name, {key: value for key, value in fields.items() if key not in NAMES_CODE})
    if config.is_decoder:
        raise Refusal(f"checkpoint {name}: is a decoder (is_decoder in its config.json); only an encoder will do")
    checkpoint = Checkpoint(name, config, _open_tokenizer(name, config), _open_weights(name), _open_lineage(name))
    _check_lineage(checkpoint, config_file)
    return checkpoint


def _make_config(name: str, fields: dict[str, Any]) -> BertConfig:
    """The config that a checkpoint's fields make."""
    try:
        config = BertConfig.from_dict(fields)
    except Exception as error:  # whatever a field of a wrong type makes it raise
        raise Refusal(f"checkpoint {name}: config.json makes no BERT: {_one_line(error)}; copy it anew") from error
    if not isinstance(config.architectures, list | None):
        raise Refusal(f"checkpoint {name}: config.json makes no BERT: architectures is no list; copy it anew")
    return config


def _check_finished(folder: Path) -> None:
    """Refuse the folder of a run that is not done, and a checkpoint of one that is not as it was written."""
    if (folder / RECIPE).is_file() and (folder / LINEAGE).is_file() and not (folder / RESULTS).exists():
        raise Refusal(f"checkpoint {folder}: its run has not finished; run its command again first")
    if (folder / MANIFEST).exists() and (wrong := what_is_wrong(folder)):
        raise Refusal(f"checkpoint {folder}: {wrong}; take another")


def _open_tokenizer(name: str, config: BertConfig) -> PreTrainedTokenizerBase:
    """The checkpoint's tokenizer, with all that BERT needs of one and no more tokens than the model."""
    if not any(_checkpoint_file(name, file) for file in ("tokenizer.json", "vocab.txt")):
        raise Refusal(f"checkpoint {name}: no tokenizer in it (tokenizer.json or vocab.txt)")
    try:
        # not None, at which transformers asks on the terminal whether to run code that lies in the folder
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except Exception as error:  # whatever a broken file makes it raise
        told = _one_line(error)
        if "trust_remote_code" in str(error):  # which transformers advises to set
            told = "it needs code that lies beside it, and none is run; save it as one of transformers' own"
        raise Refusal(f"checkpoint {name}: its tokenizer cannot be read: {told}") from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise Refusal(f"checkpoint {name}: its tokenizer is a {type(tokenizer).__name__}, and no BERT's")
    tokenizer.init_kwargs.pop("auto_map", None)  # or what a run leaves would name that code too
    if len(tokenizer) > config.vocab_size:
        raise Refusal(f"checkpoint {name}: tokenizer of {len(tokenizer)} tokens, model of {config.vocab_size} only")
    roles = ("cls_token", "sep_token", "pad_token", "mask_token", "unk_token")
    if missing := [role for role in roles if getattr(tokenizer, f"{role}_id") is None]:
        raise Refusal(f"checkpoint {name}: its tokenizer has no {', '.join(missing)}; a BERT's has them all")
    return tokenizer


def _open_weights(name: str) -> Path | None:
    """The checkpoint's safetensors file, whole by its own header; None where the folder has no weights."""
    weights = _checkpoint_file(name, WEIGHTS)
    if Path(name, "adapter_config.json").is_file():  # peft, if it is there, would load it into the model
        raise Refusal(f"checkpoint {name}: holds an adapter (adapter_config.json); merge it into its model first")
    if weights is None:
        if _checkpoint_file(name, "pytorch_model.bin"):
            raise Refusal(f"checkpoint {name}: pickled weights only; save it again as safetensors, pickle can run code")
        if _checkpoint_file(name, f"{WEIGHTS}.index.json"):
            raise Refusal(f"checkpoint {name}: weights in several files; save it again as one {WEIGHTS}")
        if not Path(name).is_dir():
            raise Refusal(f"checkpoint {name}: no {WEIGHTS} on the Hub or in its cache, or no network to fetch it")
        return None
    try:
        with safe_open(weights, framework="pt"):  # checks the file's size against its header
            return weights
    except SafetensorError as error:
        raise Refusal(f"checkpoint {name}: {WEIGHTS} is broken: {_one_line(error)}; copy it anew") from error


def _open_lineage(name: str) -> dict[str, Any] | None:
    """The lineage.json of the run that made the checkpoint; None where it was not one of ours."""
    lineage_file = _checkpoint_file(name, LINEAGE)
    try:
        lineage = json.loads(lineage_file.read_text(encoding="utf-8")) if lineage_file else None
    except (ValueError, RecursionError) as error:
        raise Refusal(f"checkpoint {name}: {LINEAGE} is not JSON: {_one_line(error)}; copy it anew") from error
    if not _is_lineage(lineage):
        raise Refusal(f"checkpoint {name}: {LINEAGE} is not a lineage as a run writes it; copy it anew")
    return lineage


def _is_lineage(lineage: Any) -> bool:
    """Whether this, and all that it came from, has the form that `trace_lineage` gives; None is the chain's end."""
    while isinstance(lineage, dict):
        made_from, data = lineage.get("checkpoint", {}), lineage.get("data", {})
        if not (isinstance(made_from, dict) and isinstance(data, dict) and isinstance(lineage.get("script", ""), str)):
            return False
        if not all(isinstance(files, dict) for files in data.values()):
            return False
        if not all(isinstance(digest, str) for files in data.values() for digest in files.values()):
            return False
        lineage = made_from.get("lineage")
    return lineage is None


@contextmanager
def _quietly() -> Iterator[None]:
    """Without transformers' warnings."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


@contextmanager
def _unshared() -> Iterator[None]:
    """Have each process read the whole model under DeepSpeed's ZeRO-3, which shares it out when training begins.

    transformers would share it out at once, whatever accelerate's `zero3_init_flag` says, and none could compare it.
    """
    held = deepspeed._hf_deepspeed_config_weak_ref  # has no public reader
    deepspeed.unset_hf_deepspeed_config()
    try:
        yield
    finally:
        if held is not None and (config := held()) is not None:
            deepspeed.set_hf_deepspeed_config(config)


def _one_line(error: Exception) -> str:
    """The start of an error's message, without its line breaks."""
    return " ".join(str(error).split())[:300]


def _looks_like_a_path(name: str) -> bool:
    """Whether `name` can be no Hub id, `model` or `owner/model`, or begins with a folder that is there."""
    parts = Path(name).parts
    return name.startswith((".", "/", "~")) or len(parts) > 2 or (len(parts) == 2 and Path(parts[0]).is_dir())


def _checkpoint_file(name: str, file: str) -> Path | None:
    """The path of a checkpoint's file, from its folder or from the Hub or its cache; None where there is none."""
    if Path(name).is_dir():
        return Path(name, file) if Path(name, file).is_file() else None
    try:
        found = cached_file(
            name, file, _raise_exceptions_for_missing_entries=False, _raise_exceptions_for_connection_errors=False
        )
    except (OSError, ValueError):  # no such id, or a path that is none
        return None
    return Path(found) if found else None


def _check_lineage(checkpoint: Checkpoint, config_file: Path) -> None:
    """Refuse a folder whose weights are gone, or that has others, or another config or tokenizer, than its run left."""
    made = checkpoint.lineage or {}
    if (made.get("weights_sha256") or checkpoint.task_model) and checkpoint.weights is None:
        raise Refusal(f"checkpoint {checkpoint.name}: its {WEIGHTS} is gone; copy it anew")
    if made.get("weights_sha256") not in (None, checkpoint.weights_sha256):
        raise Refusal(f"checkpoint {checkpoint.name}: {WEIGHTS} is not the file that its {LINEAGE} names")
    if made.get("config_file_sha256") not in (None, config_file_sha256(config_file)):
        raise Refusal(
            f"checkpoint {checkpoint.name}: config.json says other things than when its {LINEAGE} was written; copy it "
            f"anew, or take {LINEAGE} out of the folder if the change was meant"
        )
    if made.get("tokenizer_sha256") not in (None, checkpoint.tokenizer_sha256):
        raise Refusal(f"checkpoint {checkpoint.name}: its tokenizer is not the one that it was trained with")


def tokenizer_sha256(tokenizer: PreTrainedTokenizerBase) -> str:
    """The SHA-256 of all that decides how a tokenizer cuts text, whatever it was asked to pad or cut before."""
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    backend |= {"truncation": None, "padding": None}
    return hashlib.sha256(json.dumps(backend, sort_keys=True).encode()).hexdigest()


def load_model(model_class: type[ModelT], checkpoint: Checkpoint, new: tuple[str, ...], **config: Any) -> ModelT:
    """Load a checkpoint's weights into a model and prove that they arrived.

    Args:
        model_class: a BERT with an attribute `bert`.
        checkpoint: from `open_checkpoint`; without weights the model starts from scratch.
        new: prefixes of the tensors that the checkpoint may lack, such as ("classifier.",).
        config: overrides of the checkpoint's config, such as `id2label`.

    Returns:
        The model in fp32, its tensors under `bert.` bit-equal to the checkpoint's.

    Raises:
        Refusal: a tensor outside `new` is missing from the checkpoint, or arrived changed.
    """
    for key, value in config.items():
        setattr(checkpoint.config, key, value)
    try:
        if checkpoint.weights is None:
            if not new:
                raise Refusal(f"checkpoint {checkpoint.name}: has no weights, and there is nothing to train it on")
            say(f"{checkpoint.name} has no weights: starting from scratch")
            return model_class(checkpoint.config)
        with _quietly(), _unshared():  # transformers' table of missing tensors; what is new is said below
            model, info = model_class.from_pretrained(
                checkpoint.weights.parent,
                config=checkpoint.config,
                dtype=torch.float32,
                use_safetensors=True,
                output_loading_info=True,
            )
    except (RuntimeError, ValueError) as error:  # tensors of other shapes, a config that makes no model
        raise Refusal(f"checkpoint {checkpoint.name}: {_one_line(error)}") from error
    missing = sorted(name for name in info["missing_keys"] if not name.startswith(new))
    if missing:
        raise Refusal(f"checkpoint {checkpoint.name}: lacks {_few(missing)}{_pooler_hint(missing)}")
    fresh = sorted(info["missing_keys"])
    verify_handoff(model, checkpoint, new)
    say(f"Took every encoder tensor from {checkpoint.name}" + (f"; new: {_few(fresh)}" if fresh else ""))
    return model


def settled_reading(default: ReadingT, typed: dict[str, Any], checkpoint: Checkpoint) -> ReadingT:
    """How rows are read: as the flags say, else as a trained folder was, else by default.

    Args:
        default: a NamedTuple with a `max_length` among its fields, which are flags.
        typed: flag → value; None where it was not given.
        checkpoint: a trained folder keeps its reading in its config.

    Raises:
        Refusal: rows longer than the model's positions.
    """
    limit = checkpoint.config.max_position_embeddings
    kept = default._asdict() | {"max_length": min(default._asdict()["max_length"], limit)}
    trained = getattr(checkpoint.config, "reading", {})
    if not isinstance(trained, dict) or any(
        type(trained.get(name, kept[name])) is not type(kept[name]) for name in kept
    ):
        raise Refusal(f"checkpoint {checkpoint.name}: config.json says it reads {trained}, which is none; copy it anew")
    kept |= {name: value for name, value in trained.items() if name in kept}
    kept |= {name: typed[name] for name in kept if typed[name] is not None}
    checkpoint.check_length(kept["max_length"])
    return default._replace(**kept)


def new_tensors(model: PreTrainedModel, checkpoint: Checkpoint) -> list[str]:
    """The parameters of `model` that the checkpoint's file lacks, so that they start from nothing.

    Args:
        model: as loaded.
        checkpoint: what it was loaded from.

    Returns:
        Their names, in the model's order; none where the checkpoint has no weights and all start from nothing.
    """
    if checkpoint.weights is None:
        return []
    with safe_open(checkpoint.weights, framework="pt") as file:
        there = {encoder_name(key) or _modern(key) for key in file.keys()}  # noqa: SIM118
    return [name for name, _ in model.named_parameters() if name not in there]


def verify_handoff(model: PreTrainedModel, checkpoint: Checkpoint, new: tuple[str, ...]) -> None:
    """Compare every tensor under `bert.` with the checkpoint's file, bit for bit, and leave none of the file's behind.

    Args:
        model: as loaded, before any step.
        checkpoint: what it was loaded from; it has weights.
        new: prefixes of the tensors that the file may lack; one that it has is compared all the same.

    Raises:
        Refusal: one is missing from the file, differs from it, or stands in the file and not in the model; or it
            holds a number that is none.
    """
    tensors = {name: tensor for name, tensor in model.state_dict().items() if name.startswith("bert.")}
    if broken := next((name for name, tensor in tensors.items() if not tensor.isfinite().all()), None):
        raise Refusal(f"checkpoint {checkpoint.name}: {broken} holds numbers that are none; take another checkpoint")
    with safe_open(checkpoint.weights, framework="pt") as file:
        sources = {name: key for key in file.keys() if (name := encoder_name(key))}  # noqa: SIM118
        for name, tensor in tensors.items():
            if name not in sources and name.startswith(new):
                continue
            if name not in sources or not torch.equal(file.get_tensor(sources[name]).to(tensor), tensor):
                raise Refusal(f"checkpoint {checkpoint.name}: {name} did not arrive as it stands in {WEIGHTS}")
    unused = sorted(name for name in sources.keys() - tensors.keys() if not name.startswith(MAY_STAY_BEHIND))
    if unused:
        raise Refusal(f"checkpoint {checkpoint.name}: its config.json makes a model without {_few(unused)}")


def encoder_name(key: str) -> str | None:
    """The model's name of an encoder tensor that a file keeps under `key`; None of a head's tensor.

    A bare BertModel's file has no `bert.`, and files as old as bert-base-uncased's call LayerNorm's weights gamma and
    beta, which transformers renames when it loads them.
    """
    name = _modern(key.removeprefix("bert."))
    if not name.startswith(("embeddings.", "encoder.", "pooler.")):
        return None
    return f"bert.{name}"


def _modern(key: str) -> str:
    """A tensor's name as transformers has it today."""
    return key.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")


def _few(names: list[str]) -> str:
    """The first names of a long list, and how many more there are."""
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _pooler_hint(missing: list[str]) -> str:
    """What to do about a checkpoint that was trained on masked words alone."""
    if not any("pooler" in name for name in missing):
        return ""
    return "; it was trained on masked words alone: make one with run_pretraining.py first, or take --pooling mean"
