"""Whole runs of TRL's trainers: losses and what is logged, with E′ as with E."""

from __future__ import annotations

import copy
import gc
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl")

import datasets
import numpy as np
import peft
import torch
import transformers as hf
import trl

import subvocab as sv
from subvocab.integrations import trl as integration
from subvocab.model.shrink import partial_embeddings
from tests.pages import python_blocks, run_block
from tests.tiny_tokenizers import as_transformers, byte_level

FULL = 600
WORDS = ("the", "cat", "sat", "on", "a", "mat", "dog", "did", "not", "grams", "line", "end", "of")
TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{% if m['role'] == 'assistant' %}{% generation %}"
    "{{ m['content'] + eos_token }}{% endgeneration %}{% else %}{{ m['content'] }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
NOISE = ("runtime", "per_second", "flos", "step_time")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings(
        "ignore:.*pin_memory.*:UserWarning",
        "ignore:.*activation_checkpointing.*:FutureWarning",
        "ignore:.*return_outputs.*:FutureWarning",
        "ignore:.*label_smoothing_factor.*:FutureWarning",
        "ignore:.*torch.jit.*:DeprecationWarning",
        "ignore:.*is a read-only.*:UserWarning",
    ),
]
Run = tuple[list[dict[str, float]], Any]


@pytest.fixture(autouse=True, scope="module")
def quick() -> Iterator[None]:
    """Draw no bars; and let no collection, of which a trainer asks for many, visit the imports."""
    datasets.disable_progress_bars()
    gc.freeze()
    yield
    gc.unfreeze()


def tokenizer() -> Any:
    """Make a tokenizer with a chat template."""
    made = as_transformers(byte_level())
    made.pad_token, made.chat_template = "<|endoftext|>", TEMPLATE
    return made


def model(*, tied: bool = True) -> Any:
    """Make a language model whose softmax is far from uniform."""
    torch.manual_seed(0)
    config = hf.LlamaConfig(
        vocab_size=FULL,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=tied,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
    )
    made = hf.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in made.parameters():
            spread = 0.3 if FULL in parameter.shape else 0.05
            parameter.add_(torch.randn_like(parameter), alpha=spread)
    return made


def loaded(folder: Path) -> Any:
    """Make a model that lies somewhere, where a trainer finds its reference."""
    model().save_pretrained(folder / "base")
    return hf.AutoModelForCausalLM.from_pretrained(folder / "base")


def rows(kind: str, *, seed: int = 0) -> Any:
    """Make a dataset of one of the kinds that trainers take."""
    draw = random.Random(seed)  # noqa: S311 - no secret

    def text() -> str:
        return " ".join(draw.choice(WORDS) for _ in range(draw.randint(4, 12)))

    def row() -> dict[str, Any]:
        asked, answered, worse = text(), text(), text()
        user, assistant = [{"role": "user", "content": asked}], "assistant"
        kinds: dict[str, dict[str, Any]] = {
            "text": {"text": asked + answered},
            "completion": {"prompt": asked, "completion": answered},
            "chat": {"messages": [*user, {"role": assistant, "content": answered}]},
            "preference": {"prompt": asked, "chosen": answered, "rejected": worse},
            "chat preference": {
                "prompt": user,
                "chosen": [{"role": assistant, "content": answered}],
                "rejected": [{"role": assistant, "content": worse}],
            },
            "label": {"prompt": asked, "completion": answered, "label": draw.random() < 0.5},
            "prompt": {"prompt": asked},
        }
        return kinds[kind]

    return datasets.Dataset.from_list([row() for _ in range(12)])


def arguments(folder: Path, **options: Any) -> dict[str, Any]:
    """Give what every run has in common."""
    defaults: dict[str, Any] = {
        "output_dir": str(folder / "out"),
        "max_steps": 2,
        "gradient_checkpointing": False,
        "per_device_train_batch_size": 4,
        "learning_rate": 1e-3,
        "logging_steps": 1,
        "report_to": "none",
        "save_strategy": "no",
        "use_cpu": True,
        "disable_tqdm": True,
        "bf16": False,
    }
    return defaults | options


def sft(folder: Path, kind: str = "text", *, trained: Any = None, **options: Any) -> Any:
    """Make an SFTTrainer."""
    config = options.pop("peft_config", None)
    return trl.SFTTrainer(
        model=trained or model(),
        args=trl.SFTConfig(**arguments(folder, **options)),
        train_dataset=rows(kind),
        eval_dataset=rows(kind, seed=1),
        processing_class=tokenizer(),
        peft_config=config,
    )


