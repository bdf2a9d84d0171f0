"""Plants copies into a BEIR folder: plant_copies.py FOLDER OUTPUT.

Every passage gets a copy under another id, which nobody judged, and which is each of its queries' own negative.
"""

import json
import shutil
import sys
from pathlib import Path

from jaxret.data.beir import BeirFolder
from jaxret.files import atomic

source, output = BeirFolder(sys.argv[1]), Path(sys.argv[2])
with atomic(output / "corpus.jsonl") as file:
    for prefix in ("", "copy-of-"):
        for name, title, text in zip(source.corpus.ids, source.corpus.titles, source.corpus.texts, strict=True):
            file.write(json.dumps({"_id": prefix + name, "title": title, "text": text}, ensure_ascii=False) + "\n")
with atomic(output / "negatives.tsv") as file:
    file.write("query-id\tcorpus-id\tscore\n")
    for query, row in source.qrels("train").items():
        file.writelines(f"{query}\tcopy-of-{name}\t0\n" for name in row)
for part in ("queries.jsonl", "qrels"):
    found = next(source.path.glob(f"{part}*"))
    (shutil.copytree if found.is_dir() else shutil.copy)(found, output / found.name)
