"""Fine-tune a language model while holding only the embedding rows its data uses.

The public names; those that need torch load when they are first used.
"""

__version__ = "0.1.0"
