"""What does the output head cost over a partial vocabulary, beside the whole one?"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from transformers import Gemma3nForCausalLM, Gemma3nTextConfig, LlamaConfig, LlamaForCausalLM

import subvocab as sv
from benchmarks.encoder import training_step
from benchmarks.harness import Measured, in_child

DIM, LAYERS, PARTIAL = 576, 2, 11_000
FULL = (49_152, 262_144)
BATCH = (4, 128)
PAIRS = {("full", "exact"): 9, ("restricted", "native"): 41}
"""Ways whose steps are set beside each other, and how many: short ones vary more."""
STEPS, WARM_UP = 9, 2
MEMORY_STEPS = 3
BYTES_OF_ADAMW = 12
"""A gradient and two moments, in single precision: what a frozen row does without."""
MUST_STEP, MUST_MEMORY, MUST_NATIVE = 0.8, 0.95, 1.05


def run() -> list[Measured]:
    """Measure memory in processes of their own, time by turns in one.

    Returns:
        Ratios to the whole head, to a natively small model, and to chunked cross entropy.
    """
    measured = []
    for full in FULL:
        measured += [*_beside_models(full), *_beside_chunked(full)]
    return [*measured, _per_layer()]


def _beside_models(full: int) -> list[Measured]:
    """Set whole training steps beside those of the whole and of a natively small model."""
    times: dict[str, float] = {}
    for ways, steps in PAIRS.items():
        times |= in_child(__name__, "step_seconds", full, ways, steps)
    peaks = {way: _peak(full, way) for way in ("full", "exact", "restricted", "native")}
    setting = (
        f"llama-like, {LAYERS} layers of {DIM}, tied, |V| {full:,}, |V′| {PARTIAL:,}, "
        f"{BATCH[0] * BATCH[1]} tokens, AdamW"
    )
    told = {w: f"{w} {times[w] * 1e3:,.0f} ms, {peaks[w] / 1e6:,.0f} MB" for w in times}
    beside_full = f"{setting}; {told['exact']}; {told['full']}"
    beside_native = f"{setting}; {told['restricted']}; {told['native']}"
    saved = (peaks["full"] - peaks["exact"]) / (BYTES_OF_ADAMW * (full - PARTIAL) * DIM)
    time_ratio = times["exact"] / times["full"]
    native_time = times["restricted"] / times["native"]
    native_memory = peaks["restricted"] / peaks["native"]
    exact, restricted = (f"head {way}, |V| {full:,}" for way in ("exact", "restricted"))
    aside = "beside a natively small model"
    return [
        Measured(
            f"{exact}: step time beside the whole head", time_ratio, "×", MUST_STEP, "", beside_full
        ),
        Measured(
            f"{exact}: memory saved, of gradients and moments of frozen rows",
            saved,
            "×",
            MUST_MEMORY,
            "",
            beside_full,
            more_is_better=True,
        ),
        Measured(
            f"{restricted}: step time {aside}", native_time, "×", MUST_NATIVE, "1 ×", beside_native
        ),
        Measured(f"{restricted}: memory {aside}", native_memory, "×", None, "1 ×", beside_native),
    ]


def _peak(full: int, way: str) -> int:
    """Take the median of three processes."""
    return int(statistics.median(in_child(__name__, "peak_bytes", full, way) for _ in range(3)))


def _beside_chunked(full: int) -> list[Measured]:
    """Set the head alone beside torch's chunked cross entropy over all rows."""
    found = in_child(__name__, "head_alone", full)
    exact, chunked, plain = (found[way] for way in ("exact", "chunked", "plain"))
    conditions = (
        f"the head alone, forward and backward, {BATCH[0] * BATCH[1]} tokens of {DIM}, "
        f"|V| {full:,}, |V′| {PARTIAL:,}; "
        + ", ".join(
            f"{way} {taken * 1e3:,.0f} ms, loss {loss:.6f}" for way, (taken, loss) in found.items()
        )
    )
    return [
        Measured(
            f"head exact, |V| {full:,}: time beside F.linear_cross_entropy, chunked",
            exact[0] / chunked[0],
            "×",
            None,
            "1 ×",
            conditions,
        ),
        Measured(
            f"head exact, |V| {full:,}: time beside linear and cross entropy",
            exact[0] / plain[0],
            "×",
            None,
            "1 ×",
            conditions,
        ),
    ]


def _per_layer() -> Measured:
    """Measure what a per-layer table loses, of what its unused rows take."""
    sizes = in_child(__name__, "per_layer_parameters")
    return Measured(
        "gemma3n-like: parameters of the per-layer table that go, of its unused share",
        (sizes["full"] - sizes["partial"]) / sizes["unused"],
        "×",
        MUST_MEMORY,
        "1 ×",
        f"{sizes['full']:,} to {sizes['partial']:,} parameters",
        more_is_better=True,
    )


def vocabulary(full: int) -> sv.PartialVocabulary:
    """Draw V′.

    Args:
        full: |V|.

    Returns:
        `PARTIAL` tokens.
    """
    drawn = np.random.default_rng(0).choice(full - 3, PARTIAL - 3, replace=False) + 3
    return sv.PartialVocabulary(np.sort(np.append(drawn, [0, 1, 2])), full)


