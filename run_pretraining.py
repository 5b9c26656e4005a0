"""Stage one: go on pretraining a BERT on the raw text of a domain, by masked words and next sentences.

    python run_pretraining.py
    python run_pretraining.py --checkpoint bert-base-uncased --train_file news.csv --output_dir outputs/news
    accelerate launch run_pretraining.py --recipe recipes/quickstart/pretraining.yaml

Documents become sentence pairs as in BERT's own recipe (Devlin et al. 2019, section 3.1 and appendix A.2), new ones
every epoch; half of the second sentences come from another document. 15 % of the word pieces are masked, and
BertForPreTraining learns to name them and to tell the pairs apart. Stage two (run_sentiment.py, run_ner.py) takes the
encoder and its pooler from the folder that this leaves.
"""

import hashlib
import json
import math
import random
import time
from array import array
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import BertForPreTraining, DataCollatorForLanguageModeling, PreTrainedTokenizerBase, set_seed
from transformers.models.bert.modeling_bert import BertForPreTrainingOutput

from two_stage.checkpoints import begin_run, left_as_it_is, open_run
from two_stage.corpus import FORMATS, load_corpus, sentence_lengths
from two_stage.handoff import SavedAsStock, load_model, open_checkpoint, trace_lineage
from two_stage.recipe import Refusal, check_range, parse_flags, run_script, say
from two_stage.report import Card, finish_run
from two_stage.scores import PretrainingScores
from two_stage.trainer import EpochSampler, ExactTrainer, ExactTrainingArguments, pad_rows

SCRIPT, QUICKSTART = "run_pretraining.py", "recipes/quickstart/pretraining.yaml"
CARD = Card(
    "BERT, pretrained further on the text of a domain",
    "from transformers import AutoTokenizer, BertForPreTraining, BertModel\n\n"
    'tokenizer = AutoTokenizer.from_pretrained("FOLDER")\n'
    'encoder = BertModel.from_pretrained("FOLDER")  # encoder and pooler, for stage two\n'
    'model = BertForPreTraining.from_pretrained("FOLDER")  # with the masked-word and next-sentence heads',
)
SPECIAL_TOKENS = 3  # [CLS] A [SEP] B [SEP]

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
    validation_fraction: float = field(default=0.05, metadata={"help": "of the documents, without a validation_file"})
    text_column: str = field(default="text", metadata={"help": "where a table has its documents"})
    language: str = field(default="en", metadata={"help": "of a table's texts, for splitting sentences: en, de, zh …"})
    max_length: int = field(default=128, metadata={"help": "tokens a pair, with [CLS] and both [SEP]"})
    max_train_samples: int | None = field(default=None, metadata={"help": "documents to use, for a quick try"})
    mask_probability: float = field(default=0.15, metadata={"help": "share of word pieces to predict"})
    short_pair_probability: float = field(default=0.1, metadata={"help": "share of documents cut to shorter pairs"})
    random_next_probability: float = field(default=0.5, metadata={"help": "chance of B from another document"})
    preprocessing_workers: int | None = field(default=None, metadata={"help": "processes that tokenize"})
    check_only: bool = field(default=False, metadata={"help": "read, check and report; train nothing"})

    def __post_init__(self) -> None:
        """Refuse what is out of range."""
        check_range(self, 0, 1, "mask_probability", "short_pair_probability", "random_next_probability")
        check_range(self, 0, 1, "validation_fraction")
        check_range(self, 1, math.inf, "max_train_samples", "preprocessing_workers")


