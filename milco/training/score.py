"""Teacher scores by a cross-encoder, which reads query and document together: any sequence classifier of
transformers with one label, such as BAAI/bge-reranker-v2-m3."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from milco.checkpoint_config import is_milco, positions, settings_of
from milco.config import Config
from milco.environment import refuse_without_bf16
from milco.errors import MilcoError
from milco.evaluation.encode import WINDOW
from milco.modeling.checkpoints import load
from milco.modeling.texts import as_text, composed


class CrossEncoder:
    """A cross-encoder in evaluation mode. A pair is cut, its longer text first, at the sum of the lengths of query and
    document in the trained model, or at the cross-encoder's own limit if that is lower."""

    def __init__(self, config: Config, checkpoint: Path):
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.bf16, self.batch_size = config.evaluate.bf16, config.evaluate.batch_size
        if self.bf16:
            refuse_without_bf16("evaluate.bf16")
        if is_milco(settings_of(checkpoint)):
            raise MilcoError(f"distill.scorer: {checkpoint} holds a MILCO model; name a cross-encoder")
        trust = config.trusts(config.distill.scorer)
        self.tokenizer = load(AutoTokenizer, checkpoint, trust)
        limit = config.model.query_max_length + config.model.passage_max_length
        self.max_length = min(limit, self.tokenizer.model_max_length, positions(checkpoint) or limit)
        model = load(AutoModelForSequenceClassification, checkpoint, trust)
        if model.config.num_labels != 1:
            raise MilcoError(
                f"distill.scorer: {checkpoint} tells {model.config.num_labels} labels apart; "
                "a cross-encoder has a single one, whose logit is the score"
            )
        self.model = model.eval().to(self.device)

    def score(self, pairs: list[tuple[str, str]]) -> np.ndarray:
        """Score (query, document) pairs: N logits, float32.

        Raises:
            MilcoError: a score is no number.
        """
        scores = np.zeros(len(pairs), np.float32)
        with tqdm(total=len(pairs), desc="score", unit="pair", mininterval=2) as bar:
            for start in range(0, len(pairs), WINDOW):
                for places, found in self._window(pairs[start : start + WINDOW]):
                    scores[start + places] = found
                    bar.update(len(places))
        if not np.isfinite(scores).all():
            query, document = pairs[int(np.isfinite(scores).argmin())]
            raise MilcoError(f"distill.scorer: the score of {query!r:.80} and {document!r:.80} is no number")
        return scores

    @torch.no_grad()
    def _window(self, pairs: list[tuple[str, str]]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Places and scores of some pairs, from short to long, batch by batch."""
        queries, documents = map(list, zip(*pairs, strict=True))
        queries, documents = (as_text(self.tokenizer, list(map(composed, side))) for side in (queries, documents))
        inputs = self.tokenizer(queries, documents, truncation=True, max_length=self.max_length)
        order = np.argsort([len(ids) for ids in inputs["input_ids"]], kind="stable")
        for start in range(0, len(order), self.batch_size):
            places = order[start : start + self.batch_size]
            batch = {name: [values[place] for place in places] for name, values in inputs.items()}
            batch = self.tokenizer.pad(batch, padding_side="right", return_tensors="pt").to(self.device)
            with torch.autocast(self.device, torch.bfloat16, enabled=self.bf16):
                logits = self.model(**batch).logits
            yield places, logits.float().squeeze(1).cpu().numpy()


def scored(triples: pd.DataFrame, encoder: CrossEncoder) -> pd.DataFrame:
    """Triples with the scores of a cross-encoder, which reads each pair of query and document once."""
    pairs = list(dict.fromkeys((row.query, text) for row in triples.itertuples() for text in (*row.pos, *row.neg)))
    score = dict(zip(pairs, encoder.score(pairs).tolist(), strict=True))

    def of(side: str) -> list[list[float]]:
        rows = zip(triples["query"], triples[side], strict=True)
        return [[score[query, text] for text in texts] for query, texts in rows]

    return triples.assign(pos_scores=of("pos"), neg_scores=of("neg"))
