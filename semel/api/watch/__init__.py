"""What the page and the metrics, health and cache routes show."""
