"""Parallel pairs: readers, cleaning, pair store, token store and batches."""
