"""Every language model of transformers: is it supported, and is its loss then the whole model's?

``python -m tests.every_family`` walks all of them and writes ``tests/families.csv``.

A tiny model is built from each family's default configuration, entry by entry; where that gives a
model that computes a loss on the CPU, the shrunk one's loss and gradients are compared with it.
Where it does not, the default configuration is built without memory, and only that much is said.
"""

from __future__ import annotations

import copy
import csv
import dataclasses
import sys
import warnings
from collections import Counter
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import transformers as hf
from torch import Tensor, nn
from transformers.models.auto import modeling_auto

import subvocab as sv
from subvocab.model.attach import HeadPlan, Prepared, attach
from subvocab.model.choose import choose_tables
from subvocab.model.language_model import partial_heads
from subvocab.model.table import PartialTable
from subvocab.storage import FullMatrix
from tests.models import stirred, used_part
from tests.tiny_configs import MISSING, NUMBERS_OF_LAYERS, tiny_config

TABLE = Path(__file__).with_name("families.csv")
KINDS = {
    "causal": modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    "masked": modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    "seq2seq": modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
}
EQUAL, REFUSED, META, NOT_BUILT = "loss equal", "refused", "on meta only", "not built"
WRONG = "WRONG"
LARGEST = 8_000_000
"""Parameters: a configuration that did not become tiny is not tried."""
SPECIAL = 20
"""Ids below are special tokens: pictures, sounds; a batch has none."""
TOLERANCE = 1e-5
GRADIENT_TOLERANCE = 1e-4
NOISE = 1e-3
"""Of a model's largest gradient: below, a gradient may be nothing but rounding."""


def families() -> list[tuple[str, str]]:
    """Give every class of a language model, with the kind of its head."""
    found: dict[str, str] = {}
    for kind, names in KINDS.items():
        for several in cast("dict[str, Any]", names).values():
            for name in (several,) if isinstance(several, str) else several:
                found.setdefault(name, kind)
    return sorted(found.items())


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What is known of a family: how far one gets, and why no further."""

    name: str
    head: str
    outcome: str
    reason: str = ""


def try_family(name: str, head: str) -> Outcome:
    """Build a family and compare, or say how far one gets."""
    try:
        model_class = getattr(hf, name)
        (model, batch, loss), (twin, _, again) = (_tiny(model_class, head) for _ in range(2))
        if not torch.equal(loss, again):
            raise ValueError(f"the whole model's own losses differ: {loss}, {again}")  # noqa: TRY301
    except Exception as error:  # noqa: BLE001 - whatever stops it, it is not this library
        return _try_on_meta(name, head, _in_one_line(error))
    try:
        wrong = compare(model, twin, batch, loss)
    except sv.SubvocabError as error:
        return Outcome(name, head, REFUSED, _in_one_line(error))
    if wrong:
        return Outcome(name, head, WRONG, wrong)
    as_it_is = _try_on_meta(name, head, "")
    return Outcome(name, head, EQUAL, as_it_is.reason if as_it_is.outcome == REFUSED else "")


def _in_one_line(error: Exception) -> str:
    """Shorten what went wrong."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def _tiny(model_class: Any, head: str) -> tuple[Any, dict[str, Tensor], Tensor]:
    """Build the first tiny model that computes a loss, with a batch of V′."""
    first: Exception | None = None
    for missing in ({}, MISSING):
        for layers in NUMBERS_OF_LAYERS:
            try:
                return _tiny_of(model_class, head, layers, missing)
            except Exception as error:  # noqa: BLE001 - the next may work
                first = first or error
    assert first is not None
    raise first


def _tiny_of(
    model_class: Any, head: str, layers: int, missing: dict[str, Any]
) -> tuple[Any, dict[str, Tensor], Tensor]:
    """Build a tiny model of so many layers, and run it."""
    config = tiny_config(model_class, head, layers, missing)
    for part in (config, config.get_text_config(decoder=True)):
        part._attn_implementation = "eager"
    with torch.random.fork_rng(), torch.device("meta"):
        size = sum(p.numel() for p in model_class._from_config(copy.deepcopy(config)).parameters())
    if size > LARGEST:
        raise ValueError(f"the tiny model has {size:,} parameters")
    torch.manual_seed(0)
    model = stirred(model_class._from_config(config)).float().train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    batch = batch_of(model, head)
    return model, batch, loss_of(model, batch)


