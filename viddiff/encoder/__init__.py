"""What the encoder decides. A change here never changes what old files decode to."""
