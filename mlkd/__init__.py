"""Multilingual knowledge distillation: small cross-lingual sentence encoders."""

__version__ = "0.1.0"
