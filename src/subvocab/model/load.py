"""Load a model with only the rows of V′: the whole matrix is never held in memory.

Transformers does the loading. It is handed a state dict of lazy tensors, of which those with the
shape of E give the rows of V′, and a model whose matrix has as many rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from safetensors import safe_open
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from subvocab._typing import StrPath
from subvocab.errors import CheckpointError, UnsupportedModelError
from subvocab.model.attach import HeadPlan, Prepared, attach
from subvocab.model.auto_class import (
    empty_model,
    read_config,
    refuse_adapter,
    refuse_class,
    refuse_options,
)
from subvocab.model.choose import choose_tables
from subvocab.model.frozen import RestDevice
from subvocab.model.head import HeadMode
from subvocab.model.partial import is_compact
from subvocab.model.ranks import refuse_spread_loading
from subvocab.model.table import OutOfVocabulary, PartialTable
from subvocab.model.tables import EmbeddingTable
from subvocab.model.tensors import (
    TORCH_DTYPES,
    read_rows,
    rows_per_chunk,
    to_bytes,
    torch_dtype,
)
from subvocab.storage import Checkpoint, FullMatrix, read_checkpoint
from subvocab.vocabulary import PartialVocabulary

Chosen = list[tuple[EmbeddingTable, PartialVocabulary]]
HUB_OPTIONS = ("cache_dir", "force_download", "local_files_only", "revision", "token")
MODEL_FILES = ["*.json", "*.safetensors", "*.txt", "*.model", "*.py", "*.jinja"]
"""What `local_folder` fetches from the Hub: no weights in other formats."""


def from_pretrained(
    auto_class: Any,
    name_or_path: StrPath,
    vocabulary: PartialVocabulary | Mapping[str, PartialVocabulary],
    *,
    head: HeadMode = "exact",
    rest_shift: bool = True,
    rest_device: RestDevice = None,
    out_of_vocabulary: OutOfVocabulary = "error",
    dtype: torch.dtype | str = "auto",
    device: torch.device | str | None = None,
    tokenizer: object = None,
    **kwargs: Any,
) -> Any:
    """Load a model with only the rows of V′ in its embedding matrix.

    The result is what ``auto_class.from_pretrained`` followed by `shrink` gives, bit for
    bit, random heads included. Every other row stays on disk: keep the checkpoint there
    as long as the model is in use.

    Args:
        auto_class: ``AutoModelForSequenceClassification`` or another class of
            transformers with ``from_pretrained``.
        name_or_path: A folder, or a name on the Hub, with safetensors weights.
        vocabulary: V′, or one for each part of the model, as for `shrink`.
        head: As for `shrink`.
        rest_shift: As for `shrink`.
        rest_device: As for `shrink`.
        out_of_vocabulary: As for `shrink`.
        dtype: Of the weights; ``"auto"`` takes the one they were saved in, as
            transformers does.
        device: Where to put the model; by default the CPU.
        tokenizer: A tokenizer, or the name of one, for readable error messages. By
            default the one that lies beside the model, if there is one.
        **kwargs: For ``auto_class.from_pretrained``, such as ``num_labels`` or
            ``revision``.

    Returns:
        The model, in evaluation mode. Cost: private memory for the small model alone.

    Raises:
        CheckpointError: If there is no such checkpoint, or it is damaged, or lacks the
            matrix.
        UnsupportedModelError: If the class makes no such model, an option asks for what is not
            done, the folder holds an adapter too, the model's output head is of a kind that is
            not known, or the model would be spread over several processes.
        VocabularyMismatchError: If no embedding matrix has |V| rows.
    """
    refuse_class(auto_class)
    refuse_spread_loading(kwargs)
    refuse_options(kwargs)
    plan = HeadPlan(head, rest_shift=rest_shift, rest_device=rest_device)
    hub_options = {name: kwargs.pop(name) for name in HUB_OPTIONS if name in kwargs}
    folder = local_folder(name_or_path, subfolder=kwargs.pop("subfolder", ""), **hub_options)
    refuse_adapter(folder)
    checkpoint = read_checkpoint(folder)
    if is_compact(checkpoint.tensors):
        raise CheckpointError(
            f"{folder} is a compact checkpoint, expected a whole model. Make it whole with "
            "`subvocab.merge`."
        )
    config, kwargs = read_config(auto_class, folder, kwargs)
    skeleton = empty_model(auto_class, config, trust_remote_code=kwargs.get("trust_remote_code"))
    chosen = choose_tables(skeleton, vocabulary, head=head)

    with ExitStack() as files:
        loaded_dtype = _resolve_dtype(dtype, config, checkpoint)
        state_dict = _lazy_state_dict(checkpoint, chosen, files, loaded_dtype)
        model = _partial_class(type(skeleton), chosen).from_pretrained(
            None,
            config=skeleton.config,
            state_dict=state_dict,
            dtype=loaded_dtype,
            **kwargs,
        )
    model.__class__ = type(skeleton)
    model.config.name_or_path = str(name_or_path)
    read = [value for value in state_dict.values() if isinstance(value, LazyRows) and value.read]
    prepared = []
    for table, own in _tables_of(model, chosen):
        matrix = _source(table.parameter, read, table.name.removesuffix(".weight"))
        _ = matrix.fingerprint  # while the file is there: it may be gone when rows are saved
        partial_table = PartialTable(own, matrix, tokenizer or str(folder), out_of_vocabulary)
        prepared.append(Prepared(table, table.parameter, partial_table))
    attach(model, prepared, plan)
    return model if device is None else cast("nn.Module", model).to(device)


def local_folder(name_or_path: StrPath, *, subfolder: str = "", **hub_options: Any) -> Path:
    """Find a model's folder on this machine, fetching it from the Hub if need be.

    Args:
        name_or_path: A folder, or a name on the Hub.
        subfolder: A folder inside it.
        **hub_options: For ``huggingface_hub.snapshot_download``.

    Returns:
        The folder. For a name it lies in the Hub's cache, which is never written to.

    Raises:
        CheckpointError: If there is neither.
    """
    path = Path(name_or_path)
    if not path.exists():
        try:
            path = Path(
                snapshot_download(str(name_or_path), allow_patterns=MODEL_FILES, **hub_options)
            )
        except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
            reason = str(error).splitlines()[0].rstrip(".")
            raise CheckpointError(
                f"`{name_or_path}` is no folder here, and could not be had from the Hub: {reason}. "
                "Give the path of a model folder, or a name on the Hub."
            ) from error
    return path / subfolder


class LazyRows:
    """Stands for a whole matrix in a state dict, and gives the rows of V′ when it is read.

    Args:
        matrix: E.
        token_ids: V′.
        dtype: What the rows will be cast to. A wider one is given at once, so that the
            rows are never held in both.

    Attributes:
        read: Whether the rows were asked for.
    """

    def __init__(self, matrix: FullMatrix, token_ids: np.ndarray, dtype: torch.dtype) -> None:
        self.matrix = matrix
        self.token_ids = token_ids
        self.dtype = dtype
        self.read = False

    def __getitem__(self, _everything: object) -> torch.Tensor:
        self.read = True
        stored = torch_dtype(self.matrix.dtype)
        widens = torch.promote_types(stored, self.dtype) == self.dtype
        shape = (len(self.token_ids), self.matrix.embedding_dim)
        rows = torch.empty(shape, dtype=self.dtype if widens else stored, device="cpu")
        step = rows_per_chunk(rows)
        for i in range(0, len(rows), step):
            rows[i : i + step] = read_rows(self.matrix, self.token_ids[i : i + step], like=rows)
        return rows


def _partial_class(model_class: type[PreTrainedModel], chosen: Chosen) -> type[PreTrainedModel]:
    """Make a class whose instances are born with small matrices; its name is the same."""

    def __init__(self: PreTrainedModel, *args: Any, **kwargs: Any) -> None:  # noqa: N807
        model_class.__init__(self, *args, **kwargs)
        for table, vocabulary in chosen:
            shape = (len(vocabulary), table.parameter.shape[1])
            small = nn.Parameter(torch.empty(shape, device="meta"))
            for name in table.module_names:
                self.get_submodule(name).weight = small

    def leave_bias(*_: object) -> None:
        """Tying would cut biases to the height of the small matrix; they are made partial later."""

    members = {
        "__init__": __init__,
        "_adjust_bias": leave_bias,
        "__module__": model_class.__module__,
    }
    return type(model_class.__name__, (model_class,), members)


def _lazy_state_dict(
    checkpoint: Checkpoint, chosen: Chosen, files: ExitStack, dtype: torch.dtype
) -> Mapping[str, Any]:
    """Give a checkpoint's tensors unread; those that may be a table as its rows."""
    token_ids: dict[str, np.ndarray] = {}
    for table, vocabulary in chosen:
        shape = tuple(table.parameter.shape)
        tall = {name for name, tensor in checkpoint.tensors.items() if tensor.shape == shape}
        ends = {_end(f"{name}.weight") for name in table.module_names}
        # Names may differ between file and model; but where some agree, another tensor of that
        # shape is something else, such as the positions of a model with as few tokens.
        named = {name for name in tall if _end(name) in ends}
        token_ids |= dict.fromkeys(named or tall - token_ids.keys(), vocabulary.token_ids)
    opened = {path: files.enter_context(safe_open(path, "pt")) for path in checkpoint.files}
    return {
        name: LazyRows(FullMatrix(tensor), token_ids[name], dtype)
        if name in token_ids
        else opened[tensor.path].get_slice(name)
        for name, tensor in checkpoint.tensors.items()
    }


