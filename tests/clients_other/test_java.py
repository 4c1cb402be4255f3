"""The Java client against the real service."""

from tests.clients_other.cuts import MODEL, Cuts
from tests.clients_other.toolchain import make, needs
from tests.support.server import ServerProcess

pytestmark = needs("java", "java", "mvn")


async def test_own_tests_pass(server: ServerProcess) -> None:
    output = await make("java", "test", CHATSESSION_SERVER=server.grpc_target)
    assert "Tests run: 6, Failures: 0, Errors: 0, Skipped: 0" in output


async def test_example_survives_cut_connections(cuts: Cuts) -> None:
    cuts.assert_survived(await make("java", "example", CHATSESSION_SERVER=cuts.target, MODEL=MODEL))
