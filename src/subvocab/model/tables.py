"""Find the embedding tables of a model: by Parameter identity, never by name.

One table may be held by several modules (T5 and BART hold one Parameter in three), among them the
output head, if it is tied. An untied head is a table of its own that nothing is looked up in.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, cast

from torch import nn

from subvocab.errors import UnsupportedModelError, VocabularyMismatchError, listed
from subvocab.model.adapters import ADVICE, candidates, is_adapter, kind_of

PER_LAYER_SIZE = "vocab_size_per_layer_input"
"""The entry of a configuration that tells the rows of a table beside the embedding (Gemma 3n)."""
MATRIX = 2
Lookup = nn.Embedding | nn.EmbeddingBag
"""What looks tokens up in a table; a bag adds up what it finds."""
DECODER = "decoder"
"""The part of a model that an output head belongs to, where there are several."""


@dataclass(frozen=True)
class EmbeddingTable:
    """One embedding matrix, the modules that look tokens up in it, and those that predict by it.

    Attributes:
        parameter: The matrix E, ``(full, dim)``, or E′, ``(partial, dim)``.
        owners: The modules that look up, by their name in the model.
        heads: The output heads, by name: linear layers, or products with the embedding.
    """

    parameter: nn.Parameter
    owners: dict[str, Lookup]
    heads: dict[str, nn.Module] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Where the matrix stands in the model's state dict."""
        first = next(iter({**self.owners, **self.heads}))
        return f"{first}.weight" if first else "weight"

    @property
    def module_names(self) -> list[str]:
        """Where modules hold the matrix."""
        tied = [name for name, module in self.heads.items() if isinstance(module, nn.Linear)]
        return [*self.owners, *tied]


def find_tables(
    model: nn.Module, full_vocab_size: int, *, part: str | None = None, head: str = "exact"
) -> list[EmbeddingTable]:
    """Find every embedding matrix with a row for each token of V.

    Args:
        model: A transformers model, a module with such models in it, or any module with an
            ``nn.Embedding`` or ``nn.EmbeddingBag`` of ``full_vocab_size`` rows.
        full_vocab_size: |V|.
        part: The part of the model to look in, such as "encoder": one of the names between
            the dots of a module's name. An output head of no part is the decoder's.
        head: What shall be done with an output head; "whole" leaves untied ones out.

    Returns:
        The tables, in the order of the model's modules; untied heads last.

    Raises:
        UnsupportedModelError: If what looks up is none of these, an output head no
            linear layer, a tied head shall stay whole, or another tensor over the
            vocabulary is not known.
        VocabularyMismatchError: If no embedding matrix has |V| rows, or a head has another
            number.
    """
    inputs = [e for e in find_lookups(model) if _belongs(model, e, part)]
    parameters = {
        id(e.weight): cast("nn.Parameter", e.weight)
        for e in inputs
        if e.weight.shape[0] == full_vocab_size
    }
    if not parameters:
        heights = sorted({f"{e.weight.shape[0]:,}" for e in inputs})
        raise VocabularyMismatchError(
            f"The embedding matrix of `{type(model).__name__}` has {listed(heights) or 'no'} rows, "
            f"but the partial vocabulary was taken from {full_vocab_size:,} tokens. If the model "
            "pads its matrix beyond its tokenizer, call `vocabulary.resized(rows)`; else scan with "
            "the model's own tokenizer."
        )
    heads = find_heads(model, full_vocab_size, part=part)
    tables = []
    for parameter in parameters.values():
        tied = {name: module for name, module in heads.items() if _tied(module, parameter)}
        if tied and head == "whole":
            raise UnsupportedModelError(
                f"`{next(iter(tied))}` of `{type(model).__name__}` shares the embedding matrix, so "
                'it cannot stay whole. Use `head="exact"`, or `head="restricted"`.'
            )
        owners = _owners(model, parameter, tied)
        tables.append(EmbeddingTable(parameter, owners, tied))
    known = {name for table in tables for name in table.heads}
    if head != "whole":
        for name, module in heads.items():
            if name not in known:
                weight = cast("nn.Parameter", module.weight)
                tables.append(EmbeddingTable(weight, {}, {name: module}))
        if heads:
            _refuse_unknown_tensors(model, tables, full_vocab_size)
    return tables


