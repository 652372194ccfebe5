"""Measure speed and memory of a GPU: rows with plain and optimised implementation side by side (measure.py)."""

import importlib.util
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import gpu_layout
import head
import numpy as np
import plain
import torch
from accelerate.utils import send_to_device
from gpu_layout import PAD, Sizes, Text, device
from measure import additional_memory, compare, seconds
from stages import Recipe, as_work, run
from transformers import AutoModelForMaskedLM

from milco.data.tokens import TokenCache
from milco.data.triples import Triples
from milco.modeling.embedding import add_gradients_in_place
from milco.modeling.head import plain_pooled_logits, pooled_logits
from milco.modeling.model import MilcoModel
from milco.modeling.rows import in_text_order
from milco.modeling.teacher import Teacher
from milco.training import align, distill
from milco.training.batching import Batch, Steps
from milco.training.teacher import Targets
from milco.training.trainer import Shares

# Dense bfloat16 products a second, as the makers say.
PEAKS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "B200": 2250e12, "L40S": 362e12, "4090": 165e12}
TOKENS_OF_A_TEXT = 30  # machine.tokens_per_text, to which the speeds of `plan` refer
TOKENS_OF_A_GROUP = 15, 120  # of a query and of a document
STEPS = 4  # of a stage, in one run


def fits(work: Callable[[int], object], start: int, most: int) -> int:
    """The largest size, by doubling, with which some work does not run out of memory; 0 if none."""
    found, size = 0, start
    while size <= most:
        try:
            work(size)
        except torch.OutOfMemoryError:
            break
        finally:
            torch.cuda.empty_cache()
        found, size = size, 2 * size
    return found


def side_by_side(baseline: Callable[[], object], milco: Callable[[], object], sizes: Sizes, share: float = 1.0) -> dict:
    """Times and memory of both ways; of one that does not fit into the device, a note. `share`: as in `compare`."""
    row: dict = {}
    for name, work in (("baseline", baseline), ("milco", milco)):
        try:
            row[f"{name}_mb"] = round(additional_memory(work))
        except torch.OutOfMemoryError:
            row["note"] = f"{'plain' if name == 'baseline' else name} runs out of memory"
        torch.cuda.empty_cache()
    if "note" in row:
        if "milco_mb" in row:
            row["milco_s"] = round(seconds(milco), 4)
        return row
    pair = seconds(baseline) / share + seconds(milco)
    repeats = max(min(3, sizes.repeats), min(sizes.repeats, int(sizes.patience / pair)))
    return row | compare(baseline, milco, repeats, share)


def heads(sizes: Sizes) -> Iterator[dict]:
    """The head: both vocabularies and all widths in bfloat16, then in float32; the largest batches."""
    densities = {**head.DENSITIES, "10 % active": 0.1}
    head.LENGTH = sizes.length
    sweep = [(terms, width) for width in sizes.widths for terms in sizes.terms]
    for kind in (torch.bfloat16, torch.float32):
        for terms, width in sweep:
            for name, density in densities.items():
                case = head.Case(terms, width, density, kind, device().type, sizes.batch)
                both = (partial(case.run, way) for way in head.HEADS.values())
                yield {"case": f"{name}, {case}"} | side_by_side(*both, sizes)
        if kind == torch.bfloat16:
            yield from largest_batches(sizes)
            yield from compiled(sizes, densities)


def largest_batches(sizes: Sizes) -> Iterator[dict]:
    for terms in sizes.terms:
        width = sizes.widths[0]
        row = {"case": f"largest batch, forward and backward, bfloat16, L={sizes.length} D={width} V={terms}"}
        for name, way in head.HEADS.items():

            def work(batch: int, way=way, terms=terms, width=width) -> None:
                head.Case(terms, width, 0.01, torch.bfloat16, device().type, batch).run(way)

            row[f"largest_batch_{name}"] = fits(work, 1, sizes.most_batch)
        yield row | {"note": "Sparton, its authors' figures: 1.33 times the batch at V≈30k, 26 times at V≈250k"}


