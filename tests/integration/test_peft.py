"""PEFT beside a partial vocabulary: what adapters learn, save and load is as without it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers as hf
from safetensors.torch import load_file
from torch import nn

import subvocab as sv
from tests.models import random_batch, tiny_model
from tests.pages import python_blocks, run_block
from tests.peft_models import EVERY_ID, IGNORED_WARNINGS, USED, VOCABULARY, adapted, shrunk
from tests.reference import Run, assert_equal_states, copied, train, unused_ids

pytestmark = pytest.mark.filterwarnings(*IGNORED_WARNINGS)

ATTENTION: dict[str, Any] = {"task_type": "SEQ_CLS", "target_modules": ["query", "value"]}
PROMPTS: dict[str, Any] = {"task_type": "SEQ_CLS", "num_virtual_tokens": 4}

METHODS: dict[str, Callable[[], peft.PeftConfig]] = {
    "LoRA": lambda: peft.LoraConfig(**ATTENTION),
    "LoRA, rank-stabilised": lambda: peft.LoraConfig(**ATTENTION, use_rslora=True),
    "DoRA": lambda: peft.LoraConfig(**ATTENTION, use_dora=True),
    "AdaLoRA": lambda: peft.AdaLoraConfig(**ATTENTION, total_step=20),
    "VeRA": lambda: peft.VeraConfig(**ATTENTION),
    "RandLoRA": lambda: peft.RandLoraConfig(**ATTENTION),
    "VB-LoRA": lambda: peft.VBLoRAConfig(**ATTENTION, num_vectors=8, vector_length=4, topk=2),
    "LoHa": lambda: peft.LoHaConfig(**ATTENTION),
    "LoKr": lambda: peft.LoKrConfig(**ATTENTION),
    "IA3": lambda: peft.IA3Config(
        task_type="SEQ_CLS", target_modules=["query", "dense"], feedforward_modules=["dense"]
    ),
    "OFT": lambda: peft.OFTConfig(**ATTENTION, r=4, oft_block_size=0),
    "HRA": lambda: peft.HRAConfig(**ATTENTION),
    "FourierFT": lambda: peft.FourierFTConfig(**ATTENTION, n_frequency=10),
    "MiSS": lambda: peft.MissConfig(**ATTENTION, r=4),
    "SHiRA": lambda: peft.ShiraConfig(**ATTENTION, r=2),
    "C3A": lambda: peft.C3AConfig(**ATTENTION, block_size=8),
    "RoAd": lambda: peft.RoadConfig(**ATTENTION, group_size=8),
    "layer norms": lambda: peft.LNTuningConfig(task_type="SEQ_CLS", target_modules=["LayerNorm"]),
    "prefix tuning": lambda: peft.PrefixTuningConfig(**PROMPTS),
    "P-tuning": lambda: peft.PromptEncoderConfig(**PROMPTS, encoder_hidden_size=8),
    "prompt tuning": lambda: peft.PromptTuningConfig(**PROMPTS),
}


def trained(model: Any, family: str = "bert") -> Run:
    """Train what an adapter trains."""
    whole = tiny_model(family)
    return train(model, [random_batch(whole, USED, seed=step) for step in range(3)])


def logits_of(model: Any, family: str = "bert") -> torch.Tensor:
    """Evaluate a model on tokens of all of V."""
    batch = random_batch(tiny_model(family), EVERY_ID)
    del batch["labels"]
    with torch.no_grad():
        logits = model.eval()(**batch).logits
    assert isinstance(logits, torch.Tensor)
    return logits


@pytest.mark.parametrize("method", METHODS)
def test_an_adapter_learns_the_same(method: str, tmp_path: Path) -> None:
    """Losses and gradient norms bit for bit, in either order; it loads on the whole model."""
    config = METHODS[method]()
    whole = adapted(tiny_model("bert"), config)
    first = adapted(shrunk(tiny_model("bert")), config)
    then = shrunk(adapted(tiny_model("bert"), config))

    expected = trained(whole)

    assert trained(first) == expected
    assert trained(then) == expected
    for model in (first, then):
        model.save_pretrained(tmp_path)
        again = peft.PeftModel.from_pretrained(tiny_model("bert"), tmp_path)
        assert torch.equal(logits_of(again), logits_of(whole))
        assert torch.equal(logits_of(model), logits_of(whole))


def test_an_adapter_is_loaded_on_a_shrunk_model(tmp_path: Path) -> None:
    """One that was trained on the whole model."""
    whole = adapted(tiny_model("bert"), METHODS["LoRA"]())
    trained(whole)
    whole.save_pretrained(tmp_path)

    again = peft.PeftModel.from_pretrained(shrunk(tiny_model("bert")), tmp_path)

    assert torch.equal(logits_of(again), logits_of(whole))


def test_a_model_with_adapters_is_shrunk_and_restored() -> None:
    """Its state is the same all the while."""
    model = adapted(tiny_model("bert"), METHODS["LoRA"]())
    before = copied(model.state_dict())

    sv.shrink(model, VOCABULARY)

    assert_equal_states(copied(model.state_dict()), before)
    sv.restore(model)
    assert_equal_states(model.state_dict(), before)


ROWS: dict[str, tuple[str, list[str]]] = {
    "bert": ("word_embeddings", ["query"]),
    "gemma3": ("embed_tokens", ["q_proj"]),
    "distilbert": ("word_embeddings", ["q_lin"]),
}
"""Families with their embedding, and a layer for LoRA; Gemma scales what it looks up."""


@pytest.mark.parametrize("order", ["shrink first", "PEFT first"])
@pytest.mark.parametrize("family", ROWS)
def test_rows_are_trained_beside_an_adapter(family: str, order: str, tmp_path: Path) -> None:
    """Bit for bit as with the whole matrix, of which only V′ is trained, and saved whole."""
    embedding, layers = ROWS[family]
    config = peft.LoraConfig(
        task_type="SEQ_CLS", target_modules=layers, modules_to_save=[embedding]
    )
    whole = adapted(tiny_model(family), config)
    if order == "shrink first":
        model = adapted(shrunk(tiny_model(family)), config)
    else:
        model = shrunk(adapted(tiny_model(family), config))
    rows = [p for name, p in model.named_parameters() if embedding in name and p.requires_grad]

    assert trained(model, family) == trained(whole, family)

    assert [len(p) for p in rows] == [len(sv.vocabulary_of(model))]
    assert_equal_states(copied(model.state_dict()), whole.state_dict())
    model.save_pretrained(tmp_path)
    stored = load_file(tmp_path / "adapter_model.safetensors")
    (matrix,) = [value for name, value in stored.items() if embedding in name]
    before = tiny_model(family).get_input_embeddings().weight
    unused = unused_ids(sv.vocabulary_of(model))
    assert torch.equal(matrix[unused], before[unused])
    assert not torch.equal(matrix[USED], before[USED])
    again = peft.PeftModel.from_pretrained(tiny_model(family), tmp_path)
    assert torch.equal(logits_of(again, family), logits_of(whole, family))


def test_merging_gives_the_plain_model() -> None:
    """As PEFT merges it without a partial vocabulary; shrunk still, until it is restored."""
    config = peft.LoraConfig(**ATTENTION, modules_to_save=["word_embeddings"])
    whole, model = adapted(tiny_model("bert"), config), adapted(shrunk(tiny_model("bert")), config)
    trained(whole)
    trained(model)

    merged, expected = model.merge_and_unload(), whole.merge_and_unload()

    assert len(merged.get_input_embeddings().weight) == len(VOCABULARY)
    assert_equal_states(copied(merged.state_dict()), expected.state_dict())
    sv.restore(merged)
    assert_equal_states(merged.state_dict(), expected.state_dict())


def test_several_adapters_are_switched() -> None:
    """Each with rows of its own; switched off, the base shows."""
    configs = [
        peft.LoraConfig(**ATTENTION, modules_to_save=["word_embeddings"]),
        peft.LoraConfig(task_type="SEQ_CLS", target_modules=["key"]),
    ]
    models = [tiny_model("bert"), shrunk(tiny_model("bert"))]
    runs, shown = [], []
    for model in models:
        both = adapted(model, configs[0])
        torch.manual_seed(1)
        both.add_adapter("second", copy.deepcopy(configs[1]))
        learned = []
        for name in ("default", "second"):
            both.set_adapter(name)
            learned.append(trained(both))
        runs.append(learned)
        outputs = []
        for name in ("default", "second"):
            both.set_adapter(name)
            outputs.append(logits_of(both))
        with both.disable_adapter():
            outputs.append(logits_of(both))
        shown.append(outputs)

    assert runs[0] == runs[1]
    assert all(torch.equal(one, other) for one, other in zip(*shown, strict=True))
    assert torch.equal(shown[1][2], logits_of(tiny_model("bert")))


def learn(model: nn.Module) -> None:
    """Take one step, as the page takes for granted."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    model(**random_batch(tiny_model("bert"), USED)).loss.backward()
    optimizer.step()