def find_lookups(model: nn.Module) -> list[Lookup]:
    """Find what a model may look tokens up in, whatever the size of its vocabulary.

    Args:
        model: Any model.

    Returns:
        The input embeddings of models of transformers, and every bag; where there are no
        such models, every embedding.
    """
    found: list[Lookup] = [*_input_embeddings(model)]
    kinds = nn.EmbeddingBag if found else Lookup
    return [*found, *(module for module in model.modules() if isinstance(module, kinds))]


def find_per_layer_tables(model: nn.Module, tables: list[EmbeddingTable]) -> list[EmbeddingTable]:
    """Find tables that are looked up by token beside the embedding: Gemma 3n's and 4's.

    Args:
        model: Any model.
        tables: What `find_tables` found.

    Returns:
        The further tables, whose rows a configuration counts apart.
    """
    known = {id(table.parameter) for table in tables}
    sizes = {
        getattr(getattr(module, "config", None), PER_LAYER_SIZE, None) for module in model.modules()
    }
    found: dict[int, EmbeddingTable] = {}
    for module in model.modules():
        if isinstance(module, nn.Embedding) and module.num_embeddings in sizes:
            weight = cast("nn.Parameter", module.weight)
            if id(weight) not in known | found.keys():
                found[id(weight)] = EmbeddingTable(weight, _owners(model, weight, {}))
    return list(found.values())


def find_heads(
    model: nn.Module, full_vocab_size: int, *, part: str | None = None
) -> dict[str, nn.Module]:
    """Find the output heads of a model.

    Args:
        model: Any model.
        full_vocab_size: |V|.
        part: As for `find_tables`.

    Returns:
        Linear layers, and products with an embedding (DeBERTa), by name.

    Raises:
        UnsupportedModelError: If a head is anything else.
    """
    names = {id(module): name for name, module in model.named_modules()}
    heads: dict[str, nn.Module] = {}
    for model_part in _pretrained_models(model):
        products = [m for m in model_part.modules() if _is_tied_product(m, full_vocab_size)]
        for module in products or candidates(model_part.get_output_embeddings()):
            if module is None or not _belongs(model, module, part, default=DECODER):
                continue
            name = names.get(id(module), type(module).__name__)
            if not products:
                _check_head(model_part, name, module, full_vocab_size)
            heads[name] = module
    return heads


def _check_head(model: Any, name: str, head: Any, full_vocab_size: int) -> None:
    """Refuse an output head that does anything but multiply by a row for each token."""
    if not _is_linear(head):
        way_out = "Train a model without it, such as a classifier."
        raise UnsupportedModelError(
            f"The output head `{name}` of `{type(model).__name__}` is a {kind_of(head)}, "
            "expected an `nn.Linear` over the vocabulary. "
            + (ADVICE if is_adapter(head) else way_out)
        )
    if head.weight.shape[0] != full_vocab_size:
        raise VocabularyMismatchError(
            f"The output head `{name}` of `{type(model).__name__}` has "
            f"{head.weight.shape[0]:,} rows, expected {full_vocab_size:,}, one for each "
            "token of the vocabulary. Use a model whose head and embedding are of one size."
        )


def _is_linear(module: Any) -> bool:
    """Tell whether a head multiplies hidden states by its rows, and does nothing else."""
    return isinstance(module, nn.Linear) and type(module).forward is nn.Linear.forward


def _is_tied_product(module: nn.Module, full_vocab_size: int) -> bool:
    """Tell whether a module multiplies by an embedding that it is handed (DeBERTa)."""
    bias = module._parameters.get("bias")  # noqa: SLF001
    return (
        bias is not None
        and tuple(bias.shape) == (full_vocab_size,)
        and "word_embeddings" in inspect.signature(module.forward).parameters
    )


