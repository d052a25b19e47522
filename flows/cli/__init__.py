"""The command line, `agd`. Every command works in process; none needs a server."""


def main() -> None:
    """Entry point of the console script."""
    from flows.cli.app import app
    from flows.printing import standard_streams

    with standard_streams():
        app()
