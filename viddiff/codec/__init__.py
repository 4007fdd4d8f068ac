"""Decoding. A change here changes files."""
