"""`python -m semel` is the `semel` command."""

from semel.cli.main import main

if __name__ == "__main__":
    main()
