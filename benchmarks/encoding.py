"""Encoding documents into sparse rows with the demo's model: this project's encoder against the plain one.

The plain one takes batches in the order of the documents, padded to the longest, and all B×L×V logits at once; it
copies dense rows to the CPU and converts them to sparse rows there. Both are compared at the same precision. The
paper's code encodes in float32, so bfloat16 is compared with that as well. Run by `make bench`, after `make demo`.

python benchmarks/encoding.py
"""

import argparse
from functools import partial

import plain
import scipy.sparse
import torch
from experiment import Experiment
from measure import additional_memory, compare, in_own_process, save

from milco.data.beir import read_collection
from milco.modeling.model import MilcoModel
from milco.modeling.rows import in_text_order

DOCUMENTS, BATCH = 256, 64
CASES = [  # what is compared, and whether plain and milco are in bfloat16
    ("both float32", False, False),
    ("both bfloat16", True, True),
    ("bfloat16 against float32", False, True),
]


class Encoder:
    def __init__(self, experiment: Experiment):
        self.model = MilcoModel.from_pretrained(experiment.at(experiment.distill.path)).eval()
        collection = read_collection(experiment.at(experiment.collections.path) / "collections" / "test" / "de-en")
        self.texts = list(collection.documents.values())[:DOCUMENTS]
        self.length = self.model.config.passage_max_length

    def plain(self, bf16: bool = False) -> scipy.sparse.csr_array:
        ids = self.model.tokenizer(self.texts, truncation=True, max_length=self.length)["input_ids"]
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            return plain.rows(self.model, ids, self.model.tokenizer.pad_token_id, BATCH)

    def milco(self, bf16: bool) -> scipy.sparse.csr_array:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            return in_text_order(self.model.iter_rows(self.texts, self.length, BATCH), self.model.width)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3, help="pairs of runs for each case")
    parser.add_argument("--memory", choices=["plain", "True", "False"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    encoder = Encoder(Experiment())
    if options.memory:
        work = encoder.plain if options.memory == "plain" else lambda: encoder.milco(options.memory == "True")
        print(additional_memory(work))
        return
    difference = abs(encoder.plain() - encoder.milco(False)).max()
    baseline = round(in_own_process(__file__, "--memory", "plain"))
    rows = []
    for name, plain_bf16, bf16 in CASES:
        row = {"benchmark": "encoding", "case": f"{name}, {len(encoder.texts)} documents"}
        row |= compare(partial(encoder.plain, plain_bf16), partial(encoder.milco, bf16), options.repeats)
        row |= {"baseline_mb": baseline, "milco_mb": round(in_own_process(__file__, "--memory", str(bf16)))}
        row["documents_per_second"] = round(len(encoder.texts) / row["milco_s"])
        rows.append(row | {"largest_difference_in_float32": float(difference)})
    save("encoding", rows)


if __name__ == "__main__":
    main()
