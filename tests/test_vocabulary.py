"""New words: counted as by hand, put where greedy longest match finds them, and started at the mean of their pieces."""

import copy
import json
import random
import string
from collections import Counter
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer, BertConfig, BertForPreTraining, BertModel, BertTokenizer, set_seed

from two_stage.checkpointing.handoff import open_checkpoint, tokenizer_sha256
from two_stage.command_line.exits import Refusal
from two_stage.data import vocabulary
from two_stage.data.corpus import TOKENS
from two_stage.data.vocabulary import (
    WordCounts,
    choose_new_words,
    count_words,
    extend_embeddings,
    extend_tokenizer,
    most_fragmented,
)

LETTERS = [*string.ascii_lowercase, "é", *string.digits, ".", ","]
PIECES = [*LETTERS, *(f"##{letter}" for letter in LETTERS), "e", "##bit", "##da", "cash", "inter", "##national", "rate"]
SPECIAL = "[PAD] [unused1] [unused0] [UNK] [CLS] [SEP] [MASK] [unused2]".split()
VOCABULARY = [*SPECIAL, *dict.fromkeys(PIECES)]
UNUSED_IDS = [1, 2, 7]


def made_tokenizer(**settings: bool) -> BertTokenizer:
    """A tokenizer of letters and a few pieces, with three [unused…] rows out of order of their names."""
    return BertTokenizer(vocab={piece: i for i, piece in enumerate(VOCABULARY)}, model_max_length=64, **settings)


def made_model(rows: int, seed: int = 0) -> BertForPreTraining:
    """A tiny model whose decoder's bias, too, is none of zeros."""
    set_seed(seed)
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    model = BertForPreTraining(BertConfig(vocab_size=rows, max_position_embeddings=64, **sizes))
    with torch.no_grad():
        model.cls.predictions.bias.normal_()
    return model


def data_set(documents: list[list[list[int]]]) -> Dataset:
    """Documents of sentences of ids, as `load_corpus` lays them out."""
    ids = [[id for sentence in document for id in sentence] for document in documents]
    lengths = [[len(sentence) for sentence in document] for document in documents]
    return Dataset.from_dict({"input_ids": ids, "sentence_lengths": lengths}, features=TOKENS)


def counts_of(texts: list[str], tokenizer: BertTokenizer) -> WordCounts:
    """The counts of documents of one sentence each."""
    documents = [[ids] for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]
    return count_words(data_set(documents), tokenizer)


def counted_one_by_one(documents: list[list[list[int]]], tokenizer: BertTokenizer) -> WordCounts:
    """What `count_words` must find, piece by piece."""
    counts, words = WordCounts(), []
    for document in documents:
        for sentence in document:
            for place, piece in enumerate(tokenizer.convert_ids_to_tokens(sentence)):
                if place == 0 or not piece.startswith("##"):
                    words.append([])
                words[-1].append(sentence[place])
                counts.unknown += piece == "[UNK]"
    counts.tokens, counts.words = sum(map(len, words)), len(words)
    counts.fragmented = Counter(tuple(word) for word in words if len(word) > 1)
    return counts


def cut_one_by_one(word: str, pieces: set[str]) -> list[str]:
    """Greedy longest match (Wu et al. 2016), written down again."""
    cut, start = [], 0
    while start < len(word):
        prefix = "##" if start else ""
        ends = range(len(word), start, -1)
        end = next((end for end in ends if prefix + word[start:end] in pieces), None)
        if end is None:
            return ["[UNK]"]
        cut.append(prefix + word[start:end])
        start = end
    return cut


SENTENCES = st.lists(st.sampled_from([3, 60, 61, 62, *range(70, len(VOCABULARY))]), min_size=1, max_size=8)
DOCUMENTS = st.lists(st.lists(SENTENCES, min_size=1, max_size=4), min_size=1, max_size=9)


