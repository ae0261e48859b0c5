"""What a model card says of the partial vocabulary that a model was fine-tuned with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from subvocab.model.shrink import partial_tables, vocabulary_of

HEADING = "## Fine-tuning with a partial vocabulary"
CITATION = """\
```bibtex
@misc{williams2023vocabulary,
  title = {Vocabulary-level Memory Efficiency for Language Model Fine-tuning},
  author = {Williams, Miles and Aletras, Nikolaos},
  year = {2023},
  eprint = {2309.08708},
  archivePrefix = {arXiv}
}
```
"""


def model_card_section(model: nn.Module) -> str:
    """Tell in Markdown what was done to a model.

    Args:
        model: A shrunk model.

    Returns:
        A section with |V|, |V′|, the method and its citation.

    Raises:
        UnsupportedModelError: If the model is not shrunk.
    """
    vocabulary_of(model)  # raises if there is none
    tables = {module.table: module for module in partial_tables(model).values()}
    sizes = {(len(table.vocabulary), table.vocabulary.full_vocab_size): None for table in tables}
    rows = " and ".join(f"{used:,} of {full:,} ({used / full:.1%})" for used, full in sizes)
    shifted = any(module.rest_shift is not None for module in tables.values())
    rest = "moved by one learned vector in common" if shifted else "as they were"
    return f"""{HEADING}

Of the embedding matrix only the rows of tokens in the training data were trained: {rows}. They
were written back into the whole matrix, whose other rows are {rest}; this model is complete.
The method is Partial Embedding Matrix Adaptation, as implemented by subvocab:

{CITATION}"""


def add_to_model_card(trainer: Any, create: Any, *args: Any, **kwargs: Any) -> None:
    """Let a Trainer write its model card, and add what it does not know.

    Args:
        trainer: The Trainer.
        create: Its own method that writes the card.
        *args: For that method.
        **kwargs: For that method.
    """
    create(*args, **kwargs)
    card = Path(trainer.args.output_dir) / "README.md"
    if (
        not trainer.is_world_process_zero()
        or not card.is_file()
        or not partial_tables(trainer.model)
    ):
        return
    text = card.read_text(encoding="utf-8")
    if HEADING not in text:
        card.write_text(f"{text.rstrip()}\n\n{model_card_section(trainer.model)}", encoding="utf-8")