@dataclass
class PretrainingArguments(ExactTrainingArguments):
    """Stage one's defaults: BERT's own optimizer (Devlin et al. 2019, appendix A.2) at a rate for going on."""

    output_dir: str = field(default="outputs/pretraining", metadata={"help": "one run a folder"})
    learning_rate: float = field(default=5e-5, metadata={"help": "1e-4 from scratch, 2e-5 to 5e-5 to go on"})
    adam_epsilon: float = field(default=1e-6, metadata={"help": "BERT's own"})
    per_device_train_batch_size: int = field(default=32, metadata={"help": "pairs a process and forward pass"})
    per_device_eval_batch_size: int = field(default=64, metadata={"help": "pairs a process"})
    num_train_epochs: float = field(default=3.0, metadata={"help": "passes, each with new pairs and masks"})
    logging_steps: float = field(default=50, metadata={"help": "steps between two lines of the learning curve"})
    eval_strategy: str = field(default="epoch", metadata={"help": "when to score the held-out documents"})
    save_total_limit: int | None = field(default=2, metadata={"help": "checkpoints to keep"})


# --- Data: documents → sentence pairs → masked batches ----------------------------------------------------------------

PAIR = ("a_document", "a_start", "a_stop", "b_document", "b_start", "b_stop", "is_random")


def keyed(*key: object) -> int:
    """A 64-bit number that depends on `key` alone: the seed of every draw, so that no draw depends on another."""
    return int.from_bytes(hashlib.blake2b("/".join(map(str, key)).encode(), digest_size=8).digest(), "little")


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
    document: int, offsets: list[np.ndarray], limit: int, settings: Settings, rng: random.Random
) -> Iterator[tuple[int, ...]]:
    """The sentence pairs of one document, after google-research/bert, create_pretraining_data.py.

    Whole sentences are gathered into a chunk until it is `target` tokens long; the chunk is cut in two at a random
    sentence; the second half stays (label 0, is next) or gives way to a stretch of another document (label 1), and
    then goes back to be used again. A chunk of one sentence has no second half, so its pair is always random.

    Args:
        document: which one.
        offsets: for each document the token offset of each sentence and, last, the document's length: int (sentences
            + 1,). A random B comes from any other document, so there must be two.
        limit: tokens that A and B may have together, at least 2.
        settings: short_pair_probability and random_next_probability.
        rng: the document's own.

    Yields:
        One tuple a pair, as PAIR names it: a pair is two token ranges, of this document and of B's.
    """
    sentences = offsets[document].tolist()
    count = len(sentences) - 1
    target = rng.randint(2, limit) if rng.random() < settings.short_pair_probability else limit
    first = 0
    while first < count:  # the chunk is sentences first … end - 1, A is first … split - 1
        end = min(bisect_left(sentences, sentences[first] + target, lo=first + 1), count)
        split = rng.randint(first + 1, end - 1) if end - first > 1 else end
        a_start, a_stop = sentences[first], sentences[split]
        if end - first == 1 or rng.random() < settings.random_next_probability:
            other = rng.randrange(len(offsets) - 1)
            other += other >= document
            b_start, b_stop = random_stretch(offsets[other], target - (a_stop - a_start), rng)
            first = split  # the second half goes back
        else:
            other, b_start, b_stop = document, a_stop, sentences[end]
            first = end
        a_length, b_length = truncated_lengths(a_stop - a_start, b_stop - b_start, limit)
        a_start, a_stop = cut_range(a_start, a_stop, a_length, rng)
        b_start, b_stop = cut_range(b_start, b_stop, b_length, rng)
        yield document, a_start, a_stop, other, b_start, b_stop, int(other != document)


def random_stretch(sentences: np.ndarray, target: int, rng: random.Random) -> tuple[int, int]:
    """A token range from a random sentence's start to the end of the first sentence that makes it `target` long."""
    first = rng.randrange(len(sentences) - 1)
    end = int(np.searchsorted(sentences, sentences[first] + target))
    return int(sentences[first]), int(sentences[min(max(end, first + 1), len(sentences) - 1)])