def _end(name: str) -> tuple[str, ...]:
    """Give the last two parts of a tensor's name."""
    return tuple(name.split(".")[-2:])


def _resolve_dtype(
    dtype: torch.dtype | str, config: PreTrainedConfig, checkpoint: Checkpoint
) -> torch.dtype:
    """Settle the dtype as transformers does: asked for, configured, or that of the first tensor."""
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype != "auto":
        named = getattr(torch, str(dtype), None)
        if not isinstance(named, torch.dtype):
            raise UnsupportedModelError(
                f"`dtype` is `{dtype}`, expected one of torch's, or `auto`. Name one."
            )
        return named
    if config.dtype is not None:
        return getattr(torch, config.dtype) if isinstance(config.dtype, str) else config.dtype
    stored = [t.dtype for t in checkpoint.tensors.values() if t.dtype in TORCH_DTYPES]
    return torch_dtype(stored[0]) if stored else torch.get_default_dtype()


def _tables_of(model: PreTrainedModel, chosen: Chosen) -> Chosen:
    """Group the modules of a loaded model by the matrix they hold: the file decides on ties."""
    tables: dict[int, tuple[EmbeddingTable, PartialVocabulary]] = {}
    for described, vocabulary in chosen:
        for names, kind in ((described.owners, "owners"), (described.heads, "heads")):
            for name in names:
                module = cast("Any", model.get_submodule(name))
                weight = module.weight if hasattr(module, "weight") else None
                if weight is None:  # a product with the table that comes before it
                    weight = next(reversed(tables.values()))[0].parameter
                empty = (EmbeddingTable(weight, {}, {}), vocabulary)
                getattr(tables.setdefault(id(weight), empty)[0], kind)[name] = module
    return list(tables.values())


def _source(weight: nn.Parameter, read: list[LazyRows], name: str) -> FullMatrix:
    """Tell which matrix of the checkpoint a parameter was read from."""
    for lazy in read:
        if _gave(lazy, weight):
            return lazy.matrix
    raise CheckpointError(
        f"The checkpoint has no matrix for `{name}`: its rows would be random. Give a checkpoint "
        "that holds the embedding matrix."
    )


def _gave(lazy: LazyRows, weight: nn.Parameter) -> bool:
    """Tell whether these rows became that parameter, a part at a time."""
    step = rows_per_chunk(weight)
    return all(
        np.array_equal(  # of bytes: NaN equals itself
            to_bytes(read_rows(lazy.matrix, lazy.token_ids[i : i + step], like=weight)),
            to_bytes(weight[i : i + step]),
        )
        for i in range(0, len(weight), step)
    )
