"""An embedder without a model: words hashed into a few dimensions, so that like texts have like vectors."""

import hashlib
import re

import numpy as np


def embedder(dimensions):
    def embed(texts):
        rows = np.full((len(texts), dimensions), 1e-3, np.float32)
        for row, text in zip(rows, texts, strict=True):
            for word in re.findall(r"\w+", text.lower()):
                row[int(hashlib.md5(word.encode()).hexdigest(), 16) % dimensions] += 1
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    return embed
