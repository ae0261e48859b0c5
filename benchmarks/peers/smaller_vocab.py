"""transformer-smaller-training-vocab: rewrites the tokenizer, for the time of training."""

from __future__ import annotations

from typing import Any

from benchmarks.peers import peer


class Peer(peer.Peer):
    """Reduce the model and its tokenizer."""

    name = "transformer-smaller-training-vocab 0.4.2"
    requirements = ("transformer-smaller-training-vocab==0.4.2",)
    transformers = "4.57.6"
    note = "needs transformers < 5; its scan encodes text by text, within the preparation"

    def import_libraries(self) -> None:
        """Import it."""
        import transformer_smaller_training_vocab  # noqa: F401, PLC0415

        super().import_libraries()

    def make(self) -> Any:
        """Load the whole model, scan and reduce."""
        from transformer_smaller_training_vocab import reduce_train_vocab_and_context  # noqa: PLC0415

        model = super().make()
        self.context = reduce_train_vocab_and_context(model, self.tokenizer, self.task.texts)
        return model

    def restore(self, model: Any) -> Any:
        """Put the whole matrix back."""
        from transformer_smaller_training_vocab import recreate_vocab  # noqa: PLC0415

        recreate_vocab(model, self.tokenizer, *self.context)
        return model
