"""OpenAI's batches: the lines of a file become jobs, and their results become a file."""
