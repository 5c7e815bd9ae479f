"""Adapters for other frameworks, one file each; each needs its own extra."""
