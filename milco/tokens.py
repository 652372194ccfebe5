"""The token cache: parallel text as token ids, the English side stored once.

    english.arrow       input_ids (list of uint32): row n is the English text with english_id n
    {language}.arrow    english_id (uint32), input_ids (list of uint32): one row per pair

Arrow files are memory-mapped, so that every process of a machine shares one copy.

Run by rule `tokenize`:  python -m milco tokenize --config FILE --corpora FOLDER --encoder FOLDER --output FOLDER
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from milco.files import finished_folder

IDS = pa.list_(pa.uint32())
ROWS_AT_A_TIME = 20_000


def build(corpora: Path, encoder: Path, max_length: int, output: Path) -> None:
    """Tokenise parallel.parquet and english.parquet of `corpora` into the folder `output`.

    Texts are cut at `max_length` tokens of the encoder's own tokenizer, special tokens included.
    """
    with finished_folder(output) as folder:
        _build(corpora, AutoTokenizer.from_pretrained(encoder), max_length, folder)


def _build(corpora: Path, tokenizer: PreTrainedTokenizerBase, max_length: int, output: Path) -> None:
    english = pq.read_table(corpora / "english.parquet")["english"]
    ids = pd.Series(range(len(english)), index=english.to_pandas())
    pairs = pd.read_parquet(corpora / "parallel.parquet")
    with tqdm(total=len(english) + len(pairs), desc="tokenize", unit="text") as bar:
        tables = [("english", None, english.to_pylist())]
        tables += [
            (language, ids[part.english].to_numpy(), part.non_english.tolist())
            for language, part in pairs.groupby("language")
        ]
        for name, english_ids, texts in tables:
            fields = [("input_ids", IDS)] if english_ids is None else [("english_id", pa.uint32()), ("input_ids", IDS)]
            with (
                pa.OSFile(str(output / f"{name}.arrow"), "wb") as sink,
                pa.ipc.new_file(sink, pa.schema(fields)) as file,
            ):
                for start, tokens in _tokenise(tokenizer, texts, max_length):
                    columns: list = [] if english_ids is None else [english_ids[start : start + len(tokens)]]
                    file.write_batch(pa.record_batch([*columns, pa.array(tokens, IDS)], schema=pa.schema(fields)))
                    bar.update(len(tokens))


def _tokenise(
    tokenizer: PreTrainedTokenizerBase, texts: list[str], max_length: int
) -> Iterator[tuple[int, list[list[int]]]]:
    for start in range(0, len(texts), ROWS_AT_A_TIME):
        part = texts[start : start + ROWS_AT_A_TIME]
        yield start, tokenizer(part, truncation=True, max_length=max_length)["input_ids"]


class TokenCache:
    """Read access to a token cache.

    Attributes:
        languages: the languages of its pairs, sorted.
        pair_language: for each pair the place of its language in `languages`.
        pair_english: for each pair its english_id.
    """

    def __init__(self, folder: Path):
        self.english = _Column(folder / "english.arrow")
        self.languages = sorted(path.stem for path in folder.glob("*.arrow") if path.stem != "english")
        self._columns = [_Column(folder / f"{language}.arrow") for language in self.languages]
        sizes = [len(column) for column in self._columns]
        self._starts = np.concatenate([[0], np.cumsum(sizes)])
        self.pair_language = np.repeat(np.arange(len(sizes)), sizes)
        self.pair_english = np.concatenate([column.english_ids for column in self._columns])
        self.pair_lengths = np.concatenate([column.lengths for column in self._columns])

    def __len__(self) -> int:
        return len(self.pair_english)

    def other(self, pair: int) -> list[int]:
        """Token ids of the other-language side of a pair."""
        language = self.pair_language[pair]
        return self._columns[language].ids(pair - self._starts[language])


class _Column:
    """The token ids of one Arrow file, as one flat array and its row boundaries."""

    def __init__(self, path: Path):
        table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        chunks = [chunk for chunk in table["input_ids"].chunks]
        self._values = [chunk.flatten().to_numpy() for chunk in chunks]
        self.lengths = np.concatenate([np.diff(chunk.offsets.to_numpy()) for chunk in chunks] or [np.zeros(0, int)])
        rows = [len(chunk) for chunk in chunks]
        self._chunk_starts = np.concatenate([[0], np.cumsum(rows)])
        self._offsets = [chunk.offsets.to_numpy() - chunk.offsets[0].as_py() for chunk in chunks]
        self.english_ids = table["english_id"].to_numpy() if "english_id" in table.column_names else None

    def __len__(self) -> int:
        return len(self.lengths)

    def ids(self, row: int) -> list[int]:
        chunk = int(np.searchsorted(self._chunk_starts, row, side="right")) - 1
        offsets, row = self._offsets[chunk], row - self._chunk_starts[chunk]
        return self._values[chunk][offsets[row] : offsets[row + 1]].tolist()
