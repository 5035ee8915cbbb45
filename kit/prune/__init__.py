"""Prune: models that are really smaller and faster, with little loss and no labels."""
