"""What goes wrong when an embedding matrix is cut down with less care: none of it may happen."""

from __future__ import annotations

import copy
import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from safetensors.torch import load_file
from torch import nn

import subvocab as sv
from subvocab.model.shrink import partial_embeddings
from tests.models import FULL_VOCAB_SIZE, random_batch, tiny_model
from tests.reference import (
    assert_equal_states,
    copied,
    drawn_vocabulary,
    ids_of,
    train,
    unused_ids,
)

VOCABULARY = drawn_vocabulary()
USED = ids_of(VOCABULARY)
EVERY_ID = torch.arange(FULL_VOCAB_SIZE)


def logits_of(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Evaluate a model."""
    with torch.no_grad():
        logits = model.eval()(**batch).logits
    assert isinstance(logits, torch.Tensor)
    return logits


def shrunk(family: str = "bert", **changes: Any) -> Any:
    """Make a tiny model and shrink it."""
    model = tiny_model(family, **changes)
    sv.shrink(model, VOCABULARY)
    return model


@pytest.mark.parametrize("family", ["t5", "bart"])
def test_every_owner_of_a_shared_matrix_shrinks(family: str) -> None:
    """Not one of three, so that renumbered ids meet the old matrix in the others."""
    whole, model = tiny_model(family), tiny_model(family)
    batch = random_batch(whole, USED)
    parameters = sum(p.numel() for p in whole.parameters())

    sv.shrink(model, VOCABULARY)

    owners = [m for m in model.modules() if isinstance(m, nn.Embedding) and m in _tables(model)]
    assert len(owners) == 3
    assert len({id(m.weight) for m in owners}) == 1
    assert torch.equal(logits_of(model, batch), logits_of(whole, batch))
    saved = (FULL_VOCAB_SIZE - len(sv.vocabulary_of(model))) * owners[0].embedding_dim
    assert sum(p.numel() for p in model.parameters()) == parameters - saved


def _tables(model: Any) -> set[nn.Module]:
    return set(partial_embeddings(model).values())


@pytest.mark.parametrize(
    ("family", "head"), [("gpt2", "causal-lm"), ("bert", "masked-lm"), ("t5", "seq2seq-lm")]
)
def test_a_tied_head_stays_tied(family: str, head: str) -> None:
    """Untying it in silence saves another model than was trained."""
    model = tiny_model(family, head)
    before = copied(model.state_dict())

    with sv.shrink(model, VOCABULARY):
        assert model.get_output_embeddings().weight is model.get_input_embeddings().weight

    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert_equal_states(model.state_dict(), before)


def test_a_compiled_model_is_saved_whole() -> None:
    """Its names have a prefix too."""
    whole = tiny_model("bert")
    compiled: Any = torch.compile(shrunk(), backend="eager")

    state = compiled.state_dict()

    names = {f"_orig_mod.{name}": value for name, value in whole.state_dict().items()}
    assert_equal_states(copied(state), names)


def test_a_parent_module_is_saved_and_loaded_whole() -> None:
    """The prefix is whatever stands above."""
    source, target = (nn.ModuleDict({"a": nn.ModuleList([tiny_model("t5")])}) for _ in range(2))
    sv.shrink(target, VOCABULARY)
    with torch.no_grad():
        for parameter in source.parameters():
            parameter.add_(1)

    target.load_state_dict(source.state_dict())

    assert_equal_states(copied(target.state_dict()), source.state_dict())


def test_a_frozen_matrix_stays_frozen() -> None:
    """While the model is shrunk, and after."""
    model = tiny_model("bert")
    model.get_input_embeddings().weight.requires_grad_(False)

    with sv.shrink(model, VOCABULARY):
        assert not model.get_input_embeddings().weight.requires_grad
        train(model, [random_batch(model, USED)])
        assert model.get_input_embeddings().weight.grad is None

    assert not model.get_input_embeddings().weight.requires_grad
    assert torch.equal(
        model.get_input_embeddings().weight, tiny_model("bert").get_input_embeddings().weight
    )


def test_a_trainable_matrix_stays_trainable() -> None:
    """The other way round."""
    model = tiny_model("bert")

    with sv.shrink(model, VOCABULARY):
        assert model.get_input_embeddings().weight.requires_grad

    assert model.get_input_embeddings().weight.requires_grad


@pytest.mark.parametrize("family", ["bert", "roberta", "llama", "gpt2", "bart"])
def test_the_padding_id_may_be_the_last_of_all(family: str) -> None:
    """Models that derive positions or lengths from padding see the ids as they were."""
    changes: dict[str, Any] = {"pad_token_id": 299}
    if family == "roberta":  # it counts positions from the padding id on
        changes["max_position_embeddings"] = 320
    whole, model = (tiny_model(family, **changes) for _ in range(2))
    batches = [random_batch(whole, USED, seed=step) for step in range(2)]
    assert (batches[0]["input_ids"] == 299).any()
    padding = whole.get_input_embeddings().padding_idx

    with sv.shrink(model, VOCABULARY):
        assert train(model, batches) == train(whole, batches)
        state = copied(model.state_dict())

    assert_equal_states(state, whole.state_dict())
    assert model.get_input_embeddings().padding_idx == padding
    assert model.config.pad_token_id == 299


def test_the_padding_row_is_not_trained() -> None:
    """Its index moves with it."""
    whole, model = tiny_model("bert", pad_token_id=299), tiny_model("bert", pad_token_id=299)
    assert whole.get_input_embeddings().padding_idx == 299

    sv.shrink(model, VOCABULARY)
    train(model, [random_batch(model, USED)])

    weight = model.get_input_embeddings().weight
    assert model.get_input_embeddings().padding_idx == len(weight) - 1
    assert torch.equal(weight[-1], whole.get_input_embeddings().weight[299])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_a_cast_after_shrinking_is_saved(dtype: torch.dtype, tmp_path: Path) -> None:
    """The rows that are put back are of the new dtype."""
    model = shrunk().to(dtype)

    model.save_pretrained(tmp_path)

    whole = tiny_model("bert").to(dtype)
    assert_equal_states(copied(model.state_dict()), whole.state_dict())
    assert_equal_states(load_file(tmp_path / "model.safetensors"), dict(whole.state_dict()))


def test_an_unseen_id_in_training_is_named() -> None:
    """Neither a crash deep in a kernel nor another token's row."""

    class Tokenizer:
        def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
            return ["▁zebra" for _ in ids]

        def convert_tokens_to_ids(self, _tokens: list[str]) -> list[int]:
            return [unseen]

    model = tiny_model("bert")
    unseen = int(unused_ids(VOCABULARY)[-1])
    sv.shrink(model, VOCABULARY, tokenizer=Tokenizer())
    batch = random_batch(model, USED)
    batch["input_ids"][0, 0] = unseen

    with pytest.raises(
        sv.OutOfVocabularyError, match=f"1 token id .*: {unseen} '▁zebra'"
    ) as caught:
        model.train()(**batch)

    assert caught.value.token_ids == (unseen,)


@pytest.mark.parametrize("family", ["bart", "t5", "bert", "llama"])
def test_tokens_that_the_model_needs_are_kept(family: str) -> None:
    """Ends, starts and padding are in the batch, whether the data was scanned with them or not."""
    whole, model = tiny_model(family), tiny_model(family)
    without_specials = USED[USED > 10]
    batch = random_batch(whole, without_specials)

    sv.shrink(model, sv.PartialVocabulary(without_specials.numpy(), FULL_VOCAB_SIZE))

    named = {
        v for k, v in whole.config.to_dict().items() if k.endswith("_token_id") and v is not None
    }
    assert named <= set(sv.vocabulary_of(model).token_ids.tolist())
    assert train(model, [batch]) == train(whole, [batch])


@pytest.mark.parametrize("size", [40, 30])
def test_rows_of_another_vocabulary_are_refused(size: int) -> None:
    """As many rows or fewer: they are other tokens'."""
    other = tiny_model("bert")
    sv.shrink(other, drawn_vocabulary(size, seed=9))
    assert len(sv.vocabulary_of(other)) == size

    with pytest.raises(sv.VocabularyMismatchError, match="another one of"):
        shrunk().load_state_dict(sv.compact_state_dict(other))


@pytest.mark.parametrize("family", ["bert", "t5", "gemma3"])
def test_a_shrunk_model_is_pickled(family: str) -> None:
    """Spawned processes get it that way; ties and ids outlast the journey."""
    model = shrunk(family)
    batch = random_batch(model, EVERY_ID)

    again = pickle.loads(pickle.dumps(model))  # noqa: S301 - written the line before

    assert torch.equal(logits_of(again, batch), logits_of(model, batch))
    assert len({id(m.weight) for m in partial_embeddings(again).values()}) == 1
    sv.restore(again)
    assert_equal_states(again.state_dict(), tiny_model(family).state_dict())


def test_a_shrunk_model_is_saved_by_torch() -> None:
    """The whole object, as some programs do."""
    model, file = shrunk(), io.BytesIO()

    torch.save(model, file)
    file.seek(0)
    again = torch.load(file, weights_only=False)

    assert_equal_states(copied(again.state_dict()), model.state_dict())


def _logits_in_another_process(model: Any, batch: Any, queue: Any) -> None:
    queue.put(logits_of(model, batch).numpy())


def test_a_shrunk_model_goes_to_a_spawned_process() -> None:
    """Rows outside V′ included: the file is there for both."""
    model = shrunk()
    batch = random_batch(model, EVERY_ID)
    context = torch.multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()

    process = context.Process(target=_logits_in_another_process, args=(model, batch, queue))
    process.start()
    received = queue.get()
    process.join()

    assert np.array_equal(received, logits_of(model, batch).numpy())


@pytest.mark.parametrize("family", ["bert", "t5"])
def test_a_copy_of_a_shrunk_model_is_its_own(family: str) -> None:
    """Ties inside the copy, none to the original."""
    model = shrunk(family)

    twin = copy.deepcopy(model)
    train(twin, [random_batch(twin, USED)])
    sv.restore(twin)

    assert_equal_states(copied(model.state_dict()), tiny_model(family).state_dict())
    assert not partial_embeddings(twin)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_leaving_by_an_error_restores(error: type[BaseException]) -> None:
    """Ctrl-C included: the model is whole, with what was learned until then."""
    model = tiny_model("t5")

    with pytest.raises(error), sv.shrink(model, VOCABULARY):  # noqa: PT012 - what is left is tested
        train(model, [random_batch(model, USED)])
        raise error

    assert not partial_embeddings(model)
    whole = tiny_model("t5")
    train(whole, [random_batch(whole, USED)])
    assert_equal_states(model.state_dict(), whole.state_dict())


@pytest.mark.parametrize("family", ["bart", "gemma3"])
def test_scaled_embeddings_stay_scaled(family: str) -> None:
    """While shrunk and after: the module keeps its own forward."""
    whole, model = tiny_model(family), tiny_model(family)
    batch = random_batch(whole, EVERY_ID)
    expected = logits_of(whole, batch)
    modules = [type(m) for m in model.modules()]

    with sv.shrink(model, VOCABULARY):
        assert torch.equal(logits_of(model, batch), expected)

    assert torch.equal(logits_of(model, batch), expected)
    assert [type(m) for m in model.modules()] == modules


@pytest.mark.parametrize("family", ["bert", "t5"])
def test_config_and_vocabulary_stay_as_they_were(family: str) -> None:
    """Only rows are gone: nobody else's business changes."""
    model, vocabulary = tiny_model(family), drawn_vocabulary()
    before = model.config.to_dict()
    ids, fingerprint = vocabulary.token_ids.copy(), vocabulary.fingerprint

    with sv.shrink(model, vocabulary):
        assert model.config.vocab_size == FULL_VOCAB_SIZE
        assert model.config.to_dict() == before

    assert model.config.to_dict() == before
    assert np.array_equal(vocabulary.token_ids, ids)
    assert vocabulary.fingerprint == fingerprint


@pytest.mark.parametrize("family", ["bert", "t5", "bart", "gemma3"])
def test_a_shrunk_model_is_saved_for_anyone(family: str, tmp_path: Path) -> None:
    """Plain loading gives the logits of the trained model, for any token."""
    model = shrunk(family)
    train(model, [random_batch(model, USED)])

    model.save_pretrained(tmp_path)

    whole = hf.AutoModelForSequenceClassification.from_pretrained(tmp_path)
    batch = random_batch(whole, EVERY_ID)
    assert torch.equal(logits_of(whole, batch), logits_of(model, batch))
    sizes = [t.shape[0] for t in load_file(tmp_path / "model.safetensors").values() if t.dim()]
    assert sizes.count(FULL_VOCAB_SIZE) == 1