def compiled(sizes: Sizes, densities: dict[str, float]) -> Iterator[dict]:
    """The plain head through torch.compile instead."""
    backend = "inductor" if device().type == "cuda" else "eager"  # a processor's compiler takes minutes
    for terms in sizes.terms:
        # Else the second vocabulary would be compiled for any size, and be slower for it.
        way = torch.compile(plain_pooled_logits, backend=backend, dynamic=False)
        for name, density in densities.items():
            case = head.Case(terms, sizes.widths[0], density, torch.bfloat16, device().type, sizes.batch)
            row = {"case": f"torch.compile for plain, {name}, bfloat16, D={sizes.widths[0]} V={terms}"}
            yield row | side_by_side(partial(case.run, way), partial(case.run, pooled_logits), sizes)


class Stage:
    """A stage of the paper's experiment on one device.

    Args:
        mean: tokens of its texts; full length by default.
        tokens: max_tokens_per_device.
    """

    def __init__(self, sizes: Sizes, name: str, terms: int, folder: Path, mean=None, **settings):
        self.sizes, self.name = sizes, name
        self.config = gpu_layout.paper(sizes, **settings)
        self.model = gpu_layout.model_of(sizes, terms, echo=name == "Stage 2")
        self.model.encoder.set_attn_implementation("sdpa")
        add_gradients_in_place(self.model.encoder.get_input_embeddings())  # as the trainings have it
        self.recipe = Recipe(self.model, bf16=True)
        if name == "Stage 1":
            cache = TokenCache(gpu_layout.write_pairs(sizes, folder, mean, terms))
            self.settings, self.unit = self.config.align, "pairs"
            self.collate = align.Pairs(cache, Targets(folder), PAD, self.config)
            self.loss, self.english = align.loss(self.config), cache
            steps = Steps(cache.lengths, cache.families, self.settings.global_batch_size, 1, 0)
        else:
            triples = Triples(gpu_layout.write_triples(sizes, folder, mean))
            self.settings, self.unit = self.config.distill, "queries"
            self.collate, self.loss = distill.Groups(triples, PAD, self.config), distill.loss(self.config)
            steps = Steps(triples.longest, [(1, len(triples))], self.settings.global_batch_size, 1, 0)
        self.shares = Shares(steps, 1, self.collate)

    def batch(self, step: int) -> Batch:
        return send_to_device(self.shares[step], self.model.device)

    def ours(self) -> None:
        """Some steps as the training takes them."""
        run([partial(self.step, number) for number in range(STEPS)])

    def step(self, number: int) -> None:
        self.recipe.step(as_work(self.batch(number), self.loss))

    def plainly(self, teacher: torch.nn.Module) -> None:
        """The first of these steps in the plain way, in Stage 1 with the teacher on the fly."""
        if self.name == "Stage 2":
            lengths = self.sizes.passage_length, self.sizes.passage_length
            batch = self.batch(0)
            self.recipe.step(lambda model: plain.distillation(model, batch, lengths, PAD, self.loss))
            return
        pairs = self.shares.steps[0]
        english = self.english.english_ids(pairs)
        tables = (self.english.pairs, pairs), (self.english.english, english)
        sides = [[text.astype(np.int64) for text in table.lists("input_ids", rows)] for table, rows in tables]
        # Texts of the teacher's own words, as long as the English ones.
        ids, mask = plain.padded([text % self.sizes.terms[0] for text in sides[1]], 0)
        texts = {"input_ids": ids.to(self.model.device), "attention_mask": mask.to(self.model.device)}

        def work(model: MilcoModel) -> torch.Tensor:
            wanted = plain.target(teacher, texts)
            if wanted.shape[1] < model.config.pivot_vocab_size:  # without a connector there is no teacher's target
                wanted = torch.nn.functional.pad(wanted, (0, model.config.pivot_vocab_size - wanted.shape[1]))
            return plain.alignment(model, sides, PAD, wanted, self.settings.alignment_loss)

        self.recipe.step(work)

    def told(self, took: float) -> dict:
        """Examples and tokens a second of `ours`, and the share of the device's peak."""
        tokens, products = 0, 0.0
        shape = self.model.config
        inside = sum(weight.numel() for name, weight in self.model.encoder.named_parameters() if "embed" not in name)
        for number in range(STEPS):
            lengths = self.shares[number]["attention_mask"].sum(dim=1)
            tokens += int(lengths.sum())
            attention = 4 * self.sizes.layers * self.sizes.width * int((lengths**2).sum())
            head_ = 2 * int(lengths.sum()) * shape.pivot_hidden_size * shape.pivot_vocab_size  # sparse on its way back
            products += 3 * (2 * inside * int(lengths.sum()) + attention) + head_
        row = {
            "examples_per_second": round(STEPS * self.settings.global_batch_size / took, 1),
            "tokens_per_second": round(tokens / took),
        }
        peak = next((peak for name, peak in PEAKS.items() if name in _device_name()), None)
        return row | ({"share_of_peak": f"{products / took / peak:.0%}"} if peak else {})


