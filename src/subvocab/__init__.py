"""Fine-tune a language model while holding only the embedding rows its data uses.

The public names. Those that need torch or datasets load when they are first used, so that
importing this package is instant.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from subvocab.errors import (
    CheckpointError,
    DataError,
    MissingExtraError,
    OutOfVocabularyError,
    SubvocabError,
    UnsupportedModelError,
    VocabularyMismatchError,
)

if TYPE_CHECKING:
    from subvocab.analysis.savings import ParameterCounts
    from subvocab.data import scan, scan_growth
    from subvocab.integrations.masking import PartialMaskingCollator
    from subvocab.integrations.shrink_trainer import shrink_trainer
    from subvocab.integrations.tasks import verify
    from subvocab.integrations.trainer import VocabularyCallback
    from subvocab.model.accounting import count_parameters
    from subvocab.model.checkpoint import compact_state_dict, save_compact
    from subvocab.model.load import from_pretrained
    from subvocab.model.merge import merge
    from subvocab.model.peak_memory import PeakMemory
    from subvocab.model.row_adapter import RowAdapter
    from subvocab.model.shrink import restore, shrink, vocabulary_of
    from subvocab.storage import FullMatrix
    from subvocab.vocabulary import PartialVocabulary, TokenCounts, VocabularyGrowth

__version__ = "0.1.0"

_HOMES = {
    "FullMatrix": "subvocab.storage",
    "ParameterCounts": "subvocab.analysis.savings",
    "PartialMaskingCollator": "subvocab.integrations.masking",
    "PartialVocabulary": "subvocab.vocabulary",
    "PeakMemory": "subvocab.model.peak_memory",
    "RowAdapter": "subvocab.model.row_adapter",
    "TokenCounts": "subvocab.vocabulary",
    "VocabularyCallback": "subvocab.integrations.trainer",
    "VocabularyGrowth": "subvocab.vocabulary",
    "compact_state_dict": "subvocab.model.checkpoint",
    "count_parameters": "subvocab.model.accounting",
    "from_pretrained": "subvocab.model.load",
    "merge": "subvocab.model.merge",
    "restore": "subvocab.model.shrink",
    "save_compact": "subvocab.model.checkpoint",
    "scan": "subvocab.data",
    "scan_growth": "subvocab.data",
    "shrink": "subvocab.model.shrink",
    "shrink_trainer": "subvocab.integrations.shrink_trainer",
    "verify": "subvocab.integrations.tasks",
    "vocabulary_of": "subvocab.model.shrink",
}

__all__ = [
    "CheckpointError",
    "DataError",
    "FullMatrix",
    "MissingExtraError",
    "OutOfVocabularyError",
    "ParameterCounts",
    "PartialMaskingCollator",
    "PartialVocabulary",
    "PeakMemory",
    "RowAdapter",
    "SubvocabError",
    "TokenCounts",
    "UnsupportedModelError",
    "VocabularyCallback",
    "VocabularyGrowth",
    "VocabularyMismatchError",
    "compact_state_dict",
    "count_parameters",
    "from_pretrained",
    "merge",
    "restore",
    "save_compact",
    "scan",
    "scan_growth",
    "shrink",
    "shrink_trainer",
    "verify",
    "vocabulary_of",
]


def __getattr__(name: str) -> object:
    """Load a public name from the module it lives in."""
    if name not in _HOMES:
        raise AttributeError(f"module 'subvocab' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
