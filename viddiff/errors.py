"""The errors a user can meet. Whatever the input, viddiff ends in a result or in one of these."""


class ViddiffError(Exception):
    """Base of all errors that viddiff raises on purpose; the message is one sentence for the user."""


class BitstreamError(ViddiffError):
    """A `.vdf` file is damaged, truncated or not a `.vdf` file at all."""


class CheckpointError(ViddiffError):
    """Weights are missing, damaged, of another model, or break the exactness bounds."""


class VideoError(ViddiffError):
    """A media file cannot be read or written."""


class ResumeError(ViddiffError):
    """What an earlier run left cannot be gone on with."""


class VerificationError(ViddiffError):
    """What was written is not what the encoder meant to write."""


class SecretError(ViddiffError):
    """A key or passphrase is missing, wrong or unusable."""


class LimitError(ViddiffError):
    """A size or count lies outside what viddiff is willing to allocate for."""
