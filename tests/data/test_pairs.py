"""Parallel text in its training order: each pair once, capped, the same whatever the memory and the threads."""

import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
from miniature import read_pairs

from milco.data import pairs
from milco.errors import MilcoError

pytestmark = pytest.mark.slow

CHANCE = random.Random(0)
MANY = [
    (
        f"text {CHANCE.randrange(300)}",
        f"{CHANCE.choice('aAb')} {CHANCE.randrange(20)}",
        CHANCE.choice(["de", "zh-Hans"]),
    )
    for _ in range(3000)
]


def write(folder: Path, corpora: dict, caps=None, texts=(), seed=0) -> dict:
    folder.mkdir()
    return pairs.write_pairs(corpora, caps or {}, texts, seed, folder)


def rows(folder: Path) -> list[tuple]:
    return list(read_pairs(folder).itertuples(index=False, name=None))


def test_translations_of_a_text_are_together_and_texts_with_few_come_first(tmp_path):
    found = write(tmp_path / "out", {"many": MANY}, texts=["text 0", "a title", "Zebra"])
    first = {}
    for pair in MANY:
        first.setdefault(tuple(side.lower() for side in pair), pair)
    table = pd.DataFrame(first.values(), columns=["english", "non_english", "language"])
    sizes = table.english.map(table.english.value_counts())
    order = table.assign(size=sizes).sort_values(["size", "english", "language"], kind="stable")
    assert rows(tmp_path / "out") == list(order[table.columns].itertuples(index=False, name=None))
    english = pd.read_parquet(tmp_path / "out" / "english.parquet").english.tolist()
    assert english == sorted({*table.english, "text 0", "a title", "Zebra"})
    assert found["families"] == sorted(Counter(table.english.value_counts()).items())
    assert found["pairs"] == table.language.value_counts().to_dict()
    assert found["datasets"]["many"] == Counter(kept=len(table), duplicate=3000 - len(table))


def test_of_two_corpora_a_pair_is_taken_once(tmp_path):
    other = [("Text 1", "a 1", "de"), MANY[0]]
    found = write(tmp_path / "out", {"many": MANY[:1], "other": other, "none": []})
    assert sorted(rows(tmp_path / "out")) == sorted([*other])
    other_corpus = {"kept": 1, "in an earlier corpus": 1}
    assert found["datasets"] == {"many": {"kept": 1}, "other": other_corpus, "none": {"kept": 0}}


def test_no_pair_makes_an_empty_table(tmp_path):
    found = write(tmp_path / "out", {"none": []}, texts=["a title"])
    assert rows(tmp_path / "out") == [] and found["families"] == [] and found["pairs"] == {}
    assert [path.name for path in sorted((tmp_path / "out").iterdir())] == ["english.parquet", "parallel.parquet"]


def test_threads_memory_and_parts_change_nothing(tmp_path, monkeypatch):
    write(tmp_path / "one", {"many": MANY, "again": MANY[::-1]}, {"many": 500})
    for name, value in {"THREADS": 4, "MEMORY": "100MB", "STAGED_ROWS": 70}.items():
        monkeypatch.setattr(pairs, name, value)
    write(tmp_path / "other", {"many": MANY, "again": MANY[::-1]}, {"many": 500})
    assert rows(tmp_path / "one") == rows(tmp_path / "other")


def test_a_cap_draws_at_random_whatever_the_order_and_a_larger_one_keeps_the_draw(tmp_path):
    unique = list(dict.fromkeys((f"text {n}", f"wort {n}", "de") for n in range(1000)))
    drawn = {}
    for name, (cap, seed) in {"few": (200, 0), "more": (400, 0), "other": (200, 1)}.items():
        found = write(tmp_path / name, {"a": unique}, {"a": cap}, seed=seed)
        assert found["datasets"]["a"] == Counter({"kept": cap, "over the cap": 1000 - cap})
        drawn[name] = set(rows(tmp_path / name))
    write(tmp_path / "turned", {"a": unique[::-1]}, {"a": 200})
    assert drawn["few"] == set(rows(tmp_path / "turned"))
    assert drawn["few"] < drawn["more"] and len(drawn["few"] & drawn["other"]) < 80  # 40 by chance
    assert 70 < len(drawn["few"] & set(unique[:500])) < 130


def test_too_little_memory_is_named_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(pairs, "MEMORY", "1MB")
    with pytest.raises(MilcoError, match="too little memory or disk to sort the pairs"):
        write(tmp_path / "out", {"many": MANY})
    assert not [path for path in (tmp_path / "out").iterdir() if path.name.startswith(".")]


PROGRAM = """
import resource, sys
from pathlib import Path
from milco.data import pairs
pairs.MEMORY, pairs.THREADS, pairs.STAGED_ROWS = "100MB", 1, 5000
count, words = int(sys.argv[1]), "word " * 60
made = ((f"{n % (count // 4)} {words}", f"{n} {words}", "de") for n in range(count))
pairs.write_pairs({"made": made}, {}, [], 0, Path(sys.argv[2]))
unit = 2**20 if sys.platform == "darwin" else 2**10  # bytes there, else kilobytes
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // unit)
"""


def test_memory_does_not_grow_with_the_text(tmp_path):
    def peak(count: int) -> int:
        command = [sys.executable, "-c", PROGRAM, str(count), str(tmp_path)]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    small, large = peak(100_000), peak(400_000)  # 60 and 240 MB of text
    assert large - small < 50
