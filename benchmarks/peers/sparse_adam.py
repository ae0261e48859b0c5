"""torch's own remedy: sparse gradients for the embedding, and SparseAdam for them."""

from __future__ import annotations

from typing import Any

from torch.optim import Optimizer, SparseAdam

from benchmarks.peers import peer


class Peer(peer.Peer):
    """Switch the embedding to sparse gradients."""

    name = "nn.Embedding(sparse=True), SparseAdam"
    note = "SparseAdam does not move a row in a step that lacks it: another optimizer than Adam"

    def make(self) -> Any:
        """Load the model, and let its embedding give sparse gradients."""
        model = super().make()
        model.get_input_embeddings().sparse = True
        return model

    def optimizers(self, model: Any) -> list[Optimizer]:
        """Make SparseAdam for the embedding, and AdamW for the others."""
        table = model.get_input_embeddings().weight
        others = self.adamw(p for p in model.parameters() if p is not table)
        return [SparseAdam([table], lr=self.task.learning_rate), others]
