"""What the page, metrics and health routes show."""
