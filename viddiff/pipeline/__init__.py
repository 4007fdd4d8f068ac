"""Whole videos: encode and decode in one process, in several processes, and live."""
