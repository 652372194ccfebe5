"""The Trainer of both stages, and its checkpoints.

A run folder holds config.yaml, environment.json, metrics.jsonl (one row per logged step), checkpoints/ while it trains,
tracking/ if it is shown somewhere (tracking.py), and in the end model/, which appears whole or not at all; an
interrupted run resumes from its last checkpoint (recovery.py).
"""

import os
import shutil
from collections import defaultdict
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, SequentialSampler
from transformers import PrinterCallback, Trainer, TrainingArguments, set_seed

from milco.config import Config, Training
from milco.environment import record, recorded, refuse_without_bf16
from milco.errors import MilcoError
from milco.modeling.embedding import add_gradients_in_place
from milco.modeling.model import MilcoModel, Views
from milco.training.batching import Batch, Steps
from milco.training.gather import mean_of_all_processes
from milco.training.guard import Guard, refuse_if_stopped
from milco.training.progress import Progress, gains_no_more
from milco.training.recovery import (
    Interruption,
    damage,
    draft_of,
    finish,
    first_decides,
    forget_old_checkpoints,
    hand_out,
    last_checkpoint,
    note_changes,
    outlive_signals,
    put_outdated_aside,
    seal,
    shield_workers,
    state_of,
    wait_for_others,
    writing,
)
from milco.training.tracking import PROJECT, trackers

LONGEST_WAIT = timedelta(hours=6)  # of the others for the first process, which fits a connector or writes a checkpoint
Collate = Callable[[np.ndarray, int], Batch]
Loss = Callable[[Views, Batch], dict[str, Tensor]]


class Shares(Dataset):
    """The batches of each process, in order: process r of W takes the items r, r+W, r+2W, …

    Args:
        steps: examples of every optimizer step (`batching.Steps`).
        collate: (example numbers, number of the step) → what the model is given (`batching.collate_texts`).
    """

    def __init__(self, steps: Steps, processes: int, collate: Collate):
        self.steps, self.processes, self.collate = steps, processes, collate

    def __len__(self) -> int:
        return len(self.steps) * self.processes

    def __getitem__(self, number: int) -> Batch:
        step, process = divmod(number, self.processes)
        return self.collate(self.steps[step].reshape(self.processes, -1)[process], step)


def _share_of_a_step(found: list[Batch]) -> Batch:
    """`Shares` has made the batch already. A lambda would do, but a DataLoader's workers cannot be given one."""
    return found[0]


