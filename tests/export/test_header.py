import re
import shutil
import subprocess

import pytest

from export.header import write_header


def test_the_header_holds_the_very_bytes(tmp_path):
    data = bytes(range(256)) + b"\x00TFL3"
    (tmp_path / "model.tflite").write_bytes(data)
    text = write_header(tmp_path / "model.tflite").read_text()
    assert bytes(int(one, 16) for one in re.findall(r"0x([0-9a-f]{2})", text)) == data
    assert f"model_tflite_len = {len(data)};" in text


@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs a C compiler")
def test_a_c_compiler_takes_it(tmp_path):
    (tmp_path / "model.tflite").write_bytes(b"abcd")
    write_header(tmp_path / "model.tflite")
    checks = "model_tflite[3] != 'd' || model_tflite_len != 4 || (long)model_tflite % 16"
    main = f"int main(void) {{ return {checks}; }}"
    (tmp_path / "main.c").write_text(f'#include "model.h"\n{main}\n')
    command = ["gcc", "-std=c11", "-Wall", "-Werror", "main.c", "-o", "main"]
    assert subprocess.run(command, cwd=tmp_path, check=False).returncode == 0
    assert subprocess.run([tmp_path / "main"], check=False).returncode == 0
