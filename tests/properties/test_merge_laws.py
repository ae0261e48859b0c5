"""What holds for every dtype and every layout of a checkpoint."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from subvocab.storage import FullMatrix, expand_checkpoint, merge_rows, read_checkpoint
from subvocab.vocabulary import PartialVocabulary
from tests.properties.strategies import (
    DrawnMatrix,
    layouts,
    matrices,
    partial_vocabularies,
    write_checkpoint,
)

Layout = tuple[dict[str, DrawnMatrix], list[list[str]]]
fewer = settings(max_examples=40, deadline=None)


@contextmanager
def written(layout: Layout) -> Iterator[Path]:
    """Put a drawn checkpoint into a folder of its own."""
    with tempfile.TemporaryDirectory() as name:
        write_checkpoint(Path(name) / "base", *layout)
        yield Path(name)


def contents(folder: Path) -> dict[str, bytes]:
    """Read every file."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def drawn_rows(data: st.DataObject, table: DrawnMatrix) -> tuple[np.ndarray, np.ndarray]:
    """Draw ids, each once, in any order, and new bytes for them."""
    ids = data.draw(st.lists(st.integers(0, len(table.bytes) - 1), unique=True))
    seed = data.draw(st.integers(0, 99))
    shape = (len(ids), table.bytes.shape[1])
    rows = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    return np.array(ids, dtype=np.int64), rows


@fewer
@given(layouts(), st.data())
def test_rows_are_those_of_the_matrix(layout: Layout, data: st.DataObject) -> None:
    """Reading rows is indexing, in any order and with repeats."""
    with written(layout) as folder:
        for name, table in layout[0].items():
            ids = data.draw(st.lists(st.integers(0, len(table.bytes) - 1)))
            token_ids = np.array(ids, dtype=np.int64)

            rows = FullMatrix.open(folder / "base", name).rows(token_ids)

            assert np.array_equal(rows, table.bytes[token_ids])


@fewer
@given(layouts(), st.integers(1, 50))
def test_chunks_are_the_matrix(layout: Layout, rows_per_chunk: int) -> None:
    """The parts of a matrix, in order, are the matrix."""
    with written(layout) as folder:
        for name, table in layout[0].items():
            parts = list(
                FullMatrix.open(folder / "base", name).chunks(rows_per_chunk=rows_per_chunk)
            )

            assert np.array_equal(np.concatenate([rows for _, rows in parts]), table.bytes)
            assert [first for first, _ in parts] == list(range(0, len(table.bytes), rows_per_chunk))


@fewer
@given(layouts(), st.data())
def test_overlay_replaces_rows_and_no_others(layout: Layout, data: st.DataObject) -> None:
    """An overlay is the matrix after an assignment, and the file is as it was."""
    with written(layout) as folder:
        before = contents(folder / "base")
        for name, table in layout[0].items():
            token_ids, rows = drawn_rows(data, table)
            expected = table.bytes.copy()
            expected[token_ids] = rows

            overlay = FullMatrix.open(folder / "base", name).overlay(token_ids, rows)

            assert np.array_equal(overlay, expected)
        assert contents(folder / "base") == before


@fewer
@given(layouts(), st.data())
def test_merge_rows_replaces_rows_and_no_other_byte(layout: Layout, data: st.DataObject) -> None:
    """The merged files are the base's files after an assignment at the rows' offsets."""
    with written(layout) as folder:
        rows = {name: drawn_rows(data, table) for name, table in layout[0].items()}
        before = contents(folder / "base")
        expected = {name: bytearray(content) for name, content in before.items()}
        for name, tensor in read_checkpoint(folder / "base").tensors.items():
            for token_id, row in zip(*rows[name], strict=True):
                at = tensor.offset + int(token_id) * len(row)
                expected[tensor.path.name][at : at + len(row)] = row.tobytes()

        merge_rows(folder / "base", folder / "out", rows)

        assert contents(folder / "out") == expected
        assert contents(folder / "base") == before