@pytest.mark.slow
@given(documents=DOCUMENTS, order=st.randoms(use_true_random=False), batch=st.integers(1, 10))
def test_counts_are_those_of_a_count_piece_by_piece(
    documents: list[list[list[int]]], order: random.Random, batch: int
) -> None:
    """Over batches of any size, and over rows that an index chose."""
    tokenizer, rows = made_tokenizer(), list(range(len(documents)))
    order.shuffle(rows)
    chosen = rows[: (len(rows) + 1) // 2]  # as a filter leaves it: rows of a larger table, by an index
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vocabulary, "DOCUMENTS_A_BATCH", batch)
        whole, part = data_set(documents), data_set(documents).select(chosen)
        assert count_words(whole, tokenizer) == counted_one_by_one(documents, tokenizer)
        assert count_words(part, tokenizer) == counted_one_by_one([documents[row] for row in chosen], tokenizer)


def test_a_sentence_begins_a_word_even_with_a_continuing_piece() -> None:
    """No word runs on into the next sentence or document."""
    tokenizer = made_tokenizer()
    rate, bit = tokenizer.convert_tokens_to_ids(["rate", "##bit"])
    counts = count_words(data_set([[[rate], [bit, bit]], [[bit]]]), tokenizer)
    assert (counts.words, counts.fragmented) == (3, {(bit, bit): 1})


def test_shares_are_of_words() -> None:
    """Both ratios by hand, and of nothing at all."""
    counts = counts_of(["cash ebitda", "cash ü"], made_tokenizer(strip_accents=False))
    assert counts.pieces_per_word == 6 / 4
    assert counts.unknown_share == 1 / 4
    assert (WordCounts().pieces_per_word, WordCounts().unknown_share) == (1, 0)


def test_a_large_corpus_is_counted_on_a_random_sample_of_documents() -> None:
    """The same one for the same seed, not the first rows, and never empty."""
    tokenizer = made_tokenizer()
    documents = data_set([[[8 + row % 26] * 10] for row in range(40)])
    assert count_words(documents, tokenizer, most_tokens=400).tokens == 400
    samples = [vocabulary.sample_documents(documents, 95, seed)["input_ids"][:] for seed in (0, 0, 1)]
    assert [len(sample) for sample in samples] == [10, 10, 10]
    assert samples[0] == samples[1] != samples[2]
    assert samples[0] != documents["input_ids"][:10]
    assert count_words(documents, tokenizer, most_tokens=95).tokens == 100
    assert count_words(documents, tokenizer, most_tokens=1).tokens == 10


def test_most_fragmented_words_are_those_whose_pieces_cost_most() -> None:
    """By (pieces - 1) × occurrences, then by name; no digits, no words of two letters."""
    texts = ["ebitda"] * 3 + ["zab"] * 3 + ["yab"] * 3 + ["dlrs"] + ["ab"] * 99 + ["q4x"] * 99 + ["international"] * 4
    counts = counts_of(texts, made_tokenizer())
    found = most_fragmented(counts, made_tokenizer(), 9)
    assert [(word.word, word.occurrences, word.saved) for word in found] == [
        ("ebitda", 3, 6),
        ("yab", 3, 6),
        ("zab", 3, 6),
        ("international", 4, 4),
        ("dlrs", 1, 3),
    ]
    assert found[0].pieces == ("e", "##bit", "##da")
    assert most_fragmented(counts, made_tokenizer(), 2) == found[:2]


def test_new_words_are_met_often_and_as_the_tokenizer_reads_them() -> None:
    """A lower-casing tokenizer's new words have no capitals or accents, a cased one's may."""
    texts = ["EBITDA Café"] * 6 + ["dlrs"] * 4 + ["cash a-b-c 12345"] * 9
    lower, cased = made_tokenizer(), made_tokenizer(do_lower_case=False)
    assert choose_new_words(counts_of(texts, lower), lower, 9) == ["cafe", "ebitda"]
    assert choose_new_words(counts_of(texts, lower), lower, 9, minimum_count=4) == ["cafe", "dlrs", "ebitda"]
    assert choose_new_words(counts_of(texts, lower), lower, 1) == ["cafe"]
    # no capital is in the vocabulary, so the cased twin knows none of these; lower-case ones it cuts, accents and all
    assert choose_new_words(counts_of(texts, cased), cased, 9) == []
    assert choose_new_words(counts_of(["café"] * 5, cased), cased, 9) == ["café"]