class SentencePairs(torch.utils.data.Dataset):
    """The pairs of one epoch, planned as token ranges and put together when they are read.

    Every draw is keyed by (seed, epoch, document), so the pairs are the same for any number of workers and processes
    and after a resume. All epochs have as many rows as the first: a plan that comes out longer or shorter loses or
    repeats a few pairs at its end, where other documents stand every time.
    """

    def __init__(self, documents: Dataset, tokenizer: PreTrainedTokenizerBase, settings: Settings, key: str) -> None:
        self.documents = documents.with_format("numpy", columns=["input_ids"])
        self.offsets = [np.concatenate([[0], np.cumsum(lengths)]) for lengths in sentence_lengths(documents)]
        self.limit = settings.max_length - SPECIAL_TOKENS
        self.cls, self.sep = tokenizer.cls_token_id, tokenizer.sep_token_id
        self.settings, self.key = settings, key
        # shared, so that data workers that outlive an epoch see the next one
        self.epoch = torch.zeros((), dtype=torch.long).share_memory_()
        self.planned_epoch, self.plan = 0, self.plan_epoch(0)
        self.rows = len(self.plan)

    def plan_epoch(self, epoch: int) -> np.ndarray:
        """The pairs of `epoch` over the documents in a new order: int64 (pairs, 7), columns as PAIR names them."""
        order = np.random.default_rng(keyed(self.key, epoch)).permutation(len(self.offsets))
        plan = array("q")  # eight bytes a number, where a list of tuples would take sixty
        for document in order.tolist():
            rng = random.Random(keyed(self.key, epoch, document))
            for pair in document_pairs(document, self.offsets, self.limit, self.settings, rng):
                plan.extend(pair)
        return np.frombuffer(plan, dtype=np.int64).reshape(-1, len(PAIR))

    def set_epoch(self, epoch: int) -> None:
        """Plan the pairs of `epoch`."""
        self.epoch.fill_(epoch)
        if self.planned_epoch != epoch:
            self.planned_epoch, self.plan = epoch, np.resize(self.plan_epoch(epoch), (self.rows, len(PAIR)))

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each pair, special ones counted: int64 (pairs,)."""
        return self.plan[:, 2] - self.plan[:, 1] + self.plan[:, 5] - self.plan[:, 4] + SPECIAL_TOKENS

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, row: int) -> dict[str, Any]:
        self.set_epoch(int(self.epoch))
        a_document, a_start, a_stop, b_document, b_start, b_stop, is_random = self.plan[row].tolist()
        a = self.documents[a_document]["input_ids"][a_start:a_stop]
        b = self.documents[b_document]["input_ids"][b_start:b_stop]
        return {
            "input_ids": np.concatenate([[self.cls], a, [self.sep], b, [self.sep]]),
            "token_type_ids": np.repeat([0, 1], [len(a) + 2, len(b) + 1]),
            "next_sentence_label": is_random,
            "mask_key": keyed(self.key, self.planned_epoch, row, "mask"),
        }


class RowKeyedMasking(DataCollatorForLanguageModeling):
    """Transformers' masking (80 % [MASK], 10 % another word, 10 % kept), drawn row by row from the row's own key.

    The stock collator draws for the whole batch at once, so its masks change with the batch's shape, the number of
    workers and after a resume.
    """

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Rows of SentencePairs → input_ids, token_type_ids, attention_mask, labels (rows, longest), and NSP labels."""
        never = torch.tensor([id for id in self.tokenizer.all_special_ids if id != self.tokenizer.unk_token_id])
        rows = []
        for row in examples:
            self.generator = torch.Generator().manual_seed(row["mask_key"])
            ids = torch.tensor(row["input_ids"])[None]  # a copy: masking works in place
            masked, labels = self.torch_mask_tokens(ids, special_tokens_mask=torch.isin(ids, never))
            rows.append({**row, "input_ids": masked[0], "labels": labels[0]})
        padding = {"input_ids": self.tokenizer.pad_token_id, "token_type_ids": 0, "labels": -100}
        return pad_rows(rows, padding, fixed=("next_sentence_label",))


