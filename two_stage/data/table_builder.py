"""What `Dataset.from_generator` is for rows, for Arrow tables: written as they come, in processes, kept in the cache.

Rows would go through Python lists once more, and wait in memory by the thousand, however long they are. The class has a
module of its own because `datasets` replaces `open`, `Path` and parts of `os` in the module of any builder.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
from datasets import ArrowBasedBuilder, BuilderConfig, DatasetInfo, Features, SplitGenerator
from datasets.exceptions import DatasetGenerationError

from two_stage.command_line.exits import Refusal


class GenerationRefusal(Refusal, DatasetGenerationError):
    """A refusal that `datasets` passes on as it is, out of another process too; any other it would wrap in its own."""


@dataclass
class TableConfig(BuilderConfig):
    """What a TableBuilder builds from."""

    generator: Callable[..., Iterator[pa.Table]] | None = None
    gen_kwargs: dict[str, Any] = field(default_factory=dict)  # a list among them is shared out over processes
    columns: Features | None = None
    expected_rows: int | None = None  # for the progress bar


class TableBuilder(ArrowBasedBuilder):
    """Writes the tables of a generator; `config_id` must name all that they depend on."""

    BUILDER_CONFIG_CLASS = TableConfig
    DEFAULT_WRITER_BATCH_SIZE = 2**31 - 1  # rows: a table is written as it is, where 1,000 rows a piece are the default

    def _info(self) -> DatasetInfo:
        return DatasetInfo(features=self.config.columns)

    def _split_generators(self, dl_manager: Any) -> list[SplitGenerator]:
        split = SplitGenerator(name="train", gen_kwargs=self.config.gen_kwargs)
        split.split_info.num_examples = self.config.expected_rows
        return [split]

    def _generate_tables(self, **gen_kwargs: Any) -> Iterator[tuple[int, pa.Table]]:
        try:
            yield from enumerate(self.config.generator(**gen_kwargs))
        except Refusal as refusal:
            raise GenerationRefusal(str(refusal)) from refusal