def _device_name() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else ""


def stages(sizes: Sizes) -> Iterator[dict]:
    """Both stages: the most tokens that fit; the lengths that `plan` assumes; the full layout beside the plain recipe;
    other settings."""
    with tempfile.TemporaryDirectory() as folder:
        where = partial(Path, folder)
        teacher = AutoModelForMaskedLM.from_pretrained(gpu_layout.teacher_of(sizes, where("teacher")))
        teacher = teacher.to(device()).eval()
        names = ("Stage 1", "Stage 2")
        most = {}
        for name in names:
            most[name] = most_tokens(sizes, name, sizes.terms[0], where(f"most {name}"))
            length = sizes.align_length if name == "Stage 1" else sizes.passage_length
            yield {"case": f"{name}, texts of {length}", "largest_max_tokens_per_device": most[name]}
        means = {"Stage 1": TOKENS_OF_A_TEXT, "Stage 2": TOKENS_OF_A_GROUP}
        keys = {"Stage 1": "align_pairs_per_second", "Stage 2": "distill_queries_per_second"}
        for name in names:
            stage = Stage(sizes, name, sizes.terms[0], where(f"plan {name}"), means[name], **_half(most[name]))
            row = stage_row(
                stage, None, f"{name}, bfloat16, texts of {means[name]} tokens in the mean, for plan", sizes
            )
            yield row | {keys[name]: row["examples_per_second"]}
        for terms in sizes.terms:
            for name in names:
                stage = Stage(sizes, name, terms, where(f"{name} {terms}"), **_half(most[name]))
                yield stage_row(stage, teacher, f"{name}, bfloat16, full length, V={terms}", sizes)
        for name in names:
            for what, settings, attention in (
                ("gradient checkpointing", {"gradient_checkpointing": True}, "sdpa"),
                ("16,384 tokens per device", {"max_tokens_per_device": 16384}, "sdpa"),
                ("flash attention", {}, "flash_attention_2"),
            ):
                case = f"{name}, bfloat16, full length, {what}"
                if attention == "flash_attention_2" and not importlib.util.find_spec("flash_attn"):
                    yield {"case": case, "note": "flash_attn is not installed"}
                    continue
                stage = Stage(sizes, name, sizes.terms[0], where(case), **(_half(most[name]) | settings))
                stage.model.encoder.set_attn_implementation(attention)
                if stage.settings.gradient_checkpointing:
                    stage.model.encoder.gradient_checkpointing_enable({"use_reentrant": False})
                yield stage_row(stage, None, case, sizes)


