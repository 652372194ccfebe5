"""What a training does to the model that it starts from."""

from milco.training.initial import echo_wordless_pieces


def test_wordless_pieces_come_into_the_source_view_where_they_are_wanted(model):
    assert not [name for name in model.decode(model.encode_document(["夜 , 水"]))[0] if name == "m_▁"]
    echo_wordless_pieces(model)
    assert "m_▁" in model.decode(model.encode_document(["夜 , 水"]))[0]
    assert model.config.special_token_ids == sorted(model.tokenizer.all_special_ids)
