"""Small runs of TRL's trainers: with E as with E′."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl")

import datasets
import peft
import torch
import transformers as hf

import subvocab as sv
from subvocab.model.shrink import partial_embeddings
from tests.tiny_tokenizers import as_transformers, byte_level

FULL = 600
WORDS = ("the", "cat", "sat", "on", "a", "mat", "dog", "did", "not", "grams", "line", "end", "of")
TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{% if m['role'] == 'assistant' %}{% generation %}"
    "{{ m['content'] + eos_token }}{% endgeneration %}{% else %}{{ m['content'] }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
NOISE = ("runtime", "per_second", "flos", "step_time")
IGNORED_WARNINGS = (
    "ignore:.*pin_memory.*:UserWarning",
    "ignore:.*activation_checkpointing.*:FutureWarning",
    "ignore:.*return_outputs.*:FutureWarning",
    "ignore:.*label_smoothing_factor.*:FutureWarning",
    "ignore:.*torch.jit.*:DeprecationWarning",
    "ignore:.*is a read-only.*:UserWarning",
)


def tokenizer() -> Any:
    """Make a tokenizer with a chat template."""
    made = as_transformers(byte_level())
    made.pad_token, made.chat_template = "<|endoftext|>", TEMPLATE
    return made


def model(*, tied: bool = True) -> Any:
    """Make a language model whose softmax is far from uniform."""
    torch.manual_seed(0)
    config = hf.LlamaConfig(
        vocab_size=FULL,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=tied,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
    )
    made = hf.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in made.parameters():
            spread = 0.3 if FULL in parameter.shape else 0.05
            parameter.add_(torch.randn_like(parameter), alpha=spread)
    return made


def loaded(folder: Path) -> Any:
    """Make a model that lies somewhere, where a trainer finds its reference."""
    model().save_pretrained(folder / "base")
    return hf.AutoModelForCausalLM.from_pretrained(folder / "base")


def rows(kind: str, *, seed: int = 0) -> Any:
    """Make a dataset of one of the kinds that trainers take."""
    draw = random.Random(seed)  # noqa: S311 - no secret

    def text() -> str:
        return " ".join(draw.choice(WORDS) for _ in range(draw.randint(4, 12)))

    def row() -> dict[str, Any]:
        asked, answered, worse = text(), text(), text()
        user, assistant = [{"role": "user", "content": asked}], "assistant"
        kinds: dict[str, dict[str, Any]] = {
            "text": {"text": asked + answered},
            "completion": {"prompt": asked, "completion": answered},
            "chat": {"messages": [*user, {"role": assistant, "content": answered}]},
            "preference": {"prompt": asked, "chosen": answered, "rejected": worse},
            "chat preference": {
                "prompt": user,
                "chosen": [{"role": assistant, "content": answered}],
                "rejected": [{"role": assistant, "content": worse}],
            },
            "label": {"prompt": asked, "completion": answered, "label": draw.random() < 0.5},
            "prompt": {"prompt": asked},
        }
        return kinds[kind]

    return datasets.Dataset.from_list([row() for _ in range(12)])


def arguments(folder: Path, **options: Any) -> dict[str, Any]:
    """Give what every run has in common."""
    defaults: dict[str, Any] = {
        "output_dir": str(folder / "out"),
        "max_steps": 2,
        "gradient_checkpointing": False,
        "per_device_train_batch_size": 4,
        "learning_rate": 1e-3,
        "logging_steps": 1,
        "report_to": "none",
        "save_strategy": "no",
        "use_cpu": True,
        "disable_tqdm": True,
        "bf16": False,
    }
    return defaults | options


def history(trainer: Any) -> list[dict[str, float]]:
    """Train and evaluate; give what was logged."""
    trainer.train()
    if trainer.eval_dataset is not None:
        trainer.evaluate()
    return [
        {k: v for k, v in entry.items() if not any(word in k for word in NOISE)}
        for entry in trainer.state.log_history
    ]


def two_histories(make: Callable[[], Any], *args: Any, **options: Any) -> list[Any]:
    """Run without the one line, and with it."""
    whole = history(make())
    trainer = make()  # after that: making one sets the seed
    sv.shrink_trainer(trainer, *args, **options)
    assert partial_embeddings(trainer.model)
    return [whole, history(trainer)]


def assert_close(ours: dict[str, float], theirs: dict[str, float], rel: float = 1e-6) -> None:
    """Compare what was logged; entropies are differences of larger numbers."""
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        tolerance = max(rel, 5e-6) if "entropy" in name or "margin" in name else rel
        assert ours[name] == pytest.approx(value, rel=tolerance, abs=2e-6), name


def lora(**options: Any) -> Any:
    """Adapt a layer that is not keyed by token."""
    return peft.LoraConfig(r=4, target_modules=["q_proj"], **options)


def different_letters(completions: list[str], **_: Any) -> list[float]:
    """Reward a text."""
    return [float(len(set(text))) for text in completions]
