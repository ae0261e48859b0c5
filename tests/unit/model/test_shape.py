"""Shapes read from configurations agree with real models, and plans with real optimizers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from transformers.optimization import Adafactor

import subvocab as sv
from subvocab.analysis.savings import Role, Training, estimate_savings
from subvocab.errors import DataError, UnsupportedModelError
from subvocab.model.shape import model_shape
from tests.models import FULL_VOCAB_SIZE, tiny_config, tiny_model
from tests.reference import drawn_vocabulary

FAMILIES = ["bert", "distilbert", "deberta-v2", "albert", "modernbert", "t5", "bart", "llama"]
OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "sgd": lambda weights: torch.optim.SGD(weights, lr=1e-3),
    "momentum": lambda weights: torch.optim.SGD(weights, lr=1e-3, momentum=0.9),
    "adamw": lambda weights: torch.optim.AdamW(weights, lr=1e-3, fused=True),
    "adafactor": lambda weights: Adafactor(
        weights, lr=1e-3, scale_parameter=False, relative_step=False
    ),
}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
LOOKUP = 4 * FULL_VOCAB_SIZE


def _held(model: Any, optimizer: torch.optim.Optimizer) -> tuple[int, int, int]:
    """Give the bytes of weights, gradients and state, as torch counts them."""
    weights = list(model.parameters())
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    moments = [
        value
        for state in optimizer.state.values()
        for value in state.values()
        if isinstance(value, torch.Tensor) and value.dim()
    ]
    weight_bytes, gradient_bytes, state_bytes = (
        sum(tensor.nbytes for tensor in tensors) for tensors in (weights, gradients, moments)
    )
    return weight_bytes, gradient_bytes, state_bytes


def _trained(model: Any, optimizer: str) -> tuple[int, int, int]:
    """Take a step with gradients for every weight, and look at what is held."""
    made = OPTIMIZERS[optimizer](model.parameters())
    for weight in model.parameters():
        if weight.requires_grad:
            weight.grad = torch.randn_like(weight)
    made.step()
    return _held(model, made)


@pytest.mark.parametrize("family", FAMILIES)
def test_model_shape_counts_as_the_real_model_does(family: str) -> None:
    """N and N_emb, and after `shrink` what is left of them."""
    model = tiny_model(family)
    shape = model_shape(tiny_config(family), num_labels=model.config.num_labels)
    whole = sum(p.numel() for p in model.parameters())
    sv.shrink(model, drawn_vocabulary())

    planned = estimate_savings(shape, len(sv.vocabulary_of(model))).parameters

    assert shape.full_vocab_size == FULL_VOCAB_SIZE
    assert shape.model_parameters == whole
    assert planned == sv.count_parameters(model)


@pytest.mark.parametrize("family", ["bert", "albert", "t5"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("precision", DTYPES)
def test_plans_agree_with_torch_to_the_byte(family: str, optimizer: str, precision: str) -> None:
    """Weights, gradients and state of a real optimizer, whole and shrunk."""
    model = tiny_model(family).to(DTYPES[precision])
    full = _trained(model, optimizer)
    model.zero_grad()
    sv.shrink(model, drawn_vocabulary())
    partial = _trained(model, optimizer)
    training = Training(precision=precision, optimizer=optimizer)

    saved = estimate_savings(
        model_shape(tiny_config(family)), len(sv.vocabulary_of(model)), training
    )

    assert (saved.full.weights, saved.full.gradients, saved.full.optimizer) == full
    held = (saved.partial.weights - LOOKUP, saved.partial.gradients, saved.partial.optimizer)
    assert held == partial


@pytest.mark.parametrize("family", FAMILIES)
def test_model_shape_names_the_tokens_that_are_always_kept(family: str) -> None:
    """The same that `shrink` adds, so that |V′| is what training will have."""
    model = tiny_model(family)
    sv.shrink(model, sv.PartialVocabulary(drawn_vocabulary().token_ids[-1:], FULL_VOCAB_SIZE))
    kept = set(sv.vocabulary_of(model).token_ids.tolist()) - set(
        drawn_vocabulary().token_ids[-1:].tolist()
    )

    shape = model_shape(tiny_config(family))

    assert set(shape.kept_token_ids) == kept


@pytest.mark.parametrize(
    ("family", "task", "changes", "roles"),
    [
        ("bert", "classification", {}, [Role.TABLE]),
        ("t5", "embedding", {}, [Role.TABLE]),
        ("bert", "masked-lm", {}, [Role.TIED, Role.BIAS]),
        ("deberta-v2", "masked-lm", {"legacy": False}, [Role.TIED, Role.BIAS]),
        ("gpt2", "causal-lm", {}, [Role.TIED]),
        ("llama", "causal-lm", {"tie_word_embeddings": False}, [Role.TABLE, Role.HEAD]),
        ("llama", "causal-lm", {"tie_word_embeddings": True}, [Role.TIED]),
        ("t5", "seq2seq-lm", {}, [Role.TIED]),
        ("bart", "seq2seq-lm", {}, [Role.TIED]),
    ],
)
def test_model_shape_finds_tables_and_heads(
    family: str, task: str, changes: dict[str, Any], roles: list[Role]
) -> None:
    """By identity: one Parameter in three modules is one table."""
    shape = model_shape(tiny_config(family, **changes), task=task)

    assert [w.role for w in shape.weights if w.role is not Role.BODY] == roles


def test_model_shape_tells_whose_gradient_comes_in_parts() -> None:
    """A tied table, and one that encoder and decoder share."""
    assert [w.reused for w in model_shape(tiny_config("bert")).weights if w.reused] == []
    assert model_shape(tiny_config("t5")).weights[0].reused
    assert model_shape(tiny_config("gpt2"), task="causal-lm").weights[0].reused


def test_model_shape_knows_the_printed_models() -> None:
    """BERT and XLM-R as in the paper's Table 5."""
    xlm_r = hf.XLMRobertaConfig(vocab_size=250_002, max_position_embeddings=514, type_vocab_size=1)

    assert model_shape(hf.BertConfig()).model_parameters == 109_483_778
    assert model_shape(xlm_r).embedding_parameters == 192_001_536


