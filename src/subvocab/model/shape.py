"""Read the shape of a model from its configuration alone: no weight is loaded or made.

The model is built on torch's meta device, where a tensor has a shape and no memory, so a model
of any size takes a fraction of a second. Code that lies beside a configuration is never run.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import AutoConfig, PreTrainedConfig
from transformers.models.auto import modeling_auto as auto

from subvocab._typing import StrPath
from subvocab.analysis.savings import ModelShape, ParameterShape, Role
from subvocab.errors import DataError, UnsupportedModelError, VocabularyMismatchError
from subvocab.model.choose import complete
from subvocab.model.tables import EmbeddingTable, find_tables
from subvocab.vocabulary import PartialVocabulary

TASKS: dict[str, tuple[Any, Any]] = {
    "classification": (
        auto.AutoModelForSequenceClassification,
        auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    ),
    "token-classification": (
        auto.AutoModelForTokenClassification,
        auto.MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING,
    ),
    "question-answering": (
        auto.AutoModelForQuestionAnswering,
        auto.MODEL_FOR_QUESTION_ANSWERING_MAPPING,
    ),
    "embedding": (auto.AutoModel, auto.MODEL_MAPPING),
    "causal-lm": (auto.AutoModelForCausalLM, auto.MODEL_FOR_CAUSAL_LM_MAPPING),
    "masked-lm": (auto.AutoModelForMaskedLM, auto.MODEL_FOR_MASKED_LM_MAPPING),
    "seq2seq-lm": (auto.AutoModelForSeq2SeqLM, auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING),
}
"""By the name of a task: the class that makes a model for it, and the families it knows."""

LANGUAGE_MODELS = frozenset({"causal-lm", "masked-lm", "seq2seq-lm"})
"""Tasks whose models have an output head over the vocabulary."""


def model_shape(
    model: StrPath | PreTrainedConfig, *, task: str = "classification", num_labels: int = 2
) -> ModelShape:
    """Read the shapes of a model's parameters from its configuration.

    Args:
        model: A folder with a ``config.json``, such a file, a name on the Hub, or a
            configuration.
        task: What the model is to be fine-tuned for; one of `TASKS`.
        num_labels: Classes, where the task has some.

    Returns:
        The shapes, every Parameter once, however many modules hold it.

    Raises:
        DataError: If there is no such configuration, it cannot be read or describes no
            model, or the family has no model for the task.
        UnsupportedModelError: If the model has no token table.
    """
    if task not in TASKS:
        raise DataError(f"`task` is `{task}`, expected one of {', '.join(TASKS)}.")
    if num_labels < 1:
        raise DataError(f"`num_labels` is {num_labels:,}, expected one or more.")
    config = _read_config(model)
    if isinstance(model, PreTrainedConfig):
        name = config.name_or_path or config.model_type
    else:
        name = str(model)
    skeleton = _skeleton(config, name, task, num_labels)
    full_vocab_size = _table_rows(skeleton, name)
    tables = _tables(skeleton, name, full_vocab_size)
    kept = complete(PartialVocabulary(np.array([0]), full_vocab_size), skeleton, tables)
    return ModelShape(
        name=name,
        full_vocab_size=full_vocab_size,
        weights=_weights(skeleton, tables, full_vocab_size),
        kept_token_ids=tuple(kept.token_ids.tolist()),
    )


def _read_config(model: StrPath | PreTrainedConfig) -> PreTrainedConfig:
    """Find a configuration, and turn every failure into one kind of error."""
    if isinstance(model, PreTrainedConfig):
        return copy.deepcopy(model)
    path = Path(model)
    if path.is_dir() and not (path / "config.json").is_file():
        raise DataError(
            f"There is no config.json in {path}. Name the folder of a model, its `config.json`, or "
            "a name on the Hub."
        )
    if not path.exists() and (path.is_absolute() or str(model).startswith(".") or path.suffix):
        raise DataError(
            f"There is no file or folder {model}. Name a folder with a `config.json`, that file, "
            "or a name on the Hub."
        )
    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(str(model), trust_remote_code=False)
    except Exception as error:  # what is raised depends on the file, and on the network
        where = "read from" if path.exists() else "found for"
        raise DataError(
            f"No model configuration could be {where} {model}: {_reason(error)}. Name a folder "
            "with a `config.json`, that file, or a name on the Hub that can be reached."
        ) from error
    return config


def _reason(error: Exception) -> str:
    """Give the first line of what an error says, and the second where the first leads to it."""
    said = [line.strip() for line in str(error).splitlines() if line.strip()]
    lines = 2 if said and said[0].endswith(":") else 1
    return (" ".join(said[:lines]) or type(error).__name__).rstrip(".:")


def _skeleton(config: PreTrainedConfig, name: str, task: str, num_labels: int) -> Any:
    """Build a model without memory."""
    auto_class, families = TASKS[task]
    if type(config) not in families:
        known = [other for other, (_, having) in TASKS.items() if type(config) in having]
        if not isinstance(getattr(config.get_text_config(), "vocab_size", None), int):
            raise _no_table(name, type(config).__name__)
        raise DataError(
            f"`{config.model_type}` models, of which {name} is one, have no class for the task "
            f"`{task}` in transformers. They have one for: {', '.join(known) or 'none of ours'}."
        )
    config.num_labels = num_labels
    try:
        with torch.device("meta"):
            # Other ways to attend have the same weights, and may ask for packages.
            return auto_class.from_config(
                config, attn_implementation="eager", trust_remote_code=False
            )
    except Exception as error:  # a configuration may say anything
        raise DataError(
            f"No `{config.model_type}` model can be built as {name} describes it: "
            f"{_reason(error)}. Compare its configuration with that of a model that works."
        ) from error


def _no_table(name: str, kind: str) -> UnsupportedModelError:
    """Say that tokens are nowhere looked up."""
    return UnsupportedModelError(
        f"{name} (`{kind}`) has no table of token embeddings, so a part of a vocabulary saves "
        "nothing there. Expected a model that reads token ids through an `nn.Embedding`."
    )


def _table_rows(skeleton: Any, name: str) -> int:
    """Tell |V|: the rows of the matrix that tokens are looked up in."""
    try:
        embedding = skeleton.get_input_embeddings()
    except (AttributeError, NotImplementedError):  # hashed characters, or several towers
        embedding = None
    reads_tokens = getattr(skeleton, "main_input_name", "input_ids") == "input_ids"
    if reads_tokens and isinstance(embedding, nn.Embedding):
        return embedding.num_embeddings
    size = getattr(skeleton.config.get_text_config(), "vocab_size", None)
    if not isinstance(size, int):
        raise _no_table(name, type(skeleton).__name__)
    return size


def _tables(skeleton: Any, name: str, full_vocab_size: int) -> list[EmbeddingTable]:
    """Find the token tables; in a language model, among the parts beside its head."""
    parts = [skeleton] if skeleton.get_output_embeddings() is None else skeleton.children()
    found: dict[int, EmbeddingTable] = {}
    for part in parts:
        try:
            tables = find_tables(part, full_vocab_size)
        except VocabularyMismatchError:  # a head, a pooler: nothing is looked up there
            continue
        for table in tables:
            found.setdefault(id(table.parameter), table)
    if not found:
        raise _no_table(name, type(skeleton).__name__)
    return list(found.values())


def _weights(
    skeleton: Any, tables: list[EmbeddingTable], full_vocab_size: int
) -> tuple[ParameterShape, ...]:
    """Describe every Parameter, in the model's order."""
    in_tables = {id(table.parameter) for table in tables}
    looked_up = {id(m.weight) for m in skeleton.modules() if isinstance(m, nn.Embedding)}
    head = _head(skeleton, tables, full_vocab_size)
    reads_twice = bool(getattr(skeleton.config, "is_encoder_decoder", False))

    def role(parameter: nn.Parameter) -> Role:
        if id(parameter) in in_tables:
            return Role.TIED if parameter is head else Role.TABLE
        if parameter is head:
            return Role.HEAD
        is_bias = head is not None and tuple(parameter.shape) == (full_vocab_size,)
        return Role.BIAS if is_bias else Role.BODY

    return tuple(
        ParameterShape(
            shape=tuple(parameter.shape),
            role=(what := role(parameter)),
            looked_up=id(parameter) in looked_up,
            reused=what is Role.TIED or (what is Role.TABLE and reads_twice),
            trained=parameter.requires_grad,
        )
        for parameter in skeleton.parameters()
    )


def _head(skeleton: Any, tables: list[EmbeddingTable], full_vocab_size: int) -> nn.Parameter | None:
    """Give the matrix that logits over V are made with, if there is one."""
    module = skeleton.get_output_embeddings()
    if module is None:
        return None
    weight: nn.Parameter = module.weight
    if weight.shape[0] == full_vocab_size:
        return weight
    # DeBERTa-v2 multiplies by its table itself: there is a bias, but no module with the matrix.
    biases = [p for p in skeleton.parameters() if tuple(p.shape) == (full_vocab_size,)]
    return tables[0].parameter if biases else None
