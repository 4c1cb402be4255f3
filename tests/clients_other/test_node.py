"""The Node client against the real service."""

from tests.clients_other.cuts import MODEL, Cuts
from tests.clients_other.toolchain import make, needs
from tests.support.server import ServerProcess

pytestmark = needs("node", "node", "npm")


async def test_own_tests_pass(server: ServerProcess) -> None:
    output = await make("node", "test", CHATSESSION_SERVER=server.grpc_target)
    assert "# pass 6" in output
    assert "# skipped 0" in output


async def test_example_survives_cut_connections(cuts: Cuts) -> None:
    cuts.assert_survived(await make("node", "example", CHATSESSION_SERVER=cuts.target, MODEL=MODEL))


async def test_generated_code_is_what_the_protos_say() -> None:
    await make("node", "check")
