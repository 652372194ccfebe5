"""Closed-form initialisation of the connector: before any training it maps English words close to the teacher's states.

Both tokenizers cut the same English texts; where a piece of one ends at the same letter as a piece of the other, the
two states belong to the same word. Ridge regression from the encoder's states to the teacher's gives weight and bias.
GELU would suppress negative values. The fitted states are therefore shifted by `SHIFT`, where GELU is close to the
identity, and the bias of the pivot head's first layer subtracts the shift.
"""

from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoModelForMaskedLM, PreTrainedTokenizerBase

from .checkpoints import load
from .errors import MilcoError
from .model import MilcoModel

SHIFT = 3.0  # GELU(3) = 2.996
RIDGE = 0.01  # in units of the mean variance of a state's coordinate
TEXTS_AT_A_TIME = 64


@torch.no_grad()
def fit_connector(model: MilcoModel, teacher: Path, texts: list[str], max_length: int, trust: bool = False) -> float:
    """Set the connector, and the bias of the pivot head's dense layer, from English texts.

    Args:
        model: a model whose pivot head is the teacher's.
        teacher: checkpoint of the English retriever.
        texts: English texts, a few thousand short ones are enough.
        trust: whether the teacher's own code may be run.

    Returns:
        Share of the variance of the teacher's states that the fit explains.

    Raises:
        MilcoError: the two tokenizers have no word end in common.
    """
    connector = model.connector
    assert connector is not None  # no Stage 1 without one
    backbone = load(AutoModelForMaskedLM, teacher, trust).base_model.eval()
    model.eval()
    texts = sorted(texts, key=len)  # so that they need few pads
    parts = []
    for start in range(0, len(texts), TEXTS_AT_A_TIME):
        part = texts[start : start + TEXTS_AT_A_TIME]
        encoder_ends, encoder_states = _states(model.tokenizer, model.encoder, part, max_length)
        teacher_ends, teacher_states = _states(model.pivot_tokenizer, backbone, part, max_length)
        for row in range(len(part)):
            shared = [(encoder_ends[row][end], at) for end, at in teacher_ends[row].items() if end in encoder_ends[row]]
            if shared:
                mine, theirs = map(list, zip(*shared, strict=True))
                parts.append((encoder_states[row, mine], teacher_states[row, theirs]))
    if not parts:
        raise MilcoError("align.warm_start_texts: the tokenizers of encoder and teacher agree on no word; set it to 0")
    states = torch.cat([mine for mine, _ in parts]).double()
    wanted = torch.cat([theirs for _, theirs in parts]).double()
    centre, goal = states.mean(dim=0), wanted.mean(dim=0)
    states -= centre
    wanted -= goal
    covariance = states.T @ states / len(states)
    covariance += RIDGE * covariance.diagonal().mean() * torch.eye(len(covariance), dtype=covariance.dtype)
    weight = torch.linalg.solve(covariance, states.T @ wanted / len(states)).T
    connector.weight.copy_(weight)
    connector.bias.copy_(goal - weight @ centre + SHIFT)
    model.pivot_head.dense.bias.sub_(SHIFT * model.pivot_head.dense.weight.sum(dim=1))
    return float(1 - (wanted - states @ weight.T).square().sum() / wanted.square().sum())


def _states(
    tokenizer: PreTrainedTokenizerBase, encoder: torch.nn.Module, texts: list[str], max_length: int
) -> tuple[list[dict[int, int]], Tensor]:
    """Per text {letter at which a piece ends: its position}, and the B×L×d states of all pieces."""
    batch = tokenizer(
        texts,
        truncation=True,
        max_length=max_length,
        padding=True,
        padding_side="right",
        return_offsets_mapping=True,
        return_tensors="pt",
    )
    states = encoder(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
    ends = [
        {end: position for position, (start, end) in enumerate(offsets) if end > start}
        for offsets in batch["offset_mapping"].tolist()
    ]
    return ends, states
