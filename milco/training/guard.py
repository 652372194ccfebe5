"""Stop a training that has collapsed or diverged, so that it wastes no more time.

What it judges are the rows of metrics.jsonl: shares of texts without any pivot term (`empty_…`), mean active dimensions
(`active_…`), the loss. It adds `spike: 1` to a row whose loss is far above that of the preceding rows.
"""

import math
import statistics
from collections import deque
from pathlib import Path

from transformers import TrainerCallback

from milco.errors import MilcoError

ROWS_IN_A_ROW = 3  # a single row may be an odd batch
EMPTY, FULL, SPIKE = 0.99, 0.9, 3.0
MARK = "checkpoints/stopped.txt"  # removed with the checkpoints, so that a training that starts again finds none


class Guard(TrainerCallback):
    """Check logged rows. A loss that is NaN or infinite stops the training at once, anything else after the warm-up and
    `ROWS_IN_A_ROW` bad rows in a row.

    Args:
        run: folder of the training; a stop is marked there, so that a retry does not resume from the same checkpoint.
        width: V_e, columns of the pivot view.

    Raises:
        MilcoError: at the next step, when the row has been written; the message says what to change.
    """

    def __init__(self, run: Path, stage: str, width: int):
        self.run, self.stage, self.width = run, stage, width
        self.losses: deque[float] = deque(maxlen=20)
        self.bad = 0
        self.verdict: str | None = None

    def on_log(self, args, state, control, logs=None, **kwargs):
        if not logs or "loss" not in logs:
            return
        trouble = self._trouble(logs)
        self.bad = self.bad + 1 if trouble else 0
        lasting = self.bad >= ROWS_IN_A_ROW and state.global_step > args.warmup_steps
        if trouble and (lasting or not math.isfinite(logs["loss"])):
            self.verdict = f"{self.stage} was stopped at step {state.global_step}: {trouble}"
        if self.losses and logs["loss"] > SPIKE * statistics.median(self.losses):
            logs["spike"] = 1
        self.losses.append(logs["loss"])

    def on_step_begin(self, args, state, control, **kwargs):
        if self.verdict:
            (self.run / MARK).parent.mkdir(exist_ok=True)
            (self.run / MARK).write_text(self.verdict, encoding="utf-8")
            raise MilcoError(self.verdict)

    on_train_end = on_step_begin

    def _trouble(self, logs: dict[str, float]) -> str | None:
        if not math.isfinite(logs["loss"]):
            return "the loss is no number any more; lower learning_rate, or raise warmup_ratio"
        empty = [name for name, value in logs.items() if name.startswith("empty_") and value >= EMPTY]
        if empty:
            return (
                f"texts have no active dimensions any more ({empty[0]} {logs[empty[0]]:.0%}); lower lambda_q and "
                "lambda_d in Stage 2, or learning_rate"
            )
        full = [name for name, value in logs.items() if name.startswith("active_") and value >= FULL * self.width]
        if full:
            return (
                f"nearly every term is active ({full[0]} {logs[full[0]]:.0f} of {self.width}); raise lambda_q and "
                "lambda_d in Stage 2, lower learning_rate, or start the connector with align.warm_start_texts"
            )
        return None


def refuse_if_stopped(run: Path) -> None:
    """Do not resume a training that the guard stopped.

    Raises:
        MilcoError: the training was stopped; the same settings would fail again.
    """
    mark = run / MARK
    if mark.exists():
        raise MilcoError(
            f"{mark.read_text(encoding='utf-8')} (with other settings a training starts anew; to go on from its last "
            f"checkpoint all the same, delete {mark})"
        )
