"""Files that are never seen half done: atomic writing, seals, locks."""
