"""What both stages share: the Trainer, its checkpoints, its metrics and its looks at the development collections.

A run folder holds config.yaml, environment.json, metrics.jsonl (one row per logged step), checkpoints/ while it
trains, tracking/ if it is shown somewhere (tracking.py), and in the end model/, which appears whole or not at all; a
run that was cut off goes on from its last checkpoint (recovery.py).
"""

import json
import os
import shutil
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, distributed
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset, Sampler, SequentialSampler
from tqdm import tqdm
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments, set_seed

from milco.config import Config, Training
from milco.environment import environment
from milco.files import write_json
from milco.modeling.embedding import add_gradients_in_place
from milco.modeling.model import MilcoModel, Views
from milco.training.batching import Steps, passes
from milco.training.guard import Guard, refuse_if_stopped
from milco.training.recovery import (
    Interruption,
    checkpoints_of,
    draft_of,
    finish,
    first_decides,
    forget_what_is_outdated,
    hand_out,
    last_checkpoint,
    made_elsewise,
    seal,
    wait_for_others,
    writing,
)
from milco.training.tracking import PROJECT, trackers

KEPT_CHECKPOINTS = 2
EXAMPLES = {"align": "pair", "distill": "query"}  # what the progress bar counts
# Tokens that take as long as it takes to start one more forward and backward pass.
COST_OF_A_PASS = 4096 if torch.cuda.is_available() else 24
Part = dict[str, Any]
Collate = Callable[[np.ndarray, int], list[Part]]
Loss = Callable[[Views, Part], dict[str, Tensor]]


class Shares(Dataset):
    """What each process does in each step, in order: process r of W takes the items r, r+W, r+2W, …

    Args:
        steps: examples of every optimizer step (`batching.Steps`).
        collate: (example numbers, number of the step) → parts, which the model takes one after the other.
    """

    def __init__(self, steps: Steps, processes: int, collate: Collate):
        self.steps, self.processes, self.collate = steps, processes, collate

    def __len__(self) -> int:
        return len(self.steps) * self.processes

    def __getitem__(self, number: int) -> list[Part]:
        step, process = divmod(number, self.processes)
        return self.collate(self.steps[step].reshape(self.processes, -1)[process], step)


class StageTrainer(Trainer):
    """A Trainer whose order is planned, whose checkpoints appear whole, and whose new layers learn faster."""

    def __init__(self, *args, run: Path, settings: Training, loss: Loss, **kwargs):
        super().__init__(*args, **kwargs)
        self.run = run
        self.settings = settings
        self.stage_loss = loss
        self.sums: dict[str, Tensor] = defaultdict(lambda: torch.zeros((), device=self.args.device))
        self.steps_in_sums = 0

    def _get_train_sampler(self, train_dataset=None) -> Sampler:
        return SequentialSampler(train_dataset or self.train_dataset)

    def training_step(self, model, inputs, num_items_in_batch=None):
        """Forward and backward of this process's share of a step, part by part; its gradients are exchanged once."""
        model.train()
        parts = self._prepare_inputs(inputs)
        total = torch.zeros((), device=self.args.device)
        for place, part in enumerate(parts, 1):
            with nullcontext() if place == len(parts) else self.accelerator.no_sync(model):
                loss = self.compute_loss(model, part)
                self.accelerator.backward(loss)
            total += loss.detach()
        self.steps_in_sums += 1
        return total

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """Sum of the stage's loss terms, weighted by the part's share; each of them is logged under its own name."""
        with self.accelerator.autocast():
            views = model(inputs["input_ids"], inputs["attention_mask"], inputs["passes"], inputs["recompute"])
            terms = self.stage_loss(views, inputs)
        for name, value in terms.items():
            self.sums[name] += inputs["share"] * value.detach()
        return inputs["share"] * sum(value for name, value in terms.items() if name.startswith("loss_"))

    def log(self, logs, *args, **kwargs):
        for name, value in self.sums.items():
            logs[name] = value.item() / self.steps_in_sums
        self.sums.clear()
        self.steps_in_sums = 0
        super().log(logs, *args, **kwargs)

    def create_optimizer(self, model=None):
        """AdamW in which connector and LexEcho, which no checkpoint brings, have a rate of their own."""
        if self.optimizer is None:
            decayed = set(self.get_decay_parameter_names(self.model))
            groups: dict[tuple[float, float], list] = {}
            for name, parameter in self.model.named_parameters():
                if parameter.requires_grad:
                    new = name.startswith(("connector.", "echo."))
                    rate = self.settings.new_layer_learning_rate if new else None
                    decay = self.settings.weight_decay if name in decayed else 0.0
                    groups.setdefault((rate or self.settings.learning_rate, decay), []).append(parameter)
            self.optimizer = torch.optim.AdamW(
                [{"params": group, "lr": rate, "weight_decay": decay} for (rate, decay), group in groups.items()],
                fused=True,
            )
        return self.optimizer

    def _get_output_dir(self, trial) -> str:
        return str(draft_of(self.run))

    def _save_checkpoint(self, model, trial) -> None:
        """Write a checkpoint aside, seal it, then rename it: what is called checkpoint-N is complete."""
        name = f"checkpoint-{self.state.global_step}"
        with writing(name, self.run):
            super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            with writing(name, self.run):
                seal(draft_of(self.run) / name)
                os.replace(draft_of(self.run) / name, Path(self.args.output_dir) / name)
            for old in checkpoints_of(self.run)[:-KEPT_CHECKPOINTS]:
                shutil.rmtree(old)
        self.accelerator.wait_for_everyone()


