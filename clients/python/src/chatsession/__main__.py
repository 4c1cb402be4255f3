"""The command `chatsession`, also as `python -m chatsession`."""

import os
import sys


def main() -> None:
    """Run the command line, or say what it needs."""
    # gRPC's own log lines would come between the lines of the answer.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        import rich  # noqa: F401
        import typer  # noqa: F401
    except ModuleNotFoundError:
        sys.exit("chatsession: the command line needs more packages: pip install 'chatsession-client[cli]'")
    from chatsession.cli.app import run

    run()


if __name__ == "__main__":
    main()
