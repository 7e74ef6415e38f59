"""The name by which students of mlkd 0.1 know their module; it is in :mod:`mlkd.encoders` now."""

from mlkd.encoders.compact import CompactTransformer

__all__ = ["CompactTransformer"]
