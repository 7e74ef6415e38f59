"""Run records, locks and resumption."""