def test_model_shape_of_the_largest_models_takes_no_memory() -> None:
    """70 billion parameters, and 128 experts a layer, in a moment."""
    llama = hf.LlamaConfig(
        hidden_size=8192,
        num_hidden_layers=80,
        num_attention_heads=64,
        num_key_value_heads=8,
        intermediate_size=28672,
        vocab_size=128_256,
    )
    experts = hf.Qwen3MoeConfig(num_experts=128, num_hidden_layers=94, hidden_size=4096)

    with sv.PeakMemory() as memory:
        dense = model_shape(llama, task="causal-lm")
        sparse = model_shape(experts, task="causal-lm")

    assert dense.model_parameters == 70_553_706_496
    assert sparse.model_parameters > 100 * 10**9
    assert memory.peak_bytes < 200 << 20


def test_model_shape_counts_labels() -> None:
    """A row of the classifier a class."""
    two, five = (model_shape(tiny_config("bert"), num_labels=n) for n in (2, 5))

    assert five.model_parameters - two.model_parameters == 3 * (32 + 1)


def test_model_shape_leaves_a_configuration_alone() -> None:
    """It belongs to the caller."""
    config = tiny_config("bert")
    before = config.to_dict()

    model_shape(config, num_labels=7)

    assert config.to_dict() == before


def test_model_shape_reads_folders_and_files(tmp_path: Path) -> None:
    """The same from a folder, its config.json, a file of another name, and the object."""
    config = tiny_config("bert")
    config.save_pretrained(tmp_path)
    other = tmp_path / "other.json"
    other.write_bytes((tmp_path / "config.json").read_bytes())

    shapes = [model_shape(path) for path in (tmp_path, tmp_path / "config.json", str(other))]

    assert {shape.weights for shape in shapes} == {model_shape(config).weights}
    assert shapes[2].name == str(other)
    assert model_shape(config).name == "bert"


