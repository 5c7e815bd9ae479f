"""The worker process: it takes messages, computes what is missing, and stores it."""
