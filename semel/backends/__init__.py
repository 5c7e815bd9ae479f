"""Devices and what drives them. A backend knows tensors; it knows nothing of the cache or the queue."""
