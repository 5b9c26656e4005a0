"""Runs calls of the scripts inside the processes that test_exact.py launches; each leaves a file with its rank."""

import json
import sys
from pathlib import Path

import torch.distributed

import run_ner
import run_pretraining
import run_sentiment

if __name__ == "__main__":
    calls = Path(sys.argv[1])
    mains = {"pretraining": run_pretraining.main, "sentiment": run_sentiment.main, "ner": run_ner.main}
    for name, flags in json.loads(calls.read_text()).items():
        mains[name.split("-")[0]](flags)
        world, rank = torch.distributed.get_world_size(), torch.distributed.get_rank()
        (calls.parent / f"world_{world}_rank_{rank}").touch()
    torch.distributed.destroy_process_group()
