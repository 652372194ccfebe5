"""The pooled head against the plain one, which builds all B×L×V logits: time and additional memory.

python benchmarks/head.py            B=32, L=256, D=768, V=30522 on this machine's processor

`gpu.py` measures more sizes with it on a GPU.
"""

import argparse

import torch
from measure import additional_memory, compare, in_own_process, save

from milco.modeling.head import plain_pooled_logits, pooled_logits

BATCH, LENGTH = 32, 256
# Share of the cells with a gradient: none (inference), the active terms of a sparse model, all.
DENSITIES = {"forward": 0.0, "1 % active": 0.01, "all active": 1.0}


class Case:
    """Random inputs of one case, drawn the same way in every process."""

    def __init__(
        self, terms: int, width: int, density: float, kind: torch.dtype, device: str, batch: int | None = None
    ):
        batch = batch or BATCH
        generator = torch.Generator(device).manual_seed(0)
        drawn = {"generator": generator, "device": device}  # on a GPU at once: the largest batch has 2 billion cells
        self.density = density
        self.hidden = torch.randn(batch, LENGTH, width, **drawn).to(kind)
        self.weight = (0.05 * torch.randn(terms, width, **drawn)).to(kind)
        self.bias = torch.randn(terms, **drawn).to(kind)
        self.mask = torch.ones(batch, LENGTH, dtype=torch.bool, device=device)
        active = torch.rand(batch, terms, **drawn) < density
        self.gradient = (torch.randn(batch, terms, **drawn) * active).to(kind)
        for leaf in (self.hidden, self.weight, self.bias):
            leaf.requires_grad_(density > 0)

    def __str__(self) -> str:
        batch, length, width = self.hidden.shape
        kind = str(self.hidden.dtype).removeprefix("torch.")
        return f"{kind}, B={batch} L={length} D={width} V={len(self.weight)}"

    def run(self, head) -> None:
        with torch.set_grad_enabled(self.density > 0):
            pooled = head(self.hidden, self.weight, self.bias, self.mask)
        if self.density > 0:
            torch.autograd.grad(pooled, (self.hidden, self.weight, self.bias), self.gradient)


HEADS = {"plain": plain_pooled_logits, "milco": pooled_logits}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3, help="pairs of runs for each case")
    parser.add_argument("--memory", nargs=5, help=argparse.SUPPRESS)  # head, terms, width, density, kind
    options = parser.parse_args()
    if options.memory:
        head, terms, width, density, kind = options.memory
        case = Case(int(terms), int(width), float(density), getattr(torch, kind), "cpu")
        print(additional_memory(lambda: case.run(HEADS[head])))
        return
    rows = []
    for kind in ("float32", "bfloat16"):
        for name, density in DENSITIES.items():
            row = measure(Case(30522, 768, density, getattr(torch, kind), "cpu"), name, options.repeats)
            if kind == "float32":  # more processes would cost more time than they tell
                for column, head in (("baseline_mb", "plain"), ("milco_mb", "milco")):
                    words = head, "30522", "768", str(density), kind
                    row[column] = round(in_own_process(__file__, "--memory", *words))
            rows.append(row)
    save("head", rows)


def measure(case: Case, density: str, repeats: int) -> dict:
    """One row: the times of both heads."""
    row = {"benchmark": "head", "case": f"{density}, {case}"}
    return row | compare(lambda: case.run(plain_pooled_logits), lambda: case.run(pooled_logits), repeats)


if __name__ == "__main__":
    main()
