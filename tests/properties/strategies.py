"""What the laws are tried on: vocabularies, matrices of every dtype, checkpoints of any layout."""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
from hypothesis import strategies as st

from subvocab.storage.header import DTYPE_BITS, encode_header
from subvocab.vocabulary import PartialVocabulary, TokenCounts

MAX_VOCAB = 40


@st.composite
def partial_vocabularies(draw: st.DrawFn, full_vocab_size: int | None = None) -> PartialVocabulary:
    """Draw any non-empty subset of a vocabulary."""
    size = full_vocab_size or draw(st.integers(1, MAX_VOCAB))
    token_ids = draw(st.sets(st.integers(0, size - 1), min_size=1))
    return PartialVocabulary(np.array(sorted(token_ids), dtype=np.int64), size)


@st.composite
def token_counts(draw: st.DrawFn, full_vocab_size: int = 7) -> TokenCounts:
    """Draw counts, many of them zero, over a vocabulary of one fixed size."""
    counts = draw(
        st.lists(
            st.sampled_from([0, 0, 1, 5, 2**40]), min_size=full_vocab_size, max_size=full_vocab_size
        )
    )
    special = draw(st.sets(st.integers(0, full_vocab_size - 1)))
    return TokenCounts(np.array(counts), np.array(sorted(special), dtype=np.int64))


@dataclass(frozen=True)
class DrawnMatrix:
    """A matrix in memory: what the one on disk is compared with."""

    dtype: str
    embedding_dim: int
    bytes: np.ndarray

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return len(self.bytes), self.embedding_dim


@st.composite
def matrices(draw: st.DrawFn, full_vocab_size: int | None = None) -> DrawnMatrix:
    """Draw a matrix of any dtype whose rows are whole bytes; any bits, NaNs included."""
    size = full_vocab_size or draw(st.integers(1, MAX_VOCAB))
    dtype = draw(st.sampled_from(sorted(DTYPE_BITS)))
    dim = draw(st.integers(1, 5)) * (4 if DTYPE_BITS[dtype] < 8 else 1)
    row_bytes = dim * DTYPE_BITS[dtype] // 8
    seed = draw(st.integers(0, 2**32 - 1))
    content = np.random.default_rng(seed).integers(0, 256, (size, row_bytes), dtype=np.uint8)
    return DrawnMatrix(dtype, dim, content)


@st.composite
def layouts(draw: st.DrawFn) -> tuple[dict[str, DrawnMatrix], list[list[str]]]:
    """Draw one to four matrices, and which shard each lies in; one shard means no index."""
    tables = {f"t{k}": draw(matrices()) for k in range(draw(st.integers(1, 4)))}
    shards: list[list[str]] = [[] for _ in range(draw(st.integers(1, 3)))]
    for name in draw(st.permutations(sorted(tables))):
        shards[draw(st.integers(0, len(shards) - 1))].append(name)
    return tables, [shard for shard in shards if shard]


def write_checkpoint(
    folder: Path, tables: dict[str, DrawnMatrix], shards: list[list[str]]
) -> dict[str, Path]:
    """Write matrices as one file, or as shards with an index; tell where each lies."""
    folder.mkdir()
    if len(shards) == 1:
        names = ["model.safetensors"]
    else:
        names = [f"model-{k + 1:05}-of-{len(shards):05}.safetensors" for k in range(len(shards))]
    for name, members in zip(names, shards, strict=True):
        (folder / name).write_bytes(encode_file({member: tables[member] for member in members}))
    places = {member: name for name, shard in zip(names, shards, strict=True) for member in shard}
    if len(shards) > 1:
        total = sum(table.bytes.nbytes for table in tables.values())
        parameters = sum(prod(table.shape) for table in tables.values())
        metadata = {"total_size": total, "total_parameters": parameters}
        index = {"metadata": metadata, "weight_map": places}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return {member: folder / name for member, name in places.items()}


def encode_file(tables: dict[str, DrawnMatrix], metadata: dict[str, str] | None = None) -> bytes:
    """Make a whole safetensors file."""
    begins = np.cumsum([0, *(table.bytes.nbytes for table in tables.values())]).tolist()
    entries = {
        name: (table.dtype, table.shape, begin)
        for (name, table), begin in zip(tables.items(), begins, strict=False)
    }
    data = b"".join(table.bytes.tobytes() for table in tables.values())
    return encode_header(entries, metadata) + data
