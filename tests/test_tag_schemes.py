"""Tag schemes against a naive encoder, seqeval's own reading, and tables written by hand."""

from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from seqeval.metrics.sequence_labeling import get_entities

from two_stage.data.tag_schemes import SCHEMES, detect_scheme, split_tag, tag_names, to_iob2

Entity = tuple[str, int, int]  # type, first word, last word

TYPES = ["PER", "LOC", "GPE-LOC", "B"]
PREFIXES = {"IOB1": "BI", "IOB2": "BI", "IOBES": "BIES", "BILOU": "BILU"}
QUICK = settings(deadline=None)

# a sentence as a list of O (None) and of entities (type, words)
PARTS = st.lists(st.none() | st.tuples(st.sampled_from(TYPES), st.integers(1, 4)), max_size=8)


def soup(prefixes: str) -> st.SearchStrategy[list[str]]:
    """Tags in any order, most of them of two types, so that neighbours often agree."""
    tags = [f"{prefix}-{entity_type}" for prefix in prefixes for entity_type in ("PER", "PER", "LOC", "GPE-LOC")]
    return st.lists(st.sampled_from(["O", "O", *tags]), max_size=12)


def entities_of(parts: list[tuple[str, int] | None]) -> tuple[list[Entity], int]:
    """The entities of a sentence and how many words it has."""
    entities, words = list[Entity](), 0
    for part in parts:
        if part is not None:
            entities.append((part[0], words, words + part[1] - 1))
        words += part[1] if part else 1
    return entities, words


def encode(entities: list[Entity], words: int, scheme: str) -> list[str]:
    """Entities as a scheme has them, each written on its own; IOB1 looks whether one of its type ends before it."""
    tags = ["O"] * words
    for entity_type, first, last in entities:
        letters = ["I"] * (last - first + 1)
        if scheme == "IOB1":
            letters[0] = "B" if any(other[0] == entity_type and other[2] == first - 1 for other in entities) else "I"
        elif scheme == "IOB2" or len(letters) > 1:
            letters[0] = "B"
        if scheme in ("IOBES", "BILOU"):
            end, single = "ES" if scheme == "IOBES" else "LU"
            letters[-1] = end if len(letters) > 1 else single
        tags[first : last + 1] = [f"{letter}-{entity_type}" for letter in letters]
    return tags


def lenient_entities(tags: list[str]) -> list[Entity]:
    """Entities as seqeval reads them when it is not strict; it knows L and U as E and S."""
    return get_entities([{"L": "E", "U": "S"}.get(tag[0], tag[0]) + tag[1:] for tag in tags])


# --- One tag ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tag", "parts"),
    [
        ("O", ("O", "")),
        ("B-PER", ("B", "PER")),
        ("I-PER", ("I", "PER")),
        ("E-x", ("E", "x")),
        ("S-1", ("S", "1")),
        ("L-é", ("L", "é")),
        ("U-O", ("U", "O")),
        ("B-GPE-LOC", ("B", "GPE-LOC")),
        ("I--", ("I", "-")),
    ],
)
def test_tag_is_split_at_its_first_hyphen(tag: str, parts: tuple[str, str]) -> None:
    """A type may hold hyphens; only O has none."""
    assert split_tag(tag) == parts


@pytest.mark.parametrize(
    "tag", [*"NN PER B- B -PER - X-PER O-PER BI-PER b-PER B_PER O- OO o 0 PER-B".split(), "", " O"]
)
def test_what_is_no_tag_is_refused_everywhere(tag: str) -> None:
    """With the text itself, even where it was asked for before, as a failure is not kept."""
    for _ in range(2):
        with pytest.raises(ValueError, match="is no entity tag; write O, or one of B-") as error:
            split_tag(tag)
        assert repr(tag) in str(error.value)
    with pytest.raises(ValueError, match="is no entity tag"):
        detect_scheme([["O", tag]])
    for scheme in SCHEMES:
        with pytest.raises(ValueError, match="is no entity tag"):
            to_iob2(["O", tag], scheme)


# --- Detection --------------------------------------------------------------------------------------------------------


@QUICK
@given(file=st.lists(PARTS, max_size=4))
def test_any_entity_tells_the_scheme(file: list[list[tuple[str, int] | None]]) -> None:
    """The first entity of a file stands behind O or nothing: I- in IOB1, B- in IOB2, and E, S, L, U end the others'."""
    sentences = [entities_of(parts) for parts in file]
    has_entity = any(entities for entities, _ in sentences)
    for scheme in SCHEMES:
        tagged = [encode(entities, words, scheme) for entities, words in sentences]
        assert detect_scheme(iter(tagged)) == (scheme if has_entity else None)


