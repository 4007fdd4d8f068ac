"""Videos beside each other: frames matched by time, scores, bits, curves and a report."""