def _half(tokens: int) -> dict:
    """What fits for sure."""
    return {"max_tokens_per_device": max(1, tokens // 2)}


def stage_row(stage: Stage, teacher: torch.nn.Module | None, case: str, sizes: Sizes) -> dict:
    """One row; without a teacher, of ours alone."""
    row: dict = {"case": case}
    stage.step(0)  # else the optimizer's states would be counted
    if teacher is None:
        row["milco_mb"] = round(additional_memory(stage.ours))
        row["milco_s"] = round(min(seconds(stage.ours) for _ in range(min(3, sizes.repeats))), 4)
    else:
        row |= side_by_side(partial(stage.plainly, teacher), stage.ours, sizes, share=1 / STEPS)
    return row | (stage.told(row["milco_s"]) if "milco_s" in row else {})


def most_tokens(sizes: Sizes, name: str, terms: int, folder: Path) -> int:
    """The largest max_tokens_per_device, by doubling: so many tokens in one pass."""
    stage = Stage(sizes, name, terms, folder)
    length = 2 * sizes.align_length if name == "Stage 1" else 9 * sizes.passage_length

    def work(tokens: int) -> None:
        stage.collate.settings = stage.settings.model_copy(update={"max_tokens_per_device": tokens})
        batch = stage.collate(
            np.arange(min(max(1, tokens // length), len(stage.shares.steps) * stage.settings.global_batch_size)), 0
        )
        stage.recipe.step(as_work(send_to_device(batch, stage.model.device), stage.loss))

    return fits(work, length, sizes.most_tokens)


def encoding(sizes: Sizes) -> Iterator[dict]:
    """Documents of the full length to sparse rows."""
    model = gpu_layout.model_of(sizes, sizes.terms[0], echo=True).eval()
    text = Text(2, sizes.source_terms)
    texts = [ids.astype(np.int64) for ids in text.lists(text.lengths(sizes.documents, sizes.passage_length))]
    size = 64
    for bf16 in (True, False):

        def ours(bf16=bf16):
            places = [list(range(start, min(start + size, len(texts)))) for start in range(0, len(texts), size)]
            padded = (plain.padded([texts[place] for place in some], PAD) for some in places)
            batches = ((some, {"input_ids": ids, "attention_mask": mask})
                       for some, (ids, mask) in zip(places, padded, strict=True))  # fmt: skip
            with torch.autocast(device().type, torch.bfloat16, enabled=bf16):
                return in_text_order(model.encode_batches(batches), model.width)

        name = "bfloat16" if bf16 else "float32"
        row = {"case": f"{len(texts)} documents of {sizes.passage_length} tokens, {name}"}
        row |= side_by_side(partial(plain.rows, model, texts, PAD, size), ours, sizes)
        if "milco_s" in row:
            row["documents_per_second"] = round(len(texts) / row["milco_s"], 1)
            if bf16:
                row["encode_documents_per_second"] = row["documents_per_second"]
        yield row


def vectors(sizes: Sizes) -> Iterator[dict]:
    yield from encoding(sizes)
    yield from teacher(sizes)


def teacher(sizes: Sizes) -> Iterator[dict]:
    """English texts of the mean length to targets."""
    with tempfile.TemporaryDirectory() as folder:
        model = Teacher(gpu_layout.teacher_of(sizes, Path(folder)), str(device()))
        text = Text(3, sizes.terms[0] - 5)
        lengths = text.lengths(4 * sizes.documents, sizes.align_length, TOKENS_OF_A_TEXT)
        texts = [" ".join(f"w{number}" for number in ids) for ids in text.lists(lengths - 2, specials=False)]
        for name, precision, bf16 in (
            ("float32", "highest", False),
            ("TF32", "high", False),
            ("bfloat16", "highest", True),
        ):

            def work(bf16=bf16) -> None:
                with torch.autocast(device().type, torch.bfloat16, enabled=bf16):
                    for _ in model.iter_rows(texts, sizes.align_length, 64):
                        pass

            torch.set_float32_matmul_precision(precision)
            try:
                work()
                took = min(seconds(work) for _ in range(min(3, sizes.repeats)))
            finally:
                torch.set_float32_matmul_precision("highest")
            row = {
                "case": f"{len(texts)} texts of {TOKENS_OF_A_TEXT} tokens in the mean, {name}",
                "milco_s": round(took, 4),
            }
            row["texts_per_second"] = round(len(texts) / took, 1)
            if name == "float32":  # as rule `teacher` has it
                row["teacher_texts_per_second"] = row["texts_per_second"]
            yield row
