"""Data parallelism in two processes: each case compares a shrunk model with the whole one."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel
from transformers import AutoModelForSequenceClassification, Trainer, TrainingArguments

import subvocab as sv
from subvocab.model.shrink import partial_tables
from tests.models import (
    LANGUAGE_MODELS,
    language_batch,
    random_batch,
    tiny_language_model,
    tiny_model,
)
from tests.reference import (
    CLIP,
    OPTIMIZERS,
    Run,
    assert_equal_states,
    copied,
    drawn_vocabulary,
    ids_of,
    loss_of,
)
from tests.workers.launching import assert_ranks_agree, run_cases

VOCABULARY = drawn_vocabulary().union([1, 2])
USED = ids_of(VOCABULARY)
STEPS = 4
EVERY_SECOND = 2


def own_batches(make: Callable[..., dict[str, Tensor]], count: int = STEPS) -> list[Any]:
    """Draw other batches on every rank."""
    rank = distributed.get_rank()
    return [make(seed=10 * rank + step) for step in range(count)]


def train_wrapped(
    model: nn.Module, batches: list[Any], *, accumulate: int = 1, **options: Any
) -> Run:
    """Train as the tutorials do; between steps of the optimizer ranks do not talk."""
    wrapped = DistributedDataParallel(model, **options)
    optimizer = OPTIMIZERS["adamw-fused"](wrapped.parameters())
    wrapped.train()
    torch.manual_seed(distributed.get_rank())  # dropout
    run = Run()
    for number, batch in enumerate(batches, start=1):
        steps = number % accumulate == 0
        with nullcontext() if steps else wrapped.no_sync():
            loss = loss_of(wrapped(**batch))
            loss.backward()
        run.losses.append(loss.item())
        if steps:
            norm = nn.utils.clip_grad_norm_(wrapped.parameters(), CLIP)
            run.gradient_norms.append(norm.item())
            optimizer.step()
            optimizer.zero_grad()
    return run


def an_encoder(family: str, options: dict[str, Any], _folder: Path) -> None:
    """Losses, norms, and all weights."""
    whole, model = tiny_model(family, pad_token_id=0), tiny_model(family, pad_token_id=0)
    sv.shrink(model, VOCABULARY)
    batches = own_batches(partial(random_batch, whole, USED))
    before = copied(whole.state_dict())

    runs = [train_wrapped(each, batches, **options) for each in (whole, model)]

    assert runs[1] == runs[0]
    assert any(not torch.equal(before[name], value) for name, value in whole.state_dict().items())
    assert_ranks_agree(model.state_dict())
    assert_equal_states(copied(model.state_dict()), whole.state_dict())


def a_language_model(name: str, options: dict[str, Any], _folder: Path) -> None:
    """Its gradients are the mean of what each rank has alone, those of the shift too."""
    batches = own_batches(partial(language_batch, name, USED))
    alone, model = tiny_language_model(name), tiny_language_model(name)
    for each in (alone, model):
        sv.shrink(each, VOCABULARY)
    wrapped = DistributedDataParallel(model.train(), **options)
    alone.train()
    optimizers = [OPTIMIZERS["adamw-fused"](each.parameters()) for each in (alone, model)]

    for batch in batches:
        losses = [loss_of(alone(**batch)), loss_of(wrapped(**batch))]
        for loss in losses:
            loss.backward()
        assert torch.equal(*losses)
        for parameter in alone.parameters():
            if parameter.grad is not None:
                parameter.grad /= distributed.get_world_size()
                distributed.all_reduce(parameter.grad)
        for (key, ours), theirs in zip(model.named_parameters(), alone.parameters(), strict=True):
            assert (ours.grad is None) == (theirs.grad is None), key
            assert ours.grad is None or torch.equal(ours.grad, theirs.grad), key
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()

    shifts = [m.rest_shift for m in partial_tables(model).values() if m.rest_shift is not None]
    assert shifts
    assert all(shift.any() for shift in shifts)
    assert_ranks_agree(model.state_dict())
    assert_equal_states(copied(model.state_dict()), copied(alone.state_dict()))


def a_trainer(folder: Path) -> None:
    """The Trainer's own data parallelism, and its checkpoints."""
    generator = torch.Generator().manual_seed(0)
    ids = USED[torch.randint(len(USED), (32, 8), generator=generator)]
    rows = [{"input_ids": row, "labels": i % 2} for i, row in enumerate(ids)]
    runs: list[Any] = []
    for kind in ("whole", "shrunk"):
        model = tiny_model("bert")
        arguments = TrainingArguments(
            output_dir=str(folder / kind),
            per_device_train_batch_size=4,
            gradient_accumulation_steps=2,
            num_train_epochs=2,
            learning_rate=1e-3,
            max_grad_norm=CLIP,
            logging_steps=1,
            save_strategy="steps",
            save_steps=2,
            report_to="none",
            use_cpu=True,
            disable_tqdm=True,
        )
        if kind == "shrunk":
            sv.shrink(model, VOCABULARY)
        trainer = Trainer(model=model, args=arguments, train_dataset=rows)
        if kind == "shrunk":
            trainer.add_callback(sv.VocabularyCallback(model))
        trainer.train()
        assert trainer.args.parallel_mode.value == "distributed"
        log = [(e["loss"], e["grad_norm"]) for e in trainer.state.log_history if "loss" in e]
        runs.append((log, copied(model.state_dict())))

    assert len(runs[0][0]) == STEPS
    assert runs[1][0] == runs[0][0]
    assert_ranks_agree(runs[1][1])
    assert_equal_states(runs[1][1], runs[0][1])
    distributed.barrier()
    saved = AutoModelForSequenceClassification.from_pretrained(folder / "shrunk" / "checkpoint-4")
    assert_equal_states(runs[1][1], saved.state_dict())


