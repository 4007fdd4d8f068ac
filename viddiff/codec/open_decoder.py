"""Choose the decoder of a file's GOPs: with an AV1 base or without."""

from collections.abc import Iterator
from typing import Protocol

from viddiff.codec.base_gop_decoder import BaseGopDecoder
from viddiff.codec.enhancer import Enhancer
from viddiff.codec.file_network import adapted
from viddiff.container.format import Chunk, Header
from viddiff.errors import CheckpointError
from viddiff.frame import Frame


class Weights(Protocol):
    """Weights of the networks that predict frames (`Codec`), or of those that enhance them (`Enhancer`)."""

    @property
    def name(self) -> str:
        """Name of the networks' configuration."""
        ...

    @property
    def hash(self) -> bytes:
        """SHA-256 of everything that decoding depends on."""
        ...


class ChunkDecoder(Protocol):
    """Decodes the chunks of GOPs in order."""

    def decode(self, chunk: Chunk) -> Iterator[Frame]:
        """The frames of the next chunk. Raises BitstreamError if it is damaged."""
        ...

    def follow(self, chunk: Chunk) -> None:
        """Decode only what later chunks need. Raises BitstreamError if the chunk is damaged."""
        ...


def open_decoder(header: Header, weights: Weights | None) -> ChunkDecoder:
    """A decoder for one GOP. Without weights, it shows the frames of an AV1 base as they are.

    Raises CheckpointError if the file was encoded with other weights, or needs some, or if the network that
    the file holds is missing; BitstreamError if that is wrong.
    """
    if weights is None:
        if not header.base:
            raise CheckpointError("the file has no AV1 base: networks predict its frames")
        return BaseGopDecoder(header, None)
    if header.model_hash != weights.hash:
        raise CheckpointError(
            f"this file was made with the weights {header.model_name!r} {header.model_hash.hex()[:16]}, "
            f"but {weights.name!r} {weights.hash.hex()[:16]} are loaded"
        )
    if header.base and isinstance(weights, Enhancer):
        return BaseGopDecoder(header, _with_network(weights, header.network))
    from viddiff.codec.gop_decoder import GopDecoder  # which needs PyTorch
    from viddiff.codec.weights import Codec

    if not header.base and isinstance(weights, Codec):
        return GopDecoder(header, weights)
    raise CheckpointError("the file's header does not go with its weights")


def _with_network(enhancer: Enhancer, network: bytes | None) -> Enhancer:
    """The network that decodes a file whose own one is `network`, if it has one."""
    if network is None:
        raise CheckpointError(
            "the file's own network is damaged or missing: only --base-only shows what the file holds"
        )
    if not network:
        return enhancer
    return adapted(enhancer, network)
