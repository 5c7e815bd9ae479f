"""`semel demo`: embed real text on the whole stack, in two minutes."""


def demo() -> None:
    """Show semel at work on real text, then stop everything.

    Starts Redis, the API and a worker, embeds the docstrings of Python's standard library three times, and searches
    them with three questions.
    """
    from semel.cli.work.demonstration import run_demo

    run_demo()
