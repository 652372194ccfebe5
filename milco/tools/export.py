"""Export a model so that it loads without this package: `AutoModel`, `SparseEncoder`, onnxruntime.

    model.safetensors config.json tokenizer.json … pivot_tokenizer/   what `MilcoModel.from_pretrained` reads
    model.py milco_config.py …    copies of the modules of this package that the model needs (`MODULES`)
    modules.json config_sentence_transformers.json    the same for sentence-transformers
    onnx/model.onnx model.onnx.data    ids and mask (B×L) → `pivot` (B×V_e) and `source` (B×L, absent without LexEcho)

Run by rule `export`:
    python -m milco export --model FOLDER --output FOLDER [--onnx] [--prune-documents BUDGET] [--prune-queries BUDGET]
        [--measured FILE] [--encoder FOLDER] [--teacher FOLDER] [--trust-remote-code]
"""

import importlib.util
import json
import logging
import warnings
from pathlib import Path
from typing import Any

import pandas as pd
import scipy.sparse
import torch
from torch import Tensor, nn

from milco import errors
from milco.checkpoint_config import is_milco
from milco.errors import MilcoError
from milco.files import finished_folder, write_json
from milco.modeling import model as model_module
from milco.modeling.head import TILE_TERMS, plain_pooled_logits
from milco.modeling.model import MilcoModel
from milco.modeling.pivot_head import PivotHead
from milco.modeling.pruning import ALL, IN_CONFIG, prune
from milco.outputs import check_output, consists
from milco.tools.inspection import load_model

MODELING = Path(model_module.__file__).parent
MODULES = [
    "authors_layout", "checkpoints", "errors", "head", "kernels", "milco_config", "model", "pivot_head", "pruning",
    "rows", "sparse_encoder", "texts",
]  # fmt: skip
LICENCE = "# SPDX-License-Identifier: Apache-2.0; a module of milco\n"
# What an exported folder has, with tokenizers and code of any encoder.
FILES = ("*.json", "*.safetensors", "*.py", "*.model", "vocab.txt", "merges.txt", "*.jinja", "pivot_tokenizer", "onnx")
ONNX_PACKAGES = ("onnx", "onnxscript")  # what torch.onnx.export needs


def budgets(budget: str, side: str, measured: Path | None) -> dict[str, str]:
    """Budgets of documents or queries by language, as `MilcoConfig` has them.

    Args:
        budget: one for all; `auto`: the smallest that loses next to nothing, of those in `measured`.

    Raises:
        MilcoError: the budget is invalid, or `auto` is given and `measured` is missing or has nothing to choose from.
    """
    if budget != "auto":
        prune(scipy.sparse.csr_array((0, 1)), budget)
        return {} if budget == "none" else {ALL: budget}
    if measured is None:
        raise MilcoError(f"--prune-{side} auto: add --measured, the file that rule `tune` wrote")
    from milco.evaluation.budgets import smallest

    found = pd.read_parquet(measured)
    if found.empty:
        raise MilcoError(f"--prune-{side} auto: {measured} has no budget that was measured; name one instead")
    return {ALL: smallest(found[found.side == side]).budget}