def test_a_word_that_the_tokenizer_would_read_otherwise_is_not_chosen() -> None:
    """Ids that no text of this tokenizer gives: an accent it takes off, a word that it knows whole."""
    lower = made_tokenizer()
    ids = lower.convert_tokens_to_ids(["c", "##a", "##f", "##é"])
    counts = WordCounts(fragmented=Counter({tuple(ids): 9, tuple(ids[:3]): 9}))
    assert choose_new_words(counts, lower, 9) == ["caf"]  # "café" would lose its accent before WordPiece sees it
    known = lower.convert_tokens_to_ids(["c", "##a", "##s", "##h"])
    assert choose_new_words(WordCounts(fragmented=Counter({tuple(known): 9})), lower, 9) == []


def test_new_words_take_the_unused_rows_first_and_then_those_behind() -> None:
    """In order of id, every other entry where it was, without a gap; the old tokenizer untouched."""
    tokenizer = made_tokenizer()
    before = tokenizer_sha256(tokenizer)
    extended, pieces = extend_tokenizer(tokenizer, ["ebitda", "dlrs", "opec", "pct", "cts"])
    size = len(VOCABULARY)
    new_ids = [*UNUSED_IDS, size, size + 1]
    assert list(pieces) == new_ids == extended.convert_tokens_to_ids(["ebitda", "dlrs", "opec", "pct", "cts"])
    cut = tokenizer("pct")["input_ids"][1:-1]
    assert pieces[size] == cut
    assert tokenizer.convert_ids_to_tokens(pieces[1]) == ["e", "##bit", "##da"]
    assert sorted(extended.get_vocab().values()) == list(range(size + 2))
    old = {piece: id for piece, id in tokenizer.get_vocab().items() if id not in UNUSED_IDS}
    assert old.items() <= extended.get_vocab().items()
    assert tokenizer_sha256(tokenizer) == before != tokenizer_sha256(extended)
    assert len(tokenizer) == size


def test_an_extended_tokenizer_comes_back_from_its_folder(tmp_path: Path) -> None:
    """Class, settings and special tokens too, and beside a vocab.txt that says otherwise."""
    tokenizer = made_tokenizer(do_lower_case=False)
    extended, _ = extend_tokenizer(tokenizer, ["ebitda", "café", "opec", "pct"])
    (tmp_path / "vocab.txt").write_text("\n".join(VOCABULARY), encoding="utf-8")  # left by another; not read
    written = extended.save_pretrained(tmp_path)
    assert {Path(file).name for file in written} == {"tokenizer.json", "tokenizer_config.json"}
    again = AutoTokenizer.from_pretrained(tmp_path)
    for loaded in (extended, again):
        assert type(loaded) is type(tokenizer)
        assert loaded.special_tokens_map == tokenizer.special_tokens_map
        assert loaded.all_special_ids == tokenizer.all_special_ids
        assert loaded.added_tokens_encoder == tokenizer.added_tokens_encoder
        assert loaded.model_max_length == tokenizer.model_max_length
        assert loaded.do_lower_case is False
        assert loaded.tokenize("ebitda café Pct pct") == ["ebitda", "café", "[UNK]", "pct"]
    assert tokenizer_sha256(again) == tokenizer_sha256(extended)
    assert extended.name_or_path == tokenizer.name_or_path
    assert getattr(extended, "vocab_file", None) is None  # transformers would copy the old file in save_vocabulary
    saved = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    assert not {"ebitda", "café", "opec", "pct"} & {token["content"] for token in saved["added_tokens"]}


def test_no_new_words_leave_the_tokenizer_as_it_is() -> None:
    """A copy that cuts, hash for hash, alike."""
    tokenizer = made_tokenizer()
    extended, pieces = extend_tokenizer(tokenizer, [])
    assert pieces == {}
    assert extended is not tokenizer
    assert extended.get_vocab() == tokenizer.get_vocab()
    assert tokenizer_sha256(extended) == tokenizer_sha256(tokenizer)


NEW_WORDS = ["ebitda", "dlr", "internat", "cas", "ebit"]
WORDS = st.one_of(
    st.text(string.ascii_lowercase + "é1", min_size=1, max_size=7),
    st.builds(str.__add__, st.sampled_from([*NEW_WORDS, "international", "cash", "rate"]), st.text("abds", max_size=3)),
)
EXTENDED = extend_tokenizer(made_tokenizer(strip_accents=False), NEW_WORDS)[0]


