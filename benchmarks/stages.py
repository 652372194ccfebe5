"""Both stages as a whole, on the demo's model, text and precision: the plain recipe against this project's.

A step is a forward and a backward pass and the optimizer, at a rate of 0, so that the losses of both can be compared.
In Stage 2 both take the same steps. Stage 1 uses the paper's loss (no InfoNCE, both sides encoded) instead of the
demo's. There each recipe divides the same 3,200 pairs (a pool of `Steps`) into steps in its own way, and takes some of
them; the plain recipe takes fewer, and its time is scaled up. The result depends on the chosen steps, so they are drawn
at random several times, with the draw's number as seed. The speedup is the median of the draws, the spread their
smallest and largest. Both losses are over the examples of the plain recipe's steps; they must agree. Run by
`make bench`, after `make demo`.

python benchmarks/stages.py
"""

import argparse
from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd
import plain
import torch
from experiment import Experiment
from measure import additional_memory, compare, in_own_process, over_draws, save
from transformers import AutoModelForMaskedLM, AutoTokenizer

from milco.data.tokens import TokenCache
from milco.data.triples import Triples
from milco.modeling.model import MilcoModel
from milco.training import align, distill
from milco.training.batching import POOL, Steps
from milco.training.initial import freeze
from milco.training.teacher import Targets
from milco.training.trainer import Shares

STEPS = {"Stage 1": 15, "Stage 2": 2}
PLAIN_STEPS = 3  # of Stage 1
PAPER = {"english_weight": 1.0, "contrastive_weight": 0.0}  # Stage 1's loss in the paper, which both recipes have here


class Recipe:
    """A model in training, and the mean loss of what it has seen."""

    def __init__(self, model: MilcoModel, bf16: bool):
        self.model = model.train()
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, lr=0.0, fused=True)
        self.bf16 = bf16
        self.losses: list[float] = []

    def step(self, work: Callable[[MilcoModel], torch.Tensor]) -> None:
        try:
            with torch.autocast(self.model.device.type, torch.bfloat16, enabled=self.bf16):
                loss = work(self.model)
            loss.backward()
            self.optimizer.step()
        finally:  # a step that runs out of memory leaves no gradients to the next measurement
            self.optimizer.zero_grad()
        self.losses.append(float(loss.detach()))


def trained(experiment: Experiment, folder, **settings) -> MilcoModel:
    """A model of the demo, as its training has it."""
    model = MilcoModel.from_pretrained(folder, **settings)
    freeze(model, experiment.config)
    model.encoder.set_attn_implementation("eager")
    return model


Work = list[Callable[[], None]]  # a call for each optimizer step
Works = tuple[Work, Work, Callable[[], None], Recipe]


def stage_1(experiment: Experiment, bf16: bool, draw: int) -> Works:
    """The plain recipe's steps, ours, one of ours on all pairs of the plain ones, and the model that they train."""
    random = np.random.default_rng(draw)
    settings = experiment.config.align.model_copy(update=PAPER)
    config = experiment.config.model_copy(update={"align": settings})
    recipe = Recipe(trained(experiment, experiment.at(experiment.align.path)), bf16)
    lsr = experiment.at(experiment.lsr)
    teacher, words = AutoModelForMaskedLM.from_pretrained(lsr).eval(), AutoTokenizer.from_pretrained(lsr)
    english = pd.read_parquet(experiment.at(experiment.corpora.path) / "english.parquet").english
    cache = TokenCache(experiment.at(experiment.tokens.path))
    targets = Targets(experiment.at(experiment.targets.path))
    pairs = align.Pairs(cache, targets, recipe.model.tokenizer.pad_token_id, config)
    steps = Steps(
        cache.lengths,
        cache.families,
        settings.global_batch_size,
        1,
        config.training_seed,
        together=settings.pairs_per_text,
    )
    pool = np.stack([steps[step] for step in range(POOL)])
    chosen = random.choice(POOL, STEPS["Stage 1"], replace=False)
    batches = random.permutation(pool.ravel()).reshape(pool.shape)[:PLAIN_STEPS]
    loss = align.loss(config)

    def plain_loss(model: MilcoModel, batch: np.ndarray) -> torch.Tensor:
        ids = cache.english_ids(batch)
        texts = words(english[ids].tolist(), truncation=True, max_length=settings.max_length, padding=True,
                      return_tensors="pt")  # fmt: skip
        sides = [cache.pairs.lists("input_ids", batch), cache.english.lists("input_ids", ids)]
        return plain.alignment(model, sides, pairs.pad, plain.target(teacher, texts), settings.alignment_loss)

    def ours_again() -> None:
        recipe.step(as_work(pairs(np.sort(batches, axis=None), 0), loss))

    plainly = [partial(recipe.step, partial(plain_loss, batch=batch)) for batch in batches]
    return plainly, our_steps(recipe, Shares(steps, 1, pairs), chosen, loss), ours_again, recipe


