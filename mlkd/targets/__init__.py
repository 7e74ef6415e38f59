"""Frozen encoders and the cache of their vectors."""
