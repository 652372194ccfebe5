"""The pooled head against the plain one, which builds all B×L×V logits: time and additional memory.

python benchmarks/head.py            B=32, L=256, D=768, V=30522 on this machine's processor
python benchmarks/head.py --gpu      V=30522 and 250002, D=384, 768 and 1024; torch.compile beside it
"""

import argparse

import torch
from measure import additional_memory, compare, in_own_process, save

from milco.modeling.head import plain_pooled_logits, pooled_logits

BATCH, LENGTH = 32, 256
# What a loss leaves of the gradient: none (inference), the active terms of a sparse model, everything.
DENSITIES = {"forward": 0.0, "1 % active": 0.01, "all active": 1.0}


class Case:
    """Random inputs of one case, drawn the same way in every process."""

    def __init__(self, terms: int, width: int, density: float, kind: torch.dtype, device: str):
        generator = torch.Generator().manual_seed(0)
        self.density = density
        self.hidden = torch.randn(BATCH, LENGTH, width, generator=generator).to(device, kind)
        self.weight = (0.05 * torch.randn(terms, width, generator=generator)).to(device, kind)
        self.bias = torch.randn(terms, generator=generator).to(device, kind)
        self.mask = torch.ones(BATCH, LENGTH, dtype=torch.bool, device=device)
        active = torch.rand(BATCH, terms, generator=generator) < density
        self.gradient = (torch.randn(BATCH, terms, generator=generator) * active).to(device, kind)
        for leaf in (self.hidden, self.weight, self.bias):
            leaf.requires_grad_(density > 0)

    def run(self, head) -> None:
        with torch.set_grad_enabled(self.density > 0):
            pooled = head(self.hidden, self.weight, self.bias, self.mask)
        if self.density > 0:
            torch.autograd.grad(pooled, (self.hidden, self.weight, self.bias), self.gradient)


HEADS = {"plain": plain_pooled_logits, "milco": pooled_logits}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpu", action="store_true", help="run on CUDA")
    parser.add_argument("--repeats", type=int, help="pairs of runs for each case (3, on CUDA 50)")
    parser.add_argument("--memory", nargs=5, help=argparse.SUPPRESS)  # head, terms, width, density, kind
    options = parser.parse_args()
    device = "cuda" if options.gpu else "cpu"
    if options.memory:
        head, terms, width, density, kind = options.memory
        case = Case(int(terms), int(width), float(density), getattr(torch, kind), device)
        print(additional_memory(lambda: case.run(HEADS[head])))
        return
    repeats = options.repeats or (50 if options.gpu else 3)
    rows = []
    for terms in (30522, 250002) if options.gpu else (30522,):
        for width in (384, 768, 1024) if options.gpu else (768,):
            for kind in ("float32", "bfloat16"):
                for name, density in DENSITIES.items():
                    rows.append(measure(terms, width, kind, name, density, device, repeats))
    save("head-gpu" if options.gpu else "head", rows)


def measure(terms: int, width: int, kind: str, name: str, density: float, device: str, repeats: int) -> dict:
    """One row, and on a GPU the time of the compiled plain head beside it."""
    case = Case(terms, width, density, getattr(torch, kind), device)
    row = {"benchmark": "head", "case": f"{name}, {kind}, B={BATCH} L={LENGTH} D={width} V={terms}"}
    row |= compare(lambda: case.run(plain_pooled_logits), lambda: case.run(pooled_logits), repeats)
    if device == "cuda":
        compiled = torch.compile(plain_pooled_logits)
        beside = compare(lambda: case.run(compiled), lambda: case.run(pooled_logits), repeats)
        row |= {"compiled_s": beside["baseline_s"], "speedup_to_compiled": beside["speedup"]}
    if kind == "float32" or device == "cuda":  # a process of its own on this processor costs more than it tells
        words = [str(terms), str(width), str(density), kind, *(["--gpu"] if device == "cuda" else [])]
        for column, head in (("baseline_mb", "plain"), ("milco_mb", "milco")):
            row[column] = round(in_own_process(__file__, "--memory", head, *words))
    return row


if __name__ == "__main__":
    main()
