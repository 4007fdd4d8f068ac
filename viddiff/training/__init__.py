"""Training on folders of videos, validation, and the choice of library pictures."""
