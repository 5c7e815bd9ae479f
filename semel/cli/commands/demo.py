"""`semel demo`: the main job on real text, on the embedded stack, in two minutes."""


def demo() -> None:
    """Start everything, embed the docstrings of Python's standard library three times, ask three questions."""
    from semel.cli.work.demonstration import run_demo

    run_demo()