def peak_bytes(full: int, way: str) -> int:
    """Train a few steps and take the peak of private memory.

    Args:
        full: |V|.
        way: ``full``, ``exact``, ``restricted`` or ``native``.

    Returns:
        Bytes beyond what was held before the model was made.
    """
    batches = _batches(full, way, MEMORY_STEPS)
    sv.shrink  # noqa: B018 - import first, measure then
    model = _model(full, way)  # the matrix that `shrink` lets go of shall not count
    with sv.PeakMemory() as memory:
        step = training_step(model)
        for batch in batches:
            step(batch)
    return int(memory.peak_bytes + sum(p.numel() * p.element_size() for p in model.parameters()))


def step_seconds(full: int, ways: list[str], count: int) -> dict[str, float]:
    """Time steps of several ways by turns, so that a slow moment hits them all.

    The order changes: a step finds the caches as the one before has left them.

    Args:
        full: |V|.
        ways: As for `peak_bytes`.
        count: How many steps to time.

    Returns:
        The median of a step, by way.
    """
    steps = {way: training_step(_model(full, way)) for way in ways}
    batches = {way: _batches(full, way, count + WARM_UP) for way in ways}
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    generator = np.random.default_rng(0)
    for number in range(count + WARM_UP):
        for way in map(str, generator.permutation(ways)):
            start = time.perf_counter()
            steps[way](batches[way][number])
            if number >= WARM_UP:
                seconds[way].append(time.perf_counter() - start)
    return {way: statistics.median(taken) for way, taken in seconds.items()}


def head_alone(full: int) -> dict[str, tuple[float, float]]:
    """Time heads by turns on the same hidden states.

    Args:
        full: |V|.

    Returns:
        The median of forward and backward, and the loss, by way.
    """
    from subvocab.model.rest import rest_column, rows_per_tile  # noqa: PLC0415

    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(full, DIM, generator=generator).mul_(DIM**-0.5).requires_grad_()
    used = torch.tensor(vocabulary(full).token_ids)
    kept = torch.ones(full, dtype=torch.bool).index_fill_(0, used, value=False)
    small = weight.detach()[used].requires_grad_()
    rest = weight.detach()[kept]
    tokens = BATCH[0] * BATCH[1]
    hidden = torch.randn(tokens, DIM, generator=generator).requires_grad_()
    labels = torch.randint(len(used), (tokens,), generator=generator)
    cross_entropy = torch.nn.functional.cross_entropy

    def exact() -> torch.Tensor:
        chunks = ((part, None) for part in rest.split(rows_per_tile(tokens, hidden.device)))
        columns = [hidden @ small.T, rest_column(hidden, chunks)[:, None]]
        return cross_entropy(torch.cat(columns, 1), labels)

    def chunked() -> torch.Tensor:
        return torch.nn.functional.linear_cross_entropy(hidden, weight, used[labels])

    def plain() -> torch.Tensor:
        return cross_entropy(hidden @ weight.T, used[labels])

    ways: dict[str, Callable[[], torch.Tensor]] = {
        "exact": exact,
        "chunked": chunked,
        "plain": plain,
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    losses: dict[str, float] = {}
    for number in range(STEPS + WARM_UP):
        for way, loss_of in ways.items():
            hidden.grad = weight.grad = small.grad = None
            start = time.perf_counter()
            loss = loss_of()
            loss.backward()
            if number >= WARM_UP:
                seconds[way].append(time.perf_counter() - start)
            losses[way] = float(loss)
    return {way: (statistics.median(taken), losses[way]) for way, taken in seconds.items()}


def per_layer_parameters() -> dict[str, int]:
    """Count the parameters of a model with a per-layer table, and shrink it.

    Returns:
        All before, all after, and those of the unused rows of both tables.
    """
    full = FULL[0]
    config = Gemma3nTextConfig(
        vocab_size=full, vocab_size_per_layer_input=full - 256, hidden_size=64,
        hidden_size_per_layer_input=64, num_hidden_layers=4, intermediate_size=[128] * 4,
        num_attention_heads=2, num_key_value_heads=1, head_dim=32, laurel_rank=4,
        altup_num_inputs=2, num_kv_shared_layers=0, activation_sparsity_pattern=[0.0] * 4,
        layer_types=["full_attention"] * 4, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    model = Gemma3nForCausalLM(config)
    before = sum(parameter.numel() for parameter in model.parameters())
    sv.shrink(model, vocabulary(full), rest_shift=False)
    after = sum(parameter.numel() for parameter in model.parameters())
    return {"full": before, "partial": after, "unused": (full - PARTIAL) * (64 + 4 * 64)}


def _model(full: int, way: str) -> Any:
    """Make a model with random weights."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=PARTIAL if way == "native" else full, hidden_size=DIM,
        intermediate_size=1536, num_hidden_layers=LAYERS, num_attention_heads=9,
        num_key_value_heads=3, tie_word_embeddings=True,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    if way == "exact":
        sv.shrink(model, vocabulary(full))
    elif way == "restricted":
        sv.shrink(model, vocabulary(full), head="restricted")
    return model.train()


def _batches(full: int, way: str, count: int) -> list[dict[str, Any]]:
    """Draw batches; for the natively small model they are renumbered beforehand."""
    generator = torch.Generator().manual_seed(0)
    token_ids = torch.tensor(vocabulary(full).token_ids)
    drawn = [torch.randint(PARTIAL, BATCH, generator=generator) for _ in range(count)]
    ids = drawn if way == "native" else [token_ids[one] for one in drawn]
    return [{"input_ids": one, "labels": one} for one in ids]
