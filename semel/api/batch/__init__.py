"""Batches of OpenAI's kind: the lines of a file become jobs, their results a file again."""
