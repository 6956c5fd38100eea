"""One simulator and one Weir for all tests, and a client of each kind for each provider behind it."""

import dataclasses
import re

import anthropic
import openai
import pytest

import stage

KEY = "sk-weir-sdk"


@dataclasses.dataclass(frozen=True)
class Provider:
    """A provider behind Weir, and its model."""

    name: str
    model: str
    wire: str

    def faulty(self, *directives: str) -> str:
        """The model's name with directives for the simulator."""
        return "~".join([self.model, *directives])


OPENAI = Provider("openai", "openai/gpt-5.5", "/chat/completions")
CLAUDE = Provider("claude", "claude/claude-sonnet-4-6", "/messages")


@pytest.fixture(scope="session")
def simulator():
    simulator = stage.Simulator()
    yield simulator
    simulator.stop()


@pytest.fixture(scope="session")
def player():
    player = stage.Player()
    yield player
    player.shutdown()


@pytest.fixture(scope="session")
def weir(simulator, player, tmp_path_factory):
    weir = stage.Weir(simulator, player, tmp_path_factory.mktemp("weir"))
    yield weir
    assert weir.stop() == 0, "Weir drains and exits with 0 on SIGTERM"


@pytest.fixture(autouse=True)
def fresh(simulator):
    """Each test sees only its own requests."""
    simulator.forget()


@pytest.fixture(params=[OPENAI, CLAUDE], ids=lambda provider: provider.name)
def provider(request) -> Provider:
    return request.param


@pytest.fixture
def client(weir):
    with openai.OpenAI(base_url=f"{weir.url}/v1", api_key=KEY, max_retries=0) as client:
        yield client


@pytest.fixture
async def async_client(weir):
    async with openai.AsyncOpenAI(base_url=f"{weir.url}/v1", api_key=KEY, max_retries=0) as client:
        yield client


@pytest.fixture
def anthropic_client(weir):
    with anthropic.Anthropic(base_url=weir.url, api_key=KEY, max_retries=0) as client:
        yield client


def says(text: str) -> list[dict]:
    return [{"role": "user", "content": text}]


def tool(name: str, **properties: dict) -> dict:
    """A function for the model to call; the simulator calls it when the user names it."""
    parameters = {"type": "object", "properties": properties, "required": list(properties)}
    return {"type": "function", "function": {"name": name, "description": f"Tells the {name}.", "parameters": parameters}}


WEATHER = tool("weather", city={"type": "string"})
TIME = tool("clock", zone={"type": "string"})
NOTHING = tool("ping")

SANE_ID = re.compile(r"^[\w.:-]{1,128}$")
