"""Released weights: found as the package `viddiff.checkpoints` in every kind of installation."""
