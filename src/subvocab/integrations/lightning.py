"""Lightning: a callback that shrinks the model before its optimizer is made."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from torch import nn
from torch.utils.data import DataLoader, default_collate
from transformers import PreTrainedModel

from subvocab._extras import import_extra
from subvocab.data import scan
from subvocab.data.scanner import ScanOptions
from subvocab.errors import UnsupportedModelError
from subvocab.integrations.optimizers import check_optimizer_state, warn_of_inexact_optimizer
from subvocab.integrations.resuming import agree, describe
from subvocab.model.shrink import partial_embeddings, restore, shrink
from subvocab.vocabulary import PartialVocabulary

if TYPE_CHECKING:
    from lightning.pytorch import Callback
else:
    Callback = import_extra(
        "lightning.pytorch", extra="lightning", purpose="A callback of Lightning"
    ).Callback


class ShrinkCallback(Callback):  # type: ignore[misc]
    """Train a LightningModule with only the rows of V′, and save it whole.

    The module must have its model when ``fit`` begins: made in ``__init__``, not in ``setup`` or
    ``configure_model``. One that is shrunk already is trained as it is.

    Args:
        vocabulary: V′. By default the tokens of the training data, as its data loader will
            feed them to the model, and all that its ``collate_fn`` adds.
        restores: Whether to make the model whole again when ``fit`` ends.
        **options: For `subvocab.scan` and `subvocab.shrink`.

    Example:
        ``lightning.Trainer(callbacks=[ShrinkCallback()], ...).fit(module, loader)``
    """

    def __init__(
        self,
        vocabulary: PartialVocabulary | None = None,
        *,
        restores: bool = False,
        **options: Any,
    ) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        self.restores = restores
        self._for_scan = {k: v for k, v in options.items() if k in ScanOptions.__annotations__}
        for_both = {"tokenizer"} & options.keys()
        self._for_shrink = {
            k: v for k, v in options.items() if k in for_both or k not in self._for_scan
        }
        self._model: nn.Module | None = None
        self._kept: dict[str, Any] = {}

    def setup(self, trainer: Any, pl_module: nn.Module, stage: str) -> None:
        """Shrink the model, before its optimizer is made and a checkpoint is loaded.

        Args:
            trainer: Lightning's.
            pl_module: The module that is trained.
            stage: Lightning's: nothing is done but for "fit".

        Raises:
            UnsupportedModelError: If the training data is of no kind that can be scanned,
                the model cannot be shrunk, or a callback has copied the whole model before.
        """
        if stage != "fit":
            return
        if not partial_embeddings(pl_module):
            self._check_order(trainer.callbacks)
            vocabulary = self.vocabulary or self._scan(trainer, pl_module)
            shrink(pl_module, vocabulary, **self._for_shrink)
        self._model = pl_module

    def on_train_start(self, trainer: Any, pl_module: nn.Module) -> None:
        """Compare what was resumed with the model, before the first step.

        Args:
            trainer: Lightning's.
            pl_module: The module that is trained.

        Raises:
            VocabularyMismatchError: If the checkpoint belongs to another V′ or another base.
        """
        for optimizer in trainer.optimizers:
            if self._kept:
                agree(pl_module, optimizer, self._kept, carry_over=False)
            check_optimizer_state(pl_module, optimizer)
            warn_of_inexact_optimizer(pl_module, optimizer)

    def teardown(self, trainer: Any, pl_module: nn.Module, stage: str) -> None:  # noqa: ARG002
        """Make the model whole again, if that was asked for.

        Args:
            trainer: Lightning's.
            pl_module: The module that was trained.
            stage: Lightning's.
        """
        if self.restores and stage == "fit" and partial_embeddings(pl_module):
            restore(pl_module)
            self._model = None

    def state_dict(self) -> dict[str, Any]:
        """Give what a checkpoint keeps of V′ beside the whole model.

        Returns:
            What `load_state_dict` takes.
        """
        return {} if self._model is None else describe(self._model)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Note what a checkpoint has kept, until its optimizer is loaded too.

        Args:
            state_dict: From `state_dict`.
        """
        self._kept = state_dict

    def _check_order(self, callbacks: list[Any]) -> None:
        """Refuse to shrink a model of which an earlier callback averages a whole copy."""
        for callback in takewhile(lambda one: one is not self, callbacks):
            if getattr(callback, "_average_model", None) is not None:
                raise UnsupportedModelError(
                    f"`{type(callback).__name__}` comes before `{type(self).__name__}`, and has "
                    "copied the model while it was whole: the two would not fit. Put "
                    f"`{type(self).__name__}` first in `callbacks`."
                )

    def _scan(self, trainer: Any, module: nn.Module) -> PartialVocabulary:
        """Count what the data loader will give, and leave every random number as it is."""
        from lightning.pytorch.utilities.seed import isolate_rng  # noqa: PLC0415 - at hand by now

        models = [part for part in module.modules() if isinstance(part, PreTrainedModel)]
        with isolate_rng():
            # Lightning has no public way to the loader before it is set up.
            loader = trainer.fit_loop._data_source.dataloader()  # noqa: SLF001
            if not isinstance(loader, DataLoader):
                raise UnsupportedModelError(
                    f"The training data is a `{type(loader).__name__}`, expected a `DataLoader` "
                    "to scan. Scan it with `subvocab.scan`, and pass the callback a `vocabulary`."
                )
            # Torch's own adds nothing, and fails where rows differ in length.
            own = None if loader.collate_fn is default_collate else loader.collate_fn
            options = {"collator": own, "model": next(iter(models), None)}
            rows = _rows_of(loader.dataset)
            return scan(rows, **{**options, **self._for_scan}).partial_vocabulary()


def _rows_of(dataset: Any) -> Iterable[Any]:
    """Give the rows of a dataset that has but numbers for them."""
    if hasattr(dataset, "__iter__") or not hasattr(dataset, "__len__"):
        return dataset  # type: ignore[no-any-return]
    return (dataset[at] for at in range(len(dataset)))
