"""Stage one: go on pretraining a BERT on the raw text of a domain, by masked words and next sentences.

    python run_pretraining.py
    python run_pretraining.py --checkpoint bert-base-uncased --train_file news.csv --output_dir outputs/news
    accelerate launch run_pretraining.py --recipe recipes/quickstart/pretraining.yaml

Documents become sentence pairs as in BERT's own recipe (Devlin et al. 2019, section 3.1 and appendix A.2), new ones
every epoch; half of the second sentences come from another document. 15 % of the word pieces are masked, and
BertForPreTraining learns to name them and to tell the pairs apart. Stage two (run_sentiment.py, run_ner.py) takes the
encoder and its pooler from the folder that this leaves.
"""

import math
import re
from dataclasses import dataclass, field
from itertools import chain, pairwise

import torch

from two_stage.command_line.exits import Refusal, run_script, say
from two_stage.command_line.recipe import check_range, help_if_asked, parse_flags
from two_stage.results.report import Card, finish_run
from two_stage.training.training_arguments import ExactTrainingArguments, arguments_aside, planned_steps

SCRIPT, QUICKSTART = "run_pretraining.py", "recipes/quickstart/pretraining.yaml"
CARD = Card(
    "BERT, pretrained further on the text of a domain",
    "from transformers import AutoTokenizer, BertForPreTraining, BertModel\n\n"
    'tokenizer = AutoTokenizer.from_pretrained("FOLDER")\n'
    'encoder = BertModel.from_pretrained("FOLDER")  # encoder and pooler, for stage two\n'
    'model = BertForPreTraining.from_pretrained("FOLDER")  # with the masked-word and next-sentence heads',
    task="fill-mask",
)
SPECIAL_TOKENS = 3  # [CLS] A [SEP] B [SEP]
NEXT_SENTENCE = ("bert.pooler.", "cls.seq_relationship.")  # the parameters that only next sentences train
HEAD_WARMUP_STEPS, HEAD_WARMUP_RATE = 200, 1e-3  # at most a fifth of the run

# --- Settings ---------------------------------------------------------------------------------------------------------


@dataclass
class Settings:
    """What stage one reads and how it makes pairs and masks."""

    checkpoint: str | None = field(
        default=None, metadata={"help": "BERT to go on from: folder or Hub id; without weights in it, from scratch"}
    )
    train_file: list[str] | None = field(
        default=None, metadata={"help": "documents: .txt (a sentence a line, blank line between documents) or a table"}
    )
    validation_file: list[str] | None = field(default=None, metadata={"help": "held-out documents, in the same form"})
    validation_fraction: float = field(
        default=0.05, metadata={"help": "share of documents to hold out, without a validation_file"}
    )
    dataset: str | None = field(default=None, metadata={"help": "documents of a data set: Hub id or local folder"})
    dataset_config: str | None = field(default=None, metadata={"help": "which of its configurations"})
    dataset_revision: str | None = field(default=None, metadata={"help": "which of its commits"})
    dataset_split: str = field(default="train", metadata={"help": "which of its splits"})
    text_column: str = field(default="text", metadata={"help": "where a table has its documents"})
    language: str = field(default="en", metadata={"help": "of a table's texts, for splitting sentences: en, de, zh …"})
    max_length: int = field(default=128, metadata={"help": "tokens a pair, with [CLS] and both [SEP]"})
    max_train_samples: int | None = field(default=None, metadata={"help": "use the first so many documents alone"})
    max_eval_samples: int = field(default=2000, metadata={"help": "held-out pairs to score, drawn evenly from all"})
    mask_probability: float = field(default=0.15, metadata={"help": "share of a row's tokens to predict"})
    whole_word_masking: bool = field(default=False, metadata={"help": "mask a word's ## pieces together"})
    new_words: int = field(default=0, metadata={"help": "domain words to give a vocabulary entry of their own"})
    short_pair_probability: float = field(default=0.1, metadata={"help": "share of documents cut to shorter pairs"})
    random_next_probability: float = field(default=0.5, metadata={"help": "share of pairs with B of another document"})
    no_next_sentence: bool = field(default=False, metadata={"help": "masked words alone; the pooler stays as it is"})
    head_warmup_steps: int | None = field(
        default=None,
        metadata={
            "help": "steps that heads new to the checkpoint learn before the encoder does (200, or a fifth of all)"
        },
    )
    forgetting_file: list[str] | None = field(
        default=None, metadata={"help": "general text: its masked-word loss before and after, to see what is forgotten"}
    )
    held_out_file: list[str] | None = field(
        default=None, metadata={"help": "labelled texts to look for in the corpus: leakage flatters stage one"}
    )
    streaming: bool = field(default=False, metadata={"help": "read the corpus as it is needed, and write none of it"})
    stream_documents: int = field(default=10_000, metadata={"help": "documents of a stream in memory together"})
    stream_lanes: int | None = field(
        default=None,
        metadata={"help": "readers of a stream, a multiple of the processes (one each)"},
    )
    preprocessing_workers: int | None = field(default=None, metadata={"help": "processes that read and tokenize"})
    keep_at: list[float] | None = field(
        default=None, metadata={"help": "keep the model also after so many per cent of the steps: kept/10-percent …"}
    )
    check_only: bool = field(default=False, metadata={"help": "read, check and report; train nothing"})

    def __post_init__(self) -> None:
        """Refuse what is out of range."""
        check_range(self, 0, 1, "mask_probability", "short_pair_probability", "random_next_probability")
        check_range(self, 0, 1, "validation_fraction")
        check_range(self, 1, math.inf, "max_train_samples", "max_eval_samples", "preprocessing_workers")
        check_range(self, 0, math.inf, "head_warmup_steps", "new_words")
        check_range(self, 2, math.inf, "stream_documents")
        check_range(self, 1, math.inf, "stream_lanes")
        if self.train_file and self.dataset:
            raise Refusal("--train_file and --dataset: give one or the other")
        if not self.dataset and (self.dataset_config or self.dataset_revision):
            raise Refusal("--dataset_config and --dataset_revision say which --dataset; there is none")
        if self.stream_lanes and not self.streaming:
            raise Refusal("--stream_lanes: only a stream has lanes; add --streaming, or leave it out")
        if self.streaming and self.max_train_samples:
            raise Refusal("--max_train_samples: has no effect on a stream, which ends with --max_steps; leave it out")
        if not re.fullmatch("[a-z]{2,3}(-[a-z]{4,})?", self.language):
            raise Refusal(f"--language {self.language}: must be an ISO 639 code in small letters, such as de")
        if self.no_next_sentence and self.random_next_probability != 0.5:
            raise Refusal("--random_next_probability: has no effect with --no_next_sentence; leave it out")
        if any(not low < high for low, high in pairwise([0.0, *(self.keep_at or []), 100.0])):
            typed = " ".join(f"{percent:g}" for percent in self.keep_at or [])
            raise Refusal(f"--keep_at {typed}: must be per cent above 0 and below 100 that ascend, each there once")


