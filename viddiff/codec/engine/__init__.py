"""The compiled engine: the integers of the networks in int16, on CPUs."""
