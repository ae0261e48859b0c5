"""Tests of the partial embedding module: what the whole one gives, from fewer rows."""

from __future__ import annotations

import copy
import pickle
import re
from typing import Any

import pytest
import torch
from torch import nn
from transformers.models.gemma3.modeling_gemma3 import Gemma3TextScaledWordEmbedding

import subvocab as sv
from subvocab.errors import OutOfVocabularyError, VocabularyMismatchError
from subvocab.model.embedding import PartialEmbedding, make_partial
from subvocab.model.swap import swapped_class
from subvocab.model.table import PartialTable
from subvocab.model.tensors import spilled
from tests.models import CONFIGS, FULL_VOCAB_SIZE, random_batch, tiny_model
from tests.reference import assert_equal_states, ids_of
from tests.unit.model.embeddings import EVERY_ID, UNUSED, VOCABULARY, pair, plain


def logits_of(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Evaluate a model."""
    model.eval()
    with torch.no_grad():
        logits = model(**batch).logits
    assert isinstance(logits, torch.Tensor)
    return logits


@pytest.mark.parametrize("family", CONFIGS)
def test_forward_in_evaluation_equals_the_whole_model(family: str) -> None:
    """Text with any token of V: rows outside V′ are read from disk."""
    full, shrunk = tiny_model(family), tiny_model(family)
    batch = random_batch(full, EVERY_ID)

    sv.shrink(shrunk, VOCABULARY)

    assert not VOCABULARY.contains(batch["input_ids"].numpy()).all()
    assert torch.equal(logits_of(shrunk, batch), logits_of(full, batch))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_forward_in_evaluation_equals_the_whole_model_after_a_cast(dtype: torch.dtype) -> None:
    """Rows on disk are cast as those in memory were."""
    full, shrunk = tiny_model("gemma3"), tiny_model("gemma3")
    batch = random_batch(full, EVERY_ID)

    sv.shrink(shrunk, VOCABULARY)

    assert torch.equal(logits_of(shrunk.to(dtype), batch), logits_of(full.to(dtype), batch))


@pytest.mark.parametrize(
    "options",
    [
        {"max_norm": 1.0},
        {"max_norm": 1.0, "norm_type": 1.0},
        {"sparse": True},
        {"scale_grad_by_freq": True},
        {"padding_idx": 299},
        {"dtype": torch.bfloat16},
    ],
    ids=str,
)
def test_forward_keeps_the_options_of_the_module(options: dict[str, Any]) -> None:
    """Every option of `nn.Embedding`, in training and, with unseen ids too, in evaluation."""
    whole, partial = pair(**options)
    used = ids_of(sv.vocabulary_of(partial))[torch.randint(30, (5, 6))]

    assert torch.equal(partial(used), whole(used))
    partial.eval()
    whole.eval()
    assert torch.equal(partial(EVERY_ID.view(30, 10)), whole(EVERY_ID.view(30, 10)))
    if "max_norm" not in options:  # there, looking a row up changes it
        assert torch.equal(partial.state_dict()["weight"], whole.weight)


@pytest.mark.parametrize(
    "options", [{}, {"scale_grad_by_freq": True}, {"padding_idx": 299}, {"sparse": True}], ids=str
)
def test_backward_gives_the_gradients_of_the_whole_module(options: dict[str, Any]) -> None:
    """Row by row, the padding token's zeros included."""
    whole, partial = pair(**options)
    rows = ids_of(sv.vocabulary_of(partial))
    used = rows[torch.randint(len(rows), (5, 60), generator=torch.Generator().manual_seed(0))]

    for module in (whole, partial):
        module(used).pow(2).sum().backward()

    assert whole.weight.grad is not None
    assert partial.weight.grad.is_sparse == whole.weight.grad.is_sparse
    assert torch.equal(partial.weight.grad.to_dense(), whole.weight.grad.to_dense()[rows])


def test_forward_in_training_refuses_unseen_ids() -> None:
    """A row that is not there cannot learn."""
    _, partial = pair()
    missing = UNUSED[UNUSED != 0][:7]
    named = ", ".join(str(i) for i in missing[:5].tolist())
    message = (
        f"7 token ids are not in the partial vocabulary of {len(sv.vocabulary_of(partial))}: "
        f"{named} and 2 more. Scan every split the model will train on, and what the collator adds."
    )

    with pytest.raises(OutOfVocabularyError, match=f"^{re.escape(message)}$") as caught:
        partial(missing.repeat(2))

    assert caught.value.token_ids == tuple(missing.tolist())


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("token_id", [-1, -100, FULL_VOCAB_SIZE])
def test_forward_refuses_ids_that_are_no_tokens(token_id: int, *, training: bool) -> None:
    """The whole module refuses them too: no counting from the end."""
    _, partial = pair()
    partial.train(training)

    with pytest.raises(OutOfVocabularyError, match="outside the vocabulary of 300") as caught:
        partial(torch.tensor([[int(UNUSED[-1]), token_id]]))

    assert caught.value.token_ids == (token_id,)


def test_backward_through_a_row_from_disk_is_refused() -> None:
    """Training in evaluation mode would silently leave those tokens out."""
    _, partial = pair()
    partial.eval()
    seen, unseen = int(VOCABULARY.token_ids[1]), int(UNUSED[3])

    output = partial(torch.tensor([seen, unseen]))

    with pytest.raises(OutOfVocabularyError, match=r"^1 token id is not in the partial") as caught:
        output.sum().backward()
    assert caught.value.token_ids == (unseen,)


def test_backward_past_frozen_rows_from_disk_is_allowed() -> None:
    """Where nothing of the matrix learns, nothing is lost."""
    _, partial = pair()
    partial.eval()
    partial.weight.requires_grad_(False)
    scale = torch.ones((), requires_grad=True)

    (partial(EVERY_ID) * scale).sum().backward()

    assert scale.grad is not None


def test_evaluation_leaves_the_module_as_it_was() -> None:
    """Rows from disk are for one batch."""
    _, partial = pair(padding_idx=299)
    before = dict(vars(partial))

    partial.eval()(EVERY_ID)

    assert vars(partial) == before | {"training": False}
    assert partial.weight.shape[0] == len(sv.vocabulary_of(partial))
    assert type(partial) is swapped_class(PartialEmbedding, nn.Embedding)


def test_forward_hooks_see_every_batch() -> None:
    """NEFTune and PEFT put hooks on the module: they run once, unseen ids or not."""
    _, partial = pair()
    calls = []
    partial.register_forward_hook(lambda *_: calls.append(1))

    partial.eval()(EVERY_ID)

    assert calls == [1]


def test_deepcopy_is_independent() -> None:
    """PEFT copies the modules it trains."""
    whole, partial = pair()

    twin = copy.deepcopy(partial)
    with torch.no_grad():
        twin.weight.zero_()

    assert torch.equal(partial.state_dict()["weight"], whole.weight)
    assert (twin.state_dict()["weight"][ids_of(VOCABULARY)] == 0).all()
    assert twin.table is not partial.table


def test_deepcopy_shares_what_never_changes() -> None:
    """A tokenizer of 250,000 tokens is not copied with the model."""
    embedding, tokenizer = plain(), object()
    sv.shrink(embedding, VOCABULARY, tokenizer=tokenizer)
    module: Any = embedding

    twin = copy.deepcopy(module)

    assert twin.table.tokenizer is tokenizer
    assert twin.table.vocabulary is module.table.vocabulary
    assert twin.table.matrix is module.table.matrix


def test_pickle_keeps_the_module() -> None:
    """Processes that are spawned get their model by pickle."""
    whole, partial = pair(padding_idx=299)

    twin = pickle.loads(pickle.dumps(partial))  # noqa: S301 - written the line before

    assert type(twin) is type(partial)
    assert torch.equal(twin.eval()(EVERY_ID), whole(EVERY_ID))
    assert_equal_states(twin.state_dict(), whole.state_dict())


def test_pickle_holds_no_row_of_the_whole_matrix() -> None:
    """Only the path of the file travels."""
    _, partial = pair()

    assert len(pickle.dumps(partial)) < FULL_VOCAB_SIZE * 8 * 4


def test_partial_class_keeps_its_family() -> None:
    """`isinstance` checks elsewhere go on to work, and each class is made once."""

    class Scaled(nn.Embedding):
        pass

    made = swapped_class(PartialEmbedding, Scaled)

    assert issubclass(made, Scaled)
    assert made.__name__ == "PartialScaled"
    assert swapped_class(PartialEmbedding, Scaled) is made


def test_make_partial_refuses_to_lose_the_padding_token() -> None:
    """A stale padding index would silence the gradient of another token."""
    embedding = plain(padding_idx=int(UNUSED[-1]))
    table = PartialTable(VOCABULARY, spilled(embedding.weight))
    message = (
        f"The padding id {int(UNUSED[-1])} is not in the partial vocabulary of 40. Add it with "
        f"`vocabulary.union([{int(UNUSED[-1])}])`."
    )

    with pytest.raises(VocabularyMismatchError, match=f"^{re.escape(message)}$"):
        make_partial(embedding, nn.Parameter(torch.zeros(40, 8)), table)


@pytest.mark.parametrize(
    ("backend", "scaled"), [("aot_eager", False), ("aot_eager", True), ("inductor", False)]
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_compile_gives_one_graph_equal_to_the_whole_model(backend: str, *, scaled: bool) -> None:
    """No graph break, in training and in evaluation; the same bits from the same compiler."""
    torch.compiler.reset()
    used = ids_of(VOCABULARY).view(5, 8)
    results = []
    for shrink in (False, True):
        torch.manual_seed(0)
        made: Any = (
            Gemma3TextScaledWordEmbedding(FULL_VOCAB_SIZE, 8, 0, embed_scale=3.0)
            if scaled
            else plain()
        )
        model = nn.Sequential(made, nn.Linear(8, 4), nn.GELU())
        if shrink:
            sv.shrink(model, VOCABULARY)
        compiled: Any = torch.compile(model, fullgraph=True, backend=backend)
        output = compiled.train()(used)
        output.pow(2).sum().backward()
        with torch.no_grad():
            evaluated = compiled.eval()(used)
        results.append((output.detach(), evaluated, made.weight.grad))
    (full_output, full_evaluated, full_gradient), (output, evaluated, gradient) = results

    assert torch.equal(output, full_output)
    assert torch.equal(evaluated, full_evaluated)
    assert torch.equal(gradient, full_gradient[ids_of(sv.vocabulary_of(model))])


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_compile_refuses_unseen_ids(*, training: bool) -> None:
    """Neither mode may read a row at random."""
    torch.compiler.reset()
    _, partial = pair()
    compiled: Any = torch.compile(partial.train(training), fullgraph=True, backend="aot_eager")
    seen = ids_of(VOCABULARY)[:4]
    compiled(seen)

    for unseen in (int(UNUSED[5]), -1, FULL_VOCAB_SIZE):
        with pytest.raises(OutOfVocabularyError, match=r"token id|Token ids"):
            compiled(torch.cat([seen[:3], torch.tensor([unseen])]))