def split_documents(settings: Settings, tokenizer: PreTrainedTokenizerBase, seed: int) -> tuple[Dataset, Dataset]:
    """Training and held-out documents; whole documents are held out, never pairs of one that is trained on."""

    def load(paths: list[str], limit: int | None = None) -> Dataset:
        workers = settings.preprocessing_workers
        return load_corpus(paths, settings.text_column, tokenizer, workers, settings.language, limit)

    if settings.train_file is None:
        raise Refusal("no --train_file given: the documents to train on")
    train = load(settings.train_file, settings.max_train_samples)
    if settings.validation_file:
        held_out = load(settings.validation_file)
    else:
        count = max(2, round(len(train) * settings.validation_fraction)) if settings.validation_fraction else 0
        order = np.random.default_rng(keyed(seed, "held out")).permutation(len(train))
        train, held_out = train.select(sorted(order[count:])), train.select(sorted(order[:count]))
    for name, documents in (("train", train), ("validation", held_out)):
        if len(documents) == 1 or (name == "train" and not len(documents)):
            raise Refusal(
                f"{len(documents)} document(s) to {name} on: a random next sentence comes from another, "
                "so there must be two; in a .txt a blank line ends a document"
            )
    return train, held_out


def corpus_report(pairs: SentencePairs, training: PretrainingArguments) -> dict[str, float]:
    """What the training documents are made of, and the pairs and batches of their first epoch."""
    batch_rows = training.train_batch_size
    order = list(EpochSampler(pairs, training.rows_a_step, training.seed))
    batches = pairs.lengths[order].reshape(-1, batch_rows)
    return {
        "documents": len(pairs.offsets),
        "sentences": int(sum(len(offsets) - 1 for offsets in pairs.offsets)),
        "tokens": int(sum(offsets[-1] for offsets in pairs.offsets)),
        "pairs": len(pairs),
        "random_next_share": float(pairs.plan[:, -1].mean()),
        "tokens_a_pair": float(pairs.lengths.mean()),
        "padding_share": float(1 - batches.sum() / (batches.max(axis=1) * batch_rows).sum()),
    }


# --- Model and loss ---------------------------------------------------------------------------------------------------


class SparseBertForPreTraining(SavedAsStock, BertForPreTraining):
    """BertForPreTraining whose vocabulary head looks at the masked positions alone.

    The head is the widest product of the model (width × 30,522), and 85 % of its rows would be thrown away: with
    labels given, `prediction_logits` has shape (masked, vocabulary), in reading order, instead of (rows, length,
    vocabulary). Weights, state dict and saved folder are those of BertForPreTraining.
    """

    stock_class = "BertForPreTraining"

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
        next_sentence_label: Tensor | None = None,
        **kwargs: Any,
    ) -> BertForPreTrainingOutput:
        """Logits without a loss, which needs the counts of the whole step: see PretrainingTrainer."""
        hidden, pooled = self.bert(input_ids, attention_mask, token_type_ids, return_dict=True, **kwargs)[:2]
        if labels is not None:
            hidden = hidden[labels != -100]
        words, next_sentence = self.cls(hidden, pooled)
        return BertForPreTrainingOutput(prediction_logits=words, seq_relationship_logits=next_sentence)


