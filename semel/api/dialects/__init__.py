"""The API dialects: wire models and shaping, one file per dialect."""
