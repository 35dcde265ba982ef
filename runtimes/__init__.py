"""The floor that goes to the device: bundle + input → answer, with numpy, tokenizers and one engine."""
