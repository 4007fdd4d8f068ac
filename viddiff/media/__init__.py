"""Everything that touches libav: reading and writing media files, AV1 stills."""
