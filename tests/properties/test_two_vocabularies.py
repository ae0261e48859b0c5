"""Models that read one vocabulary and write another: two V′, each with its own tables."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf

import subvocab as sv
from tests.reference import assert_equal_states, copied

SIZES = {"encoder": 300, "decoder": 200}
BODY: dict[str, Any] = {"max_position_embeddings": 64, "pad_token_id": 0}


def marian() -> Any:
    """Make a translation model whose tables are not shared."""
    config = hf.MarianConfig(
        vocab_size=SIZES["encoder"],
        decoder_vocab_size=SIZES["decoder"],
        d_model=32,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=40,
        decoder_ffn_dim=40,
        eos_token_id=1,
        bos_token_id=2,
        decoder_start_token_id=0,
        share_encoder_decoder_embeddings=False,
        dropout=0.0,
        **BODY,
    )
    return hf.MarianMTModel(config)


def two_berts() -> Any:
    """Put an encoder and a decoder together."""
    parts = [
        hf.BertConfig(
            vocab_size=size,
            hidden_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=40,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            **BODY,
        )
        for size in SIZES.values()
    ]
    config = hf.EncoderDecoderConfig.from_encoder_decoder_configs(*parts)
    config.decoder_start_token_id, config.pad_token_id = 1, 0
    return hf.EncoderDecoderModel(config)


def vocabularies() -> dict[str, sv.PartialVocabulary]:
    """Draw a V′ for each part."""
    generator = np.random.default_rng(0)
    return {
        part: sv.PartialVocabulary(np.union1d([0, 1, 2], generator.choice(size, 50)), size)
        for part, size in SIZES.items()
    }


def batch() -> dict[str, torch.Tensor]:
    """Draw source and target; the end of a target is not to be predicted."""
    generator = torch.Generator().manual_seed(0)
    ids = {part: torch.tensor(own.token_ids) for part, own in vocabularies().items()}
    source, target = (
        token_ids[torch.randint(len(token_ids), (4, 9), generator=generator)]
        for token_ids in ids.values()
    )
    target[:2, -3:] = -100
    return {"input_ids": source, "labels": target}


@pytest.fixture(params=[marian, two_berts])
def whole(request: pytest.FixtureRequest) -> Any:
    """Make a model with random weights."""
    torch.manual_seed(0)
    make: Callable[[], Any] = request.param
    return make().train()


@pytest.mark.filterwarnings("ignore:Version v4.12.0 introduces a better way:FutureWarning")
def test_loss_and_gradients_are_those_of_the_whole_model(whole: Any) -> None:
    """Each table is renumbered by its own vocabulary, and labels by the decoder's."""
    model = copy.deepcopy(whole)
    sv.shrink(model, vocabularies())

    expected, output = whole(**batch()), model(**batch())
    expected.loss.backward()
    output.loss.backward()

    head = model.get_output_embeddings()
    columns = head.frozen.table.vocabulary
    assert output.logits.shape[-1] == len(columns) + 1
    assert output.loss.item() == pytest.approx(expected.loss.item(), rel=1e-6)
    used = torch.tensor(columns.token_ids)
    gradient = whole.get_output_embeddings().weight.grad[used]
    torch.testing.assert_close(head.weight.grad, gradient, rtol=1e-4, atol=1e-7)
    source = model.get_encoder().get_input_embeddings()
    used = torch.tensor(source.table.vocabulary.token_ids)
    gradient = whole.get_encoder().get_input_embeddings().weight.grad[used]
    torch.testing.assert_close(source.weight.grad, gradient, rtol=1e-4, atol=1e-7)
    assert len(source.weight) != len(head.weight)


def test_every_way_of_saving_gives_the_same_model(whole: Any, tmp_path: Path) -> None:
    """Loaded with two V′; saved whole, and merged from a compact checkpoint."""
    whole.save_pretrained(tmp_path / "base")
    model = sv.from_pretrained(type(whole), tmp_path / "base", vocabularies())
    assert_equal_states(model.state_dict(), copied(whole.state_dict()))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "embed_positions" not in name:  # Marian never saves them
                parameter.add_(0.01)
    inputs = {"input_ids": batch()["input_ids"], "decoder_input_ids": torch.arange(8)[None] + 150}
    inputs["decoder_input_ids"] = inputs["decoder_input_ids"].repeat(4, 1)

    model.save_pretrained(tmp_path / "whole")
    sv.save_compact(model, tmp_path / "compact")
    sv.merge(tmp_path / "compact", base=tmp_path / "base", out=tmp_path / "merged", progress=False)

    with torch.no_grad():
        expected = model.eval()(**inputs).logits
        for name in ("whole", "merged"):
            loaded = type(whole).from_pretrained(tmp_path / name).eval()
            assert torch.equal(loaded(**inputs).logits, expected)


def test_a_vocabulary_of_another_size_is_refused() -> None:
    """The parts are told apart by name, and then checked."""
    swapped = dict(zip(("decoder", "encoder"), vocabularies().values(), strict=True))

    with pytest.raises(sv.VocabularyMismatchError, match="has 200 rows, but the partial"):
        sv.shrink(marian(), swapped)
