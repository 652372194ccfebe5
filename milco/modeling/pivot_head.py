"""The pivot head (the head of a masked language model), and loading its weights from checkpoints."""

from pathlib import Path
from statistics import NormalDist

import torch
from torch import Tensor, nn
from transformers import AutoModelForMaskedLM, PreTrainedModel

from .checkpoints import load
from .errors import MilcoError
from .head import pooled_logits

# Terms that a token would activate in a head that no checkpoint brings, if its logits were normally distributed. Their
# tails are longer: texts of 10 tokens begin with 300 to 500 of 250,000 terms (multilingual-e5-small).
FIRST_TERMS = 8


class PivotHead(nn.Module):
    """The head of a masked language model, in MILCO the English retriever's: dense, GELU, layer norm, then decoder and
    bias."""

    def __init__(self, vocab_size: int, hidden_size: int, layer_norm_eps: float):
        super().__init__()
        self.dense = nn.Linear(hidden_size, hidden_size)
        self.norm = nn.LayerNorm(hidden_size, eps=layer_norm_eps)
        self.decoder = nn.Linear(hidden_size, vocab_size)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """B×L×d_e states and a B×L mask → B×V_e raw pooled logits."""
        transformed = self.norm(nn.functional.gelu(self.dense(states)))
        if torch.is_autocast_enabled(states.device.type):
            transformed = transformed.to(torch.get_autocast_dtype(states.device.type))
        return pooled_logits(transformed, self.decoder.weight, self.decoder.bias, mask)

    @classmethod
    def from_teacher(cls, checkpoint: str | Path, trust: bool = False) -> "PivotHead":
        """Copy the head out of a masked language model of the BERT family (SPLADE).

        Args:
            trust: whether the checkpoint's own code may be run.

        Raises:
            MilcoError: the checkpoint's head has another structure.
        """
        teacher = load(AutoModelForMaskedLM, checkpoint, trust)
        bert, roberta = getattr(getattr(teacher, "cls", None), "predictions", None), getattr(teacher, "lm_head", None)
        if bert is not None:
            dense, norm, bias = bert.transform.dense, bert.transform.LayerNorm, bert.bias
        elif roberta is not None and hasattr(roberta, "layer_norm"):
            dense, norm, bias = roberta.dense, roberta.layer_norm, roberta.bias
        else:
            raise MilcoError(
                f"{checkpoint}: {type(teacher).__name__} has no head of the BERT family (cls.predictions or lm_head); "
                "choose another lsr_encoder_checkpoint"
            )
        head = cls(teacher.config.vocab_size, teacher.config.hidden_size, norm.eps)
        head.dense.load_state_dict(dense.state_dict())
        head.norm.load_state_dict(norm.state_dict())
        with torch.no_grad():
            head.decoder.weight.copy_(teacher.get_output_embeddings().weight)
            head.decoder.bias.copy_(bias)
        return head

    @classmethod
    def from_encoder(cls, checkpoint: str | Path, encoder: PreTrainedModel, trust: bool) -> "PivotHead":
        """A head into the encoder's own vocabulary: the checkpoint's, if it is that of a masked language model.

        Otherwise the input embeddings serve as decoder, so the first active terms are the tokens nearest to the states.
        The dense layer is the identity, and the bias is set so low that a token has about `FIRST_TERMS` active terms.
        """
        if any(name.endswith("ForMaskedLM") for name in encoder.config.architectures or []):
            return cls.from_teacher(checkpoint, trust)
        table = encoder.get_input_embeddings().weight
        deviations = NormalDist().inv_cdf(1 - FIRST_TERMS / len(table))
        head = cls(len(table), table.shape[1], encoder.config.layer_norm_eps)
        with torch.no_grad():
            nn.init.eye_(head.dense.weight)
            nn.init.zeros_(head.dense.bias)
            head.decoder.weight.copy_(table)
            # A normalised state has deviation 1 in each coordinate, so a term's logit has the term's norm as deviation.
            head.decoder.bias.copy_(-deviations * table.norm(dim=1))
        return head