def _tied(head: nn.Module, parameter: nn.Parameter) -> bool:
    """Tell whether a head predicts by a table."""
    return not isinstance(head, nn.Linear) or head.weight is parameter


def _belongs(model: nn.Module, module: nn.Module, part: str | None, *, default: str = "") -> bool:
    """Tell whether a module stands in a part of the model."""
    if part is None:
        return True
    names = {name for n, m in model.named_modules() if m is module for name in n.split(".")}
    return part in names or (part == default and not names & {"encoder", "decoder"})


def _refuse_unknown_tensors(
    model: nn.Module, tables: list[EmbeddingTable], full_vocab_size: int
) -> None:
    """Refuse what seems to be indexed by token, but is not known: it would go out of step."""
    known = {id(table.parameter) for table in tables}
    for table in tables:
        for name, head in table.heads.items():
            if head._parameters.get("bias") is not None:  # noqa: SLF001
                # Some models keep a second bias around the head; untied, nobody reads it.
                around = model.get_submodule(name.rpartition(".")[0])
                known |= {id(head.bias), id(around._parameters.get("bias"))}  # noqa: SLF001
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        flat = tensor.numel() == full_vocab_size == max(tensor.shape, default=0)
        turned = tensor.dim() == MATRIX and tensor.shape[1] == full_vocab_size
        if (flat or turned) and id(tensor) not in known and not name.endswith("final_logits_bias"):
            raise UnsupportedModelError(
                f"`{name}` of `{type(model).__name__}` has shape {tuple(tensor.shape)}, so "
                "something for each token, of which it is not known what the model does with it. "
                'Use `head="whole"` if the output head is not tied.'
            )


def _pretrained_models(model: nn.Module) -> Iterable[Any]:
    """Give every part of a model that follows transformers' interface."""
    return (m for m in model.modules() if callable(getattr(m, "get_output_embeddings", None)))


def _input_embeddings(model: nn.Module) -> list[nn.Embedding]:
    """Ask each part of a model for its input embeddings."""
    found: dict[int, nn.Embedding] = {}
    for module in _pretrained_models(model):
        if getattr(module, "main_input_name", "input_ids") != "input_ids":
            continue  # patches of a picture, frames of sound: what they embed are no tokens
        try:
            embeddings = candidates(module.get_input_embeddings())
        except (AttributeError, NotImplementedError):  # a part without a table: CANINE
            continue
        for embedding in embeddings:
            if isinstance(embedding, nn.Embedding):
                found[id(embedding)] = embedding
            elif embedding is not None and (module is model or _wraps_embedding(embedding)):
                way_out = (
                    "If an adapter was put on it, leave the embedding out of the adapter's target "
                    "modules."
                )
                raise UnsupportedModelError(
                    f"The input embedding of `{type(module).__name__}` is a "
                    f"{kind_of(embedding)}, expected an `nn.Embedding`. "
                    + (ADVICE if is_adapter(embedding) else way_out)
                )
    return list(found.values())


def _wraps_embedding(embedding: Any) -> bool:
    """Tell an adapter from what embeds no tokens at all, such as patches of pictures."""
    return any(isinstance(module, nn.Embedding) for module in embedding.modules())


def _owners(
    model: nn.Module, parameter: nn.Parameter, heads: dict[str, nn.Module]
) -> dict[str, Lookup]:
    """Give every module that looks up in a table; refuse one that does anything else with it."""
    owners: dict[str, Lookup] = {}
    for name, module in model.named_modules(remove_duplicate=True):
        if name in heads or not any(h is parameter for h in module.parameters(recurse=False)):
            continue
        if not isinstance(module, Lookup):
            raise UnsupportedModelError(
                f"`{name}` (`{type(module).__name__}`) of `{type(model).__name__}` shares the "
                "embedding matrix, but is neither an `nn.Embedding` nor the model's output head, "
                "so it is not known what it does with the rows. Untie it first."
            )
        owners[name] = module
    return owners
