"""Progress of a training: progress bar, rows of metrics.jsonl, and development evaluations, which may choose the kept
weights and end the training (`keep`, `patience`)."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import torch
from tqdm import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState

from milco.config import Training
from milco.config.sections import LOOK
from milco.files import finished_file
from milco.training.gather import from_everyone

EXAMPLES = {"align": "pair", "distill": "query"}  # what the bar counts


def gains_no_more(state: TrainerState, settings: Training) -> bool:
    """Whether the last `patience` development evaluations brought no gain."""
    if settings.patience is None or state.best_global_step is None:
        return False
    looks, best = (step // settings.eval_steps for step in (state.global_step, state.best_global_step))
    return looks - best >= settings.patience


class Progress(TrainerCallback):
    """One bar with loss, examples per second and time left; rows of metrics.jsonl; a development evaluation every
    `eval_steps`. What it adds to the logs is for the trackers, which come after it."""

    def __init__(self, run: Path, stage: str, settings: Training, look: Callable[[], dict]):
        self.run, self.stage, self.settings, self.look = run, stage, settings, look
        self.seen: dict[str, float] = {}  # the last development evaluation, for the trackers

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
            if self.settings.looks_decide and self._judge(found, state, control) and found:
                found["best"] = 1
            if found:
                self._write({"step": state.global_step, **found})
                self.bar.write(f"step {state.global_step}: " + json.dumps(found, ensure_ascii=False)[:2000])

    def _judge(self, found: dict, state: TrainerState, control: TrainerControl) -> bool:
        """Whether a development evaluation is the best so far: the same in all processes, which then write a checkpoint
        together, or end.

        The best value and its step are part of the state, and with it of every checkpoint.
        """
        value = from_everyone(found.get(LOOK))[0]
        gain = state.best_metric is None or value > state.best_metric
        if gain:
            state.best_metric, state.best_global_step = value, state.global_step
            control.should_save |= self.settings.keep == "best"
        control.should_training_stop |= gains_no_more(state, self.settings)
        return gain

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
        """Drop the rows that a killed run wrote after its last checkpoint: they would appear twice."""
        path = self.run / "metrics.jsonl"
        rows = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
        kept = [row for row in rows if row.endswith("\n") and json.loads(row)["step"] <= step]
        with finished_file(path) as draft:  # a full disk leaves the rows that are there
            draft.write_text("".join(kept), encoding="utf-8")