def dpo(folder: Path, kind: str = "preference", *, reference: Any = None, **options: Any) -> Any:
    """Make a DPOTrainer."""
    config = options.pop("peft_config", None)
    return trl.DPOTrainer(
        model=loaded(folder),
        ref_model=reference,
        args=trl.DPOConfig(**arguments(folder, **options)),
        train_dataset=rows(kind),
        eval_dataset=rows(kind, seed=1),
        processing_class=tokenizer(),
        peft_config=config,
    )


def history(trainer: Any) -> list[dict[str, float]]:
    """Train and evaluate; give what was logged."""
    trainer.train()
    if trainer.eval_dataset is not None:
        trainer.evaluate()
    return [
        {k: v for k, v in entry.items() if not any(word in k for word in NOISE)}
        for entry in trainer.state.log_history
    ]


def two_histories(make: Callable[[], Any], *args: Any, **options: Any) -> list[Any]:
    """Run without the one line, and with it."""
    whole = history(make())
    trainer = make()  # after that: making one sets the seed
    sv.shrink_trainer(trainer, *args, **options)
    assert partial_embeddings(trainer.model)
    return [whole, history(trainer)]


def assert_close(ours: dict[str, float], theirs: dict[str, float], rel: float = 1e-6) -> None:
    """Compare what was logged; entropies are differences of larger numbers."""
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        tolerance = max(rel, 5e-6) if "entropy" in name or "margin" in name else rel
        assert ours[name] == pytest.approx(value, rel=tolerance, abs=2e-6), name


EVERY_TOKEN = sv.PartialVocabulary(np.arange(FULL), FULL)


@pytest.mark.filterwarnings("ignore:The partial vocabulary holds:UserWarning")
@pytest.mark.parametrize("options", [{}, {"packing": True, "max_length": 32}], ids=str)
@pytest.mark.parametrize("head", ["tied", "untied", "whole"])
def test_equal_bit_for_bit_where_no_logit_is_missing(
    head: str, options: dict[str, Any], tmp_path: Path
) -> None:
    """With all of V in V′, or a head that stays whole: logs, evaluation and weights."""

    def make() -> Any:
        return sft(tmp_path, trained=model(tied=head == "tied"), **options)

    whole, small = make(), make()
    if head == "whole":
        sv.shrink_trainer(small, head="whole")
    else:
        sv.shrink_trainer(small, EVERY_TOKEN)

    assert history(small) == history(whole)
    ours, theirs = small.model.state_dict(), whole.model.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


SFT: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("text", {}),
    "completion only": ("completion", {}),
    "assistant only": ("chat", {"assistant_only_loss": True}),
    "packing": ("text", {"packing": True, "max_length": 32}),
    "wrapped packing": ("text", {"packing": True, "packing_strategy": "wrapped", "max_length": 32}),
    "padding-free": ("text", {"padding_free": True, "max_length": None}),
    "dft": ("text", {"loss_type": "dft"}),
    "bfloat16": ("chat", {"bf16": True}),
    "smoothed labels": ("text", {"label_smoothing_factor": 0.1}),
    "accumulation": ("text", {"gradient_accumulation_steps": 2, "gradient_checkpointing": True}),
}


@pytest.mark.parametrize("case", SFT)
def test_sft_logs_what_it_does_without(case: str, tmp_path: Path) -> None:
    """At equal weights the loss, the entropy and the accuracy are those over all of V."""
    kind, options = SFT[case]

    whole, small = two_histories(lambda: sft(tmp_path, kind, **options))

    assert whole[0]["mean_token_accuracy"] > 0
    grad_norm = {"grad_norm": whole[0]["grad_norm"]}  # that of the shift is in ours
    assert_close(small[0] | grad_norm, whole[0], rel=1e-5 if options.get("bf16") else 1e-6)
    for ours, theirs in zip(small, whole, strict=True):
        assert ours.keys() == theirs.keys()
        assert ours.get("num_tokens") == theirs.get("num_tokens")
        for name in ("loss", "eval_loss"):
            assert ours.get(name, 0.0) == pytest.approx(theirs.get(name, 0.0), rel=2e-3)


def lora(**options: Any) -> Any:
    """Adapt a layer that is not keyed by token."""
    return peft.LoraConfig(r=4, target_modules=["q_proj"], **options)


