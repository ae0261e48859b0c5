"""What a dataset uses of the vocabulary: counts over V, and V′ itself (NumPy only)."""

from subvocab.vocabulary.counts import TokenCounts
from subvocab.vocabulary.partial import PartialVocabulary

__all__ = ["PartialVocabulary", "TokenCounts"]
