"""Everything that touches libav: media files in and out, and AV1."""