def our_steps(recipe: Recipe, shares: Shares, chosen: np.ndarray, loss) -> Work:
    """Some steps as the trainings take them."""

    def take(step: int) -> None:
        recipe.step(as_work(shares[step], loss))

    return [partial(take, step) for step in chosen]


def as_work(batch: dict, loss) -> Callable[[MilcoModel], torch.Tensor]:
    """A step's batch as a piece of work for `Recipe.step`."""

    def work(model: MilcoModel) -> torch.Tensor:
        views = model(batch["input_ids"], batch["attention_mask"], batch["passes"], batch["recompute"])
        return plain.summed(loss(views, batch))

    return work


def stage_2(experiment: Experiment, bf16: bool, draw: int) -> Works:
    """The same of Stage 2."""
    config, settings = experiment.config, experiment.config.distill
    recipe = Recipe(trained(experiment, experiment.at(experiment.distill.path), echo=config.model.echo), bf16)
    packed = Triples(experiment.at(experiment.packed.path))
    groups = distill.Groups(packed, recipe.model.tokenizer.pad_token_id, config)
    steps = Steps(packed.longest, [(1, len(packed))], settings.global_batch_size, 1, config.training_seed)
    chosen = np.random.default_rng(draw).choice(len(steps), STEPS["Stage 2"], replace=False)
    loss = distill.loss(config)
    lengths = config.model.query_max_length, config.model.passage_max_length
    shares = Shares(steps, 1, groups)

    def take(step: int) -> None:
        recipe.step(lambda model: plain.distillation(model, shares[step], lengths, groups.pad, loss))

    ours = our_steps(recipe, shares, chosen, loss)
    return [partial(take, step) for step in chosen], ours, partial(run, ours), recipe


def run(work: Work) -> None:
    for step in work:
        step()


STAGES = {"Stage 1": stage_1, "Stage 2": stage_2}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=5, help="draws of steps for each case")
    parser.add_argument("--memory", nargs=3, help=argparse.SUPPRESS)  # stage, bf16, which
    options = parser.parse_args()
    experiment = Experiment()
    if options.memory:
        stage, bf16, which = options.memory
        plainly, ours, *_ = STAGES[stage](experiment, bf16 == "True", 0)
        print(additional_memory(partial(run, plainly if which == "plain" else ours)))
        return
    rows = [measure(experiment, stage, bf16, options.draws) for stage in STAGES for bf16 in (True, False)]
    save("stages", rows)


def measure(experiment: Experiment, stage: str, bf16: bool, draws: int) -> dict:
    """One row."""
    found = [measure_draw(experiment, stage, bf16, draw) for draw in range(draws)]
    settings, unit = (
        (experiment.config.align, "pairs") if stage == "Stage 1" else (experiment.config.distill, "queries")
    )
    examples = STEPS[stage] * settings.global_batch_size
    case = f"{stage}, {'bfloat16' if bf16 else 'float32'}, {draws} draws of {examples} {unit}"
    row = {"benchmark": "stages", "case": case, **over_draws(found)}
    if bf16:  # what experiments train in; more processes would cost more time than they tell
        for column, which in (("baseline_mb", "plain"), ("milco_mb", "milco")):
            row[column] = round(in_own_process(__file__, "--memory", stage, str(bf16), which))
    row["examples_per_second"] = round(examples / row["milco_s"], 1)
    plainly, ours = (round(float(np.mean([one[name] for one in found])), 4) for name in ("loss_plain", "loss_milco"))
    assert np.isclose(plainly, ours, rtol=0.01), f"{case}: the losses are {plainly} and {ours}"
    return row | {"loss_plain": plainly, "loss_milco": ours}


def measure_draw(experiment: Experiment, stage: str, bf16: bool, draw: int) -> dict:
    """Times and losses of one draw of steps."""
    plainly, ours, ours_again, recipe = STAGES[stage](experiment, bf16, draw)
    losses = {}

    def tell(name: str, work: Callable[[], None]) -> None:
        recipe.losses = []
        work()
        losses[name] = float(np.mean(recipe.losses))

    share = PLAIN_STEPS / STEPS[stage] if stage == "Stage 1" else 1.0
    warm_up = partial(run, [work[len(work) // 2] for work in (plainly, ours)])
    row = compare(partial(tell, "loss_plain", partial(run, plainly)), partial(run, ours), 1, share, warm_up)
    tell("loss_milco", ours_again)
    return row | losses


if __name__ == "__main__":
    main()
