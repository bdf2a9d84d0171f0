"""Puts random documents in the place of mined negatives: random_negatives.py FOLDER MINED OUTPUT (ColBERT rows)."""

import json
import random
import sys

from jaxret.data.beir import read_corpus
from jaxret.files import atomic

folder, mined, output = sys.argv[1:]
documents = read_corpus(folder).ids
draw = random.Random(0)
with open(mined, encoding="utf-8") as rows, atomic(output) as file:
    for row in rows:
        query, positive, *negatives = json.loads(row)
        chosen = draw.sample([name for name in documents if name != positive], len(negatives))
        file.write(json.dumps([query, positive, *chosen]) + "\n")
