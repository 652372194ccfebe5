"""Every command of docs/released.md, with a tiny model in the authors' layout instead of the one on the Hub."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from test_authors_layout import LAYOUT

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]


def test_the_page_works_from_inspection_to_the_served_page(tmp_path):
    model = shutil.copytree(LAYOUT / "released", tmp_path / "omai-research" / "milco-650m")
    shutil.copytree(LAYOUT / "encoder", model / "encoder")
    shutil.copytree(LAYOUT / "splade", model / "pivot_tokenizer")
    words = ["Passwort", "door", "settings", "kuchen", "玄関", "照明", "reset", "ville", "про", "не"]
    texts = [" ".join(words[int(digit)] for digit in f"{number:03}") for number in range(999)]
    rows = [{"_id": str(number), "text": text} for number, text in enumerate([*texts, "door " * 99])]
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    page = (ROOT / "docs" / "released.md").read_text("utf-8")
    script = [f'set -euo pipefail\nmilco() {{ "{sys.executable}" -m milco "$@"; }}\n']
    for language, block in re.findall(r"^```(sh|python)\n(.*?)^```", page, re.DOTALL | re.MULTILINE):
        script.append(block if language == "sh" else f'"{sys.executable}" - <<"PYTHON"\n{block}PYTHON\n')
    served = f'"{sys.executable}" -m milco serve \\1 --no-open --port 0 > served.txt &\n'
    served += "timeout 120 sh -c 'until grep -q http://127.0.0.1 served.txt; do sleep 1; done'; kill $!\n"
    command, found = re.subn(r"milco serve (\S+)\n", served, "".join(script))
    assert found == 1
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 of 1,000 texts are cut at 64 tokens: Latin 1 of" in done.stderr
    active = re.search(r"([\d.]+) active dimensions a text before, ([\d.]+) after", done.stdout)
    assert active and float(active[1]) > 100 == float(active[2])
    assert "{'e_" in done.stdout.splitlines()[-1]
