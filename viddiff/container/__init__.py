"""The `.vdf` file: format, reading, writing, sealing. No torch, no PyAV."""
