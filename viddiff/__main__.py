"""`python -m viddiff` is `viddiff`."""

from viddiff.cli import main

if __name__ == "__main__":
    main()
