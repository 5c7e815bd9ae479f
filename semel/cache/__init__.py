"""The vector cache: keys, bytes, rows and claims. It does not depend on devices or queues."""
