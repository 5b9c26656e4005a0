"""Rows of a corpus that no disk need hold: read, tokenized and paired a block of documents at a time, for ever.

The corpus is dealt out to a fixed number of *lanes*, and every step takes equally many rows from each. A process runs
one lane or several, so for the same lanes the numbers are the same for any number of processes, and each process reads
and tokenizes its own share alone (the idea of MosaicML Streaming's "canonical nodes").
"""

from collections.abc import Callable, Iterator
from itertools import count, islice
from typing import Any, NamedTuple

import numpy as np
from torch.utils.data import IterableDataset

from two_stage.command_line.exits import Refusal
from two_stage.data.corpus import CorpusSource, cut_shards, shard_documents, text_hash
from two_stage.training.batches import grouped_order

# from a block's documents (as sentences) and the key of its draws to its rows, with their `lengths`
BlockRows = Callable[[list[list[str]], str], Any]


class Position(NamedTuple):
    """Where a lane stands: the block it is in, where that block's first document lies, and the rows used of it."""

    block: int = 0
    turn: int = 0  # passes over the corpus before
    shard: int = 0  # in this turn's order
    document: int = 0  # within the shard
    row: int = 0


class StreamedRows(IterableDataset):
    """The rows of this process's lanes, in steps, without end.

    Each row carries `stream_position`, the place behind it: (lane, *Position).
    """

    def __init__(
        self,
        source: CorpusSource,
        block_rows: BlockRows,
        key: str,
        step_rows: int,
        lanes: int,
        rank: int,
        processes: int,
        block_documents: int,
        held_out: frozenset[int] = frozenset(),
    ) -> None:
        """Deal the corpus out to lanes.

        Args:
            source: the corpus.
            block_rows: makes a block's rows; a random next sentence comes from the same block.
            key: of every draw.
            step_rows: rows of one optimizer step, over all processes.
            lanes: a multiple of `processes` that divides `step_rows`.
            rank, processes: this process's number, and how many there are.
            block_documents: documents of a block, which are in memory together.
            held_out: hashes of documents to leave out.

        Raises:
            Refusal: lanes that do not fit the processes, the step, or the parts of the corpus.
        """
        self.shards = cut_shards(source)
        if lanes % processes or step_rows % lanes:
            raise Refusal(
                f"--stream_lanes {lanes}: must be a multiple of the {processes} process(es), and divide the "
                f"{step_rows} rows of a step"
            )
        if len(self.shards) < lanes:
            raise Refusal(
                f"--stream_lanes {lanes}: {source.name} can be read in {len(self.shards)} part(s) only; unpack it, or "
                "give it as more files"
            )
        self.source, self.block_rows, self.key, self.lanes = source, block_rows, key, lanes
        self.lane_share, self.block_documents, self.held_out = step_rows // lanes, block_documents, held_out
        self.own = range(rank * lanes // processes, (rank + 1) * lanes // processes)
        self.positions: dict[int, Position] = {}

    def go_on_from(self, positions: dict[str, list[int]]) -> dict[str, list[int]]:
        """Begin behind the rows that a run before has used.

        Args:
            positions: of every lane, by its number: the five numbers of a Position.

        Returns:
            Those of this process's own lanes; the others move on elsewhere.

        Raises:
            Refusal: the corpus was dealt out to another number of lanes.
        """
        if len(positions) != self.lanes:
            raise Refusal(f"--stream_lanes {self.lanes}: the run began with {len(positions)}; go on with as many")
        self.positions = {lane: Position(*positions[str(lane)]) for lane in self.own}
        return {str(lane): list(place) for lane, place in self.positions.items()}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        lanes = [self.lane_rows(lane, self.positions.get(lane, Position())) for lane in self.own]
        while True:
            for rows in lanes:
                yield from islice(rows, self.lane_share)

    def lane_rows(self, lane: int, start: Position) -> Iterator[dict[str, Any]]:
        """The rows of one lane from `start` on, block after block, those of like length in one step."""
        documents = self.lane_documents(lane, start)
        for block in count(start.block):
            placed = list(islice(documents, self.block_documents))
            first = placed[0][0]
            # a document that stands twice in a block, or the next turn's copy, would stand as "another document"
            texts = {text_hash(text): text for _, text in placed}
            key = f"{self.key}/{lane}/{block}"
            rows = self.block_rows(list(texts.values()), key)
            order = grouped_order(rows.lengths, self.lane_share, np.random.default_rng(list(key.encode())))
            done = start.row if block == start.block else 0
            for number in range(done, len(order)):
                position = (lane, block, *first, number + 1)
                yield {**rows[int(order[number])], "stream_position": position}

    def lane_documents(self, lane: int, start: Position) -> Iterator[tuple[tuple[int, int, int], list[str]]]:
        """The documents of one lane from `start` on, turn after turn, each with (turn, shard, document)."""
        shards = self.shards[lane :: self.lanes]
        for turn in count(start.turn):
            order = np.random.default_rng(list(f"{self.key}/{lane}/{turn}".encode())).permutation(len(shards))
            found = turn == start.turn  # where a turn is gone on with, all may have been read before
            for place in range(start.shard if turn == start.turn else 0, len(shards)):
                begun = (turn, place) == (start.turn, start.shard)
                for number, document in enumerate(shard_documents(shards[order[place]], self.source)):
                    is_new = not begun or number >= start.document
                    if is_new and text_hash(document) not in self.held_out:
                        found = True
                        yield (turn, place, number), document
            if not found:
                mend = "use fewer --stream_lanes" if self.lanes > 1 else "give some that are not held out"
                raise Refusal(f"{self.source.name}: lane {lane} of {self.lanes} has no document to train on; {mend}")
