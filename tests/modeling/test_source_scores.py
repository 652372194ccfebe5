"""Scores of source views: their gradients, each query's own documents, and what they take at the size of the paper."""

import subprocess
import sys

import pytest
import torch

from milco.modeling.losses import own_scores, source_scores

QUERIES, PER_QUERY = 3, 4


@pytest.fixture
def parts():
    """Few ids, so that they repeat within texts; a third of the weights is 0, as at pads and special tokens."""
    random, found = torch.Generator().manual_seed(0), []
    for shape in ((QUERIES, 5), (QUERIES * PER_QUERY, 9)):
        weights = torch.rand(shape, generator=random, dtype=torch.double)
        weights = weights * (torch.rand(shape, generator=random) > 0.33)
        found += [torch.randint(100, 106, shape, generator=random), weights.requires_grad_()]
    return found


def of_its_own(ids: torch.Tensor) -> torch.Tensor:
    return ids.unflatten(0, (QUERIES, PER_QUERY))


def test_gradients_of_all_scores_are_finite_differences(parts):
    query_ids, query_weights, document_ids, document_weights = parts

    def scores(query_weights, document_weights):
        return source_scores(query_ids, query_weights, document_ids, document_weights)

    assert torch.autograd.gradcheck(scores, (query_weights, document_weights))


def test_gradients_of_scores_with_own_documents_are_finite_differences(parts):
    query_ids, query_weights, document_ids, document_weights = parts

    def scores(query_weights, document_weights):
        return source_scores(query_ids, query_weights, of_its_own(document_ids), of_its_own(document_weights))

    assert torch.autograd.gradcheck(scores, (query_weights, document_weights))


def test_scores_with_own_documents_are_those_among_all(parts):
    *query, ids, weights = parts
    found = source_scores(*query, of_its_own(ids), of_its_own(weights))
    torch.testing.assert_close(found, own_scores(source_scores(*query, ids, weights)))


PEAK = """
import re
from pathlib import Path
import torch
from milco.modeling.losses import source_scores

torch.set_num_threads(1)
shapes = {shapes}

def weights(shape):
    return torch.rand(shape).requires_grad_()

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 2**10

parts = [make(shape) for shape in shapes for make in (lambda shape: torch.randint(250_000, shape), weights)]
source_scores(*(part[:1, ..., :1] for part in parts)).sum().backward()
before = peak()
source_scores(*parts).sum().backward()
print(peak() - before)
"""


@pytest.mark.parametrize(
    ("queries", "documents"),
    [((64, 64), (2048, 64)), ((64, 64), (64, 32, 64))],
    ids=["of all queries", "of each query"],
)
def test_scores_take_no_memory_for_pairs_of_positions(queries, documents):
    """64 × 64 positions of queries and 2,048 × 64 of documents are 537 million pairs: 512 MiB with a byte for each."""
    program = PEAK.format(shapes=[queries, documents])
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 200  # MiB