class StageTrainer(Trainer):
    """Trainer with a planned order of examples, atomic checkpoints, and a separate learning rate for new layers."""

    def __init__(self, *args, run: Path, settings: Training, loss: Loss, **kwargs):
        super().__init__(*args, **kwargs)
        self.run = run
        self.settings = settings
        self.stage_loss = loss
        self.sums: dict[str, Tensor] = defaultdict(lambda: torch.zeros((), device=self.args.device))
        self.steps_in_sums = 0

    def _get_train_sampler(self, train_dataset=None) -> Sampler:
        return SequentialSampler(train_dataset or self.train_dataset)

    def get_train_dataloader(self) -> DataLoader:
        """The Trainer's own, with workers that outlive the signal that asks a training to save."""
        loader = super().get_train_dataloader()
        loader.worker_init_fn = outlive_signals  # `Shares` draws nothing at random that the Trainer's would seed
        return loader

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """Sum of the stage's loss terms; each of them is logged under its own name."""
        with self.accelerator.autocast():
            views = model(inputs["input_ids"], inputs["attention_mask"], inputs["passes"], inputs["recompute"])
            terms = self.stage_loss(views, inputs)
        for name, value in terms.items():
            self.sums[name] += value.detach()
        self.steps_in_sums += 1
        return sum(value for name, value in terms.items() if name.startswith("loss_"))

    def log(self, logs, *args, **kwargs):
        if self.sums:  # means over all processes, as the loss is: else each of them would judge by its share
            means = mean_of_all_processes(torch.stack([*self.sums.values()])).tolist()
            logs |= {name: mean / self.steps_in_sums for name, mean in zip(self.sums, means, strict=True)}
        self.sums.clear()
        self.steps_in_sums = 0
        super().log(logs, *args, **kwargs)

    def create_optimizer(self, model=None):
        """AdamW with a separate learning rate for the new layers, connector and LexEcho."""
        if self.optimizer is None:
            decayed = set(self.get_decay_parameter_names(self.model))
            groups: dict[tuple[float, float], list] = {}
            for name, parameter in self.model.named_parameters():
                if parameter.requires_grad:
                    new = name.startswith(("connector.", "echo"))
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
        with writing(name, self.run, settle=self.accelerator.wait_for_everyone):  # the others are at the next line
            super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            with writing(name, self.run):
                seal(draft_of(self.run) / name)
                os.replace(draft_of(self.run) / name, Path(self.args.output_dir) / name)
            forget_old_checkpoints(self.run, self.settings.keep)
        self.accelerator.wait_for_everyone()

    def take_weights_of(self, checkpoint: Path) -> None:
        """Give the model the weights of a checkpoint.

        Raises:
            MilcoError: the checkpoint does not match its checksums.
        """
        wrong = damage(checkpoint)
        if wrong:
            raise MilcoError(f"{checkpoint}: broken ({wrong}); start again, training goes on from one before it")
        self._load_from_checkpoint(str(checkpoint))


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
    begin: Callable[[], object] = lambda: None,
) -> None:
    """Train one stage and write the finished model to `output`; resume from the last checkpoint beside it.

    Args:
        steps: the examples of every optimizer step.
        collate: (example numbers, number of the step) → a process's share, made with `batching.collate_texts`.
        loss: (views, share) → loss terms; those called `loss_…` are added up, the others only logged.
        look: runs the development evaluation; called in all processes, returns the result in the first.
        inputs: what the training reads; checkpoints that were made from other content are put aside.
        begin: sets weights of a new training; called in the first process, from which the others get theirs.
    """
    processes = int(os.environ.get("WORLD_SIZE", 1))
    config.check_processes(stage, processes)
    if settings.bf16:
        refuse_without_bf16(f"{stage}.bf16")
    folder = output.parent
    folder.mkdir(parents=True, exist_ok=True)
    locks = []

    def state_of_run() -> str:
        locks.append(wait_for_others(folder))
        put_outdated_aside(folder, inputs)
        if (folder / ".trained").exists():
            return "finished"
        refuse_if_stopped(folder)
        return str(last_checkpoint(folder, settings.keep) or "new")

    start = first_decides(state_of_run)
    first = int(os.environ.get("RANK", 0)) == 0
    if start == "finished":
        if first:
            print(f"{stage}: trained already with these settings; --forcerun {stage} trains anew")
            note_changes(stage, "the model", folder)
            hand_out(folder, output)
        return
    if first and start == "new":
        if settings.looks_decide and settings.eval_steps >= len(steps):
            print(f"{stage}: note: only the last of {len(steps)} steps is evaluated; lower {stage}.eval_steps")
        begin()
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
        seed=config.training_seed,
        report_to="none",  # its callbacks would come before ours
        run_name=f"{config.experiment} {stage}",
        project=PROJECT,
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_num_workers=settings.dataloader_num_workers,
        dataloader_pin_memory=torch.cuda.is_available(),
        ddp_timeout=int(LONGEST_WAIT.total_seconds()),
        ddp_broadcast_buffers=False,  # processes make unequally many forward passes
        # It keeps the buckets of gradients as they are. Otherwise DDP rebuilds them after the first step, and with more
        # than two processes the order of a sum, and so its last bit, would depend on where a training was resumed.
        ddp_find_unused_parameters=not torch.cuda.is_available(),
    )
    set_seed(config.training_seed)
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
        data_collator=_share_of_a_step,
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
            note_changes(stage, last.name, folder)
        config.save(folder / "config.yaml")
        record(folder, recorded(folder) if last else ())
        shutil.rmtree(draft_of(folder), ignore_errors=True)
    if settings.dataloader_num_workers:
        shield_workers()
    at_hand = None  # step whose weights the model has
    if last and gains_no_more(state_of(last), settings):  # it ended there early, but its model was not written
        trainer.state = state_of(last)
    else:
        trainer.train(resume_from_checkpoint=str(last) if last else None)
        at_hand = trainer.state.global_step
    if interruption.reason:
        if first:
            interruption.report(stage, trainer.state.global_step, len(steps))
    elif first:
        kept = trainer.state.best_global_step if settings.keep == "best" else trainer.state.global_step
        if kept != at_hand:
            trainer.take_weights_of(folder / "checkpoints" / f"checkpoint-{kept}")
        if settings.looks_decide:
            print(
                f"{stage}: ended at step {trainer.state.global_step} of {len(steps)}; its model is that of step {kept}"
            )
        finish(folder, output, model.save_pretrained)
    # Threads of the process group that outlive the interpreter can abort a process that had finished its work.
    trainer.accelerator.wait_for_everyone()
    trainer.accelerator.end_training()