def test_sft_beside_lora_is_the_same_at_every_step(tmp_path: Path) -> None:
    """No row is trained, so the two runs keep equal weights: also gradients and evaluation."""
    whole, small = two_histories(lambda: sft(tmp_path, "chat", peft_config=lora()))

    for ours, theirs in zip(small, whole, strict=True):
        assert_close(ours, theirs, rel=2e-6)


def test_rows_are_trained_beside_lora(tmp_path: Path) -> None:
    """As modules to save."""
    config = {"modules_to_save": ["embed_tokens", "lm_head"], "ensure_weight_tying": True}
    whole, small = two_histories(lambda: sft(tmp_path, "chat", peft_config=lora(**config)))

    assert small[0]["loss"] == pytest.approx(whole[0]["loss"], rel=1e-6)
    assert small[-1]["eval_loss"] == pytest.approx(whole[-1]["eval_loss"], rel=2e-3)


def test_a_model_may_be_shrunk_before_its_trainer_is_made(tmp_path: Path) -> None:
    """With the same V′ it is the same run, to the last bit."""
    after = sft(tmp_path)
    sv.shrink_trainer(after)
    before = model()
    sv.shrink(before, sv.vocabulary_of(after.model))

    assert history(sft(tmp_path, trained=before)) == history(after)


@pytest.mark.parametrize("first", [False, True])
def test_a_restored_model_goes_on_with_its_trainer(tmp_path: Path, *, first: bool) -> None:
    """The fused loss computes with the whole head again, whichever came first."""
    trained = model()
    shrunk = sv.shrink(trained, sv.PartialVocabulary(np.arange(320), FULL)) if first else None
    trainer = sft(tmp_path, trained=trained)
    with shrunk or sv.shrink_trainer(trainer):
        trainer.train()
        small = trainer.evaluate()["eval_loss"]

    assert trainer.evaluate()["eval_loss"] == pytest.approx(small, rel=1e-6)
    batch = {"input_ids": torch.tensor([[5, 6, 7]]), "labels": torch.tensor([[5, 6, 7]])}
    plain = trainer.model.train()(**batch).loss.item()
    fused = trainer.model(**batch, fused_lm_head=True).loss.item()
    assert fused == pytest.approx(plain, rel=1e-6)


def test_a_copy_scores_with_its_own_head(tmp_path: Path) -> None:
    """A forward on the instance is copied with the model."""
    trainer = sft(tmp_path)
    sv.shrink_trainer(trainer)
    twin = copy.deepcopy(trainer.model)
    with torch.no_grad():
        trainer.model.lm_head.weight.zero_()
    ids = torch.tensor([[300, 301, 302]])

    scored = twin.eval()(input_ids=ids, labels=ids, fused_lm_head=True)
    emptied = trainer.model.eval()(input_ids=ids, labels=ids, fused_lm_head=True)

    assert not torch.equal(scored.log_probs, emptied.log_probs)


def test_labels_outside_the_vocabulary_stop_training(tmp_path: Path) -> None:
    """Their rows are not there to be trained; in evaluation they are scored."""
    trainer = sft(tmp_path)
    sv.shrink_trainer(trainer, sv.PartialVocabulary(np.arange(280), FULL))
    batch = {"input_ids": torch.tensor([[5, 6, 7]]), "labels": torch.tensor([[5, 6, 300]])}

    with pytest.raises(sv.OutOfVocabularyError, match="Labels must be tokens"):
        trainer.model.train()(**batch, fused_lm_head=True)
    with pytest.raises(sv.OutOfVocabularyError):
        trainer.train()

    assert trainer.state.global_step == 0
    assert trainer.model.eval()(**batch, fused_lm_head=True).loss > 0


def test_a_chat_template_that_resizes_comes_first(tmp_path: Path) -> None:
    """Then its new tokens are in V′; a shrunk model cannot take them."""
    template = tokenizer()
    template.add_special_tokens({"additional_special_tokens": ["<|user|>", "<|assistant|>"]})
    template.save_pretrained(tmp_path / "template")
    options = {"chat_template_path": str(tmp_path / "template")}

    trainer = sft(tmp_path, "chat", **options)
    sv.shrink_trainer(trainer)

    added = trainer.processing_class.convert_tokens_to_ids("<|user|>")
    assert added in sv.vocabulary_of(trainer.model).token_ids
    assert history(trainer)[0]["loss"] > 0
    small = model()
    sv.shrink(small, sv.PartialVocabulary(np.arange(280), FULL))
    with pytest.raises(sv.UnsupportedModelError, match="cannot be resized"):
        sft(tmp_path, "chat", trained=small, **options)


