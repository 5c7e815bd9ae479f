"""The fleet: which workers are alive, what they serve, and which device pool gets the work."""
