"""The pages of docs/ that are made of commands: all of them work, in the order of the page."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("name", ["inspect.md", "index.md", "files.md"])
def test_the_commands_of_a_page_work(name, tmp_path, model_folder):
    blocks = re.findall(
        r"^```(sh|python)\n(.*?)^```", (ROOT / "docs" / name).read_text("utf-8"), re.DOTALL | re.MULTILINE
    )
    assert any("milco " in block for _, block in blocks)
    (tmp_path / "results" / "demo").mkdir(parents=True)
    (tmp_path / "results" / "demo" / "model").symlink_to(model_folder)
    script = [f'set -euo pipefail\nmilco() {{ "{sys.executable}" -m milco "$@"; }}\n']
    for language, block in blocks:
        script.append(block if language == "sh" else f'"{sys.executable}" - <<"PYTHON"\n{block}PYTHON\n')
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = ["bash", "-c", "".join(script)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    if name == "index.md":
        assert re.search(r"^all\tR@100\t1\.0000$", done.stdout, re.MULTILINE), done.stdout
