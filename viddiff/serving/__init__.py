"""Play `.vdf` files: in browsers, by a server on this machine, or in other players."""