def collate_texts(texts: list[np.ndarray], pad_id: int, settings: Training, share: float = 1.0) -> Part:
    """Token ids of N texts → what the model wants to know of them.

    Args:
        share: of the examples of the process in this step, so that parts add up to one mean.

    Returns:
        input_ids and attention_mask (N×L, padded on the right), passes (`batching.passes`), recompute (they do not fit
        into the budget together) and share.
    """
    lengths = np.array([len(text) for text in texts])
    ids = pad_sequence([torch.from_numpy(text.astype(np.int64)) for text in texts], True, pad_id)
    budget = settings.max_tokens_per_device
    together = passes(lengths, budget, COST_OF_A_PASS)
    return {
        "input_ids": ids,
        "attention_mask": (torch.arange(ids.shape[1]) < torch.from_numpy(lengths)[:, None]).long(),
        "passes": [(torch.from_numpy(rows), length) for rows, length in together],
        "recompute": len(together) > 1 and int(lengths.sum()) > budget,
        "share": share,
    }


def from_all_processes(rows: Tensor) -> Tensor:
    """Rows B×… of every process below each other, the first one's first: (W·B)×…, with gradients to all of them.

    A second dimension may be of different length in each process and is filled up with zeros.
    """
    if not distributed.is_initialized() or distributed.get_world_size() == 1:
        return rows  # gloo would copy them in a thread of its own, after which OpenMP lets all threads sleep and wake
    if rows.dim() > 1:
        longest = torch.tensor(rows.shape[1], device=rows.device)
        distributed.all_reduce(longest, op=distributed.ReduceOp.MAX)
        rows = pad(rows, (0, int(longest) - rows.shape[1]))
    return _Gather.apply(rows)


class _Gather(torch.autograd.Function):
    """All-gather whose backward pass sums what all processes want of a row."""

    @staticmethod
    def forward(ctx, rows: Tensor) -> Tensor:
        parts = [torch.empty_like(rows) for _ in range(distributed.get_world_size())]
        distributed.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        gradient = gradient.contiguous()
        distributed.all_reduce(gradient)
        return gradient.chunk(distributed.get_world_size())[distributed.get_rank()]


