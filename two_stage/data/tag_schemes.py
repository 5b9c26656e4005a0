"""How entity tags are written: which scheme a file has, the same entities in IOB2, and which tag may follow which.

IOB1 (Ramshaw and Marcus 1995) and IOB2 (Tjong Kim Sang and Veenstra 1999, who named both) tell where an entity begins;
IOBES and BILOU (Ratinov and Roth 2009), which differ in letters alone, also where it ends. An entity of one word, and
one of three directly behind it, of the same type:

    IOB1   I-LOC B-LOC I-LOC I-LOC     IOBES  S-LOC B-LOC I-LOC E-LOC
    IOB2   B-LOC B-LOC I-LOC I-LOC     BILOU  U-LOC B-LOC I-LOC L-LOC
"""

from collections.abc import Iterable
from functools import lru_cache
from itertools import chain, pairwise
from typing import NamedTuple

SCHEMES = ("IOB1", "IOB2", "IOBES", "BILOU")
PREFIXES = {"IOB1": "BI", "IOB2": "BI", "IOBES": "BIES", "BILOU": "BILU"}
GOING_ON = "IEL"  # prefixes that go on with an entity, where one of their type is open
LEAVING_OPEN = "BI"  # prefixes that the next tag may go on with

# --- One tag ----------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=4096)  # a file has some tens of tags, millions of times
def split_tag(tag: str) -> tuple[str, str]:
    """Split a tag of any scheme into what it says of the entity and the entity's type.

    Args:
        tag: such as "O", "B-PER" or "E-GPE-LOC".

    Returns:
        One of the letters O B I E S L U, and the type, which may itself hold hyphens; "O" has the type "".

    Raises:
        ValueError: it is no tag, such as "NN", "PER", "B-", "X-PER" or "o".
    """
    if tag == "O":
        return "O", ""
    prefix, hyphen, entity_type = tag.partition("-")
    if prefix not in ("B", "I", "E", "S", "L", "U") or not hyphen or not entity_type:
        raise ValueError(f"{tag!r} is no entity tag; write O, or one of B- I- E- S- L- U- and a type, such as B-PER")
    return prefix, entity_type


# --- Schemes ----------------------------------------------------------------------------------------------------------


def detect_scheme(sentences: Iterable[list[str]]) -> str | None:
    """Tell which scheme sentences are tagged in; in files without errors any one entity tells.

    L- and U- stand in BILOU alone, E- and S- in IOBES alone; where both stand, the more frequent two win, BILOU if they
    are as many. Without any of them, it is IOB1 if every B- stands directly behind a tag of its own type, as IOB1 needs
    B- nowhere else. What is left is IOB2, and an I- that opens an entity there is an error.

    Args:
        sentences: the tags of each, gone over once.

    Returns:
        One of `SCHEMES`; None where there is no entity at all.

    Raises:
        ValueError: a sentence, the last that was taken from `sentences`, holds what is no tag.
    """
    bilou = iobes = 0
    has_entity = has_opening_b = False
    for tags in sentences:
        type_before = ""
        for tag in tags:
            if tag == "O":
                type_before = ""
                continue
            prefix, entity_type = split_tag(tag)
            has_entity = True
            if prefix == "B":
                has_opening_b = has_opening_b or entity_type != type_before
            elif prefix in "LU":
                bilou += 1
            elif prefix in "ES":
                iobes += 1
            type_before = entity_type
    if bilou or iobes:
        return "BILOU" if bilou >= iobes else "IOBES"
    # The first tag of a file's first entity is an opening B- or an opening I-, so without the one there is the other.
    return ("IOB2" if has_opening_b else "IOB1") if has_entity else None


class _Reading(NamedTuple):
    """What a tag is, behind a certain other."""

    iob2: str  # as it is written in IOB2
    is_broken: bool  # it may not stand here in its scheme
    leaves_broken: bool  # the tag before may not stand in front of it


@lru_cache(maxsize=2**16)  # of pairs; 20 types in IOBES make up to 81² = 6,561
def _reading(before: str, tag: str, scheme: str) -> _Reading:
    """Read a tag behind the one before: every scheme can be read by neighbours alone."""
    (prefix_before, type_before), (prefix, entity_type) = split_tag(before), split_tag(tag)
    goes_on = prefix in GOING_ON and prefix_before in LEAVING_OPEN and entity_type == type_before
    leaves_open = scheme in ("IOBES", "BILOU") and prefix_before in LEAVING_OPEN and not goes_on
    if prefix == "O":
        return _Reading("O", False, leaves_open)
    is_orphan = prefix in GOING_ON and not goes_on
    is_needless = prefix == "B" and entity_type != type_before
    is_broken = prefix not in PREFIXES[scheme] or (is_needless if scheme == "IOB1" else is_orphan)
    return _Reading(f"{'I' if goes_on else 'B'}-{entity_type}", is_broken, leaves_open)


def to_iob2(tags: list[str], scheme: str) -> tuple[list[str], list[int]]:
    """Write the entities of a sentence in IOB2, broken ones repaired, and tell where the scheme was broken.

    One rule reads every scheme and repairs every sentence: I-, E- or L- goes on with an entity if B- or I- of its type
    stands directly before it, and whatever else is not O opens one. So conlleval reads B- and I- too (the script that
    scored CoNLL-2003, Tjong Kim Sang and De Meulder 2003). The entities do not depend on `scheme`, only what breaks it:

    - In each, a tag that the scheme has not, such as U- in IOBES.
    - IOB1: B- that does not stand directly behind a tag of its type. I- that opens an entity is right.
    - IOB2: I- that goes on with nothing.
    - IOBES, BILOU: I-, E- or L- that goes on with nothing; and B- or I- that the next tag does not go on with.

    Args:
        tags: of one sentence.
        scheme: one of `SCHEMES`.

    Returns:
        As many tags in IOB2, each O or of the type it had; and the indices of the tags that break the scheme, rising.

    Raises:
        ValueError: a tag is none, or there is no such scheme.
    """
    if scheme not in SCHEMES:
        raise ValueError(f"{scheme!r} is no scheme; take one of {', '.join(SCHEMES)}")
    iob2: list[str] = []
    broken: list[int] = []
    for index, (before, tag) in enumerate(pairwise(chain(("O",), tags, ("O",)))):
        written, is_broken, leaves_broken = _reading(before, tag, scheme)
        iob2.append(written)
        if leaves_broken and broken[-1:] != [index - 1]:  # it may be broken on both sides
            broken.append(index - 1)
        if is_broken:
            broken.append(index)
    iob2.pop()  # of the O behind the sentence
    return iob2, broken


# --- Labels -----------------------------------------------------------------------------------------------------------


def tag_names(types: Iterable[str]) -> list[str]:
    """The IOB2 tags of entity types, as a model has them for labels.

    Args:
        types: in any order, any of them more than once; "", the type of O, is passed over.

    Returns:
        O, then B- and I- of each type in alphabetical order, such as O B-LOC I-LOC B-PER I-PER.
    """
    return ["O", *(f"{prefix}-{entity_type}" for entity_type in sorted(set(types) - {""}) for prefix in "BI")]
