"""The PyTorch modules, which compute with integers."""
