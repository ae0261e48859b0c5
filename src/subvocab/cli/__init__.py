"""Layer cli."""
