"""What decoding depends on. A change here changes files."""