def vocabulary_of(model: Any) -> sv.PartialVocabulary:
    """Draw a seventh of V for a tiny model."""
    size = rows_of(model)
    ids = np.random.default_rng(0).choice(np.arange(SPECIAL, size), size // 7, replace=False)
    return sv.PartialVocabulary(np.append(np.arange(SPECIAL), np.sort(ids)), size)


def rows_of(model: Any) -> int:
    """Tell the height of a model's embedding matrix."""
    embedding = model.get_input_embeddings()
    if hasattr(embedding, "weight"):
        return int(embedding.weight.shape[0])
    return int(model.config.get_text_config(decoder=True).vocab_size)


def batch_of(model: Any, head: str) -> dict[str, Tensor]:
    """Draw a batch of tokens of V′ that are not special."""
    ids = torch.tensor(vocabulary_of(model).token_ids)[SPECIAL:]
    generator = torch.Generator().manual_seed(0)
    inputs, targets = ids[torch.randint(len(ids), (2, 2, 16), generator=generator)]
    labels = inputs.clone() if head == "causal" else targets.clone()
    labels[:, :3] = -100
    return {"input_ids": inputs, "labels": labels}


def loss_of(model: Any, batch: dict[str, Tensor]) -> Tensor:
    """Run a model on labels it may change."""
    torch.manual_seed(0)
    output = model(**{key: value.clone() for key, value in batch.items()})
    loss = output.loss if hasattr(output, "loss") else output[0]
    if loss is None or loss.dim() or not loss.isfinite():
        raise ValueError(f"the loss is {loss}")
    return loss  # type: ignore[no-any-return]


def compare(model: Any, twin: Any, batch: dict[str, Tensor], loss: Tensor) -> str:
    """Shrink a model's twin, compare loss and gradients, and say what is wrong."""
    sv.shrink(twin, vocabulary_of(model))
    if not partial_heads(twin):
        return "its output head was not found"
    twin_loss = loss_of(twin, batch)
    if abs(twin_loss - loss) > TOLERANCE * abs(loss):
        return f"the loss is {twin_loss.item():.6g}, the whole model's {loss.item():.6g}"
    loss.backward()
    twin_loss.backward()
    theirs = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    ours = {name: p.grad for name, p in twin.named_parameters() if p.grad is not None}
    largest = max(float(gradient.abs().max()) for gradient in theirs.values())
    token_ids = torch.tensor(sv.vocabulary_of(twin).token_ids)
    for name, expected in theirs.items():
        if name not in ours:
            return f"`{name}` has no gradient"
        rows = used_part(expected, ours[name], token_ids)
        off = float((ours[name] - rows).abs().max())
        if off > GRADIENT_TOLERANCE * max(float(rows.abs().max()), NOISE * largest):
            return f"the gradient of `{name}` is off by {off:.1e}"
    twin.eval()
    model.eval()
    with torch.no_grad():
        if not torch.equal(loss_of(twin, batch), loss_of(model, batch)):
            return "the loss in evaluation differs"
    return ""


def _try_on_meta(name: str, head: str, reason: str) -> Outcome:
    """Make a model of the default configuration partial, without memory for its weights."""
    try:
        model_class = getattr(hf, name)
        config = model_class.config_class()
        if hasattr(config, "is_decoder"):
            config.is_decoder = head == "causal"
        with torch.device("meta"):
            model = model_class._from_config(config)
    except Exception as error:  # noqa: BLE001
        return Outcome(name, head, NOT_BUILT, _in_one_line(error))
    try:
        size = rows_of(model)
        attach_on_meta(model, sv.PartialVocabulary(np.arange(min(100, size)), size))
    except sv.SubvocabError as error:
        return Outcome(name, head, REFUSED, _in_one_line(error))
    return Outcome(name, head, META, f"not measured: {reason}")


def attach_on_meta(model: Any, vocabulary: sv.PartialVocabulary) -> None:
    """Do to a skeleton what loading does to a model; nobody reads the matrix."""
    prepared = []
    for table, own in choose_tables(model, vocabulary, head="exact"):
        weight = nn.Parameter(torch.empty((len(own), table.parameter.shape[1]), device="meta"))
        prepared.append(Prepared(table, weight, PartialTable(own, cast("FullMatrix", None))))
    attach(model, prepared, HeadPlan())


def read_table() -> tuple[str, dict[str, Outcome]]:
    """Read the table: the version of transformers it was made with, and its rows."""
    with TABLE.open(newline="") as file:
        _, version = next(csv.reader(file))
        outcomes = [Outcome(**row) for row in csv.DictReader(file)]
    return version, {outcome.name: outcome for outcome in outcomes}


def write_table(outcomes: list[Outcome]) -> None:
    """Write the table."""
    with TABLE.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["transformers", hf.__version__])
        writer.writerow([field.name for field in dataclasses.fields(Outcome)])
        writer.writerows(dataclasses.astuple(outcome) for outcome in outcomes)


def main() -> None:
    """Walk those named, or all; then write the table, and what it comes to."""
    warnings.filterwarnings("ignore")
    hf.logging.set_verbosity_error()
    torch.set_num_threads(1)
    outcomes = []
    for name, head in families():
        if not sys.argv[1:] or name in sys.argv[1:]:
            outcomes.append(try_family(name, head))
            sys.stdout.write(" · ".join(dataclasses.astuple(outcomes[-1])) + "\n")
            sys.stdout.flush()
    if not sys.argv[1:]:
        write_table(outcomes)
    sys.stdout.write(f"{dict(Counter(outcome.outcome for outcome in outcomes))}\n")


if __name__ == "__main__":
    main()
