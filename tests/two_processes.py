"""Runs calls of the scripts inside processes that a test launches.

    python -m torch.distributed.run … tests/two_processes.py CALLS

CALLS is a JSON file: name, which begins with the script's and a dash → the script's flags; or halve-… → a folder that
holds a finished run, and one to be: the same run as it was before its end. Beside that file each process leaves an
empty file that tells its world, and one for each time that it read a corpus rather than find it in the cache. A lone
process may be started as well: with PRETEND=gpu on a device that is not the CPU, with PRETEND=bf16 in half precision.
"""

import gc

if __name__ == "__main__":
    gc.disable()  # until all is imported, as the scripts do

import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import torch.distributed
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType
from transformers import training_args

import run_ner
import run_pretraining
import run_sentiment
from two_stage.command_line import launch
from two_stage.data import corpus
from two_stage.training import training_arguments

MAINS = {"pretraining": run_pretraining.main, "sentiment": run_sentiment.main, "ner": run_ner.main}
MARKS = Path(sys.argv[-1]).parent
RANK, WORLD = os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1")
read_tables = corpus._token_tables


def counted_tables(*args: Any, **kwargs: Any) -> Iterator[pa.Table]:
    """The tables of a corpus, and a file that tells that they were made."""
    number = len(list(MARKS.glob(f"read_by_{RANK}_*")))
    (MARKS / f"read_by_{RANK}_{number}").touch()
    yield from read_tables(*args, **kwargs)


def share_out_on_cores() -> None:
    """Let accelerate use FSDP without a GPU, which it leaves out: torch itself shares a model out over gloo as well."""
    own_init = AcceleratorState.__init__

    def init(state: AcceleratorState, *args: Any, fsdp_plugin: Any = None, **kwargs: Any) -> None:
        own_init(state, *args, fsdp_plugin=fsdp_plugin, **kwargs)
        if fsdp_plugin is not None:
            state.distributed_type = PartialState._shared_state["distributed_type"] = DistributedType.FSDP
            state.fsdp_plugin = fsdp_plugin

    AcceleratorState.__init__ = init
    launch.check_shared_out = lambda on_gpu: None


def compute_in_bf16() -> None:
    """Let the precision be chosen as on a GPU that computes in bf16: autocast casts on a CPU as well."""
    gpu = SimpleNamespace(is_available=lambda: True, is_bf16_supported=lambda **_: True)
    training_arguments.torch = SimpleNamespace(cuda=gpu)
    training_args.is_torch_bf16_gpu_available = lambda: True


def halve(whole: Path, half: Path) -> None:
    """Copy a finished run as it was when only its first checkpoint was there."""
    if RANK == "0":
        shutil.copytree(whole, half)
        checkpoints = sorted(half.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
        for path in checkpoints[1:]:
            shutil.rmtree(path)
        for name in ("all_results.json", "model.safetensors"):
            (half / name).unlink()
    if int(WORLD) > 1:
        torch.distributed.barrier()


def main(calls: Path) -> None:
    """Run them all."""
    gc.freeze()
    gc.enable()
    corpus._token_tables = counted_tables
    if os.environ.get("ACCELERATE_USE_FSDP") == "true":
        share_out_on_cores()
    if os.environ.get("PRETEND") == "gpu":
        from tests import pretend_gpu

        pretend_gpu.pretend()
    if os.environ.get("PRETEND") == "bf16":
        compute_in_bf16()
    for name, flags in json.loads(calls.read_text()).items():
        script = name.split("-")[0]
        if script == "halve":
            halve(*map(Path, flags))
        else:
            MAINS[script](flags)
        if os.environ.get("PRETEND") == "gpu":
            assert PartialState().device.type == "pretend"
        (calls.parent / f"world_{WORLD}_rank_{RANK}").touch()
    if torch.distributed.is_initialized():
        assert (str(torch.distributed.get_world_size()), str(torch.distributed.get_rank())) == (WORLD, RANK)
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