@dataclass
class PretrainingArguments(ExactTrainingArguments):
    """Stage one's defaults: BERT's own optimizer (Devlin et al. 2019, appendix A.2) at a rate for going on."""

    output_dir: str = field(default="outputs/pretraining", metadata={"help": "one run a folder"})
    learning_rate: float = field(default=3e-5, metadata={"help": "1e-4 from scratch, 2e-5 to 5e-5 to go on"})
    adam_epsilon: float = field(default=1e-6, metadata={"help": "BERT's own"})
    per_device_train_batch_size: int = field(default=32, metadata={"help": "pairs a process and forward pass"})
    per_device_eval_batch_size: int = field(default=64, metadata={"help": "pairs a process"})
    num_train_epochs: float = field(default=3.0, metadata={"help": "passes, each with new pairs and masks"})
    logging_steps: float = field(default=50, metadata={"help": "steps between two lines of the learning curve"})
    eval_strategy: str = field(default="epoch", metadata={"help": "when to score the held-out documents"})
    save_total_limit: int | None = field(default=2, metadata={"help": "checkpoints to keep"})
    dataloader_num_workers: int = field(
        default_factory=lambda: 2 if torch.cuda.is_available() else 0,  # one makes some 3,000 rows of 128 a second
        metadata={"help": "processes that make batches ahead; default 2 beside a GPU"},
    )


if __name__ == "__main__":
    help_if_asked(__doc__, Settings, PretrainingArguments)  # before the imports below, which take seconds

import copy
import hashlib
import json
import random
import shutil
import time
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn import functional as F
from transformers import (
    BertConfig,
    BertForPreTraining,
    DataCollatorForLanguageModeling,
    PreTrainedTokenizerBase,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    set_seed,
)
from transformers.models.bert.modeling_bert import BertForPreTrainingOutput
from transformers.trainer_utils import SchedulerType

from two_stage.checkpointing.checkpoints import put_in_place, told_if_unwritten, write_whole
from two_stage.checkpointing.handoff import (
    Checkpoint,
    SavedAsStock,
    load_model,
    new_tensors,
    open_checkpoint,
    tokenizer_sha256,
)
from two_stage.checkpointing.lineage import trace_lineage
from two_stage.checkpointing.runs import Run, begin_run, left_as_it_is, open_run, saved_hashes, write_lineage
from two_stage.command_line.launch import is_shared_out
from two_stage.data.corpus import FORMATS, TOKENS, corpus_tokenizer, flat_sentence_lengths, tokenize_documents
from two_stage.data.corpus_report import describe_documents, report_lines
from two_stage.data.files import check_files
from two_stage.data.splits import Corpora, corpus_source, dataset_key, read_corpora, text_hashes
from two_stage.data.streaming import StreamedRows
from two_stage.data.tables import LABELLED_FORMATS
from two_stage.data.vocabulary import extend_embeddings
from two_stage.scoring.scores import PretrainingScores
from two_stage.training.batches import EpochSampler, pad_rows
from two_stage.training.cross_entropy import SummedCrossEntropy
from two_stage.training.last_layer import can_read_few, let_last_layer_read_few
from two_stage.training.layers import check_freezing
from two_stage.training.step_costs import TIMED_STEPS, StepTimer, time_steps
from two_stage.training.trainer import ExactTrainer

# --- Data: documents → sentence pairs → masked batches ----------------------------------------------------------------

PLAN = np.dtype([(name, np.int32) for name in "a_document a_start a_stop b_document b_start b_stop label cut".split()])
IS_NEXT, IS_RANDOM, NO_LABEL = 0, 1, -100  # as BertForPreTraining has them; NO_LABEL trains masked words alone


def keyed(*key: object) -> int:
    """A 64-bit number that depends on `key` alone: the seed of every draw, so that no draw depends on another."""
    return int.from_bytes(hashlib.blake2b("/".join(map(str, key)).encode(), digest_size=8).digest(), "little")


def check_settings(settings: Settings, training: PretrainingArguments, checkpoint: Checkpoint) -> None:
    """Refuse before anything is read what does not fit the checkpoint, or other flags.

    Raises:
        Refusal: naming the flag.
    """
    check_files(settings.held_out_file or [], LABELLED_FORMATS)
    checkpoint.check_length(settings.max_length)
    check_freezing(training.freeze_layers, checkpoint.config.num_hidden_layers)
    if training.freeze_layers and settings.new_words:
        raise Refusal("--new_words with --freeze_layers: the new words' rows would be frozen; leave one out")
    if settings.whole_word_masking and not any(piece.startswith("##") for piece in checkpoint.tokenizer.get_vocab()):
        raise Refusal("--whole_word_masking: the checkpoint's vocabulary has no ## pieces to tell words by")
    if settings.streaming and training.max_steps < 1:
        raise Refusal("--streaming: a stream has no end; give --max_steps")
    if settings.streaming and not settings.validation_file:
        say("A stream holds no documents out by itself: without --validation_file nothing will be scored")


