"""What a resumed run needs to know of the run before: kept in ``trainer_state.json``.

A whole checkpoint has no trace of V′ in it, and the rest shift is folded into its rows. Both are
kept beside it as text, so that the run goes on with the very same numbers, or is refused.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, TypeGuard

import numpy as np
import torch
from torch import Tensor, nn

from subvocab.errors import VocabularyMismatchError
from subvocab.integrations.optimizers import carry_over_moments
from subvocab.model.bias import PartialBias
from subvocab.model.partial import PartialModule
from subvocab.model.ranks import is_spread
from subvocab.model.table import PartialTable
from subvocab.model.tensors import STORED_DTYPES, converted, to_bytes, torch_dtype
from subvocab.vocabulary import PartialVocabulary

Kept = Mapping[str, Any]


class Part(NamedTuple):
    """A parameter that holds only what belongs to V′.

    Attributes:
        source: V′, and what it is a part of.
        parameter: The part.
        shift: What is added to the rest, or None.
    """

    source: PartialTable | PartialBias
    parameter: nn.Parameter
    shift: Tensor | None


def describe(model: nn.Module) -> dict[str, Any]:
    """Put in JSON what `agree` will compare: for each part its V′, its base, and its shift.

    Args:
        model: A shrunk model.

    Returns:
        ``parts`` by name, and the ``vocabularies`` by fingerprint.
    """
    parts, vocabularies = {}, {}
    for name, part in _parts(model):
        vocabulary = part.source.vocabulary
        vocabularies[vocabulary.fingerprint] = {
            "full_vocab_size": vocabulary.full_vocab_size,
            "token_ids": _packed(np.diff(vocabulary.token_ids, prepend=0).astype("<i4")),
        }
        parts[name] = {
            "vocabulary": vocabulary.fingerprint,
            "dtype": STORED_DTYPES[part.parameter.dtype],
            # A shift that is spread over processes cannot be told here: its rows stay as saved.
            "adopted": part.source.adopted or (part.shift is not None and is_spread(part.shift)),
            "shift": _packed(to_bytes(part.shift)) if _is_here(part.shift) else None,
            **_base_of(part.source),
        }
    return {"parts": parts, "vocabularies": vocabularies}


def agree(
    model: nn.Module, optimizer: torch.optim.Optimizer, kept: Kept, *, carry_over: bool
) -> None:
    """See that a model that was loaded from a checkpoint is the one that was saved there.

    Where a shift was folded into the rows of a whole checkpoint, it is taken out again, so
    that training goes on as if it had not been interrupted.

    Args:
        model: A shrunk model, after ``load_state_dict``.
        optimizer: Its optimizer, after ``load_state_dict``.
        kept: What `describe` gave when the checkpoint was saved.
        carry_over: Whether the rows and moments of another V′ may be taken over.

    Raises:
        VocabularyMismatchError: If the checkpoint has another base, other parts, or another
            V′ that may not be taken over.
    """
    ours, theirs = dict(_parts(model)), kept["parts"]
    if ours.keys() != theirs.keys():
        raise VocabularyMismatchError(
            f"The checkpoint was made with partial vocabularies for {_names(theirs)}, but the "
            f"model has them for {_names(ours)}. Shrink it with the same options, or start afresh."
        )
    for name, part in ours.items():
        _check_base(name, part.source, theirs[name])
    others = [n for n, p in ours.items() if p.source.vocabulary.fingerprint != _id(theirs[n])]
    if others and not carry_over:
        first = others[0]
        raise VocabularyMismatchError(
            f"The checkpoint was made with the partial vocabulary {_id(theirs[first])[:12]} for "
            f"`{first}`, but the model has {ours[first].source.vocabulary.fingerprint[:12]}: the "
            "optimizer's moments belong to other tokens. Shrink the model with the V′ of the "
            "checkpoint (a Trainer's has a vocabulary.safetensors), start afresh, or, with a "
            'Trainer, pass `other_vocabulary="carry_over"` to take over what both have in common.'
        )
    settle(model, kept)
    for name, part in ours.items():
        if name in others:
            vocabulary = _vocabulary(kept["vocabularies"][_id(theirs[name])])
            carry_over_moments(optimizer, part.parameter, vocabulary, part.source.vocabulary)


def settle(model: nn.Module, kept: Kept) -> None:
    """Let rows outside V′ be what they were when a checkpoint was saved that is loaded now.

    Args:
        model: A shrunk model, after ``load_state_dict``.
        kept: What `describe` gave when the checkpoint was saved.
    """
    for name, part in _parts(model):
        theirs = kept["parts"].get(name)
        if theirs is None:
            continue
        if part.source.vocabulary.fingerprint == _id(theirs):
            _settle(part, theirs)
        else:
            _take_foreign_rows(part, theirs)


def _parts(model: nn.Module) -> Iterator[tuple[str, Part]]:
    """Give the parts of a model, each once, by the name of the first module that holds it."""
    seen: set[int] = set()
    for name, module in model.named_modules():
        if isinstance(module, PartialModule):
            for key, (source, parameter, shift) in module.parts().items():
                if id(parameter) not in seen:
                    seen.add(id(parameter))
                    yield f"{name}.{key}", Part(source, parameter, shift)


def _base_of(source: PartialTable | PartialBias) -> dict[str, str]:
    """Name what a part was taken from; biases come with their table."""
    if isinstance(source, PartialBias):
        return {}
    return {"base": source.base.fingerprint, "base_dtype": source.base.dtype}


def _check_base(name: str, source: PartialTable | PartialBias, kept: Kept) -> None:
    """Refuse the checkpoint of another base."""
    if isinstance(source, PartialBias) or source.base.fingerprint == kept["base"]:
        return
    base = converted(source.base, torch_dtype(kept["base_dtype"]))
    if base.fingerprint != kept["base"]:
        raise VocabularyMismatchError(
            f"The checkpoint was made from another base: its matrix for `{name}` was "
            f"{kept['base'][:12]}, but the model's is {base.fingerprint[:12]}. Shrink the model "
            "that the run began with, or start afresh from the checkpoint's whole model."
        )


def _settle(part: Part, kept: Kept) -> None:
    """Let the rows outside V′ be those of the run before, and their shift what it was."""
    source, shift, from_base = part.source, part.shift, not kept["adopted"]
    if kept["shift"] is None:
        if from_base:
            source.return_to_base()
    elif _is_here(shift):
        wanted = _unpacked(kept, shift)
        if from_base and torch.equal(shift, wanted):
            source.return_to_base()
        elif source.put_back(part.parameter, shift, wanted):
            with torch.no_grad():
                shift.copy_(wanted)


def _take_foreign_rows(part: Part, kept: Kept) -> None:
    """Take the rows of another V′ that a compact checkpoint had; a whole one has them in place."""
    source = part.source
    if isinstance(source, PartialBias) or source.foreign is None:
        return
    if not kept["adopted"]:
        source.return_to_base()
    with torch.no_grad():
        whole = source.expanded(part.shift, part.parameter.dtype)
        source.adopt_unused_rows(whole, dtype=part.parameter.dtype)
        part.parameter.copy_(whole[torch.tensor(source.vocabulary.token_ids)])
        if part.shift is not None:
            part.shift.zero_()
    source.foreign = None


def _is_here(shift: Tensor | None) -> TypeGuard[Tensor]:
    """Tell whether there is a shift, and all of it in this process."""
    return shift is not None and not is_spread(shift)


def _unpacked(kept: Kept, like: Tensor) -> Tensor:
    """Read a shift back."""
    read = bytearray(zlib.decompress(base64.b64decode(kept["shift"])))
    return torch.frombuffer(read, dtype=torch_dtype(kept["dtype"])).to(like.device, like.dtype)


def _packed(array: np.ndarray) -> str:
    """Write an array as text."""
    return base64.b64encode(zlib.compress(array.tobytes())).decode()


def _vocabulary(kept: Kept) -> PartialVocabulary:
    """Read a vocabulary back."""
    steps = np.frombuffer(zlib.decompress(base64.b64decode(kept["token_ids"])), "<i4")
    return PartialVocabulary(steps.cumsum(dtype=np.int64), kept["full_vocab_size"])


def _id(kept: Kept) -> str:
    """Name the vocabulary of a part."""
    return str(kept["vocabulary"])


def _names(parts: Mapping[str, Any]) -> str:
    """List parts for a message."""
    return ", ".join(f"`{name}`" for name in parts) or "nothing"
