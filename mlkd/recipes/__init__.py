"""Chains of links: what each needs, what exists, what runs."""
