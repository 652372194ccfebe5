"""What a training does to the model that it starts from."""

import pytest

from milco.config import parse
from milco.training.initial import echo_wordless_pieces, source_view


def test_wordless_pieces_come_into_the_source_view_where_they_are_wanted(model):
    assert not [name for name in model.decode(model.encode_document(["夜 , 水"]))[0] if name == "m_▁"]
    echo_wordless_pieces(model)
    assert "m_▁" in model.decode(model.encode_document(["夜 , 水"]))[0]
    assert model.config.special_token_ids == sorted(model.tokenizer.all_special_ids)


@pytest.mark.parametrize("said", [{}, {"echo_scale": 3.0}])
def test_a_finished_model_keeps_its_scale_of_the_source_view_unless_the_settings_name_one(values, said):
    values["model"].pop("echo_scale", None)
    start = {**values, "model": {**values["model"], **said}}
    start["sources"] = {**values["sources"], "start": {"uri": "file:model", "format": "transformers"}}
    start["distill"] = {**values["distill"], "pretrained_alignment_checkpoint": "start"}
    assert source_view(parse(start)).get("echo_scale") == said.get("echo_scale")
    assert source_view(parse({**values, "model": {**values["model"], **said}}))["echo_scale"] == said.get(
        "echo_scale", 1.0
    )
