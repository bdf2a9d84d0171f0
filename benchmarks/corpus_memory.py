"""Memory of commands over the corpus: JaQuAD's once, four and sixteen times.

    .venv/bin/python benchmarks/corpus_memory.py mine
    .venv/bin/python benchmarks/corpus_memory.py encode index --copies 1 4

Every copy has its number at the end of its text. `mine` is from BM25, for 1,000 questions; `encode` and `index` take a
small model of random numbers with dense vectors. "peak" is the most that a process ever held, VmHWM; in "anonymous"
pages of files do not count, which the system can drop.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from jaxret.data.beir import BeirFolder

DATA = Path(__file__).parents[1] / "data" / "jaquad"
COMMANDS = {
    "mine": ["--from", "bm25", "--language", "ja", "--output", "negatives.tsv"],
    "encode": ["--model", "model", "--output", "store"],
    "index": ["--model", "model", "--language", "ja", "--output", "index"],
}


def write_copies(source: BeirFolder, copies: int, queries: int, folder: Path) -> int:
    """A BEIR folder with a corpus some times as large; returns its number of documents."""
    (folder / "qrels").mkdir(parents=True)
    corpus = source.corpus
    with open(folder / "corpus.jsonl", "w") as file:
        for copy in range(copies):
            for name, title, text in zip(corpus.ids, corpus.titles, corpus.texts, strict=True):
                row = {"_id": f"{name}-{copy}", "title": title, "text": f"{text} {copy}"}
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
    judged = list(source.qrels("train").items())[:queries]
    with open(folder / "queries.jsonl", "w") as file:
        for query, _ in judged:
            text = source.queries.texts[source.queries.row_of[query]]
            file.write(json.dumps({"_id": query, "text": text}, ensure_ascii=False) + "\n")
    with open(folder / "qrels/train.tsv", "w") as file:
        file.write("query-id\tcorpus-id\tscore\n")
        file.writelines(f"{query}\t{name}-0\t1\n" for query, row in judged for name in row)
    return copies * len(corpus)


def write_model(source: BeirFolder, folder: Path) -> None:
    """A retriever of random numbers, with a vocabulary of these texts."""
    from jaxret.data.text import TextConfig
    from jaxret.data.tokenizer import Tokenizer, trained_vocabulary
    from jaxret.nn.config import EncoderConfig
    from jaxret.nn.retriever import RetrieverConfig
    from jaxret.runtime.layouts import save_pretrained
    from jaxret.runtime.model import Model

    tokenizer = Tokenizer(trained_vocabulary(source.corpus.texts[:1000], 4000))
    encoder = EncoderConfig(vocab_size=tokenizer.size, width=64, num_layers=1, num_heads=2, mlp_width=64)
    config = RetrieverConfig(encoder, heads=("dense",), dense_layers=(64,))
    model = Model(config, TextConfig(passage_max_len=128), tokenizer)
    save_pretrained(folder, model, model.init(0))


def measured(command: list[str], folder: Path) -> tuple[float, float, float]:
    """Seconds, and the most memory in MiB, all and anonymous alone."""
    start, most = time.perf_counter(), {"VmHWM": 0, "RssAnon": 0}
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None:
        try:
            lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
        except OSError:
            continue
        found = {name: int(line.split()[1]) for line in lines for name in most if line.startswith(name)}
        most |= {name: max(most[name], kib) for name, kib in found.items()}
        time.sleep(0.02)
    if process.returncode:
        raise SystemExit(f"failed: {' '.join(command)}")
    return time.perf_counter() - start, most["VmHWM"] / 1024, most["RssAnon"] / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commands", nargs="+", choices=COMMANDS)
    parser.add_argument("--copies", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--queries", type=int, default=1000)
    args = parser.parse_args()
    source = BeirFolder(DATA)
    print(f"{'command':8} {'documents':>9} {'seconds':>8} {'peak':>6} {'anonymous':>9} MiB")
    for copies in args.copies:
        with tempfile.TemporaryDirectory(dir=".") as name:
            folder = Path(name)
            documents = write_copies(source, copies, args.queries, folder / "data")
            write_model(source, folder / "model")
            for command in args.commands:
                given = [sys.executable, "-m", "jaxret", command, "--data", "data", *COMMANDS[command]]
                seconds, peak, anonymous = measured(given, folder)
                print(f"{command:8} {documents:9} {seconds:8.1f} {peak:6.0f} {anonymous:9.0f}", flush=True)


if __name__ == "__main__":
    main()