def test_model_shape_never_runs_code_beside_a_configuration(tmp_path: Path) -> None:
    """A configuration may name code; it stays unread."""
    names = {"AutoConfig": "code.Config", "AutoModelForSequenceClassification": "code.Model"}
    described = {**tiny_config("bert").to_dict(), "auto_map": names}
    (tmp_path / "config.json").write_text(json.dumps(described))
    (tmp_path / "code.py").write_text("raise SystemExit('it was run')")

    assert model_shape(tmp_path).full_vocab_size == FULL_VOCAB_SIZE


@pytest.mark.parametrize("config", [hf.ViTConfig(), hf.CanineConfig()], ids=["vit", "canine"])
@pytest.mark.parametrize("task", ["classification", "embedding"])
def test_model_shape_refuses_models_without_a_table(config: Any, task: str) -> None:
    """Pictures and hashed characters have no rows to save."""
    with pytest.raises(UnsupportedModelError) as caught:
        model_shape(config, task=task)

    assert str(caught.value).startswith(f"{config.model_type} (`")
    assert str(caught.value).endswith(
        "has no table of token embeddings, so a part of a vocabulary saves nothing there. "
        "Expected a model that reads token ids through an `nn.Embedding`."
    )


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("{", "is not a valid JSON file"),
        ("[1]", "Should have a `model_type` key"),
        ('{"vocab_size": 5}', "Should have a `model_type` key"),
        ('{"model_type": "nope"}', "has model type `nope` but Transformers does not recognize"),
        ('{"model_type": "bert", "vocab_size": "many"}', "expected int, got str"),
        ('{"model_type": "bert", "hidden_size": -3}', "negative dimension"),
        ('{"model_type": "bert", "num_attention_heads": 7}', "multiple of the number of attention"),
    ],
)
def test_model_shape_tells_what_is_wrong_with_a_configuration(
    tmp_path: Path, written: str, message: str
) -> None:
    """One kind of error, with the reason."""
    (tmp_path / "config.json").write_text(written)

    with pytest.raises(DataError) as caught:
        model_shape(tmp_path)

    assert str(tmp_path) in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("./none", "There is no file or folder ./none. Name a folder with a `config.json`"),
        ("/none/at/all", "There is no file or folder /none/at/all."),
        ("none.json", "There is no file or folder none.json."),
        ("no/such-model", "No model configuration could be found for no/such-model: "),
    ],
)
def test_model_shape_tells_what_is_not_there(name: str, message: str) -> None:
    """Neither here nor, without a network, on the Hub."""
    with pytest.raises(DataError) as caught:
        model_shape(name)

    assert str(caught.value).startswith(message)


def test_model_shape_refuses_an_empty_folder(tmp_path: Path) -> None:
    """What it needs is named."""
    with pytest.raises(DataError) as caught:
        model_shape(tmp_path)

    assert str(caught.value) == (
        f"There is no config.json in {tmp_path}. Name the folder of a model, its `config.json`, or "
        "a name on the Hub."
    )


def test_model_shape_tells_which_tasks_a_family_has() -> None:
    """T5 fills no masks."""
    with pytest.raises(DataError) as caught:
        model_shape(tiny_config("t5"), task="masked-lm")

    assert str(caught.value) == (
        "`t5` models, of which t5 is one, have no class for the task `masked-lm` in transformers. "
        "They have one for: classification, token-classification, question-answering, embedding, "
        "seq2seq-lm."
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "poetry"}, "`task` is `poetry`, expected one of classification, token-"),
        ({"num_labels": 0}, "`num_labels` is 0, expected one or more."),
    ],
)
def test_model_shape_refuses_options(options: dict[str, Any], message: str) -> None:
    """Before anything is read."""
    with pytest.raises(DataError) as caught:
        model_shape(tiny_config("bert"), **options)

    assert str(caught.value).startswith(message)
