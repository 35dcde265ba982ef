"""The client of the docs, as it stands there, against a service with keys."""

import re
import subprocess
import sys
from pathlib import Path

from answers_client import GRAIN, served

from apps.answers.models import Models
from apps.answers.service import create_app

DOCS = Path(__file__).parents[3] / "docs" / "answers" / "service.md"


def test_the_client_of_the_docs(folder: Path, models: Models, keys: dict[str, str], tmp_path: Path) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)
    assert len([line for line in program.splitlines() if line]) == 10
    (tmp_path / "guide.txt").write_text(GRAIN)
    with served(create_app(folder, models)) as port:
        program = program.replace("127.0.0.1:8080", f"127.0.0.1:{port}").replace("KEY", keys["write"])
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "guide.txt" in done.stdout and "from 1 passages" in done.stdout
