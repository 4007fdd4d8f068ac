"""Decisions of the encoder. A change here never changes how existing files decode."""
