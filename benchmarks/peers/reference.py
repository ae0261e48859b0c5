"""The paper's own code, from a checkout that the user names."""

from __future__ import annotations

from typing import Any

import torch

from benchmarks.peers import peer


class Peer(peer.Peer):
    """Prune the embedding, and rewrite the ids of the dataset."""

    name = "the paper's code"
    requirements = ("{reference}", "datasets")
    note = "counts, prunes and rewrites ids in one call, which is the preparation here"

    def import_libraries(self) -> None:
        """Import it."""
        import partial_embedding_matrix_adaptation  # noqa: F401, PLC0415

        super().import_libraries()

    def make(self) -> Any:
        """Load the whole model, count, prune, and rewrite the dataset."""
        from datasets import Dataset  # noqa: PLC0415
        from partial_embedding_matrix_adaptation import HFEmbeddingPruner  # noqa: PLC0415

        model = super().make()
        task, tokenizer = self.task, self.tokenizer
        rows = Dataset.from_dict({"text": task.texts}).map(
            lambda batch: {
                name: values.tolist()
                for name, values in task.encoded(tokenizer, batch["text"]).items()
            },
            batched=True,
            remove_columns=["text"],
        )
        self.pruner = HFEmbeddingPruner(model)
        self.dataset, _ = self.pruner.prepare_model(tokenizer, rows)
        return model

    def batches(self) -> list[dict[str, torch.Tensor]]:
        """Take the rewritten ids."""
        texts = len(self.task.trained_texts)
        columns = self.dataset.with_format("torch")[:texts]
        return self.task.batches({name: torch.as_tensor(ids) for name, ids in columns.items()})

    def restore(self, model: Any) -> Any:
        """Put the whole matrix back."""
        self.pruner.restore_model()
        return model
