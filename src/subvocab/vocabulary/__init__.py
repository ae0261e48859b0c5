"""What a dataset uses of the vocabulary: counts over V, their growth, and V′ (NumPy only)."""

from subvocab.vocabulary.counts import TokenCounts
from subvocab.vocabulary.growth import VocabularyGrowth
from subvocab.vocabulary.partial import PartialVocabulary

__all__ = ["PartialVocabulary", "TokenCounts", "VocabularyGrowth"]
