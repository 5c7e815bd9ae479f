"""Jobs, queues, the fleet and workers: what runs where, and how work survives the death of a process."""
