"""Many videos: a tree of sources becomes the same tree of `.vdf` files.

    sources -> units -> a look at each: done, too young, to do -> encodes, one after the other -> manifest

Whatever ends a run, the next one with the same arguments does the rest.
"""
