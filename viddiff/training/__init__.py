"""Training on folders of videos: samples, loss, loop, validation, choice of library pictures."""
