"""From padded ids to both views with the demo's model: onnxruntime against torch, in float32, on as many threads.

Torch runs this project's model as `encode` does. Run by `make bench`, after `make demo`.

python benchmarks/export.py
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from experiment import Experiment
from measure import compare, save

from milco.data.beir import read_collection
from milco.modeling.model import MilcoModel
from milco.modeling.rows import padded_batches
from milco.tools.export import write_onnx

QUERIES, DOCUMENTS, BATCH = 64, 256, 32


def session_for(model: MilcoModel) -> onnxruntime.InferenceSession:
    """The exported model in onnxruntime."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        write_onnx(model, path)
        return onnxruntime.InferenceSession(path, options)


def measure(model: MilcoModel, session: onnxruntime.InferenceSession, case: str, batches: list[dict], repeats: int):
    """One row: times of both over the same batches, and the largest difference of their views."""

    @torch.no_grad()
    def by_torch() -> list[np.ndarray]:
        found = (model(**batch) for batch in batches)
        return [view.numpy() for views in found for view in (views.pivot, views.source) if view is not None]

    def by_onnxruntime() -> list[np.ndarray]:
        inputs = ({name: ids.numpy() for name, ids in batch.items()} for batch in batches)
        return [view for given in inputs for view in session.run(None, given)]

    pairs = zip(by_torch(), by_onnxruntime(), strict=True)
    difference = max(float(abs(one - other).max()) for one, other in pairs)
    times = compare(by_torch, by_onnxruntime, repeats)
    return {"benchmark": "export", "case": case, **times, "largest_difference": difference}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="pairs of runs for each case")
    repeats = parser.parse_args().repeats
    experiment = Experiment()
    model = MilcoModel.from_pretrained(experiment.at(experiment.distill.path)).eval()
    session = session_for(model)
    collection = read_collection(experiment.at(experiment.collections.path) / "collections" / "test" / "de-en")
    queries = list(collection.queries.values())[:QUERIES]
    documents = list(collection.documents.values())[:DOCUMENTS]
    cases = {
        f"{len(queries)} queries, one at a time": (queries, model.config.query_max_length, 1),
        f"{len(documents)} documents, {BATCH} at a time": (documents, model.config.passage_max_length, BATCH),
    }
    rows = []
    for case, (texts, longest, size) in cases.items():
        batches = [batch for _, batch in padded_batches(model.tokenizer, texts, longest, size)]
        rows.append(measure(model, session, case, batches, repeats))
    save("export", rows)


if __name__ == "__main__":
    main()
