"""Adapters of PEFT on the embedding or the head itself are refused, in whatever order."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
from torch import nn

import subvocab as sv
from tests.models import language_batch, tiny_model
from tests.peft_models import (
    IGNORED_WARNINGS,
    USED,
    VOCABULARY,
    adapted,
    language_config,
    language_model,
    shrunk,
)

pytestmark = pytest.mark.filterwarnings(*IGNORED_WARNINGS)


REFUSED: dict[str, tuple[str, Callable[[], peft.PeftConfig]]] = {
    "LoRA on the embedding": ("Embedding", lambda: lora("embed_tokens")),
    "DoRA on the embedding": ("Embedding", lambda: lora("embed_tokens", use_dora=True)),
    "LoRA on the head": ("Linear", lambda: lora("lm_head")),
    "IA3 on the head": (
        "Linear",
        lambda: peft.IA3Config(
            task_type="CAUSAL_LM", target_modules=["lm_head"], feedforward_modules=[]
        ),
    ),
    "LoRA on the parameter": (
        "ParamWrapper",
        lambda: peft.LoraConfig(
            task_type="CAUSAL_LM", target_parameters=["embed_tokens.weight"], target_modules=[]
        ),
    ),
    "some tokens": (
        "TrainableTokensLayer",
        lambda: lora("q_proj", trainable_token_indices=[1, 2]),
    ),
    "some tokens alone": (
        "TrainableTokensLayer",
        lambda: peft.TrainableTokensConfig(
            task_type="CAUSAL_LM", target_modules=["embed_tokens"], token_indices=[1, 2]
        ),
    ),
}


def lora(name: str, **options: Any) -> peft.LoraConfig:
    """Put LoRA on a module of a decoder."""
    return peft.LoraConfig(task_type="CAUSAL_LM", target_modules=[name], **options)


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("kind", REFUSED)
def test_an_adapter_on_the_vocabulary_is_refused(kind: str, tied: bool, tmp_path: Path) -> None:
    """In either order, loaded or new, before any step: it would read rows by ids of V."""
    layer, make_config = REFUSED[kind]
    whole = adapted(language_model(tied=tied), make_config())
    whole.save_pretrained(tmp_path)
    message = f"`{layer}` of PEFT was put on a `Partial.*Leave it out of .*`modules_to_save`"

    with pytest.raises(sv.UnsupportedModelError, match=message):
        adapted(shrunk(language_model(tied=tied)), make_config())
    with pytest.raises(sv.UnsupportedModelError, match=message):
        peft.PeftModel.from_pretrained(shrunk(language_model(tied=tied)), tmp_path)
    with pytest.raises(sv.UnsupportedModelError, match=r"Leave it out of .*`modules_to_save`"):
        sv.shrink(whole, VOCABULARY)


def test_an_adapter_on_the_vocabulary_is_refused_word_for_word() -> None:
    """The whole message, of either order."""
    model = tiny_model("bert")
    config = peft.LoraConfig(task_type="SEQ_CLS", target_modules=["word_embeddings"])
    advice = (
        "Leave it out of the adapter's `target_modules` and `trainable_token_indices`. To train "
        "its rows beside the adapter, name it in `modules_to_save`, or let it require a gradient "
        "and keep the rows in a `subvocab.RowAdapter`."
    )

    with pytest.raises(sv.UnsupportedModelError) as first:
        adapted(shrunk(model), config)
    with pytest.raises(sv.UnsupportedModelError) as second:
        shrunk(adapted(tiny_model("bert"), config))

    assert str(first.value) == (
        "`Embedding` of PEFT was put on a `PartialEmbedding`, whose rows are those of a partial "
        f"vocabulary; it would take them for those of the whole. {advice}"
    )
    assert str(second.value) == (
        "The input embedding of `PeftModelForSequenceClassification` is a `Embedding` of PEFT, "
        f"expected an `nn.Embedding`. {advice}"
    )


def test_a_later_adapter_on_the_vocabulary_is_refused() -> None:
    """The first was on other layers; transformers' own way of adding one is no way around."""
    model = adapted(shrunk(language_model(tied=True)), lora("q_proj"))

    with pytest.raises(sv.UnsupportedModelError, match="of PEFT was put on"):
        model.add_adapter("second", lora("embed_tokens"))
    with pytest.raises(sv.UnsupportedModelError, match="of PEFT was put on"):
        shrunk(language_model(tied=True)).add_adapter(lora("embed_tokens"))


def test_all_linear_layers_leave_the_head_alone() -> None:
    """PEFT itself leaves output heads out of "all-linear"."""
    whole, model = (language_model(tied=False) for _ in range(2))
    config = peft.LoraConfig(task_type="CAUSAL_LM", target_modules="all-linear")
    batch = language_batch("llama", USED)

    losses = [adapted(one, config).train()(**batch).loss.item() for one in (whole, shrunk(model))]

    assert losses[1] == pytest.approx(losses[0], rel=1e-6)


def test_a_copy_that_is_no_copy_is_refused() -> None:
    """A head of unknown origin in the place of a partial one would predict other tokens."""
    model = adapted(shrunk(language_model(tied=False)), language_config(["lm_head"]))
    copies = model.get_output_embeddings().modules_to_save

    with pytest.raises(sv.UnsupportedModelError, match="expected a copy of it, or one tied to"):
        copies["other"] = nn.Linear(8, 8)


def test_other_modules_are_put_together_as_ever() -> None:
    """The hook that sees them all has nothing to say about them."""
    shrunk(tiny_model("bert"))
    inner = nn.ModuleDict({"a": nn.Linear(2, 2)})

    class Outer(nn.Module):
        __hash__ = None  # type: ignore[assignment]

        def __init__(self) -> None:
            super().__init__()
            self.inner = inner
            self.nothing = None
            self.register_module("later", None)

    assert Outer().inner is inner
