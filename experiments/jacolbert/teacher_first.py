"""Puts the passage that the teacher scores highest first, whatever the labels say: teacher_first.py IN OUT."""

import json
import sys

from jaxret.files import atomic

scored, output = sys.argv[1:]
with open(scored, encoding="utf-8") as rows, atomic(output) as file:
    for row in rows:
        query, *passages = json.loads(row)
        file.write(json.dumps([query, *sorted(passages, key=lambda passage: -passage[1])]) + "\n")
