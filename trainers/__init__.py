"""From data and a base model to a checkpoint: sources, preparation, training, distillation, metrics."""

import os

# Before transformers is imported anywhere: where tensorflow is installed, looking for it takes seconds.
os.environ.setdefault("USE_TF", "0")
