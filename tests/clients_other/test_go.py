"""The Go client against the real service."""

from tests.clients_other.cuts import MODEL, Cuts
from tests.clients_other.toolchain import make, needs
from tests.support.server import ServerProcess

pytestmark = needs("go", "go")


async def test_own_tests_pass(server: ServerProcess) -> None:
    output = await make("go", "test", CHATSESSION_SERVER=server.grpc_target)
    assert "--- PASS: TestStreamGoesOnAfterABreak" in output
    assert "--- SKIP" not in output


async def test_example_survives_cut_connections(cuts: Cuts) -> None:
    cuts.assert_survived(await make("go", "example", CHATSESSION_SERVER=cuts.target, MODEL=MODEL))


async def test_generated_code_is_what_the_protos_say() -> None:
    await make("go", "check")
