"""Encoder-decoders that are told the target language by the token they start with."""
