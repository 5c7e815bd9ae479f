"""Benchmarks: one file per question; each runs a peer next to semel in the same run."""