@fewer
@given(layouts(), st.data())
def test_merge_rows_of_rows_just_read_changes_nothing(layout: Layout, data: st.DataObject) -> None:
    """Merging what was just read is the identity on the bytes of every file."""
    with written(layout) as folder:
        rows = {}
        for name, table in layout[0].items():
            token_ids, _ = drawn_rows(data, table)
            rows[name] = token_ids, FullMatrix.open(folder / "base", name).rows(token_ids)

        merge_rows(folder / "base", folder / "out", rows)

        assert contents(folder / "out") == contents(folder / "base")


@fewer
@given(layouts(), st.data())
def test_merge_rows_twice_is_merge_rows_once(layout: Layout, data: st.DataObject) -> None:
    """Merging is idempotent."""
    with written(layout) as folder:
        rows = {name: drawn_rows(data, table) for name, table in layout[0].items()}

        merge_rows(folder / "base", folder / "once", rows)
        merge_rows(folder / "once", folder / "twice", rows)

        assert contents(folder / "twice") == contents(folder / "once")


@fewer
@given(layouts(), st.data())
def test_expand_checkpoint_undoes_taking_rows(layout: Layout, data: st.DataObject) -> None:
    """A compact checkpoint of rows as they were expands to the very files of the base."""
    tables, shards = layout
    with written(layout) as folder:
        vocabularies = {
            name: data.draw(partial_vocabularies(len(table.bytes)))
            for name, table in tables.items()
        }
        compact = {
            name: DrawnMatrix(table.dtype, table.embedding_dim, table.bytes[v.token_ids])
            for (name, table), v in zip(tables.items(), vocabularies.values(), strict=True)
        }
        write_checkpoint(folder / "compact", compact, shards)
        expansions = {
            name: (FullMatrix.open(folder / "base", name), v) for name, v in vocabularies.items()
        }

        expand_checkpoint(folder / "compact", folder / "out", expansions)

        expected, found = contents(folder / "base"), contents(folder / "out")
        index = "model.safetensors.index.json"
        if index in expected:
            assert json.loads(found.pop(index)) == json.loads(expected.pop(index))
        assert found == expected


@fewer
@given(matrices(), st.data())
def test_expand_checkpoint_puts_learned_rows_in_their_places(
    table: DrawnMatrix, data: st.DataObject
) -> None:
    """E[f⁻¹(i)] = E′[i] for the tokens of V′, and E elsewhere."""
    vocabulary: PartialVocabulary = data.draw(partial_vocabularies(len(table.bytes)))
    learned = 255 - table.bytes[vocabulary.token_ids]
    compact = DrawnMatrix(table.dtype, table.embedding_dim, learned)
    with written(({"e": table}, [["e"]])) as folder:
        write_checkpoint(folder / "compact", {"e": compact}, [["e"]])
        matrix = FullMatrix.open(folder / "base", "e")

        expand_checkpoint(folder / "compact", folder / "out", {"e": (matrix, vocabulary)})

        merged = FullMatrix.open(folder / "out", "e").rows(np.arange(len(table.bytes)))
        outside = np.setdiff1d(np.arange(len(table.bytes)), vocabulary.token_ids)
        assert np.array_equal(merged[vocabulary.token_ids], learned)
        assert np.array_equal(merged[outside], table.bytes[outside])


@fewer
@given(layouts())
def test_read_checkpoint_agrees_with_the_library(layout: Layout) -> None:
    """Our parser finds the dtypes and shapes that safetensors itself finds."""
    with written(layout) as folder:
        for name, tensor in read_checkpoint(folder / "base").tensors.items():
            with safe_open(tensor.path, "np") as file:
                found = file.get_slice(name)
                assert (found.get_dtype(), tuple(found.get_shape())) == (tensor.dtype, tensor.shape)
