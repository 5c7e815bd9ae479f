"""Measures this machine: `semel bench`."""
