"""The same passages, questions and vectors through txtai, for the table of `apps.answers.retrieval`.

In an environment of its own, which needs edgewise's base beside it:

    python -m venv txtai && txtai/bin/pip install txtai
    EDGEWISE_MIRROR=... PYTHONPATH=. txtai/bin/python tests/benchmarks/retrieval_txtai.py FOLDER [SPLIT]

FOLDER is the one that `python -m apps.answers.retrieval --folder FOLDER` has filled with vectors.
"""

import os
import sys
from pathlib import Path

os.environ["USE_TF"] = "0"

import numpy as np

from apps.answers.retrieval import MOST, cases, embedded, measured, pieces, table


def never(texts):
    raise AssertionError("all vectors are in the folder; run apps.answers.retrieval first")


def main(folder, split="validation"):
    from txtai import Embeddings

    paragraphs, questions, right = cases("rajpurkar/squad", split)
    texts = [(number, text) for number, one in enumerate(paragraphs) for text in pieces([one])]
    vectors = embedded([*(text for _, text in texts), *questions], never, Path(folder) / "vectors.npz")

    def transform(given):
        return np.stack([vectors[text] for text in given])

    shared = {"method": "external", "transform": transform}
    ways = {
        "txtai bm25": {"keyword": True},
        "txtai dense": shared,
        "txtai hybrid": shared | {"hybrid": True},
    }
    rows = []
    for name, settings in ways.items():
        index = Embeddings(settings)
        index.index((at, text, None) for at, (_, text) in enumerate(texts))

        def ask(number, index=index):
            found = index.search(questions[number], MOST)
            return list(dict.fromkeys(texts[at][0] for at, _ in found))

        rows.append({"search": name, "n": len(right), **measured(ask, right)})
    sys.stdout.write(table(rows) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
