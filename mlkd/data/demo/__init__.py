"""The embedded demo corpus: everyday sentences in en, de, fr, es and tr."""

LANGUAGES = ("en", "de", "fr", "es", "tr")
