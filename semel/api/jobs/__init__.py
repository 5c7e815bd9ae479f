"""Jobs over HTTP: submissions, results, estimates, events and webhooks."""