class PretrainingTrainer(ExactTrainer):
    """The sum of two means (Devlin et al. 2019, appendix A.2): over masked words, and over pairs."""

    def count_items(self, batch: dict[str, Tensor]) -> Tensor:
        """Masked words and pairs of a batch: (2,)."""
        return torch.stack([batch["labels"].ne(-100).sum(), torch.tensor(len(batch["labels"])).to(batch["labels"])])

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | None = None,
    ) -> Any:
        """Masked-word loss plus next-sentence loss, each over its items in the whole step, in nats."""
        outputs = model(**inputs)
        gold = inputs["labels"][inputs["labels"] != -100]
        words = F.cross_entropy(outputs.prediction_logits.float(), gold, reduction="sum")
        pairs = F.cross_entropy(outputs.seq_relationship_logits.float(), inputs["next_sentence_label"], reduction="sum")
        loss = self.step_mean(torch.stack([words, pairs]), num_items_in_batch)
        return (loss, outputs) if return_outputs else loss

    def row_results(self, model: nn.Module, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Of each pair: masked words, their loss, how many right, next-sentence loss, whether right: (rows, 5)."""
        outputs = model(**inputs)
        is_masked = inputs["labels"] != -100
        gold, row = inputs["labels"][is_masked], is_masked.nonzero()[:, 0]
        word_loss = F.cross_entropy(outputs.prediction_logits.float(), gold, reduction="none")
        words_right = (outputs.prediction_logits.argmax(-1) == gold).float()
        of_words = torch.stack([torch.ones_like(word_loss), word_loss, words_right], dim=1)
        sums = of_words.new_zeros(len(is_masked), 3).index_add_(0, row, of_words)
        sentence_logits, is_next = outputs.seq_relationship_logits.float(), inputs["next_sentence_label"]
        sentence_loss = F.cross_entropy(sentence_logits, is_next, reduction="none")
        sentence_right = (sentence_logits.argmax(-1) == is_next).float()
        return torch.cat([sums, sentence_loss[:, None], sentence_right[:, None]], dim=1), is_next


# --- Scores -----------------------------------------------------------------------------------------------------------


def pretraining_scores(evaluated: Any) -> dict[str, float]:
    """Masked words and next sentences scored apart, from what `row_results` kept."""
    return PretrainingScores(keep_in_memory=True).compute(rows=evaluated.predictions.tolist())


# --- Main -------------------------------------------------------------------------------------------------------------


def main(argv: list[str] | None = None) -> dict[str, float]:
    """Run stage one; returns the scores that stand in all_results.json."""
    started = time.time()
    settings, training, recipe = parse_flags(argv, Settings, PretrainingArguments, QUICKSTART, __doc__)
    checkpoint = open_checkpoint(settings.checkpoint)
    checkpoint.check_length(settings.max_length)
    data = {"train_file": settings.train_file, "validation_file": settings.validation_file}
    lineage = trace_lineage(SCRIPT, checkpoint, data, FORMATS, training.rows_a_step)
    run = open_run(training.output_dir, recipe, lineage, settings.check_only)
    if run.scores is not None:
        return left_as_it_is(run)
    with training.main_process_first(desc="reading the corpus"):
        train, held_out = split_documents(settings, checkpoint.tokenizer, training.seed)
    pairs = SentencePairs(train, checkpoint.tokenizer, settings, f"{training.seed}/train")
    report = corpus_report(pairs, training)
    say("\n".join(f"{name:>18}  {value:,.3f}".removesuffix(".000") for name, value in report.items()))
    if settings.check_only:
        return report

    set_seed(training.seed)
    model = load_model(SparseBertForPreTraining, checkpoint, new=("cls.", "bert.pooler."))
    begin_run(run, recipe, lineage)
    trainer = PretrainingTrainer(
        model=model,
        args=training,
        train_dataset=pairs,
        eval_dataset=SentencePairs(held_out, checkpoint.tokenizer, settings, f"{training.seed}/held out"),
        processing_class=checkpoint.tokenizer,
        data_collator=RowKeyedMasking(checkpoint.tokenizer, mlm_probability=settings.mask_probability),
        compute_metrics=pretraining_scores,
    )
    scores = trainer.train_and_evaluate(run.checkpoint)
    if trainer.is_world_process_zero():
        (run.folder / "corpus_report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    scores["total_runtime"] = time.time() - started
    finish_run(trainer, run, lineage, scores, CARD)
    return scores


if __name__ == "__main__":
    run_script(main)
