"""The devices of this machine: which exist, which one to use, and whether it computes correctly."""
