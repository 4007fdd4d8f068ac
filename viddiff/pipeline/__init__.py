"""Whole videos: encode and decode, serial, parallel and live."""
