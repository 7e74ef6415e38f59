"""One training run: what it reads, Lightning trainer, checkpoints, curves."""
