"""Errors for users. Whatever the input is, viddiff ends in a result or in one of these errors."""


class ViddiffError(Exception):
    """Base of all errors that viddiff raises on purpose. The message is one sentence for the user."""


class BitstreamError(ViddiffError):
    """A `.vdf` file is damaged, truncated, or no `.vdf` file."""


class CheckpointError(ViddiffError):
    """Weights are missing, damaged, of another model, or outside the bounds of exact arithmetic."""


class VideoError(ViddiffError):
    """A media file cannot be read or written."""


class SourceChangeError(VideoError):
    """A video changes between frames to one that a single file cannot hold."""


class OutputError(ViddiffError):
    """A file cannot be written under the requested name."""


class ResumeError(ViddiffError):
    """An interrupted encode cannot be resumed."""


class VerificationError(ViddiffError):
    """The written file does not decode to the encoder's reconstruction."""


class SecretError(ViddiffError):
    """A key or passphrase is missing, wrong or unusable."""


class LimitError(ViddiffError):
    """A size or count exceeds the limits."""


class TargetError(ViddiffError):
    """No encode reaches what was asked for."""


class TooLargeError(TargetError):
    """A file would be larger than the share of its source that was allowed."""

    def __init__(self, message: str, source: int, most: int, predicted: int, coded: int | None) -> None:
        """Sizes in bytes. source: what there is. most: what is allowed.

        predicted: size of the file by samples. coded: that of the whole file, if it was encoded.
        """
        super().__init__(message)
        self.source, self.most, self.predicted, self.coded = source, most, predicted, coded

    def __reduce__(self) -> tuple[type["TooLargeError"], tuple[object, ...]]:
        return type(self), (str(self), self.source, self.most, self.predicted, self.coded)