@given(words=st.lists(WORDS, min_size=1, max_size=6))
def test_only_words_that_begin_with_a_new_one_are_cut_otherwise(words: list[str]) -> None:
    """All else has the ids that it had; those are cut as a twin cuts them."""
    old = made_tokenizer(strip_accents=False)
    pieces = set(VOCABULARY) | set(NEW_WORDS)
    assert EXTENDED.tokenize(" ".join(words)) == [piece for word in words for piece in cut_one_by_one(word, pieces)]
    others = [word for word in words if not word.startswith(tuple(NEW_WORDS))]
    assert EXTENDED(" ".join(others))["input_ids"] == old(" ".join(others))["input_ids"]


def test_a_new_word_is_matched_whole_or_as_a_beginning_and_never_inside() -> None:
    """Unlike a token of `add_tokens`."""
    extended, _ = extend_tokenizer(made_tokenizer(), ["ebitda"])
    assert extended.tokenize("EBITDA") == ["ebitda"]
    assert extended.tokenize("ebitdas") == ["ebitda", "##s"]
    assert extended.tokenize("xebitda") == made_tokenizer().tokenize("xebitda")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["cash"], "in the vocabulary already"),
        (["[CLS]"], "in the vocabulary already"),
        (["opec", "opec"], "given 2 times"),
        (["OPEC"], "reads it as 'opec'"),
        (["café"], "reads it as 'cafe'"),
        (["net-debt"], "reads it as 'net' '-' 'debt'"),
        ([" "], "reads it as nothing"),
        (["##bank"], "reads it as '#' '#' 'bank'"),
        (["ßßß"], r"is \[UNK\] to the tokenizer"),
    ],
)
def test_words_that_cannot_be_taken_are_refused(words: list[str], said: str) -> None:
    """By name, and with what the tokenizer makes of them."""
    with pytest.raises(Refusal, match=said):
        extend_tokenizer(made_tokenizer(), ["pct", *words])


def test_tokens_added_behind_the_vocabulary_keep_their_ids() -> None:
    """So there is room in the unused rows only."""
    tokenizer = made_tokenizer()
    tokenizer.add_tokens(["<ticker>"])
    extended, pieces = extend_tokenizer(tokenizer, ["opec", "pct", "cts"])
    assert list(pieces) == UNUSED_IDS
    assert extended.convert_tokens_to_ids("<ticker>") == len(VOCABULARY)
    with pytest.raises(Refusal, match=r"<ticker>.* 3 \[unused\] rows only"):
        extend_tokenizer(tokenizer, ["opec", "pct", "cts", "dlrs"])


def test_an_unused_row_that_is_an_added_token_is_not_taken() -> None:
    """Someone uses it."""
    tokenizer = made_tokenizer()
    tokenizer.add_tokens(["[unused0]"], special_tokens=True)
    assert list(extend_tokenizer(tokenizer, ["opec", "pct"])[1]) == [1, 7]


def test_new_rows_are_the_means_of_their_pieces_and_others_keep_their_bits() -> None:
    """In every tensor of the model."""
    tokenizer, model = made_tokenizer(), made_model(len(VOCABULARY))
    _, pieces = extend_tokenizer(tokenizer, ["ebitda", "dlrs"])
    before = copy.deepcopy(model.state_dict())
    extend_embeddings(model, pieces)
    after = model.state_dict()
    assert model.config.vocab_size == len(VOCABULARY)
    for name, tensor in before.items():
        if "word_embeddings" not in name and "decoder" not in name and name != "cls.predictions.bias":
            assert torch.equal(after[name], tensor), name
            continue
        old = [row for row in range(len(VOCABULARY)) if row not in pieces]
        assert torch.equal(after[name][old], tensor[old]), name
        for id, cut in pieces.items():
            assert torch.allclose(after[name][id], sum(tensor[piece] for piece in cut) / len(cut), atol=1e-7), name