def a_wrapped_model_is_refused(_folder: Path) -> None:
    """Its wrapper holds on to the matrix."""
    model = tiny_model("bert")
    wrapped = DistributedDataParallel(model)

    with pytest.raises(sv.UnsupportedModelError, match="is wrapped by `DistributedDataPara"):
        sv.shrink(model, VOCABULARY)
    with pytest.raises(sv.UnsupportedModelError, match="is wrapped by `DistributedDataPara"):
        sv.shrink(wrapped, VOCABULARY)

    del wrapped
    sv.shrink(model, VOCABULARY)


def a_vocabulary_is_compared_once(_folder: Path) -> None:
    """One rank alone may shrink as often as it likes, with a vocabulary that all know."""
    sv.shrink(tiny_model("bert"), VOCABULARY)
    if distributed.get_rank() == 1:
        sv.shrink(tiny_model("bert"), VOCABULARY)
    sv.shrink(tiny_model("gpt2"), drawn_vocabulary(20, seed=4))


ENCODERS: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("bert", {}),
    "bert accumulating": ("bert", {"accumulate": EVERY_SECOND}),
    "t5 with a static graph": ("t5", {"static_graph": True}),
    "bart looking for unused parameters": ("bart", {"find_unused_parameters": True}),
    "gemma3 in small buckets": (
        "gemma3",
        {"bucket_cap_mb": 0.001, "gradient_as_bucket_view": True},
    ),
}
LANGUAGE: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2 (tied)": ("gpt2", {}),
    "llama (untied)": ("llama", {}),
    "masked bert with a static graph": ("bert", {"static_graph": True}),
    "t5 looking for unused parameters": ("t5", {"find_unused_parameters": True}),
    "gemma2 (capped)": ("gemma2", {}),
    "deberta (product)": ("deberta-v2 (product)", {}),
}
CASES: Mapping[str, Callable[[Path], None]] = {
    **{name: partial(an_encoder, *given) for name, given in ENCODERS.items()},
    **{name: partial(a_language_model, *given) for name, given in LANGUAGE.items()},
    "trainer": a_trainer,
    "refused": a_wrapped_model_is_refused,
    "compared once": a_vocabulary_is_compared_once,
}
assert {name for name, _ in LANGUAGE.values()} <= LANGUAGE_MODELS.keys()

if __name__ == "__main__":
    run_cases(CASES, Path(sys.argv[1]))
