"""The `.vdf` file: format, reading, writing, encryption. Uses neither torch nor PyAV."""
