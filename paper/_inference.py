"""Run a model that answers questions, with E or with E′, and measure what it holds."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoModelForQuestionAnswering, PreTrainedModel

import subvocab as sv
from paper._jobs import Model
from paper._windows import Window
from subvocab.errors import CheckpointError, listed


@dataclass(frozen=True)
class Options:
    """How to run a model.

    Attributes:
        max_length: Tokens of a window.
        doc_stride: Tokens that a window shares with the one before it.
        batch_size: Windows a pass.
        device: ``cpu`` or ``cuda``.
    """

    max_length: int = 384
    doc_stride: int = 128
    batch_size: int = 32
    device: str = "cpu"


@dataclass(frozen=True)
class Inference:
    """What a model did with all windows.

    Attributes:
        logits: Of the first and of the last token of the answer, by window, without padding.
        embedding_parameters: Of the tables over the vocabulary.
        model_parameters: Of the model.
        weight_bytes: Of all parameters and buffers, the look-up of f included.
        peak_bytes: The most memory that loading and inference took (see `sv.PeakMemory`).
        seconds: Of inference, without loading.
    """

    logits: list[tuple[torch.Tensor, torch.Tensor]]
    embedding_parameters: int
    model_parameters: int
    weight_bytes: int
    peak_bytes: int
    seconds: float


def infer(
    load: Callable[[], PreTrainedModel],
    windows: Sequence[Window],
    tokenizer: Any,
    *,
    batch_size: int,
    device: str,
) -> Inference:
    """Load a model and run it on all windows.

    Args:
        load: Gives the model, on the CPU.
        windows: The windows.
        tokenizer: The model's, which pads.
        batch_size: Windows a pass.
        device: Where to run.

    Returns:
        The logits, and what they took.
    """
    logits = []
    with sv.PeakMemory(device) as memory:
        model: Any = held(load()).eval()
        model.to(device)
        start = time.perf_counter()
        for first in range(0, len(windows), batch_size):
            batch = windows[first : first + batch_size]
            features = [window.features for window in batch]
            padded = tokenizer.pad(features, padding_side="right", return_tensors="pt").to(device)
            with torch.inference_mode():
                output = model(**padded)
            logits += [
                (starts[: len(w.input_ids)].clone(), ends[: len(w.input_ids)].clone())
                for w, starts, ends in zip(
                    batch, output.start_logits.cpu(), output.end_logits.cpu(), strict=True
                )
            ]
        seconds = time.perf_counter() - start
    tensors = [*model.parameters(), *model.buffers()]
    found = Inference(
        logits=logits,
        embedding_parameters=model.get_input_embeddings().weight.numel(),
        model_parameters=sum(parameter.numel() for parameter in model.parameters()),
        weight_bytes=sum(tensor.numel() * tensor.element_size() for tensor in tensors),
        peak_bytes=memory.peak_bytes,
        seconds=seconds,
    )
    del model
    gc.collect()  # the next model needs its memory
    return found


def held(model: PreTrainedModel) -> PreTrainedModel:
    """Read all weights into memory: those of a mapped checkpoint are the system's until then.

    Args:
        model: The model.

    Returns:
        The same model.
    """
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()
    return model


def load_whole(model: Model) -> PreTrainedModel:
    """Load a model with E.

    Args:
        model: Which.

    Returns:
        The model, in single precision.

    Raises:
        CheckpointError: If its checkpoint has no head for question answering.
    """
    loaded, report = AutoModelForQuestionAnswering.from_pretrained(
        model.folder, dtype=torch.float32, output_loading_info=True
    )
    if report["missing_keys"]:
        missing = listed(sorted(report["missing_keys"]))
        raise CheckpointError(
            f"The checkpoint in {model.folder} has no {missing}: its answers would be random. "
            "Give a model that was fine-tuned to answer questions."
        )
    whole: PreTrainedModel = loaded
    return whole


def load_partial(model: Model, vocabulary: sv.PartialVocabulary) -> PreTrainedModel:
    """Load a model with E′.

    Args:
        model: Which.
        vocabulary: V′.

    Returns:
        The model, in single precision.
    """
    loaded: PreTrainedModel = sv.from_pretrained(
        AutoModelForQuestionAnswering,
        model.folder,
        vocabulary,
        dtype=torch.float32,
        tokenizer=model.tokenizer,
    )
    return loaded
