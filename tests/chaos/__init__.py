"""Rounds of random faults on real processes: nothing is lost, nothing is wrong, and only killers fail."""
