"""Compare GPU results with CPU results: rows with the largest difference found and the largest allowed."""

import copy
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import gpu_layout
import numpy as np
import torch
from accelerate.utils import send_to_device
from gpu_layout import Sizes, device
from plain import summed
from torch import Tensor, distributed, nn

from milco.data.tokens import TokenCache
from milco.data.triples import Triples
from milco.modeling import kernels
from milco.modeling.embedding import add_gradients_in_place
from milco.modeling.head import CHUNKED, SPARSE_CELL, Implementation, plain_pooled_logits, pooled_logits
from milco.modeling.losses import alignment_loss
from milco.modeling.model import MilcoModel
from milco.training import align, distill
from milco.training.batching import Batch
from milco.training.teacher import Targets
from milco.training.trainer import Loss

TRITON = Implementation(kernels.best, kernels.multiply)
Leaves = list[Tensor]
DENSE = SPARSE_CELL // 2  # tokens of texts so short that the gradient of all terms takes the dense way
FLOOR = 1e-4  # rounding leaves 3e-11 of the longest gradient; the shortest that is none has 2e-5 (bias of the queries)


def row(case: str, found: float, allowed: float = 0.0) -> dict:
    return {"case": case, "largest_difference": found, "allowed": allowed, "right": found <= allowed}


def difference(found: Tensor, wanted: Tensor, relative: bool = False) -> float:
    """The largest difference; NaN in the same places is none. `relative`: divided by the largest value wanted."""
    found = found.detach().double()  # compared where it is: the gradient of a large weight has 2 GB
    wanted = wanted.detach().to(found.device).double()
    if not torch.equal(found.isnan(), wanted.isnan()):
        return float("inf")
    found, wanted = found.nan_to_num(0.0), wanted.nan_to_num(0.0)
    largest = float((found - wanted).abs().max()) if found.numel() else 0.0
    return largest / max(float(wanted.abs().max()), 1e-30) if relative else largest


