"""On a Raspberry Pi: pip install 'edgewise[litert]'; python classify.py news.bundle "what to classify"."""

import sys

import edgewise

model = edgewise.load(sys.argv[1])
answer = model(" ".join(sys.argv[2:]))
print(f"{answer.label} {answer.score:.2f} ({model.describe()['variant']})")