DPO: dict[str, tuple[str, dict[str, Any]]] = {
    "reference from disk": ("preference", {}),
    "reference of one's own": ("preference", {"reference": True}),
    "bfloat16": ("chat preference", {"bf16": True}),
    "weighting": ("preference", {"use_weighting": True}),
    "ipo": ("preference", {"loss_type": "ipo", "ld_alpha": 0.5}),
    "sync": ("preference", {"sync_ref_model": True, "ref_model_sync_steps": 1}),
}


@pytest.mark.parametrize("case", DPO)
def test_dpo_logs_what_it_does_without(case: str, tmp_path: Path) -> None:
    """Rewards, log-probabilities, mean logits, entropy, accuracy; the reference shares the rows."""
    kind, options = DPO[case]
    made: list[Any] = []

    def make() -> Any:
        own = {"reference": loaded(tmp_path)} if options.get("reference") else {}
        made.append(dpo(tmp_path, kind, **options | own))
        return made[-1]

    whole, small = two_histories(make)

    assert whole[0]["logps/chosen"] < 0 < whole[0]["mean_token_accuracy"]
    grad_norm = {"grad_norm": whole[0]["grad_norm"]}
    assert_close(small[0] | grad_norm, whole[0], rel=1e-5 if options.get("bf16") else 1e-6)
    assert small[-1]["eval_loss"] == pytest.approx(whole[-1]["eval_loss"], rel=5e-3)
    policy, reference = made[1].model, made[1].ref_model
    assert reference.lm_head.table.matrix is policy.lm_head.table.matrix
    held = [one.lm_head.frozen._rows.data_ptr() for one in (policy, reference)]
    assert held[0] == held[1]
    assert reference.lm_head.table.trains_on_frozen  # and would not mind unseen text
    assert reference.lm_head.weight.shape == policy.lm_head.weight.shape
    assert reference.lm_head.weight.data_ptr() != policy.lm_head.weight.data_ptr()


def test_a_reference_with_other_rows_keeps_them(tmp_path: Path) -> None:
    """It shares only what is the same."""
    other = loaded(tmp_path)
    with torch.no_grad():
        other.lm_head.weight[-1] += 1
    trainer = dpo(tmp_path, reference=copy.deepcopy(other))
    whole = dpo(tmp_path, reference=other)
    sv.shrink_trainer(trainer)

    ours, theirs = history(trainer), history(whole)

    assert trainer.ref_model.lm_head.table.matrix is not trainer.model.lm_head.table.matrix
    assert ours[0]["rewards/chosen"] != 0
    for name in ("loss", "rewards/chosen", "rewards/rejected"):
        assert ours[0][name] == pytest.approx(theirs[0][name], rel=1e-5, abs=2e-5)


def test_dpo_beside_lora_is_the_same_at_every_step(tmp_path: Path) -> None:
    """The reference is the model without its adapter."""
    whole, small = two_histories(lambda: dpo(tmp_path, peft_config=lora()))

    for ours, theirs in zip(small, whole, strict=True):
        for name in ("loss", "logps/chosen", "logits/chosen", "mean_token_accuracy", "eval_loss"):
            assert ours.get(name, 0.0) == pytest.approx(theirs.get(name, 0.0), rel=2e-6)


def test_reference_scores_may_be_computed_beforehand(tmp_path: Path) -> None:
    """They are made while the model is whole, and no reference is kept."""
    whole, small = two_histories(lambda: dpo(tmp_path, precompute_ref_log_probs=True))

    assert small[0]["loss"] == pytest.approx(whole[0]["loss"], rel=5e-6)
    assert small[0]["logps/chosen"] == pytest.approx(whole[0]["logps/chosen"], rel=1e-6)
    assert small[-1]["eval_loss"] == pytest.approx(whole[-1]["eval_loss"], rel=2e-3)


def test_kto_and_reward_trainers_log_what_they_do_without(tmp_path: Path) -> None:
    """A reward model has no head over tokens, so its run is equal bit for bit."""

    def kto() -> Any:
        return trl.KTOTrainer(
            model=loaded(tmp_path),
            args=trl.KTOConfig(**arguments(tmp_path)),
            train_dataset=rows("label"),
            processing_class=tokenizer(),
        )

    def reward() -> Any:
        torch.manual_seed(0)
        judge = hf.LlamaForSequenceClassification(loaded(tmp_path).config)
        judge.config.num_labels = 1
        judge.score = torch.nn.Linear(32, 1, bias=False)
        return trl.RewardTrainer(
            model=judge,
            args=trl.RewardConfig(**arguments(tmp_path)),
            train_dataset=rows("preference"),
            processing_class=tokenizer(),
        )

    whole, small = two_histories(kto)
    judged, judged_small = two_histories(reward)

    assert_close(small[0] | {"grad_norm": whole[0]["grad_norm"]}, whole[0])
    assert judged_small == judged


