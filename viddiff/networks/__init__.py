"""PyTorch modules that compute with integers."""
