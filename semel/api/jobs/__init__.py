"""Jobs over HTTP: rows in, results out, estimates, events and webhooks."""
