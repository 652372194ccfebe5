"""Turn a 4-bit E5 file (format E5S1) into an ordinary transformers checkpoint in safetensors.

The file holds a header, the tokenizer's pieces (skipped here: tokenizer.json is used instead), a directory of
tensors, and the tensors: float32, or Q4_0 blocks, which are 32 weights as nibbles with one float16 scale;
byte j of a block holds weight j in its low nibble and weight j+16 in its high one, each stored plus 8.

Run by rule `convert`:  python -m milco.stages convert --binary FOLDER --tokenizer FOLDER --output FOLDER
"""

import struct
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import BertConfig, PreTrainedTokenizerFast

from milco.errors import MilcoError
from milco.files import finished_folder

BLOCK = np.dtype([("scale", "<f2"), ("nibbles", "u1", 16)])
LAYER_NAMES = {  # name in the file → name in a transformers BERT layer
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}
EMBEDDING_NAMES = {
    "emb.word": "embeddings.word_embeddings.weight",
    "emb.pos": "embeddings.position_embeddings.weight",
    "emb.type": "embeddings.token_type_embeddings.weight",
    "emb.ln.w": "embeddings.LayerNorm.weight",
    "emb.ln.b": "embeddings.LayerNorm.bias",
}


def convert_e5(binary: Path, tokenizer: Path, output: Path) -> None:
    """Write config.json, model.safetensors and tokenizer files of a BERT checkpoint to the folder `output`.

    Args:
        binary: the 4-bit file, or the folder that it lies in.
        tokenizer: the folder of the model's tokenizer.json.

    Raises:
        MilcoError: the file is missing, has another format, lacks a tensor, or is truncated.
    """
    source = binary
    binary = next(binary.glob("*.bin"), binary) if binary.is_dir() else binary
    if not binary.is_file():
        raise MilcoError(f"{source}: no .bin file there; delete the folder and fetch it again")
    try:
        config, tensors = read_e5(binary.read_bytes())
    except (struct.error, ValueError, IndexError) as error:
        raise MilcoError(f"{binary}: not a complete E5S1 file ({error}); delete it and fetch it again") from error
    except KeyError as error:
        raise MilcoError(f"{binary}: no tensor {error} in it; is it another model?") from None
    with finished_folder(output) as folder:
        config.save_pretrained(folder)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        save_tokenizer(tokenizer / "tokenizer.json", folder, config.max_position_embeddings)


def save_tokenizer(tokenizer: Path, output: Path, max_length: int) -> None:
    """Write an XLM-R tokenizer to `output` so that AutoTokenizer loads it offline."""
    PreTrainedTokenizerFast(
        tokenizer_file=str(tokenizer),
        model_max_length=max_length,
        bos_token="<s>",
        cls_token="<s>",
        eos_token="</s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        mask_token="<mask>",
    ).save_pretrained(output)


def read_e5(data: bytes) -> tuple[BertConfig, dict[str, torch.Tensor]]:
    """Parse a whole E5S1 file into a BERT configuration and its float32 state."""
    if data[:4] != b"E5S1":
        raise ValueError("it does not begin with E5S1")
    _, hidden, layers, heads, feed_forward, vocabulary, positions, types = struct.unpack_from("<8i", data, 4)
    epsilon, block, pieces = struct.unpack_from("<fii", data, 36)
    if block != 32:
        raise ValueError(f"blocks of {block} weights, expected 32")
    (blob_length,) = struct.unpack_from("<Q", data, 64)
    cursor = 72 + 4 * (pieces + 1) + 4 * pieces + blob_length
    _, normalisation_bytes = struct.unpack_from("<iI", data, cursor)
    cursor += 8 + normalisation_bytes
    config = BertConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=feed_forward,
        max_position_embeddings=positions,
        type_vocab_size=types,
        layer_norm_eps=round(epsilon, 15),
        pad_token_id=1,
    )
    raw = _tensors(data, cursor)
    state = {name: raw[short] for short, name in EMBEDDING_NAMES.items()}
    for layer in range(layers):
        for short, long in LAYER_NAMES.items():
            for suffix, kind in (("w", "weight"), ("b", "bias")):
                state[f"encoder.layer.{layer}.{long}.{kind}"] = raw[f"l{layer}.{short}.{suffix}"]
    shapes = {
        "word_embeddings.weight": (vocabulary, hidden),
        "position_embeddings.weight": (positions, hidden),
        "token_type_embeddings.weight": (types, hidden),
        "intermediate.dense.weight": (feed_forward, hidden),
        "output.dense.weight": (hidden, -1),
        "query.weight": (hidden, hidden),
        "key.weight": (hidden, hidden),
        "value.weight": (hidden, hidden),
    }
    tensors = {}
    for name, values in state.items():
        shape = next((shape for end, shape in shapes.items() if name.endswith(end)), (-1,))
        tensors[name] = torch.from_numpy(values.reshape(shape))
    return config, tensors


def _tensors(data: bytes, cursor: int) -> dict[str, np.ndarray]:
    """Read the tensor directory at `cursor` and every tensor that it names, as flat float32 arrays."""
    (count,) = struct.unpack_from("<i", data, cursor)
    cursor += 4
    tensors = {}
    for _ in range(count):
        (name_length,) = struct.unpack_from("<H", data, cursor)
        name = data[cursor + 2 : cursor + 2 + name_length].decode()
        cursor += 2 + name_length
        _, size, offset, length = struct.unpack_from("<BIQQ", data, cursor)
        cursor += 21
        part = data[offset : offset + length]
        if len(part) != length:
            raise ValueError(f"cut off inside tensor {name}")
        tensors[name] = _dequantise(part) if length < 4 * size else np.frombuffer(part, "<f4").copy()
    return tensors


def _dequantise(part: bytes) -> np.ndarray:
    blocks = np.frombuffer(part, BLOCK)
    quants = np.concatenate([blocks["nibbles"] & 0x0F, blocks["nibbles"] >> 4], axis=1).astype(np.float32) - 8
    return (quants * blocks["scale"].astype(np.float32)[:, None]).reshape(-1)
