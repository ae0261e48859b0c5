"""PEFT beside a partial vocabulary: what adapters learn, save and load is as without it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers as hf
from safetensors.torch import load_file
from torch import nn

import subvocab as sv
from tests.models import (
    FULL_VOCAB_SIZE,
    language_batch,
    random_batch,
    tiny_language_model,
    tiny_model,
)
from tests.pages import python_blocks, run_block
from tests.reference import (
    Run,
    assert_equal_states,
    copied,
    drawn_vocabulary,
    ids_of,
    train,
    unused_ids,
)

pytestmark = [
    pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`"),
    pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers`"),
    pytest.mark.filterwarnings("ignore:Sparse invariant checks"),  # SHiRA
    pytest.mark.filterwarnings("ignore:Unsupported layer type"),  # layer norms
    pytest.mark.filterwarnings("ignore:Input and output embeddings are no longer tied"),
]

VOCABULARY = drawn_vocabulary()
USED = ids_of(VOCABULARY)
EVERY_ID = torch.arange(FULL_VOCAB_SIZE)
ATTENTION: dict[str, Any] = {"task_type": "SEQ_CLS", "target_modules": ["query", "value"]}
PROMPTS: dict[str, Any] = {"task_type": "SEQ_CLS", "num_virtual_tokens": 4}

METHODS: dict[str, Callable[[], peft.PeftConfig]] = {
    "LoRA": lambda: peft.LoraConfig(**ATTENTION),
    "LoRA, rank-stabilised": lambda: peft.LoraConfig(**ATTENTION, use_rslora=True),
    "DoRA": lambda: peft.LoraConfig(**ATTENTION, use_dora=True),
    "AdaLoRA": lambda: peft.AdaLoraConfig(**ATTENTION, total_step=20),
    "VeRA": lambda: peft.VeraConfig(**ATTENTION),
    "RandLoRA": lambda: peft.RandLoraConfig(**ATTENTION),
    "VB-LoRA": lambda: peft.VBLoRAConfig(**ATTENTION, num_vectors=8, vector_length=4, topk=2),
    "LoHa": lambda: peft.LoHaConfig(**ATTENTION),
    "LoKr": lambda: peft.LoKrConfig(**ATTENTION),
    "IA3": lambda: peft.IA3Config(
        task_type="SEQ_CLS", target_modules=["query", "dense"], feedforward_modules=["dense"]
    ),
    "OFT": lambda: peft.OFTConfig(**ATTENTION, r=4, oft_block_size=0),
    "HRA": lambda: peft.HRAConfig(**ATTENTION),
    "FourierFT": lambda: peft.FourierFTConfig(**ATTENTION, n_frequency=10),
    "MiSS": lambda: peft.MissConfig(**ATTENTION, r=4),
    "SHiRA": lambda: peft.ShiraConfig(**ATTENTION, r=2),
    "C3A": lambda: peft.C3AConfig(**ATTENTION, block_size=8),
    "RoAd": lambda: peft.RoadConfig(**ATTENTION, group_size=8),
    "layer norms": lambda: peft.LNTuningConfig(task_type="SEQ_CLS", target_modules=["LayerNorm"]),
    "prefix tuning": lambda: peft.PrefixTuningConfig(**PROMPTS),
    "P-tuning": lambda: peft.PromptEncoderConfig(**PROMPTS, encoder_hidden_size=8),
    "prompt tuning": lambda: peft.PromptTuningConfig(**PROMPTS),
}


def adapted(model: Any, config: peft.PeftConfig) -> Any:
    """Put an adapter on a model, drawn the same at each call."""
    torch.manual_seed(0)
    return peft.get_peft_model(model, copy.deepcopy(config))


def shrunk(model: Any) -> Any:
    """Shrink a model, or one with adapters."""
    sv.shrink(model, VOCABULARY)
    return model


def trained(model: Any, family: str = "bert") -> Run:
    """Train what an adapter trains."""
    whole = tiny_model(family)
    return train(model, [random_batch(whole, USED, seed=step) for step in range(3)])


def logits_of(model: Any, family: str = "bert") -> torch.Tensor:
    """Evaluate a model on tokens of all of V."""
    batch = random_batch(tiny_model(family), EVERY_ID)
    del batch["labels"]
    with torch.no_grad():
        logits = model.eval()(**batch).logits
    assert isinstance(logits, torch.Tensor)
    return logits


@pytest.mark.parametrize("method", METHODS)
def test_an_adapter_learns_the_same(method: str, tmp_path: Path) -> None:
    """Losses and gradient norms bit for bit, in either order; it loads on the whole model."""
    config = METHODS[method]()
    whole = adapted(tiny_model("bert"), config)
    first = adapted(shrunk(tiny_model("bert")), config)
    then = shrunk(adapted(tiny_model("bert"), config))

    expected = trained(whole)

    assert trained(first) == expected
    assert trained(then) == expected
    for model in (first, then):
        model.save_pretrained(tmp_path)
        again = peft.PeftModel.from_pretrained(tiny_model("bert"), tmp_path)
        assert torch.equal(logits_of(again), logits_of(whole))
        assert torch.equal(logits_of(model), logits_of(whole))


def test_an_adapter_is_loaded_on_a_shrunk_model(tmp_path: Path) -> None:
    """One that was trained on the whole model."""
    whole = adapted(tiny_model("bert"), METHODS["LoRA"]())
    trained(whole)
    whole.save_pretrained(tmp_path)

    again = peft.PeftModel.from_pretrained(shrunk(tiny_model("bert")), tmp_path)

    assert torch.equal(logits_of(again), logits_of(whole))


def test_a_model_with_adapters_is_shrunk_and_restored() -> None:
    """Its state is the same all the while."""
    model = adapted(tiny_model("bert"), METHODS["LoRA"]())
    before = copied(model.state_dict())

    sv.shrink(model, VOCABULARY)

    assert_equal_states(copied(model.state_dict()), before)
    sv.restore(model)
    assert_equal_states(model.state_dict(), before)


ROWS: dict[str, tuple[str, list[str]]] = {
    "bert": ("word_embeddings", ["query"]),
    "gemma3": ("embed_tokens", ["q_proj"]),
    "distilbert": ("word_embeddings", ["q_lin"]),
}
"""Families with their embedding, and a layer for LoRA; Gemma scales what it looks up."""


@pytest.mark.parametrize("order", ["shrink first", "PEFT first"])
@pytest.mark.parametrize("family", ROWS)
def test_rows_are_trained_beside_an_adapter(family: str, order: str, tmp_path: Path) -> None:
    """Bit for bit as with the whole matrix, of which only V′ is trained, and saved whole."""
    embedding, layers = ROWS[family]
    config = peft.LoraConfig(
        task_type="SEQ_CLS", target_modules=layers, modules_to_save=[embedding]
    )
    whole = adapted(tiny_model(family), config)
    if order == "shrink first":
        model = adapted(shrunk(tiny_model(family)), config)
    else:
        model = shrunk(adapted(tiny_model(family), config))
    rows = [p for name, p in model.named_parameters() if embedding in name and p.requires_grad]

    assert trained(model, family) == trained(whole, family)

    assert [len(p) for p in rows] == [len(sv.vocabulary_of(model))]
    assert_equal_states(copied(model.state_dict()), whole.state_dict())
    model.save_pretrained(tmp_path)
    stored = load_file(tmp_path / "adapter_model.safetensors")
    (matrix,) = [value for name, value in stored.items() if embedding in name]
    before = tiny_model(family).get_input_embeddings().weight
    unused = unused_ids(sv.vocabulary_of(model))
    assert torch.equal(matrix[unused], before[unused])
    assert not torch.equal(matrix[USED], before[USED])
    again = peft.PeftModel.from_pretrained(tiny_model(family), tmp_path)
    assert torch.equal(logits_of(again, family), logits_of(whole, family))


def test_merging_gives_the_plain_model() -> None:
    """As PEFT merges it without a partial vocabulary; shrunk still, until it is restored."""
    config = peft.LoraConfig(**ATTENTION, modules_to_save=["word_embeddings"])
    whole, model = adapted(tiny_model("bert"), config), adapted(shrunk(tiny_model("bert")), config)
    trained(whole)
    trained(model)

    merged, expected = model.merge_and_unload(), whole.merge_and_unload()

    assert len(merged.get_input_embeddings().weight) == len(VOCABULARY)
    assert_equal_states(copied(merged.state_dict()), expected.state_dict())
    sv.restore(merged)
    assert_equal_states(merged.state_dict(), expected.state_dict())


def test_several_adapters_are_switched() -> None:
    """Each with rows of its own; switched off, the base shows."""
    configs = [
        peft.LoraConfig(**ATTENTION, modules_to_save=["word_embeddings"]),
        peft.LoraConfig(task_type="SEQ_CLS", target_modules=["key"]),
    ]
    models = [tiny_model("bert"), shrunk(tiny_model("bert"))]
    runs, shown = [], []
    for model in models:
        both = adapted(model, configs[0])
        torch.manual_seed(1)
        both.add_adapter("second", copy.deepcopy(configs[1]))
        learned = []
        for name in ("default", "second"):
            both.set_adapter(name)
            learned.append(trained(both))
        runs.append(learned)
        outputs = []
        for name in ("default", "second"):
            both.set_adapter(name)
            outputs.append(logits_of(both))
        with both.disable_adapter():
            outputs.append(logits_of(both))
        shown.append(outputs)

    assert runs[0] == runs[1]
    assert all(torch.equal(one, other) for one, other in zip(*shown, strict=True))
    assert torch.equal(shown[1][2], logits_of(tiny_model("bert")))


# --- language models: the head is copied too, and may be tied


def language_model(*, tied: bool) -> Any:
    """Make a tiny decoder in evaluation mode, as PEFT's loading leaves it."""
    return tiny_language_model("llama (tied)" if tied else "llama").eval()


