"""Encoders: what is inside a Hugging Face one, the forward pass, folders."""