@pytest.mark.parametrize("spare", [0, 2])  # rows of the model behind the tokenizer's last id, as where it was padded
def test_a_model_grows_for_words_behind_its_vocabulary_and_comes_back_from_its_folder(
    tmp_path: Path, spare: int
) -> None:
    """Still tied, its bias in step, alone and as an encoder."""
    tokenizer, model = made_tokenizer(), made_model(len(VOCABULARY) + spare)
    extended, pieces = extend_tokenizer(tokenizer, ["ebitda", "dlrs", "opec", "pct", "international", "cts"])
    before = copy.deepcopy(model.state_dict())
    extend_embeddings(model, pieces)
    words, head = model.get_input_embeddings(), model.cls.predictions
    assert model.config.vocab_size == len(extended) == words.num_embeddings == head.decoder.out_features
    assert head.decoder.weight is words.weight
    assert head.decoder.bias is head.bias
    assert head.bias.shape == (len(extended),)
    assert words.padding_idx == 0
    for table, name in ((words.weight, "bert.embeddings.word_embeddings.weight"), (head.bias, "cls.predictions.bias")):
        kept = [row for row in range(len(VOCABULARY)) if row not in pieces]
        assert torch.equal(table[kept], before[name][kept])
        for id, cut in pieces.items():
            assert torch.equal(table[id], before[name][cut].mean(0))
    model.save_pretrained(tmp_path)
    extended.save_pretrained(tmp_path)
    again = BertForPreTraining.from_pretrained(tmp_path)
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    assert again.cls.predictions.decoder.weight is again.get_input_embeddings().weight
    assert torch.equal(BertModel.from_pretrained(tmp_path).get_input_embeddings().weight, words.weight)
    assert tokenizer_sha256(open_checkpoint(str(tmp_path)).tokenizer) == tokenizer_sha256(extended)
    loss = again(**extended("ebitda pct", return_tensors="pt")).prediction_logits.sum()
    loss.backward()
    assert again.get_input_embeddings().weight.grad.shape == words.weight.shape


def test_nothing_in_a_grown_model_is_drawn_at_random() -> None:
    """Whatever the seed."""
    _, pieces = extend_tokenizer(made_tokenizer(), ["ebitda", "dlrs", "opec", "pct", "cts"])
    grown = [made_model(len(VOCABULARY)) for _ in range(2)]
    for seed, model in enumerate(grown):
        set_seed(seed)
        extend_embeddings(model, pieces)
    for name, tensor in grown[0].state_dict().items():
        assert torch.equal(grown[1].state_dict()[name], tensor), name


def test_untied_decoders_start_at_their_own_means() -> None:
    """A decoder of its own has its own rows to average."""
    model = made_model(20)
    model.config.tie_word_embeddings = False
    untied = BertForPreTraining(model.config)
    before = untied.cls.predictions.decoder.weight.clone()
    extend_embeddings(untied, {3: [8, 9], 20: [10, 11, 12]})
    assert torch.equal(untied.cls.predictions.decoder.weight[20], before[[10, 11, 12]].mean(0))
    assert torch.equal(untied.cls.predictions.decoder.weight[3], before[[8, 9]].mean(0))


@pytest.mark.parametrize(
    ("pieces", "said"),
    [({21: [1, 2]}, "gap"), ({3: [3, 4]}, "old rows"), ({3: [20]}, "old rows"), ({20: [3], 3: [4]}, "old rows")],
)
def test_rows_that_would_stay_random_or_lack_old_pieces_are_errors(pieces: dict[int, list[int]], said: str) -> None:
    """Found before the model is touched."""
    model = made_model(20)
    with pytest.raises(ValueError, match=said):
        extend_embeddings(model, pieces)
    assert model.config.vocab_size == 20


def test_no_new_rows_change_nothing() -> None:
    """Not a bit."""
    model = made_model(20)
    before = copy.deepcopy(model.state_dict())
    extend_embeddings(model, {})
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in before.items())


def test_a_checkpoint_without_unused_rows_grows_and_can_be_started_from(tiny_folder: Path, tmp_path: Path) -> None:
    """By `open_checkpoint`, and extended once more."""
    checkpoint = open_checkpoint(str(tiny_folder))
    extended, pieces = extend_tokenizer(checkpoint.tokenizer, ["turnover", "losses"])
    model = BertForPreTraining.from_pretrained(tiny_folder)
    extend_embeddings(model, pieces)
    model.save_pretrained(tmp_path)
    extended.save_pretrained(tmp_path)
    started = open_checkpoint(str(tmp_path))
    assert started.config.vocab_size == checkpoint.config.vocab_size + 2
    assert started.tokenizer.tokenize("Turnover losses") == ["turnover", "losses"]
    assert extend_tokenizer(started.tokenizer, ["dividend"])[1].keys() == {checkpoint.config.vocab_size + 2}