def language_config(names: list[str], *, tie: bool = False) -> peft.LoraConfig:
    """Train some modules beside LoRA."""
    return peft.LoraConfig(
        task_type="CAUSAL_LM",
        target_modules=["q_proj"],
        modules_to_save=list(names),
        ensure_weight_tying=tie,
    )


def language_logits(model: Any) -> torch.Tensor:
    """Evaluate a language model on tokens of all of V."""
    batch = language_batch("llama", EVERY_ID)
    del batch["labels"]
    with torch.no_grad():
        logits = model.eval()(**batch).logits
    assert isinstance(logits, torch.Tensor)
    return logits


HEADS = [
    pytest.param(tied, names, tie, id=f"{'tied' if tied else 'untied'}-{'+'.join(names)}-{tie}")
    for tied in (True, False)
    for names in (["lm_head"], ["embed_tokens"], ["embed_tokens", "lm_head"])
    for tie in ((False, True) if tied else (False,))
]


@pytest.mark.parametrize("order", ["shrink first", "PEFT first"])
@pytest.mark.parametrize(("tied", "names", "tie"), HEADS)
def test_a_head_is_trained_beside_an_adapter(
    tied: bool, names: list[str], tie: bool, order: str, tmp_path: Path
) -> None:
    """Loss and gradients of the whole softmax; what is saved is what was evaluated."""
    config = language_config(names, tie=tie)
    whole = adapted(language_model(tied=tied), config).train()
    if order == "shrink first":
        model = adapted(shrunk(language_model(tied=tied)), config).train()
    else:
        model = shrunk(adapted(language_model(tied=tied), config)).train()
    batch = language_batch("llama", USED)

    expected, output = whole(**batch).loss, model(**batch)
    expected.backward()
    output.loss.backward()

    assert output.logits.shape[-1] == len(sv.vocabulary_of(model)) + 1
    assert output.loss.item() == pytest.approx(expected.item(), rel=1e-6)
    assert_close_gradients(model, whole)
    train(model, [language_batch("llama", USED, seed=step) for step in range(2)])
    model.save_pretrained(tmp_path)
    logits = language_logits(model)
    plain = peft.PeftModel.from_pretrained(language_model(tied=tied), tmp_path)
    small = peft.PeftModel.from_pretrained(shrunk(language_model(tied=tied)), tmp_path)
    assert torch.equal(language_logits(plain), logits)
    assert torch.equal(language_logits(small), logits)
    with model.disable_adapter():
        assert torch.equal(language_logits(model), language_logits(language_model(tied=tied)))
    unloaded = copy.deepcopy(model).merge_and_unload()
    merged = plain.merge_and_unload()
    assert torch.equal(language_logits(unloaded), language_logits(merged))
    assert torch.equal(language_logits(sv.restore(unloaded)), language_logits(merged))
    assert torch.equal(language_logits(sv.restore(model)), logits)


