"""Layer data."""
