"""Layer integrations."""
