"""Parts that several tests share: values, a semel in this process, a stack of processes."""
