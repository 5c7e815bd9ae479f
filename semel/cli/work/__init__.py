"""The work that commands call."""