def assert_close_gradients(model: nn.Module, whole: nn.Module) -> None:
    """Compare gradients of the rows of V′ and of all else; the rest shift is nobody else's."""
    theirs = {n: p.grad for n, p in whole.named_parameters() if p.requires_grad}
    ours = {n: p.grad for n, p in model.named_parameters() if p.requires_grad}
    used = ids_of(sv.vocabulary_of(model))
    assert {name for name in ours if "rest_shift" not in name} == theirs.keys()
    assert all(gradient is not None for gradient in ours.values())  # DDP waits for each
    for name, gradient in theirs.items():
        assert gradient is not None
        mine = ours[name]
        assert mine is not None
        expected = gradient if gradient.shape == mine.shape else gradient[used]
        torch.testing.assert_close(mine, expected, rtol=1e-4, atol=1e-6)


def test_prompts_are_trained_before_a_language_model() -> None:
    """Whose embedding PEFT looks for by the height of V."""
    config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
    whole = adapted(language_model(tied=True), config).train()
    model = adapted(shrunk(language_model(tied=True)), config).train()

    for one in (whole, model):
        one(**language_batch("llama", USED)).loss.backward()

    gradients = [one.prompt_encoder["default"].embedding.weight.grad for one in (model, whole)]
    torch.testing.assert_close(gradients[0], gradients[1])
    assert torch.equal(language_logits(model), language_logits(whole))


