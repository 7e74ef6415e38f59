"""The export format ``web``: a page that searches across languages in a browser."""