def naive_scheme(sentences: list[list[str]]) -> str | None:
    """The definition, a pass for each of its parts."""
    pairs = [pair for tags in sentences for pair in zip(["O", *tags], tags, strict=False) if pair[1] != "O"]
    if not pairs:
        return None
    bilou = sum(tag[0] in "LU" for _, tag in pairs)
    iobes = sum(tag[0] in "ES" for _, tag in pairs)
    if bilou + iobes:
        return "BILOU" if bilou >= iobes else "IOBES"
    every_b_needed = all(before[2:] == tag[2:] for before, tag in pairs if tag[0] == "B")
    some_i_opens = any(before[2:] != tag[2:] for before, tag in pairs if tag[0] == "I")
    return "IOB1" if every_b_needed and some_i_opens else "IOB2"


@given(
    file=st.sampled_from(["I", "BI", "BIES", "BILU", "BIESLU", "ESLU"]).flatmap(lambda p: st.lists(soup(p), max_size=3))
)
def test_detection_equals_its_definition_on_any_tags(file: list[list[str]]) -> None:
    """Files with errors and of mixed schemes too."""
    assert detect_scheme(file) == naive_scheme(file)


@pytest.mark.parametrize(
    ("file", "scheme"),
    [
        ("", None),
        ("O O | | O", None),
        ("I-PER", "IOB1"),
        ("I-PER B-PER | O", "IOB1"),
        ("I-PER B-PER B-PER", "IOB1"),
        ("B-PER", "IOB2"),
        ("I-PER | B-PER", "IOB2"),  # behind another sentence, not behind an entity
        ("I-PER I-LOC B-PER", "IOB2"),  # behind an entity of another type
        ("I-PER O B-PER", "IOB2"),
        ("B-PER I-PER | I-LOC", "IOB2"),  # an orphan, not IOB1
        ("I-PER B-PER | I-LOC O | B-LOC", "IOB2"),
        ("B-PER B-PER S-PER", "IOBES"),
        ("I-PER E-PER", "IOBES"),
        ("I-PER L-PER", "BILOU"),
        ("B-PER U-PER", "BILOU"),
        ("S-PER E-PER U-PER", "IOBES"),
        ("S-PER L-PER U-PER", "BILOU"),
        ("S-PER | U-PER", "BILOU"),  # as many of each
        ("S-PER E-PER U-PER | U-PER L-PER", "BILOU"),
        ("U-PER L-PER S-PER | S-PER E-PER", "IOBES"),
    ],
)
def test_detection_by_hand(file: str, scheme: str | None) -> None:
    """Sentences are parted by a bar."""
    assert detect_scheme(sentence.split() for sentence in file.split("|")) == scheme


def test_detection_stops_at_the_sentence_that_holds_no_tag() -> None:
    """So whoever hands the sentences over knows the place; those before were let go."""
    taken = []

    def sentences() -> Iterator[list[str]]:
        for number, tags in enumerate([["O"], ["B-PER", "NN"], ["O"]]):
            taken.append(number)
            yield tags

    with pytest.raises(ValueError, match="'NN' is no entity tag"):
        detect_scheme(sentences())
    assert taken == [0, 1]


# --- Into IOB2 --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scheme", "tags"),
    [
        ("IOB1", "I-LOC B-LOC I-LOC I-LOC O I-PER I-LOC I-LOC"),
        ("IOB2", "B-LOC B-LOC I-LOC I-LOC O B-PER B-LOC I-LOC"),
        ("IOBES", "S-LOC B-LOC I-LOC E-LOC O S-PER B-LOC E-LOC"),
        ("BILOU", "U-LOC B-LOC I-LOC L-LOC O U-PER B-LOC L-LOC"),
    ],
)
def test_one_sentence_in_four_schemes(scheme: str, tags: str) -> None:
    """Neighbours of one type, of two types, and an O between."""
    given_tags = tags.split()
    iob2, broken = to_iob2(given_tags, scheme)
    assert iob2 == "B-LOC B-LOC I-LOC I-LOC O B-PER B-LOC I-LOC".split()
    assert broken == []
    assert iob2 is not given_tags
    assert given_tags == tags.split()
    assert detect_scheme([given_tags]) == scheme


@QUICK
@given(parts=PARTS)
def test_every_scheme_comes_back_bit_for_bit(parts: list[tuple[str, int] | None]) -> None:
    """Nothing in a rightly written file is irregular."""
    entities, words = entities_of(parts)
    iob2 = [
        tag
        for part in parts
        for tag in (["O"] if part is None else [f"B-{part[0]}"] + [f"I-{part[0]}"] * (part[1] - 1))
    ]
    for scheme in SCHEMES:
        assert to_iob2(encode(entities, words, scheme), scheme) == (iob2, [])