# --- adapters on the embedding or the head itself

REFUSED: dict[str, tuple[str, Callable[[], peft.PeftConfig]]] = {
    "LoRA on the embedding": ("Embedding", lambda: lora("embed_tokens")),
    "DoRA on the embedding": ("Embedding", lambda: lora("embed_tokens", use_dora=True)),
    "LoRA on the head": ("Linear", lambda: lora("lm_head")),
    "IA3 on the head": (
        "Linear",
        lambda: peft.IA3Config(
            task_type="CAUSAL_LM", target_modules=["lm_head"], feedforward_modules=[]
        ),
    ),
    "LoRA on the parameter": (
        "ParamWrapper",
        lambda: peft.LoraConfig(
            task_type="CAUSAL_LM", target_parameters=["embed_tokens.weight"], target_modules=[]
        ),
    ),
    "some tokens": (
        "TrainableTokensLayer",
        lambda: lora("q_proj", trainable_token_indices=[1, 2]),
    ),
    "some tokens alone": (
        "TrainableTokensLayer",
        lambda: peft.TrainableTokensConfig(
            task_type="CAUSAL_LM", target_modules=["embed_tokens"], token_indices=[1, 2]
        ),
    ),
}


def lora(name: str, **options: Any) -> peft.LoraConfig:
    """Put LoRA on a module of a decoder."""
    return peft.LoraConfig(task_type="CAUSAL_LM", target_modules=[name], **options)


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("kind", REFUSED)
def test_an_adapter_on_the_vocabulary_is_refused(kind: str, tied: bool, tmp_path: Path) -> None:
    """In either order, loaded or new, before any step: it would read rows by ids of V."""
    layer, make_config = REFUSED[kind]
    whole = adapted(language_model(tied=tied), make_config())
    whole.save_pretrained(tmp_path)
    message = f"`{layer}` of PEFT was put on a `Partial.*Leave it out of .*`modules_to_save`"

    with pytest.raises(sv.UnsupportedModelError, match=message):
        adapted(shrunk(language_model(tied=tied)), make_config())
    with pytest.raises(sv.UnsupportedModelError, match=message):
        peft.PeftModel.from_pretrained(shrunk(language_model(tied=tied)), tmp_path)
    with pytest.raises(sv.UnsupportedModelError, match=r"Leave it out of .*`modules_to_save`"):
        sv.shrink(whole, VOCABULARY)


def test_an_adapter_on_the_vocabulary_is_refused_word_for_word() -> None:
    """The whole message, of either order."""
    model = tiny_model("bert")
    config = peft.LoraConfig(task_type="SEQ_CLS", target_modules=["word_embeddings"])
    advice = (
        "Leave it out of the adapter's `target_modules` and `trainable_token_indices`. To train "
        "its rows beside the adapter, name it in `modules_to_save`, or let it require a gradient "
        "and keep the rows in a `subvocab.RowAdapter`."
    )

    with pytest.raises(sv.UnsupportedModelError) as first:
        adapted(shrunk(model), config)
    with pytest.raises(sv.UnsupportedModelError) as second:
        shrunk(adapted(tiny_model("bert"), config))

    assert str(first.value) == (
        "`Embedding` of PEFT was put on a `PartialEmbedding`, whose rows are those of a partial "
        f"vocabulary; it would take them for those of the whole. {advice}"
    )
    assert str(second.value) == (
        "The input embedding of `PeftModelForSequenceClassification` is a `Embedding` of PEFT, "
        f"expected an `nn.Embedding`. {advice}"
    )


