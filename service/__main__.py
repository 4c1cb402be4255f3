"""`python -m service`: start the service and run it until SIGTERM or SIGINT; a second signal ends it at once."""

import asyncio
import contextlib
import gc
import os
import resource
import signal
import sys

# Before grpc is loaded: what it has to say of a port in use, our own line says.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

# An open stream is about 150 objects that live long. To look at all of them for garbage again and again took a fifth of
# the CPU at 3,000 streams, and lets a process with 10,000 stand still for a second. What garbage there is in cycles
# is young (a few objects of gRPC for each call). Modules live long too: to load them takes a tenth less like this.
# Nothing else is done meanwhile: to look once more at the 20,000 that outlived a first look takes 6 ms.
gc.set_threshold(5_000, 3, 600)

import uvloop

from service import logs
from service.config import Config, ConfigError, read_config
from service.wiring import Service, StartError
from service.workers import WORKER_ENV, supervise


def main() -> int:
    """Return the exit code: 0 after a stop that was asked for, 1 if a part could not start, 2 for a wrong setting."""
    try:
        config = read_config()
        if config.workers > 1 and WORKER_ENV not in os.environ:
            return supervise(config.workers, grace_s=config.stop_grace_seconds)
        _, most_files = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most_files, most_files))  # each connection is one
        return uvloop.run(_serve(config))
    except KeyboardInterrupt:  # before the signal handlers are there
        return 130
    except (ConfigError, StartError) as exc:
        print(f"chat-session-service: {exc}", file=sys.stderr)
        return 2 if isinstance(exc, ConfigError) else 1


async def _serve(config: Config) -> int:
    log = logs.set_up(config.log_level, config.log_format)
    # To look through the modules of the model's SDK takes a tenth of a second.
    service = Service(config, log, reuse_port=config.workers > 1, on_loaded=gc.freeze)
    stop, hurry = asyncio.Event(), asyncio.Event()

    def on_signal() -> None:
        (hurry if stop.is_set() else stop).set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    if WORKER_ENV in os.environ:
        supervisor = int(os.environ[WORKER_ENV])

        def on_supervisor_gone() -> None:
            loop.remove_reader(supervisor)
            on_signal()

        loop.add_reader(supervisor, on_supervisor_gone)
    await service.start()
    gc.freeze()
    try:
        await stop.wait()
    finally:
        log.info("stopping", grace_s=config.stop_grace_seconds)
        await _stop(service, config.stop_grace_seconds, hurry)
    log.info("stopped")
    return 0


async def _stop(service: Service, grace_s: float, hurry: asyncio.Event) -> None:
    """Stop within the grace; a second signal cuts the grace to nothing, and running turns are handed over at once."""
    stopping = asyncio.ensure_future(service.stop(grace_s))
    hurried = asyncio.ensure_future(hurry.wait())
    await asyncio.wait((stopping, hurried), return_when=asyncio.FIRST_COMPLETED)
    if hurried.done():
        service.hurry()
    hurried.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await stopping


if __name__ == "__main__":
    sys.exit(main())