class Progress(TrainerCallback):
    """One bar with loss, examples per second and time left; rows of metrics.jsonl; looks every so many steps. What it
    adds to the logs is for the trackers, which come after it."""

    def __init__(self, run: Path, stage: str, settings: Training, look: Callable[[], dict]):
        self.run, self.stage, self.settings, self.look = run, stage, settings, look
        self.seen: dict[str, float] = {}  # the last look, for those who show the training

    def on_train_begin(self, args, state, control, **kwargs):
        if state.is_world_process_zero:
            self._forget_rows_after(state.global_step)
            size = self.settings.global_batch_size
            self.bar = tqdm(
                total=state.max_steps * size,
                initial=state.global_step * size,
                desc=self.stage,
                unit=EXAMPLES[self.stage],
                mininterval=2,
            )
            self.started, self.first = time.time(), state.global_step

    def on_step_end(self, args, state, control, **kwargs):
        if state.is_world_process_zero:
            self.bar.update(self.settings.global_batch_size)
            if state.global_step % self.settings.eval_steps == 0 or state.global_step == state.max_steps:
                with torch.autocast(args.device.type, torch.bfloat16, enabled=args.bf16):
                    found = self.look()
                self.seen = {name: value for name, value in found.items() if isinstance(value, float)}
                if found:
                    self._write({"step": state.global_step, **found})
                    self.bar.write(f"step {state.global_step}: " + json.dumps(found, ensure_ascii=False)[:2000])

    def on_log(self, args, state, control, logs=None, **kwargs):
        if not state.is_world_process_zero or not logs:
            return
        if "loss" in logs:
            done = (state.global_step - self.first) * self.settings.global_batch_size
            row = {"step": state.global_step, **{name: value for name, value in logs.items() if name != "epoch"}}
            row["examples_per_second"] = done / (time.time() - self.started)
            self._write(row)
            self.bar.set_postfix(loss=f"{logs['loss']:.4f}")
            logs["examples_per_second"] = row["examples_per_second"]
        logs |= self.seen
        self.seen = {}

    def on_train_end(self, args, state, control, **kwargs):
        if state.is_world_process_zero:
            self.bar.close()

    def _write(self, row: dict) -> None:
        with (self.run / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")

    def _forget_rows_after(self, step: int) -> None:
        """Rows of steps that a killed run made after its last checkpoint would appear twice."""
        path = self.run / "metrics.jsonl"
        rows = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
        kept = [row for row in rows if row.endswith("\n") and json.loads(row)["step"] <= step]
        path.write_text("".join(kept), encoding="utf-8")


def train(
    config: Config,
    settings: Training,
    stage: str,
    model: MilcoModel,
    steps: Steps,
    collate: Collate,
    loss: Loss,
    look: Callable[[], dict],
    inputs: list[Path],
    output: Path,
) -> None:
    """Train one stage and write the finished model to `output`; go on from the last checkpoint beside it.

    Args:
        steps: the examples of every optimizer step.
        collate: (example numbers, number of the step) → parts of a process's share, made with `collate_texts`.
        loss: (views, part) → loss terms; those called `loss_…` are added up, the others only logged.
        look: measures the model on the development collections; called on the first process.
        inputs: what the training reads; checkpoints that are older are of no use.
    """
    processes = int(os.environ.get("WORLD_SIZE", 1))
    config.check_processes(stage, processes)
    folder = output.parent
    folder.mkdir(parents=True, exist_ok=True)
    locks = []

    def state_of_run() -> str:
        locks.append(wait_for_others(folder))
        forget_what_is_outdated(folder, inputs)
        if (folder / ".trained").exists():
            return "finished"
        refuse_if_stopped(folder)
        return str(last_checkpoint(folder) or "new")

    start = first_decides(state_of_run)
    first = int(os.environ.get("RANK", 0)) == 0
    if start == "finished":
        if first:
            print(f"{stage}: trained already, with these settings and this code; to train anew delete {folder}")
            hand_out(folder, output)
        return
    arguments = TrainingArguments(
        output_dir=str(folder / "checkpoints"),
        num_train_epochs=1,
        per_device_train_batch_size=1,
        learning_rate=settings.learning_rate,
        lr_scheduler_type=settings.lr_scheduler_type,
        warmup_steps=round(settings.warmup_ratio * len(steps)),
        max_grad_norm=settings.max_grad_norm,
        bf16=settings.bf16,
        use_cpu=not torch.cuda.is_available(),
        logging_steps=settings.logging_steps,
        logging_nan_inf_filter=False,
        save_steps=settings.save_steps,
        seed=config.seed,
        report_to="none",  # its callbacks would come before ours
        run_name=f"{config.experiment} {stage}",
        project=PROJECT,
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_num_workers=settings.dataloader_num_workers,
        dataloader_pin_memory=torch.cuda.is_available(),
        ddp_broadcast_buffers=False,  # processes make unequally many forward passes
        # It keeps the buckets of gradients as they are. Otherwise they are put together anew after the first step, and
        # with more than two processes the order of a sum, and its last bit, would tell where a training was resumed.
        ddp_find_unused_parameters=not torch.cuda.is_available(),
    )
    set_seed(config.seed)
    attention = config.model.attn_implementation
    if attention == "auto":  # on short texts the CPU's fused attention has a backward pass slower than the plain one
        attention = "eager" if arguments.use_cpu else "sdpa"
    model.encoder.set_attn_implementation(attention)
    table = model.encoder.get_input_embeddings()
    if table.weight.requires_grad:
        add_gradients_in_place(table)
    if settings.gradient_checkpointing:
        model.encoder.gradient_checkpointing_enable({"use_reentrant": False})
    if first and start == "new":
        shutil.rmtree(folder / "tracking", ignore_errors=True)
    trainer = StageTrainer(
        model,
        arguments,
        run=folder,
        settings=settings,
        loss=loss,
        train_dataset=Shares(steps, processes, collate),
        data_collator=lambda batches: batches[0],
        callbacks=[
            Guard(folder, stage, model.config.pivot_vocab_size),
            Progress(folder, stage, settings, look),
            *trackers(config.tracking, folder / "tracking"),
        ],
    )
    trainer.remove_callback(PrinterCallback)  # the bar and metrics.jsonl say it
    interruption = Interruption()
    trainer.add_callback(interruption)
    last = None if start == "new" else Path(start)
    if first:
        if last:
            print(f"{stage}: resumed from {last.name}")
            for change in made_elsewise(folder):
                print(f"{stage}: note that {last.name} was made with another version: {change}")
        config.save(folder / "config.yaml")
        write_json(folder / "environment.json", environment())
        shutil.rmtree(draft_of(folder), ignore_errors=True)
    trainer.train(resume_from_checkpoint=str(last) if last else None)
    if interruption.reason:
        if first:
            interruption.report(stage, trainer.state.global_step, len(steps))
    elif first:
        finish(folder, output, model.save_pretrained)
    # Threads of the process group that outlive the interpreter can abort a process that had finished its work.
    trainer.accelerator.wait_for_everyone()
    trainer.accelerator.end_training()


def new_model(config: Config, encoder: Path, teacher: Path, echo: bool) -> MilcoModel:
    """A model that has not been trained, as the configuration wants it."""
    set_seed(config.seed)
    settings = config.model
    model = MilcoModel.from_checkpoints(
        encoder,
        teacher if settings.connector else None,
        trust_encoder=config.trusts("dense"),
        trust_teacher=config.trusts("teacher"),
        encoder_layers=settings.encoder_layers,
        dropout=settings.dropout,
        echo=echo,
        echo_scale=settings.echo_scale,
        query_max_length=settings.query_max_length,
        passage_max_length=settings.passage_max_length,
    )
    freeze(model, config)
    return model


def freeze(model: MilcoModel, config: Config) -> None:
    """Stop the gradients of what the configuration leaves as it is."""
    if config.model.freeze_embeddings:
        for name, parameter in model.encoder.named_parameters():
            if name.endswith("_embeddings.weight"):
                parameter.requires_grad_(False)
        if model.connector is None:  # the decoder is made of them
            model.pivot_head.decoder.weight.requires_grad_(False)
    if config.model.freeze_pivot_head:
        model.pivot_head.requires_grad_(False)
