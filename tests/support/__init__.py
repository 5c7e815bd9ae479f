"""Helpers of the tests: values, an in-process semel, a stack of processes."""