def export(
    model: Path,
    output: Path,
    onnx: bool = False,
    pruned: dict[str, dict[str, str]] | None = None,
    trust_remote_code: bool = False,
    **parts: Any,
) -> None:
    """Write the folder `output` from a model: a folder or an address on the Hub, in our layout or in the authors'.

    Args:
        pruned: `documents` and `queries` → their budgets by language; a side that is left out keeps the model's.
        trust_remote_code: whether the code of the model's encoder, which lies in `model`, may be run.
        parts: `encoder` and `teacher` as for `MilcoModel.from_pretrained`.

    Raises:
        MilcoError: `model` is no MILCO model, `output` holds something other than a model, or packages
            for ONNX are missing.
    """
    missing = [name for name in ONNX_PACKAGES if onnx and not importlib.util.find_spec(name)]
    if missing:
        raise MilcoError(f"--onnx: {' and '.join(missing)} not installed; pip install '.[onnx]' in milco's checkout")
    known = consists("config.json", *FILES)
    check_output(output, "a MILCO model alone", lambda there: known(there) and has_milco(there), folder=True)
    try:
        loaded = load_model(model, trust_remote_code, **parts).cpu()
        loaded.tokenizer, loaded.pivot_tokenizer  # noqa: B018 (read now, written later)
    except (OSError, ValueError) as error:
        raise MilcoError(f"model {model}: {str(error).splitlines()[0]}") from error
    for side, chosen in (pruned or {}).items():
        setattr(loaded.config, IN_CONFIG[side], chosen)
    with finished_folder(output) as folder:
        loaded.config.encoder.pop("_name_or_path", None)  # where the encoder lay on this machine
        loaded.config.auto_map = {"AutoConfig": "milco_config.MilcoConfig", "AutoModel": "model.MilcoModel"}
        loaded.save_pretrained(folder)
        write_code(folder)
        module = {"idx": 0, "name": "0", "path": "", "type": "sparse_encoder.MilcoEncoder"}
        write_json(folder / "modules.json", [module])
        settings = {"model_type": "SparseEncoder", "similarity_fn_name": "dot"}
        write_json(folder / "config_sentence_transformers.json", settings)
        if onnx:
            (folder / "onnx").mkdir()
            write_onnx(loaded, folder / "onnx" / "model.onnx")


def has_milco(folder: Path) -> bool:
    """Whether a MILCO model lies in a folder."""
    try:
        return is_milco(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, AttributeError):
        return False


def write_code(folder: Path) -> None:
    """Copy the modules that a model needs into its folder, unchanged. They import each other relatively, as
    transformers' remote-code loader requires. milco/errors.py takes the place of modeling/errors.py, which only imports
    it.

    Raises:
        MilcoError: the model's encoder brought a file of such a name.
    """
    for name in MODULES:
        copy = folder / f"{name}.py"
        if copy.exists():
            raise MilcoError(f"{copy.name}: the code of the encoder has a file of this name, and so has milco")
        original = Path(errors.__file__ if name == "errors" else MODELING / f"{name}.py")
        copy.write_text(LICENCE + original.read_text(encoding="utf-8"), encoding="utf-8")


def write_onnx(model: MilcoModel, path: Path) -> None:
    """Write encoder and heads as an ONNX graph of any batch and length, weights beside it in NAME.data."""
    head, model.pivot_head = model.pivot_head, _TiledHead(model.pivot_head)
    batch = model.tokenizer(["one", "one two three"], padding=True, return_tensors="pt")
    shapes = {0: "batch", 1: "length"}, {0: torch.export.Dim.AUTO, 1: torch.export.Dim.AUTO}
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # else it names every optional package that is not there
    try:
        with warnings.catch_warnings(category=FutureWarning, action="ignore"):  # torch warns about itself
            torch.onnx.export(
                _Outputs(model).eval(),
                (batch["input_ids"], batch["attention_mask"]),
                path,
                input_names=["input_ids", "attention_mask"],
                output_names=["pivot", "source"] if model.echo else ["pivot"],
                dynamic_shapes=shapes,
                verbose=False,
            )
    finally:
        model.pivot_head = head


class _Outputs(nn.Module):
    """`Views` as the tuple that ONNX wants."""

    def __init__(self, model: MilcoModel):
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, ...]:
        views = self.model(input_ids, attention_mask)
        return (views.pivot,) if views.source is None else (views.pivot, views.source)


class _TiledHead(PivotHead):
    """The layers of a pivot head with the plain formula, for some terms at a time: a fixed number of tiles, whatever
    the batch."""

    def __init__(self, head: PivotHead):
        nn.Module.__init__(self)
        self.dense, self.norm, self.decoder = head.dense, head.norm, head.decoder

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        hidden = self.norm(nn.functional.gelu(self.dense(states)))
        decoder = self.decoder
        tiles = [slice(start, start + TILE_TERMS) for start in range(0, decoder.out_features, TILE_TERMS)]
        return torch.cat([plain_pooled_logits(hidden, decoder.weight[t], decoder.bias[t], mask) for t in tiles], dim=1)