class Bounds:
    """Where sentences begin and end, for all documents in two flat arrays: eight bytes a sentence and a document.

    `tokens[s]` is the tokens before sentence s, of all documents together; `sentences[d]` is the first sentence of
    document d. A sentence longer than a row is taken for several of at most half a row, so that none of it is lost
    and a part can be the next sentence of the part before it.
    """

    def __init__(self, lengths: np.ndarray, starts: np.ndarray, limit: int) -> None:
        if (is_long := lengths > limit).any():
            parts = np.where(is_long, -(-lengths // max(limit // 2, 1)), 1)
            before = np.concatenate([[0], np.cumsum(parts)])
            number = np.arange(before[-1]) - np.repeat(before[:-1], parts)  # of a part within its sentence
            whole, parts_of = np.repeat(lengths.astype(np.int64), parts), np.repeat(parts, parts)
            lengths = whole * (number + 1) // parts_of - whole * number // parts_of
            starts = before[starts]
        self.tokens = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        self.sentences = starts

    def __len__(self) -> int:
        return len(self.sentences) - 1

    def of(self, document: int) -> np.ndarray:
        """Token offsets within `document`, of each sentence and of the document's end: int64 (sentences + 1,)."""
        tokens = self.tokens[self.sentences[document] : self.sentences[document + 1] + 1]
        return tokens - tokens[0]


def truncated_lengths(a: int, b: int, limit: int) -> tuple[int, int]:
    """The lengths left when tokens go one by one from the longer of two segments (a tie: from B) until both fit."""
    half = limit // 2
    return min(a, max(limit - b, limit - half)), min(b, max(limit - a, half))


def cut_range(start: int, stop: int, length: int, rng: random.Random) -> tuple[int, int]:
    """Cut the token range to `length`, each lost token from the front or the back with even chance."""
    lost = stop - start - length
    front = rng.getrandbits(lost).bit_count()  # `lost` fair coins at once
    return start + front, stop - (lost - front)


def document_pairs(
    document: int, bounds: Bounds, limit: int, settings: Settings, rng: random.Random
) -> Iterator[tuple[int, ...]]:
    """The sentence pairs of one document, after google-research/bert, create_pretraining_data.py.

    Whole sentences are gathered into a chunk until it is `target` tokens long; the chunk is cut in two at a random
    sentence; the second half stays (label 0, is next) or gives way to a stretch of another document (label 1), and
    then goes back to be used again. A chunk of one sentence has no second half: the original makes all of these
    random pairs, so that 55 to 100 % of its pairs are random and a lone sentence gives the answer away. Here such a
    chunk has no B and no label, and trains masked words alone; of the labelled pairs as many are random as was asked.

    Args:
        document: which one.
        bounds: of all documents. A random B comes from any other document, so there must be two.
        limit: tokens that A and B may have together, at least 2.
        settings: short_pair_probability and random_next_probability.
        rng: the document's own.

    Yields:
        One tuple a pair, as PLAN names it: two token ranges, of this document and of B's, the label, and how many
        tokens were cut off to make the pair fit.
    """
    sentences = bounds.of(document).tolist()
    count = len(sentences) - 1
    target = rng.randint(2, limit) if rng.random() < settings.short_pair_probability else limit
    first = 0
    while first < count:  # the chunk is sentences first … end - 1, A is first … split - 1
        end = min(bisect_left(sentences, sentences[first] + target, lo=first + 1), count)
        if end - first == 1:
            yield document, sentences[first], sentences[end], document, sentences[end], sentences[end], NO_LABEL, 0
            first = end
            continue
        split = rng.randint(first + 1, end - 1)
        a_start, a_stop = sentences[first], sentences[split]
        if rng.random() < settings.random_next_probability:
            other = rng.randrange(len(bounds) - 1)
            other += other >= document
            b_start, b_stop = random_stretch(bounds.of(other), target - (a_stop - a_start), rng)
            first, label = split, IS_RANDOM  # the second half goes back
        else:
            other, b_start, b_stop = document, a_stop, sentences[end]
            first, label = end, IS_NEXT
        a_length, b_length = truncated_lengths(a_stop - a_start, b_stop - b_start, limit)
        cut = a_stop - a_start + b_stop - b_start - a_length - b_length
        a_start, a_stop = cut_range(a_start, a_stop, a_length, rng)
        b_start, b_stop = cut_range(b_start, b_stop, b_length, rng)
        yield document, a_start, a_stop, other, b_start, b_stop, label, cut


def random_stretch(sentences: np.ndarray, target: int, rng: random.Random) -> tuple[int, int]:
    """A token range from a random sentence's start to the end of the first sentence that makes it `target` long."""
    first = rng.randrange(len(sentences) - 1)
    end = int(np.searchsorted(sentences, sentences[first] + target))
    return int(sentences[first]), int(sentences[min(max(end, first + 1), len(sentences) - 1)])


def document_windows(
    document: int, bounds: Bounds, limit: int, settings: Settings, rng: random.Random
) -> Iterator[tuple[int, ...]]:
    """A document as rows of whole sentences with no B and no label: what masked words alone are trained on."""
    sentences = bounds.of(document).tolist()
    target = rng.randint(2, limit) if rng.random() < settings.short_pair_probability else limit
    start = 0
    while start < sentences[-1]:
        whole = sentences[bisect_right(sentences, start + target) - 1]  # the last end of a sentence that fits
        stop = whole if whole > start else start + target
        yield document, start, stop, document, stop, stop, NO_LABEL, 0
        start = stop


def plan_pairs(bounds: Bounds, limit: int, settings: Settings, *key: object) -> np.ndarray:
    """The pairs of all documents, in an order and with draws that `key` decides: of PLAN, (pairs,)."""
    rows_of = document_windows if settings.no_next_sentence else document_pairs
    plan = array("i")  # four bytes a number, where a list of tuples would take sixty
    for document in np.random.default_rng(keyed(*key)).permutation(len(bounds)).tolist():
        for row in rows_of(document, bounds, limit, settings, random.Random(keyed(*key, document))):
            plan.extend(row)
    return np.frombuffer(plan, dtype=PLAN)


def plan_lengths(plan: np.ndarray) -> np.ndarray:
    """Tokens of each row of a plan, special ones counted: [CLS] A [SEP], and with a B also B [SEP]."""
    b_lengths = plan["b_stop"] - plan["b_start"]
    return plan["a_stop"] - plan["a_start"] + b_lengths + 2 + (b_lengths > 0)


class SentencePairs(torch.utils.data.Dataset):
    """The pairs of one epoch, planned as token ranges and put together when they are read.

    Every draw is keyed by (seed, epoch, document), so the pairs are the same for any number of workers and processes
    and after a resume. All epochs have as many rows as the first: a plan that comes out longer or shorter loses or
    repeats a few pairs at its end, where other documents stand every time. Held-out pairs and masks know no seed:
    every run on these documents is scored on the same ones.
    """

    def __init__(
        self, documents: Dataset, tokenizer: PreTrainedTokenizerBase, settings: Settings, key: int | str | None
    ) -> None:
        """Plan the first epoch.

        Args:
            documents: with columns `input_ids` and `sentence_lengths`.
            tokenizer: theirs.
            settings: of pairs.
            key: of every draw, the run's `draw_seed`; None for held-out documents.
        """
        self.documents = documents.with_format("arrow", columns=["input_ids"])  # in a fifth of numpy's time
        self.limit = settings.max_length - SPECIAL_TOKENS
        self.bounds = Bounds(*flat_sentence_lengths(documents), self.limit)
        self.cls, self.sep = tokenizer.cls_token_id, tokenizer.sep_token_id
        self.settings, self.is_held_out = settings, key is None
        self.key = "held out" if key is None else f"{key}/train"
        # shared, so that data workers that outlive an epoch see the next one
        self.epoch = torch.zeros((), dtype=torch.long).share_memory_()
        self.planned_epoch, self.plan = 0, self.plan_epoch(0)
        self.rows = len(self.plan)

    def plan_epoch(self, epoch: int) -> np.ndarray:
        """The pairs of `epoch`, as `plan_pairs` gives them; of held-out ones at most max_eval_samples."""
        plan = plan_pairs(self.bounds, self.limit, self.settings, self.key, epoch)
        if self.is_held_out and len(plan) > self.settings.max_eval_samples:
            return plan[np.linspace(0, len(plan) - 1, self.settings.max_eval_samples).astype(int)]
        return plan

    def set_epoch(self, epoch: int) -> None:
        """Plan the pairs of `epoch`; held-out ones stay, though accelerate counts evaluations as epochs."""
        if self.is_held_out:
            return
        self.epoch.fill_(epoch)
        if self.planned_epoch != epoch:
            self.planned_epoch, self.plan = epoch, np.resize(self.plan_epoch(epoch), self.rows)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each pair, special ones counted: int32 (pairs,)."""
        return plan_lengths(self.plan)

    @property
    def has_next_sentences(self) -> bool:
        """Whether pairs can have labels: without any, the pooler and its head have nothing to learn from."""
        return not self.settings.no_next_sentence and bool((np.diff(self.bounds.sentences) > 1).any())

    def tokens(self, document: int) -> np.ndarray:
        """The token ids of `document`, where they lie: int32 (tokens,)."""
        return self.documents[document]["input_ids"][0].values.to_numpy()

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, row: int) -> dict[str, Any]:
        self.set_epoch(int(self.epoch))
        a_document, a_start, a_stop, b_document, b_start, b_stop, label, _ = self.plan[row].item()
        a = self.tokens(a_document)[a_start:a_stop]
        b = self.tokens(b_document)[b_start:b_stop] if b_stop > b_start else ()
        return {
            **pair_row(a, b, self.cls, self.sep),
            "next_sentence_label": label,
            "mask_key": keyed(self.key, self.planned_epoch, row, "mask"),
            "is_held_out": self.is_held_out,
        }


def pair_row(a: Sequence[int] | np.ndarray, b: Sequence[int] | np.ndarray, cls: int, sep: int) -> dict[str, np.ndarray]:
    """Token ids of A and B → [CLS] A [SEP] in segment 0 and, where there is a B, B [SEP] in segment 1."""
    ids = np.concatenate([[cls], a, [sep], *([b, [sep]] if len(b) else [])]).astype(np.int64)
    return {"input_ids": ids, "token_type_ids": np.repeat([0, 1], [len(a) + 2, len(ids) - len(a) - 2])}


@dataclass
class RowKeyedMasking(DataCollatorForLanguageModeling):
    """BERT's masking, drawn row by row from the row's own key: 80 % [MASK], 10 % another piece, 10 % kept.

    The stock collator draws for the whole batch at once, so its masks change with the batch's shape, the number of
    workers and after a resume; it may mask nothing of a row; and by whole words it masks 100 % as [MASK], and takes a
    full stop for a part of the word before it. Here a row always loses `mask_probability` of its tokens, special ones
    counted (google-research/bert, create_masked_lm_predictions), and at least one; held-out rows lose 15 %, piece by
    piece, whatever training does, so that perplexities of different runs compare.
    """

    whole_words: bool = False  # mask a piece and the ## pieces behind it together

    def __post_init__(self) -> None:
        """Note once what each id of the vocabulary is."""
        super().__post_init__()
        vocabulary = self.tokenizer.get_vocab()
        count = max(vocabulary.values()) + 1  # a file may name an id twice and leave another out
        self.is_inside_word, self.is_special = np.zeros(count, dtype=bool), np.zeros(count, dtype=bool)
        self.is_inside_word[[id for piece, id in vocabulary.items() if piece.startswith("##")]] = True
        self.is_special[[id for id in self.tokenizer.all_special_ids if id != self.tokenizer.unk_token_id]] = True
        if self.whole_words and not self.is_inside_word.any():
            raise Refusal("--whole_word_masking: the checkpoint's vocabulary has no ## pieces to tell words by")

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Rows of pairs → a batch.

        Returns:
            input_ids, token_type_ids, attention_mask, labels (rows, longest); next_sentence_label (rows,); and what
            SparseBertForPreTraining reads, so that no GPU has to look for it: masked_positions (masked,), where the
            flattened labels are not -100, masked_reads (masked,) and read_positions (rows, 1 + most masked in a row).
        """
        rows, mask = [], self.tokenizer.mask_token_id
        for row in examples:
            rng = np.random.default_rng(row["mask_key"])
            masked = self.masked_pieces(row["input_ids"], row["is_held_out"], rng)
            labels, ids = np.full_like(row["input_ids"], NO_LABEL), row["input_ids"].copy()
            labels[masked] = ids[masked]
            draw, other = rng.random(len(masked)), rng.integers(len(self.is_special), size=len(masked))
            is_other = draw < self.mask_replace_prob + self.random_replace_prob
            ids[masked] = np.where(is_other, other, ids[masked])
            ids[masked[draw < self.mask_replace_prob]] = mask
            rows.append({**row, "input_ids": ids, "labels": labels})
        padding = {"input_ids": self.tokenizer.pad_token_id, "token_type_ids": 0, "labels": NO_LABEL}
        numbers = (
            ("next_sentence_label", "stream_position") if "stream_position" in rows[0] else ("next_sentence_label",)
        )
        batch = pad_rows(rows, padding, fixed=numbers)
        return batch | positions_to_read(batch["labels"].ne(NO_LABEL))

    def masked_pieces(self, ids: np.ndarray, is_held_out: bool, rng: np.random.Generator) -> np.ndarray:
        """The positions to predict, in random order: pieces, or whole words as long as they fit the row's budget."""
        probability, whole_words = (0.15, False) if is_held_out else (self.mlm_probability, self.whole_words)
        budget = max(1, round(len(ids) * probability))
        candidates = np.flatnonzero(~self.is_special[ids])
        if not whole_words:
            return rng.permutation(candidates)[:budget]
        goes_on = self.is_inside_word[ids[candidates]] & ~self.is_special[ids[candidates - 1]]
        words = np.split(candidates, np.flatnonzero(~goes_on)[1:]) if len(candidates) else []
        chosen: list[np.ndarray] = []
        for number in rng.permutation(len(words)).tolist():
            if len(words[number]) <= budget:  # a word that would go over it gives way to a shorter one
                chosen.append(words[number])
                budget -= len(words[number])
        return np.concatenate(chosen or sorted(words, key=len)[:1] or [candidates])


def positions_to_read(is_masked: Tensor) -> dict[str, Tensor]:
    """What SparseBertForPreTraining takes beside a batch whose masked words are at `is_masked` (rows, length)."""
    row, column = is_masked.nonzero(as_tuple=True)
    place = is_masked.cumsum(dim=1)[row, column]  # 1, 2, … in each row: 0 is [CLS]
    read = torch.zeros(len(is_masked), 1 + int(is_masked.sum(dim=1).max()), dtype=torch.long)
    read[row, place] = column
    return {
        "masked_positions": row * is_masked.shape[1] + column,
        "read_positions": read,
        "masked_reads": row * read.shape[1] + place,
    }


def streamed_pairs(settings: Settings, training: PretrainingArguments, corpora: Corpora) -> StreamedRows:
    """The training documents as rows that are made while they are read, but for those that are scored."""
    scored = [documents for documents in (corpora.held_out, corpora.general) if documents is not None]
    return StreamedRows(
        corpus_source(settings, settings.train_file),
        partial(block_pairs, settings=settings, tokenizer=corpora.tokenizer),
        key=str(training.draw_seed),
        step_rows=training.rows_a_step,
        lanes=settings.stream_lanes or training.world_size,
        rank=training.process_index,
        processes=training.world_size,
        block_documents=settings.stream_documents,
        held_out=frozenset(chain.from_iterable(text_hashes(documents).tolist() for documents in scored)),
    )


def block_pairs(
    documents: list[list[str]], key: str, settings: Settings, tokenizer: PreTrainedTokenizerBase
) -> SentencePairs:
    """The pairs of some different documents, given as sentences."""
    rows = [row for row in tokenize_documents(documents, corpus_tokenizer(tokenizer)) if row[0]]
    if len(rows) < (1 if settings.no_next_sentence else 2):
        raise Refusal(
            f"--stream_documents {settings.stream_documents}: so many documents in a row of a lane hold {len(rows)} "
            "different one(s) with any tokens, and a random next sentence comes from another; raise it, or use fewer "
            "--stream_lanes"
        )
    columns = dict(zip(TOKENS, map(list, zip(*rows, strict=True)), strict=True))
    return SentencePairs(Dataset.from_dict(columns, features=TOKENS), tokenizer, settings, key)


# --- Report -----------------------------------------------------------------------------------------------------------


def write_report(run: Run, report: dict[str, Any]) -> None:
    """Leave the report in the run's folder, from the process that made it."""
    if report.get("documents"):
        with told_if_unwritten(run.folder, "the run's checkpoints are intact"):
            write_whole(run.folder / "corpus_report.json", json.dumps(report, indent=2) + "\n")


def head_warmup_steps(settings: Settings, pairs: SentencePairs, training: PretrainingArguments) -> int:
    """Steps for new heads to learn before the encoder does."""
    if settings.head_warmup_steps is not None:
        return settings.head_warmup_steps
    return min(HEAD_WARMUP_STEPS, planned_steps(len(pairs), training) // 5)


def corpus_report(
    corpora: Corpora, pairs: SentencePairs, settings: Settings, training: PretrainingArguments
) -> dict[str, Any]:
    """What the training documents are made of, the pairs and batches of their first epoch, and the plan.

    Returns:
        Numbers by name, as `two_stage.data.corpus_report.TABLE` explains them; shares lie between 0 and 1.
    """
    _, starts = flat_sentence_lengths(corpora.train)
    sentences = np.diff(starts)
    labels, cut = pairs.plan["label"], int(pairs.plan["cut"].sum())
    batch_rows = training.train_batch_size
    batches = pairs.lengths[list(EpochSampler(pairs, training.rows_a_step, training.draw_seed))].reshape(-1, batch_rows)
    steps = planned_steps(len(pairs), training)
    return {
        "documents": len(pairs.bounds),
        **({"streamed_sample": len(pairs.bounds)} if settings.streaming else {}),
        "sentences": int(sentences.sum()),
        "tokens": int(pairs.bounds.tokens[-1]),
        "one_sentence_documents": int((sentences == 1).sum()),
        "duplicate_documents": corpora.duplicates,
        **describe_documents(corpora.train, corpora.tokenizer, settings.held_out_file or [], settings.text_column),
        **({"new_words": len(corpora.new_words)} if settings.new_words else {}),
        "no_next_sentence": settings.no_next_sentence,
        "pairs": len(pairs),
        "random_next_share": float((labels == IS_RANDOM).sum() / max((labels != NO_LABEL).sum(), 1)),
        "no_next_share": float((labels == NO_LABEL).mean()),
        "tokens_a_pair": float(pairs.lengths.mean()),
        "truncation_share": cut / (cut + int(pairs.lengths.sum())),
        "padding_share": float(1 - batches.sum() / (batches.max(axis=1).astype(int) * batch_rows).sum()),
        "rows_a_step": training.rows_a_step,
        "steps_an_epoch": -(-len(pairs) // training.rows_a_step),
        "steps": steps,
        "train_tokens": int(steps * training.rows_a_step * pairs.lengths.mean()),
    }


# --- Model and loss ---------------------------------------------------------------------------------------------------


class SparseBertForPreTraining(SavedAsStock, BertForPreTraining):
    """BertForPreTraining whose vocabulary head answers for masked positions alone, its last layer for them and [CLS].

    The head is the widest product of the model (width × 30,522), and 85 % of its rows would be thrown away: with
    `masked_positions` (masked,), which count through rows and columns, `prediction_logits` has shape (masked,
    vocabulary) instead of (rows, length, vocabulary). `read_positions` (rows, read) are what the last layer answers
    for: [CLS], the masked ones of each row, and as many 0s as it takes; `masked_reads` (masked,) count through them.
    Weights and saved folder are those of BertForPreTraining.
    """

    stock_class = "BertForPreTraining"

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config)
        let_last_layer_read_few(self.bert)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
        next_sentence_label: Tensor | None = None,
        masked_positions: Tensor | None = None,
        read_positions: Tensor | None = None,
        masked_reads: Tensor | None = None,
        **kwargs: Any,
    ) -> BertForPreTrainingOutput:
        """Logits without a loss, which needs the counts of the whole step: see PretrainingTrainer."""
        if read_positions is not None and masked_reads is not None and can_read_few(self.bert):
            kwargs["read_positions"], masked_positions = read_positions, masked_reads
        hidden, pooled = self.bert(input_ids, attention_mask, token_type_ids, return_dict=True, **kwargs)[:2]
        if masked_positions is not None:
            hidden = hidden.flatten(0, 1)[masked_positions]
        words, next_sentence = self.cls(hidden, pooled)
        return BertForPreTrainingOutput(prediction_logits=words, seq_relationship_logits=next_sentence)


class PretrainingTrainer(ExactTrainer):
    """The sum of two means (Devlin et al. 2019, appendix A.2): over masked words, and over pairs."""

    def count_items(self, batch: dict[str, Tensor]) -> Tensor:
        """Masked words and labelled pairs of a batch: (2,)."""
        return torch.stack([batch[name].ne(NO_LABEL).sum() for name in ("labels", "next_sentence_label")])

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | None = None,
    ) -> Any:
        """Masked-word loss plus next-sentence loss, each over its items in the whole step, in nats."""
        outputs = model(**inputs)
        gold = inputs["labels"].flatten()[inputs["masked_positions"]]
        pairs = F.cross_entropy(outputs.seq_relationship_logits.float(), inputs["next_sentence_label"], reduction="sum")
        logits = outputs.prediction_logits
        words = SummedCrossEntropy.apply(logits.to(torch.float32, copy=return_outputs), gold)  # which it overwrites
        loss = self.step_mean(torch.stack([words, pairs]), num_items_in_batch)
        return (loss, outputs) if return_outputs else loss

    def row_results(self, model: nn.Module, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Of each pair the six sums that PretrainingScores adds up: (rows, 6)."""
        outputs = model(**inputs)
        labels, positions = inputs["labels"], inputs["masked_positions"]
        gold, row = labels.flatten()[positions], positions // labels.shape[1]
        word_loss = F.cross_entropy(outputs.prediction_logits.float(), gold, reduction="none")
        words_right = (outputs.prediction_logits.argmax(-1) == gold).float()
        of_words = torch.stack([torch.ones_like(word_loss), word_loss, words_right], dim=1)
        sums = of_words.new_zeros(len(labels), 3).index_add_(0, row, of_words)
        sentence_logits, is_next = outputs.seq_relationship_logits.float(), inputs["next_sentence_label"]
        sentence_loss = F.cross_entropy(sentence_logits, is_next, reduction="none")  # 0 where there is no label
        of_sentence = [is_next != NO_LABEL, sentence_loss, sentence_logits.argmax(-1) == is_next]
        return torch.cat([sums, torch.stack([column.float() for column in of_sentence], dim=1)], dim=1), is_next


def load_pretraining_model(
    checkpoint: Checkpoint, new_words: dict[int, list[int]], learns_next_sentences: bool
) -> tuple[SparseBertForPreTraining, set[str]]:
    """The checkpoint's model with its new words, and the names of the parameters that start from nothing.

    Where no pair has a next sentence, the pooler and its head are frozen: they have nothing to learn from, and weight
    decay would wear them down. Those that the checkpoint lacked are not saved, so that nobody takes them for trained.
    """
    if checkpoint.task_model:
        checkpoint.forget_head()
    model = load_model(SparseBertForPreTraining, checkpoint, new=("cls.", "bert.pooler."))
    new = set(new_tensors(model, checkpoint))
    extend_embeddings(model, new_words)
    if not learns_next_sentences:
        say("No pair has a next sentence: masked words alone, and the pooler stays as it is")
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(not name.startswith(NEXT_SENTENCE))
        model.untrained = {name for name in new if name.startswith(NEXT_SENTENCE)}
        new = {name for name in new if not name.startswith(NEXT_SENTENCE)}
    return model, new


def warm_up_heads(
    model: SparseBertForPreTraining, names: set[str], steps: int, training: PretrainingArguments, **parts: Any
) -> None:
    """Train the parameters that the checkpoint lacked, all others held still, so no gradient goes through the encoder.

    Heads that start from nothing send the encoder gradients that mean nothing, and tear at what it knows; most
    checkpoints come without these heads (on training a new head first: Kumar et al. 2022, "LP-FT").

    Args:
        model: as loaded.
        names: of the parameters to train.
        steps: optimizer steps, under a schedule of their own at HEAD_WARMUP_RATE; 0 leaves the heads new.
        training: the run's arguments; its batches, precision and seed hold here too.
        parts: what the trainer is given besides: data set, collator, tokenizer.
    """
    if not names or not steps:
        return
    arguments = arguments_aside(training, steps)
    arguments.lr_scheduler_type, arguments.lr_scheduler_kwargs = SchedulerType.LINEAR, {}
    arguments.learning_rate, arguments.head_learning_rate = HEAD_WARMUP_RATE, None
    arguments.warmup_steps = steps // 10
    say(f"{len(names)} new tensors learn first, for {steps} steps, while the encoder is held still")
    learner = copy.deepcopy(model) if is_shared_out() else model  # what was shared out once is not trained as another
    trainable = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    for name, parameter in learner.named_parameters():
        parameter.requires_grad_(name in names)
    trainer = PretrainingTrainer(model=learner, args=arguments, **parts)
    trainer.train()
    if learner is not model:
        take_parameters(model, learner, names)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(trainable[name])


def take_parameters(model: nn.Module, learner: nn.Module, names: set[str]) -> None:
    """Put parameters of a model that FSDP or DeepSpeed shared out into its twin, which is whole."""
    learned = {name: parameter for name, parameter in learner.named_parameters() if name in names}
    gathered: AbstractContextManager[Any] = nullcontext()
    if hasattr(next(iter(learned.values())), "ds_id"):  # ZeRO-3's; of ZeRO-2 each process has all
        import deepspeed

        gathered = deepspeed.zero.GatheredParameters(list(learned.values()))
    with torch.no_grad(), gathered:
        for name, parameter in learned.items():
            whole = parameter.full_tensor() if isinstance(parameter, DTensor) else parameter
            model.get_parameter(name).copy_(whole)


# --- Scores -----------------------------------------------------------------------------------------------------------


def pretraining_scores(evaluated: Any) -> dict[str, float]:
    """Masked words and next sentences scored apart, from what `row_results` kept."""
    return PretrainingScores(keep_in_memory=True).compute(rows=evaluated.predictions.tolist())


def evaluated_scores(held_out: SentencePairs) -> dict[str, float]:
    """What an evaluation of these pairs gives, by name; the values are made up."""
    return PretrainingScores(keep_in_memory=True).compute(
        rows=[[1.0, 1.0, 1.0, float(held_out.has_next_sentences), 1.0, 1.0]]
    )


def headline_scores(scores: dict[str, float]) -> dict[str, float]:
    """The losses and accuracies among what an evaluation gives, without its timings."""
    kept = ("_mlm_loss", "_mlm_accuracy", "_nsp_loss", "_nsp_accuracy")
    return {name: value for name, value in scores.items() if name.endswith(kept)}


class ScoreBefore(TrainerCallback):
    """Scores held-out and general pairs before the first step; heads that were new have learnt by then.

    It does so within `train`, where the model is spread over the processes already: accelerate would take a model that
    was scored first for one that is never trained, and each process would then train alone.
    """

    def __init__(self, trainer: PretrainingTrainer, run: Run, general: SentencePairs | None) -> None:
        self.trainer, self.splits = trainer, {"before": trainer.eval_dataset, "general_before": general}
        self.kept = run.folder / "before.json"  # for when the run goes on
        self.scores = json.loads(self.kept.read_text(encoding="utf-8")) if run.checkpoint and self.kept.exists() else {}

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Score, unless the run goes on from a checkpoint."""
        if state.global_step == 0:
            for prefix, rows in self.splits.items():
                if rows is not None:
                    self.scores |= headline_scores(self.trainer.evaluate(rows, metric_key_prefix=prefix))
            if self.trainer.is_world_process_zero():
                with told_if_unwritten(self.kept, "nothing was trained yet"):
                    write_whole(self.kept, json.dumps(self.scores, indent=2) + "\n")


class TellCosts(StepTimer):
    """Says after the first steps what all will take, and completes the corpus report by it."""

    def __init__(self, run: Run, report: dict[str, Any]) -> None:
        super().__init__()
        self.run, self.report = run, report

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Look at the clock, until it has told enough or there are no more steps."""
        if len(self.ends) == TIMED_STEPS:
            return
        super().on_step_end(args, state, control)
        if len(self.ends) == TIMED_STEPS or (state.global_step == state.max_steps and len(self.ends) > 1):
            costs = self.costs(args, state.max_steps)
            say(report_lines(costs))
            write_report(self.run, self.report | costs)


class KeepModels(TrainerCallback):
    """Keeps copies of the model on the way, to see what a shorter stage one would have been worth to stage two.

    Each is a checkpoint folder like the run's own, and cannot be gone on from: it has no optimizer. Its learning rate
    had not fallen to zero yet, so that a run of so many steps alone may end somewhat better.
    """

    def __init__(self, trainer: PretrainingTrainer, run: Run, percents: list[float], lineage: dict[str, Any]) -> None:
        self.trainer, self.folder, self.percents, self.lineage = trainer, run.folder / "kept", percents, lineage

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Clear away what a run left half done, and all of one that was cut off before its first checkpoint."""
        if self.trainer.is_world_process_zero():
            for path in [self.folder] if state.global_step == 0 else self.folder.glob(".*"):
                shutil.rmtree(path, ignore_errors=True)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Write those that are due: before the step's checkpoint, so that a run that resumes has missed none."""
        for percent in self.percents:
            # 8.8 % of 375 steps come out as 33.00000000000001
            if state.global_step == math.ceil(state.max_steps * percent / 100 - 1e-9):
                self.write(self.folder / f"{percent:.10g}-percent", state.global_step)

    def write(self, folder: Path, steps: int) -> None:
        """Save the model as it is now, whole or not at all, with its lineage."""
        partial_folder = folder.with_name(f".{folder.name}")
        with told_if_unwritten(folder, "the run's checkpoints are intact"):
            self.trainer.save_model(str(partial_folder), _internal_call=True)  # a push to the Hub is for the end
            if self.trainer.is_world_process_zero():
                made = self.lineage | {"steps": steps} | saved_hashes(partial_folder)
                write_lineage(partial_folder, made)
                put_in_place(partial_folder, folder)
                say(f"Kept the model after {steps:,} steps in {folder}")


def train_and_score(trainer: PretrainingTrainer, run: Run, general: SentencePairs | None) -> dict[str, float]:
    """Train, and score held-out and general pairs before and after."""
    before = ScoreBefore(trainer, run, general)
    trainer.add_callback(before)
    scores = trainer.train_and_evaluate(run.checkpoint) | before.scores
    if general is not None:
        scores |= headline_scores(trainer.evaluate(general, metric_key_prefix="general"))
    return scores


# --- Main -------------------------------------------------------------------------------------------------------------


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Run stage one; returns the scores that stand in all_results.json, or with --check_only the corpus report."""
    started = time.time()
    settings, training, recipe = parse_flags(argv, Settings, PretrainingArguments, QUICKSTART, __doc__)
    checkpoint = open_checkpoint(settings.checkpoint)
    check_settings(settings, training, checkpoint)
    data = {flag: getattr(settings, flag) for flag in ("train_file", "validation_file", "forgetting_file")}
    lineage = trace_lineage(SCRIPT, checkpoint, data, FORMATS, training.rows_a_step, training.resolved_precision)
    if settings.dataset:
        lineage["data"]["dataset"] = dataset_key(settings)
    run = open_run(training.output_dir, recipe, lineage, settings.check_only, resume_anyway=training.resume_anyway)
    if run.scores is not None:
        return left_as_it_is(run, training)
    with training.main_process_first(desc="reading the corpus"):
        corpora = read_corpora(settings, checkpoint.tokenizer)
    tokenizer = corpora.tokenizer
    lineage["tokenizer_sha256"] = tokenizer_sha256(tokenizer)
    pairs = SentencePairs(corpora.train, tokenizer, settings, training.draw_seed)
    held_out, general = (
        SentencePairs(documents, tokenizer, settings, None) if documents is not None else None
        for documents in (corpora.held_out, corpora.general)
    )
    training.check_best_model(evaluated_scores(held_out) if held_out else None)
    report = corpus_report(corpora, pairs, settings, training) if training.process_index == 0 else {}
    parts = {
        "train_dataset": streamed_pairs(settings, training, corpora) if settings.streaming else pairs,
        "processing_class": tokenizer,
        "data_collator": RowKeyedMasking(
            tokenizer, mlm_probability=settings.mask_probability, whole_words=settings.whole_word_masking
        ),
    }

    set_seed(training.seed)
    learns_next = not settings.no_next_sentence if settings.streaming else pairs.has_next_sentences
    model, new = load_pretraining_model(checkpoint, corpora.new_words, learns_next)
    if settings.check_only:
        report |= time_steps(PretrainingTrainer, model, training, planned_steps(len(pairs), training), **parts)
    say(report_lines(report))
    if settings.check_only:
        return report
    begin_run(run, recipe, lineage)
    if run.checkpoint is None:
        write_report(run, report)
        warm_up_heads(model, new, head_warmup_steps(settings, pairs, training), training, **parts)
    trainer = PretrainingTrainer(
        model=model, args=training, eval_dataset=held_out, compute_metrics=pretraining_scores, **parts
    )
    if run.checkpoint is None:
        trainer.add_callback(TellCosts(run, report))
    trainer.add_callback(KeepModels(trainer, run, settings.keep_at or [], lineage))
    scores = train_and_score(trainer, run, general)
    scores["total_runtime"] = time.time() - started
    finish_run(trainer, run, lineage, scores, CARD)
    return scores


if __name__ == "__main__":
    run_script(main)
