"""The service's own gRPC server and REST shim over a servicer that does nothing: `python -m benchmarks.peers.no_op`.

Every layer that a call passes is the service's; only what a call does is not there. Prints both ports.
"""

import asyncio
from typing import Any

import uvloop
from chatsession.v1 import chat_session_pb2 as pb
from chatsession.v1 import chat_session_pb2_grpc as pb_grpc

from service import logs
from service.config import Config
from service.rest import Listener
from service.rpc.health import Readiness
from service.rpc.inprocess import InProcessInvoker
from service.rpc.pipeline import CallLimits, build_handlers
from service.rpc.server import build_server
from service.threads import make_batch_threads
from service.wiring import build_rest_app


class NoOp(pb_grpc.ChatSessionServiceServicer):
    """Answers at once."""

    async def SendMessage(self, _request: pb.SendMessageRequest, _context: Any) -> pb.SendMessageResponse:
        return pb.SendMessageResponse(response="ok")


async def _ping() -> None:
    """Nothing to wait for."""


async def _serve() -> None:
    # As the service: a line a call.
    log = logs.set_up("info", "json")
    handlers = build_handlers(NoOp(), limits=CallLimits(), log=log)
    readiness = Readiness(_ping, log=log)
    server = build_server(handlers, readiness.servicer, reuse_port=False)
    grpc_port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    app = build_rest_app(Config(), InProcessInvoker(handlers), lambda _: "SERVING")
    listener = Listener(app)
    await listener.start()
    print(grpc_port, listener.port, flush=True)
    # As the service does; it returns only where there are no batch threads.
    await make_batch_threads()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(_serve())