def different_letters(completions: list[str], **_: Any) -> list[float]:
    """Reward a text."""
    return [float(len(set(text))) for text in completions]


def grpo(folder: Path, **options: Any) -> Any:
    """Make a trainer whose model writes what it learns from."""
    return trl.GRPOTrainer(
        model=loaded(folder),
        reward_funcs=different_letters,
        args=trl.GRPOConfig(
            **arguments(folder, max_steps=2, num_generations=2, max_completion_length=6, beta=0.1),
            **options,
        ),
        train_dataset=rows("prompt"),
        processing_class=tokenizer(),
    )


def test_a_model_may_write_tokens_outside_the_vocabulary(tmp_path: Path) -> None:
    """GRPO samples over all of V; rows outside V′ are read and scored, but not trained."""
    prompts = sv.scan(rows("prompt")["prompt"], tokenizer=tokenizer(), progress=False)
    vocabulary = prompts.partial_vocabulary().resized(FULL)

    whole, small = two_histories(lambda: grpo(tmp_path), vocabulary, out_of_vocabulary="frozen")

    assert_close(small[0] | {"grad_norm": whole[0]["grad_norm"]}, whole[0], rel=1e-5)


def test_what_a_model_will_write_cannot_be_scanned(tmp_path: Path) -> None:
    """So it is asked for; and rows outside V′ must be allowed."""
    trainer = grpo(tmp_path)
    vocabulary = sv.PartialVocabulary(np.arange(280), FULL)

    with pytest.raises(sv.UnsupportedModelError, match="trains on what the model will write"):
        sv.shrink_trainer(trainer)
    with pytest.raises(sv.UnsupportedModelError, match="may write any of 600 tokens, not only"):
        sv.shrink_trainer(trainer, vocabulary)

    assert type(trainer.model) is hf.LlamaForCausalLM


def test_a_head_whose_forward_is_replaced_is_refused(tmp_path: Path) -> None:
    """It would multiply by E′ and sample from columns as if they were tokens."""
    small = loaded(tmp_path)
    sv.shrink(small, sv.PartialVocabulary(np.arange(280), FULL), out_of_vocabulary="frozen")
    options = arguments(tmp_path, num_generations=2, cast_lm_head_to_fp32=True)

    with pytest.raises(sv.UnsupportedModelError, match=r"`trl.trainer.grpo_trainer` replaces"):
        trl.GRPOTrainer(
            model=small,
            reward_funcs=different_letters,
            args=trl.GRPOConfig(**options),
            train_dataset=rows("prompt"),
            processing_class=tokenizer(),
        )


def test_a_restricted_softmax_is_no_match_for_a_reference(tmp_path: Path) -> None:
    """Their log-probabilities are of different things."""
    trainer = dpo(tmp_path)

    with pytest.raises(sv.UnsupportedModelError, match="which a restricted softmax does not have"):
        sv.shrink_trainer(trainer, head="restricted")


def test_an_unknown_trainer_is_refused() -> None:
    """It may multiply by the head's matrix itself, as distillation does."""
    trainer = object.__new__(trl.DistillationTrainer)

    with pytest.raises(sv.UnsupportedModelError, match="It is not known what `Distillation"):
        integration.prepare_trainer(trainer, EVERY_TOKEN, {})


class MyTrainer(trl.SFTTrainer):  # type: ignore[misc]
    """A trainer of a user's own."""


def test_a_trainer_of_ones_own_is_what_it_derives_from() -> None:
    """By the first class that TRL has made."""
    integration.prepare_trainer(object.__new__(MyTrainer), EVERY_TOKEN, {})


def test_the_page_runs(tmp_path: Path) -> None:
    """What `docs/trl.md` shows."""
    names: dict[str, Any] = {
        "model": loaded(tmp_path),
        "tokenizer": tokenizer(),
        "options": arguments(tmp_path),
        "dataset": rows("chat"),
        "preferences": rows("preference"),
        "prompts": rows("prompt"),
        "reward": different_letters,
        "texts": rows("prompt")["prompt"],
    }
    for program in python_blocks("docs/trl.md"):
        names["model"] = loaded(tmp_path)
        run_block(program, names)