def draw(sizes: Sizes, terms: int, width: int, kind: torch.dtype, whole: bool) -> tuple[Leaves, Tensor]:
    """States, weight and bias, and a ragged mask with an empty text and one of a single token.

    Args:
        whole: small whole numbers, whose sums are exact in any order; every token is there twice, so that cells tie.
    """
    generator = torch.Generator(device()).manual_seed(0)
    texts, length = max(4, sizes.batch // 4), sizes.length
    shapes = (texts, length, width), (terms, width), (terms,)
    made = [torch.randn(shape, generator=generator, device=device()) for shape in shapes]
    if whole:
        made = [values.round().clamp(-3, 3) for values in made]
        made[0][:, length // 2 :] = made[0][:, : length - length // 2].clone()
        made[2].zero_()  # added to what is rounded already
    lengths = torch.randint(1, length + 1, (texts,), generator=generator, device=device())
    lengths[0], lengths[1], lengths[-1] = 1, 0, length
    mask = torch.arange(length, device=device()) < lengths[:, None]
    return [values.to(kind).requires_grad_() for values in made], mask


def gradients(head: Callable, leaves: Leaves, mask: Tensor, density: float) -> tuple[Tensor, ...]:
    """Values, and gradients of all leaves, when a share `density` of the cells has a gradient, a whole number."""
    pooled = head(*leaves, mask)
    generator = torch.Generator().manual_seed(1)
    wanted = torch.randint(-2, 3, pooled.shape, generator=generator)
    wanted = wanted * (torch.rand(pooled.shape, generator=generator) < density)
    return pooled.detach(), *torch.autograd.grad(pooled, leaves, wanted.to(pooled))


def in_float64(leaves: Leaves, mask: Tensor, density: float, kind: torch.dtype) -> tuple[Tensor, ...]:
    """The same from the plain head in float64, rounded once."""
    exact = [leaf.detach().double().requires_grad_() for leaf in leaves]
    return tuple(values.to(kind) for values in gradients(plain_pooled_logits, exact, mask, density))


def heads(sizes: Sizes) -> Iterator[dict]:
    """The kernels against the plain head."""
    ours = partial(pooled_logits, implementation=TRITON)
    for terms in sizes.terms:
        for width in sizes.widths:
            for kind in (torch.bfloat16, torch.float32):
                name = f"{str(kind).removeprefix('torch.')}, D={width} V={terms}"
                short = min(sizes.length, DENSE)
                for length, density in dict.fromkeys([(sizes.length, 0.01), (sizes.length, 1.0), (short, 1.0)]):
                    leaves, mask = draw(sizes._replace(length=length), terms, width, kind, whole=True)
                    found, wanted = gradients(ours, leaves, mask, density), in_float64(leaves, mask, density, kind)
                    pairs = zip(found, wanted, strict=True)
                    # The dense way rounds a part of the sum at a time; else whole numbers leave nothing to round.
                    rounded = 2**-7 if kind == torch.bfloat16 and density == 1.0 and length <= DENSE else 0.0
                    worst = max(difference(one, other, relative=True) for one, other in pairs)
                    yield row(f"head, whole numbers, {density:.0%} active, L={length}, {name}", worst, rounded)
                allowed = 2**-7 if kind == torch.bfloat16 else 0.0
                leaves, mask = draw(sizes, terms, width, kind, whole=True)
                yield row(f"head, NaN in one token, {name}", nan_in_one_token(leaves, mask), allowed)
                leaves, mask = draw(sizes, terms, width, kind, whole=False)
                for density in (1.0, 0.01):
                    found, again = gradients(ours, leaves, mask, density), gradients(ours, leaves, mask, density)
                    worst = max(difference(one, other) for one, other in zip(found, again, strict=True))
                    yield row(f"head twice over, {density:.0%} active, {name}", worst)
                exact = plain_pooled_logits(*(leaf.detach().double() for leaf in leaves), mask)
                allowed = 2**-7 if kind == torch.bfloat16 else 1e-5
                yield row(f"head, random numbers, {name}", difference(found[0], exact, relative=True), allowed)


def nan_in_one_token(leaves: Leaves, mask: Tensor) -> float:
    """Difference to the plain head, infinite unless NaN comes out in the same places."""
    with torch.no_grad():
        leaves[0][-1, leaves[0].shape[1] // 2] = torch.nan
    # Every cell has a gradient: ours would skip a cell without one, which is 0 × NaN in the plain product.
    found, wanted = (
        (pooled.detach(), *torch.autograd.grad(pooled.sum(), leaves))
        for pooled in (pooled_logits(*leaves, mask, implementation=TRITON), plain_pooled_logits(*leaves, mask))
    )
    return max(difference(*both, relative=True) for both in zip(found, wanted, strict=True))


def parts(sizes: Sizes) -> Iterator[dict]:
    """Sparse products, sums of runs, the embedding table."""
    generator = torch.Generator().manual_seed(0)
    rows, columns, width = sizes.batch * sizes.length, sizes.terms[0], sizes.widths[0]
    cells = torch.randint(0, 40, (rows,), generator=generator)
    starts = nn.functional.pad(cells.cumsum(0), (1, 0)).to(device())
    total = int(cells.sum())
    place = torch.randint(0, columns, (total,), generator=generator).to(device())
    values, dense = (torch.randn(*shape, generator=generator).to(device()) for shape in ((total,), (columns, width)))
    product = TRITON.multiply(starts, place, values, dense)
    yield row("CSR product", difference(product, CHUNKED.multiply(starts, place, values, dense), relative=True), 1e-5)

    pooled = torch.randn(sizes.batch, columns, generator=generator) - 2
    target = (torch.randn(sizes.batch, columns, generator=generator) - 2).relu()
    pooled[0], target[0] = -1.0, 0.0  # a text without a term

    def back(where: torch.device) -> tuple[Tensor, Tensor]:
        leaf = pooled.to(where).requires_grad_()
        loss = alignment_loss(leaf, target.to(where))
        loss.mean().backward()
        return loss, leaf.grad

    both = zip(back(device()), back(torch.device("cpu")), strict=True)
    yield row("segment_reduce", max(difference(*one, relative=True) for one in both), 1e-5)

    table = nn.Embedding(sizes.source_terms, width, padding_idx=1)
    ours = copy.deepcopy(table).to(device())
    add_gradients_in_place(ours)
    ids = torch.randint(0, min(500, sizes.source_terms), (sizes.batch, sizes.length), generator=generator)
    wanted = torch.randn(*ids.shape, width, generator=generator)
    for _ in range(2):  # a second pass adds to the first one's
        table(ids).backward(wanted)
        ours(ids.to(device())).backward(wanted.to(device()))
    yield row("gradient of the embedding table", difference(ours.weight.grad, table.weight.grad, relative=True), 1e-5)


class Stage:
    """One step of a stage, with its real loss, of a small model in float32."""

    def __init__(self, sizes: Sizes, folder: Path, stage: str):
        small = sizes._replace(layers=2, width=min(sizes.width, 128), heads=2, inner=min(sizes.inner, 256))
        self.small = small._replace(examples=min(sizes.examples, 512), terms=sizes.terms[:1])
        # With a contrast, whose products and sums no other part of the losses has.
        self.config, self.stage = gpu_layout.paper(self.small, contrastive_weight=1.0), stage
        self.model = gpu_layout.model_of(self.small, sizes.terms[0], stage == "Stage 2", torch.device("cpu")).train()
        if stage == "Stage 1":
            gpu_layout.write_pairs(self.small, folder, mean=sizes.align_length / 2)
            self.collate = align.Pairs(TokenCache(folder), Targets(folder), gpu_layout.PAD, self.config)
            self.loss: Loss = align.loss(self.config)
        else:
            gpu_layout.write_triples(self.small, folder, (sizes.passage_length / 4, sizes.passage_length / 2))
            self.collate = distill.Groups(Triples(folder), gpu_layout.PAD, self.config)
            self.loss = distill.loss(self.config)
        for module in self.model.modules():  # both devices must do the same
            if isinstance(module, nn.Dropout):
                module.p = 0.0

    def examples(self, count: int) -> Batch:
        return self.collate(np.arange(count), 0)

    def gradients(self, model: MilcoModel, batch: Batch) -> dict[str, Tensor]:
        """Loss, and gradients of all weights."""
        batch = send_to_device(batch, model.device)
        model.zero_grad()
        views = model(batch["input_ids"], batch["attention_mask"], batch["passes"], batch["recompute"])
        loss = summed(self.loss(views, batch))
        loss.backward()
        named = model.named_parameters()
        return {"loss": loss} | {name: leaf.grad.clone() for name, leaf in named if leaf.grad is not None}


def worst_of(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> float:
    """Largest distance of two gradients, relative to the length of the one wanted. The bias of the keys has a gradient
    of 0 but for rounding, and no two devices round alike: `FLOOR` of the longest gradient is taken as its length."""
    found, wanted = ({name: values.detach().cpu() for name, values in of.items()} for of in (found, wanted))
    floor = FLOOR * max(float(values.norm()) for values in wanted.values())
    return max(
        float((found[name] - values).norm()) / max(float(values.norm()), floor) for name, values in wanted.items()
    )


def stages(sizes: Sizes) -> Iterator[dict]:
    """Both stages against the processor, and the gradient cache against one pass."""
    for name in ("Stage 1", "Stage 2"):
        with tempfile.TemporaryDirectory() as folder:
            stage = Stage(sizes, Path(folder), name)
            batch = stage.examples(sizes.queries)
            wanted = stage.gradients(stage.model, batch)
            model = copy.deepcopy(stage.model).to(device())
            found = stage.gradients(model, batch)
            yield row(f"{name}, loss and gradients in float32", worst_of(found, wanted), 1e-3)
            cached = stage.gradients(model, {**batch, "recompute": True})
            yield row(f"{name}, gradient cache", worst_of(cached, found), 1e-5)


def processes(sizes: Sizes) -> Iterator[dict]:
    """Two processes on one device, over gloo, against one: losses of three steps that change the weights."""
    port, size = str(_free_port()), "tiny" if sizes is gpu_layout.TINY else "full"
    with tempfile.TemporaryDirectory() as folder:
        alone = torch.tensor(losses(Stage(sizes, Path(folder, "alone"), "Stage 2"), 0, 1))
        meeting = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "LOCAL_RANK": "0"}
        started = [
            subprocess.Popen(
                [sys.executable, __file__, size, f"{folder}/{rank}"], env={**meeting, "RANK": str(rank)},
                stdout=subprocess.PIPE, text=True,
            )
            for rank in range(2)
        ]  # fmt: skip
        told = [process.communicate()[0].split() for process in started]
    if any(process.returncode for process in started):
        raise RuntimeError("one of two processes over gloo has failed")
    together = torch.tensor([[float(word) for word in words] for words in told]).mean(dim=0)
    yield row("two processes over gloo, losses of Stage 2", difference(together, alone, relative=True), 1e-4)


def _free_port() -> int:
    return distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False).port


def losses(stage: Stage, rank: int, count: int) -> list[float]:
    """Losses of a process in three steps; it does its share of each."""
    model = together = stage.model.to(device())
    add_gradients_in_place(model.encoder.get_input_embeddings())
    if count > 1:  # as the trainings have it
        together = nn.parallel.DistributedDataParallel(
            model, broadcast_buffers=False, find_unused_parameters=not torch.cuda.is_available()
        )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    found = []
    for step in range(3):
        share = stage.collate(np.arange(4 * step + rank, 4 * step + 4, count), 0)
        batch = send_to_device(share, model.device)
        views = together(batch["input_ids"], batch["attention_mask"], batch["passes"], batch["recompute"])
        loss = summed(stage.loss(views, batch))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        found.append(float(loss.detach()))
    return found


def train_together(sizes: Sizes, folder: Path) -> None:
    """What one of the processes does: prints its losses."""
    distributed.init_process_group("gloo")
    rank, count = distributed.get_rank(), distributed.get_world_size()
    print(*losses(Stage(sizes, folder, "Stage 2"), rank, count))
    distributed.destroy_process_group()


def correct(sizes: Sizes) -> Iterator[dict]:
    for part in (parts, stages, heads):
        yield from part(sizes)


if __name__ == "__main__":
    train_together(gpu_layout.TINY if sys.argv[1] == "tiny" else gpu_layout.FULL, Path(sys.argv[2]))
