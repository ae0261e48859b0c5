"""Layer storage."""
