"""Jobs, queues and workers: what runs where, and what happens when something dies."""
