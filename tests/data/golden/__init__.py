"""Golden files: found as the package `viddiff.golden` in every kind of installation."""
