"""The vector cache: keys, bytes, rows, claims. It knows nothing of devices or queues."""