def test_a_later_adapter_on_the_vocabulary_is_refused() -> None:
    """The first was on other layers; transformers' own way of adding one is no way around."""
    model = adapted(shrunk(language_model(tied=True)), lora("q_proj"))

    with pytest.raises(sv.UnsupportedModelError, match="of PEFT was put on"):
        model.add_adapter("second", lora("embed_tokens"))
    with pytest.raises(sv.UnsupportedModelError, match="of PEFT was put on"):
        shrunk(language_model(tied=True)).add_adapter(lora("embed_tokens"))


def test_all_linear_layers_leave_the_head_alone() -> None:
    """PEFT itself leaves output heads out of "all-linear"."""
    whole, model = (language_model(tied=False) for _ in range(2))
    config = peft.LoraConfig(task_type="CAUSAL_LM", target_modules="all-linear")
    batch = language_batch("llama", USED)

    losses = [adapted(one, config).train()(**batch).loss.item() for one in (whole, shrunk(model))]

    assert losses[1] == pytest.approx(losses[0], rel=1e-6)


def test_a_copy_that_is_no_copy_is_refused() -> None:
    """A head of unknown origin in the place of a partial one would predict other tokens."""
    model = adapted(shrunk(language_model(tied=False)), language_config(["lm_head"]))
    copies = model.get_output_embeddings().modules_to_save

    with pytest.raises(sv.UnsupportedModelError, match="expected a copy of it, or one tied to"):
        copies["other"] = nn.Linear(8, 8)


def test_other_modules_are_put_together_as_ever() -> None:
    """The hook that sees them all has nothing to say about them."""
    shrunk(tiny_model("bert"))
    inner = nn.ModuleDict({"a": nn.Linear(2, 2)})

    class Outer(nn.Module):
        __hash__ = None  # type: ignore[assignment]

        def __init__(self) -> None:
            super().__init__()
            self.inner = inner
            self.nothing = None
            self.register_module("later", None)

    assert Outer().inner is inner


def learn(model: nn.Module) -> None:
    """Take one step, as the page takes for granted."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    model(**random_batch(tiny_model("bert"), USED)).loss.backward()
    optimizer.step()


def test_the_page_does_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every snippet of `docs/peft.md`, each on a model of its own."""
    monkeypatch.chdir(tmp_path)
    vocabulary = VOCABULARY

    for program in python_blocks("docs/peft.md"):
        model = tiny_model("bert")
        if "sv.shrink" not in program:
            sv.shrink(model, vocabulary)
        names: dict[str, Any] = {
            "sv": sv,
            "LoraConfig": peft.LoraConfig,
            "PeftModel": peft.PeftModel,
            "get_peft_model": peft.get_peft_model,
            "train": learn,
            "vocabulary": vocabulary,
            "model": model,
            "whole_model": tiny_model("bert"),
        }
        run_block(program, names)
        if "again" in names:
            assert torch.equal(logits_of(names["again"]), logits_of(names["adapted"]))


def test_a_trainer_goes_on_from_a_checkpoint(tmp_path: Path) -> None:
    """The adapter of the checkpoint is loaded into rows of V′, and so are their moments."""
    config = peft.LoraConfig(**ATTENTION, modules_to_save=["word_embeddings"])
    batch = random_batch(tiny_model("bert"), USED)
    rows: Any = [{name: value[i % 4] for name, value in batch.items()} for i in range(16)]
    states = []
    for partial in (False, True):
        for resume in (False, True):
            torch.manual_seed(0)
            args = hf.TrainingArguments(
                str(tmp_path / str(partial)),
                max_steps=4,
                save_steps=2,
                per_device_train_batch_size=4,
                report_to="none",
                disable_tqdm=True,
                dataloader_pin_memory=False,
            )
            trainer: Any = hf.Trainer(adapted(tiny_model("bert"), config), args, train_dataset=rows)
            if partial:
                sv.shrink_trainer(trainer, VOCABULARY)
            trainer.train(
                resume_from_checkpoint=f"{args.output_dir}/checkpoint-2" if resume else None
            )
            states.append(copied(trainer.model.state_dict()))

    for state in states[1:]:
        assert_equal_states(state, states[0])
