"""REST through the shim, against gRPC, and against other gateways in front of the gRPC port."""

from typing import Any

from benchmarks import turns
from benchmarks.compare import Bar, Contender, Result, Samples, cpu_ratio, figures_of, in_turn, interleave
from benchmarks.lab import Lab
from benchmarks.measure import median
from benchmarks.plans import Kind
from benchmarks.processes import Server
from benchmarks.registry import case
from benchmarks.rounds import Turns

_GATEWAYS = ("grpc-gateway", "envoy")


@case("rest", is_quick=True)
def rest(lab: Lab) -> list[Result]:
    """POST /chat against gRPC's SendMessage, both at the same server in each round."""
    database = lab.new_database()
    servers = [lab.start_service(database.name) for _ in range(2)]
    how: dict[str, Any] = {"context_turns": 10, "ops": 240}

    def at_each(**call: Any) -> Contender:
        return in_turn(*(Turns(lab, server, database, **call, **how) for server in servers))

    samples = interleave(
        {"POST /chat": at_each(call=turns.post, kind=Kind.POST), "SendMessage": at_each()}, lab.size.rounds
    )
    bars = [Bar("CPU of POST /chat against SendMessage", cpu_ratio(samples, "POST /chat", "SendMessage"), 0.85)]
    return [Result("REST against gRPC, 10 turns of context, MongoDB", figures_of(samples), bars)]


@case("gateways")
def gateways(lab: Lab) -> list[Result]:
    """REST through the shim against grpc-gateway and Envoy before the gRPC port, CPU of all processes."""
    return [_no_op(lab), _chat(lab)]


def _no_op(lab: Lab) -> Result:
    server = lab.start_no_op()
    count = lab.size.ops(2000)
    contenders: dict[str, Contender] = {"shim": _posts(lab, count, server, server)}
    for name in _GATEWAYS:
        front = lab.start_gateway(name, server)
        contenders[name] = _posts(lab, count, front, server, front)
    samples = interleave(contenders, lab.size.rounds)
    bar = Bar("CPU of a no-op method against the cheaper gateway", _ratio(samples), 0.4)
    notes = ["The service's own layers over a servicer that answers POST /chat at once."]
    return Result("a no-op method over REST", figures_of(samples), [bar], notes)


def _posts(lab: Lab, count: int, door: Server, *servers: Server) -> Contender:
    return lambda _: lab.sample(turns.posts(door.http, count), *servers)


def _chat(lab: Lab) -> Result:
    database = lab.new_database()
    ours = lab.start_service(database.name)
    how: dict[str, Any] = {"context_turns": 10, "ops": 160, "call": turns.post, "kind": Kind.POST}
    contenders: dict[str, Contender] = {"shim": Turns(lab, ours, database, **how)}
    for name in _GATEWAYS:
        contenders[name] = Turns(lab, ours, database, front=lab.start_gateway(name, ours), **how)
    samples = interleave(contenders, lab.size.rounds)
    bar = Bar("CPU of POST /chat against the cheaper gateway", _ratio(samples), 0.75)
    return Result("POST /chat, 10 turns of context, MongoDB", figures_of(samples), [bar])


def _ratio(samples: Samples) -> float:
    """Compare the shim with the cheaper of the gateways."""
    cheaper = min(_GATEWAYS, key=lambda name: median(sample.cpu_ms for sample in samples[name]))
    return cpu_ratio(samples, "shim", cheaper)
