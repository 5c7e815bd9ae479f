"""Jobs, chunks, files and batches as rows: every change of state is one transaction."""
