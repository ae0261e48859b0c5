"""The paper's tables and figures made anew: ``python -m paper --data DIR`` runs all."""
