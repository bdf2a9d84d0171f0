"""Memory of `jaxret mine` over the corpus: JaQuAD once, four and sixteen times, 1,000 of its questions.

    .venv/bin/python benchmarks/mine_memory.py

Every copy has its number at the end of its text. Anonymous memory is what a process holds; pages of files, which the
system can drop, are not counted.
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


def measured(command: list[str]) -> tuple[float, float]:
    """Seconds, and the most anonymous memory in MiB."""
    start, most = time.perf_counter(), 0
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None:
        try:
            status = Path(f"/proc/{process.pid}/status").read_text()
            most = max(most, *(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon")), 0)
        except OSError:
            pass
        time.sleep(0.02)
    if process.returncode:
        raise SystemExit(f"failed: {' '.join(command)}")
    return time.perf_counter() - start, most / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--copies", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--queries", type=int, default=1000)
    args = parser.parse_args()
    source, jaxret = BeirFolder(DATA), str(Path(sys.executable).with_name("jaxret"))
    print(f"{'documents':>9} {'seconds':>8} {'MiB':>6}")
    for copies in args.copies:
        with tempfile.TemporaryDirectory(dir=".") as folder:
            data = Path(folder) / "data"
            documents = write_copies(source, copies, args.queries, data)
            given = ["--data", str(data), "--from", "bm25", "--language", "ja", "--output", f"{folder}/negatives.tsv"]
            seconds, memory = measured([jaxret, "mine", *given])
            print(f"{documents:9} {seconds:8.1f} {memory:6.0f}", flush=True)


if __name__ == "__main__":
    main()
