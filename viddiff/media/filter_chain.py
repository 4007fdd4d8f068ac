"""Chains of libav's filters."""

import av


def linked(*filters: tuple[str, str]) -> av.filter.Graph:
    """A chain of libav's filters, each with its arguments. Raises what PyAV does."""
    graph = av.filter.Graph()
    graph.link_nodes(*(graph.add(name, arguments or None) for name, arguments in filters)).configure()
    return graph
