"""One file a format: bytes → plain text with headings. They run in a child process (`reading.py`)."""