@pytest.mark.parametrize(
    ("scheme", "tags", "iob2", "broken"),
    [
        ("IOB2", "", "", []),
        ("IOB2", "I-PER", "B-PER", [0]),
        ("IOB2", "O I-PER I-PER", "O B-PER I-PER", [1]),  # the second goes on with what the first opened
        ("IOB2", "B-PER I-LOC I-LOC I-PER", "B-PER B-LOC I-LOC B-PER", [1, 3]),
        ("IOB2", "B-PER O I-PER", "B-PER O B-PER", [2]),
        ("IOB2", "B-PER B-PER I-PER", "B-PER B-PER I-PER", []),
        ("IOB2", "B-LOC I-GPE-LOC", "B-LOC B-GPE-LOC", [1]),
        ("IOB1", "B-PER", "B-PER", [0]),
        ("IOB1", "I-PER B-LOC I-LOC", "B-PER B-LOC I-LOC", [1]),
        ("IOB1", "I-PER I-LOC B-LOC O B-LOC B-LOC", "B-PER B-LOC B-LOC O B-LOC B-LOC", [4]),
        ("IOBES", "B-PER", "B-PER", [0]),
        ("IOBES", "B-PER O B-PER I-PER", "B-PER O B-PER I-PER", [0, 3]),
        ("IOBES", "B-PER B-PER E-PER", "B-PER B-PER I-PER", [0]),
        ("IOBES", "B-PER S-PER I-PER", "B-PER B-PER B-PER", [0, 2]),  # the last is broken on both sides, told once
        ("IOBES", "B-PER E-PER E-PER I-PER E-PER", "B-PER I-PER B-PER B-PER I-PER", [2, 3]),
        ("IOBES", "B-PER I-LOC E-LOC", "B-PER B-LOC I-LOC", [0, 1]),
        ("IOBES", "B-PER I-PER E-LOC S-LOC", "B-PER I-PER B-LOC B-LOC", [1, 2]),
        ("BILOU", "I-PER L-PER L-PER", "B-PER I-PER B-PER", [0, 2]),
        ("BILOU", "B-PER U-PER I-PER O", "B-PER B-PER B-PER O", [0, 2]),
        ("BILOU", "U-PER L-PER B-PER L-LOC", "B-PER B-PER B-PER B-LOC", [1, 2, 3]),
        # tags of another scheme are read by the same rule, and break this one
        ("IOBES", "B-PER L-PER U-PER S-PER", "B-PER I-PER B-PER B-PER", [1, 2]),
        ("BILOU", "B-PER E-PER S-PER U-PER", "B-PER I-PER B-PER B-PER", [1, 2]),
        ("IOB2", "B-PER I-PER E-PER I-PER S-PER", "B-PER I-PER I-PER B-PER B-PER", [2, 3, 4]),
        ("IOB1", "I-PER L-PER B-PER U-LOC", "B-PER I-PER B-PER B-LOC", [1, 3]),
    ],
)
def test_repair_by_hand(scheme: str, tags: str, iob2: str, broken: list[int]) -> None:
    """What is read, and which tags break the scheme."""
    assert to_iob2(tags.split(), scheme) == (iob2.split(), broken)


@pytest.mark.parametrize("scheme", SCHEMES)
@given(data=st.data())
def test_tags_that_break_a_scheme_are_those_it_writes_otherwise(scheme: str, data: st.DataObject) -> None:
    """Read the entities with seqeval, write them in the scheme: where the tags differ, they are broken."""
    tags = data.draw(soup(PREFIXES[scheme]))
    written = encode(lenient_entities(tags), len(tags), scheme)
    differing = [i for i, (tag, right) in enumerate(zip(tags, written, strict=True)) if tag != right]
    assert to_iob2(tags, scheme)[1] == differing


@QUICK
@given(tags=soup("BIESLU"), scheme=st.sampled_from(SCHEMES))
def test_any_tags_become_legal_iob2(tags: list[str], scheme: str) -> None:
    """Each keeps its type, the entities are those that seqeval reads, and nothing is left to repair."""
    iob2, broken = to_iob2(tags, scheme)
    assert [split_tag(tag)[1] for tag in iob2] == [split_tag(tag)[1] for tag in tags]
    assert get_entities(iob2) == lenient_entities(tags)
    assert to_iob2(iob2, "IOB2") == (iob2, [])
    assert all(after[0] != "I" or before[2:] == after[2:] for before, after in pairwise(["O", *iob2]))
    assert broken == sorted(set(broken))
    assert {i for i, tag in enumerate(tags) if tag != "O" and tag[0] not in PREFIXES[scheme]} <= set(broken)
    assert all(tags[i] != "O" for i in broken)


@pytest.mark.parametrize("scheme", ["iob2", "BIO", "", "IOE2"])
def test_unknown_scheme_is_refused(scheme: str) -> None:
    """Rather than read as another, even of an empty sentence."""
    with pytest.raises(ValueError, match="is no scheme; take one of IOB1, IOB2, IOBES, BILOU"):
        to_iob2([], scheme)


# --- Labels -----------------------------------------------------------------------------------------------------------


def test_tag_names_are_o_and_two_a_type() -> None:
    """In alphabetical order, each once, whatever order the types come in."""
    assert tag_names(["PER", "LOC", "PER"]) == ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]
    assert tag_names(iter(["b", "GPE-LOC", "", "GPE"])) == [
        "O",
        "B-GPE",
        "I-GPE",
        "B-GPE-LOC",
        "I-GPE-LOC",
        "B-b",
        "I-b",
    ]
    assert tag_names([]) == ["O"]
