"""The HTTP edge: routes parse, the pipeline and the job store decide. Loads no torch."""
