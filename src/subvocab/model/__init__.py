"""A model with E′ in place of E: made, trained by whom you like, saved whole, restored."""