def test_the_page_does_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every snippet of `docs/peft.md`, each on a model of its own."""
    monkeypatch.chdir(tmp_path)
    vocabulary = VOCABULARY

    for program in python_blocks("docs/peft.md"):
        model = tiny_model("bert")
        if "sv.shrink" not in program:
            sv.shrink(model, vocabulary)
        names: dict[str, Any] = {
            "sv": sv,
            "LoraConfig": peft.LoraConfig,
            "PeftModel": peft.PeftModel,
            "get_peft_model": peft.get_peft_model,
            "train": learn,
            "vocabulary": vocabulary,
            "model": model,
            "whole_model": tiny_model("bert"),
        }
        run_block(program, names)
        if "again" in names:
            assert torch.equal(logits_of(names["again"]), logits_of(names["adapted"]))


def test_a_trainer_goes_on_from_a_checkpoint(tmp_path: Path) -> None:
    """The adapter of the checkpoint is loaded into rows of V′, and so are their moments."""
    config = peft.LoraConfig(**ATTENTION, modules_to_save=["word_embeddings"])
    batch = random_batch(tiny_model("bert"), USED)
    rows: Any = [{name: value[i % 4] for name, value in batch.items()} for i in range(16)]
    states = []
    for partial in (False, True):
        for resume in (False, True):
            torch.manual_seed(0)
            args = hf.TrainingArguments(
                str(tmp_path / str(partial)),
                max_steps=4,
                save_steps=2,
                per_device_train_batch_size=4,
                report_to="none",
                disable_tqdm=True,
                dataloader_pin_memory=False,
            )
            trainer: Any = hf.Trainer(adapted(tiny_model("bert"), config), args, train_dataset=rows)
            if partial:
                sv.shrink_trainer(trainer, VOCABULARY)
            trainer.train(
                resume_from_checkpoint=f"{args.output_dir}/checkpoint-2" if resume else None
            )
            states.append(copied(trainer.model.state_dict()))

    for state in states[1:]:
        assert_equal_states(state, states[0])
