"""The Space for programs: gradio_client and MCP against the served app."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from inspo_hub.space import SpaceConfig
from tests.space.conftest import QUESTION, Served

gradio_client = pytest.importorskip("gradio_client")


@pytest.fixture(scope="module")
def client(live_space: Served) -> Any:
    return gradio_client.Client(live_space.url, verbose=False)


def test_a_program_compares_votes_and_counts(client: Any, live_space: Served, live: SpaceConfig) -> None:
    before = len(live_space.rows())
    frames = list(client.submit(QUESTION, seed=3, api_name="/compare"))
    assert len(frames) > 3, "answers are streamed"
    grown = [len(frame["a"]["text"]) for frame in frames]
    assert grown == sorted(grown)
    assert any(frame["a"]["text"] and frame["b"]["text"] and not frame["ended"] for frame in frames), "one at a time"
    last = frames[-1]
    assert last["ended"]
    assert set(last) == {"round", "prompt", "a", "b", "ended"}, "nothing tells which model is which"
    found = client.predict(last["round"], "a", api_name="/vote")
    assert {found["a"], found["b"]} == set(live.names)
    assert found["winner"] == found["a"]
    again = client.predict(last["round"], "b", api_name="/vote")
    assert again == found, "a second vote changes nothing"
    rows = live_space.rows()
    assert len(rows) == before + 1
    assert rows[-1]["winner"] == found["winner"]
    assert client.predict(api_name="/tally")["overall"]["votes"] == len(rows)


def test_the_same_seed_gives_the_same_answers_on_shuffled_sides(client: Any) -> None:
    seen = set()
    answers = set()
    for _ in range(12):
        found = client.predict(QUESTION, seed=5, max_new_tokens=6, api_name="/compare")
        seen.add((found["a"]["text"], found["b"]["text"]))
        answers.add(frozenset((found["a"]["text"], found["b"]["text"])))
    assert len(answers) == 1
    assert len(seen) == len(next(iter(answers))), "sides are shuffled for every prompt"


def test_a_conversation_goes_on_from_the_preferred_answer(client: Any, live_space: Served) -> None:
    first = client.predict(QUESTION, seed=1, max_new_tokens=40, api_name="/compare")
    with pytest.raises(gradio_client.exceptions.AppError, match="no vote yet"):
        client.predict(QUESTION, continues=first["round"], api_name="/compare")
    client.predict(first["round"], "b", api_name="/vote")
    second = client.predict("And the owl?", continues=first["round"], max_new_tokens=8, api_name="/compare")
    client.predict(second["round"], "tie", api_name="/vote")
    prompt = live_space.rows()[-1]["prompt"]
    assert [message["role"] for message in prompt] == ["user", "assistant", "user"]
    assert prompt[1]["content"] == first["b"]["text"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"prompt": "  "}, "prompt is empty"),
        ({"prompt": "x" * 4001}, "at most|shorter"),
        ({"prompt": QUESTION, "temperature": 9.0}, "out of range"),
        ({"prompt": QUESTION, "continues": "nothing"}, "no longer open"),
    ],
)
def test_what_cannot_be_answered_is_said(client: Any, arguments: dict[str, Any], told: str) -> None:
    with pytest.raises(gradio_client.exceptions.AppError, match=told):
        client.predict(**arguments, api_name="/compare")


def test_a_vote_needs_a_round_and_a_choice(client: Any) -> None:
    with pytest.raises(gradio_client.exceptions.AppError, match="no longer open"):
        client.predict("nothing", "a", api_name="/vote")
    found = client.predict(QUESTION, max_new_tokens=3, api_name="/compare")
    with pytest.raises(gradio_client.exceptions.AppError, match="no vote"):
        client.predict(found["round"], "c", api_name="/vote")


def test_programs_see_three_functions_with_types(client: Any) -> None:
    seen = client.view_api(return_format="dict", print_info=False)
    named = seen["named_endpoints"]
    assert set(named) == {"/compare", "/vote", "/tally"}
    assert not seen["unnamed_endpoints"]
    parameters = {each["parameter_name"]: each["python_type"]["type"] for each in named["/compare"]["parameters"]}
    assert parameters == {
        "prompt": "str",
        "continues": "str",
        "temperature": "float",
        "top_p": "float",
        "max_new_tokens": "int",
        "seed": "int",
    }
    assert "winner: str" in named["/vote"]["returns"][0]["python_type"]["type"]


def test_agents_find_the_same_functions_over_mcp(live_space: Served) -> None:
    """Gradio prints an error and goes on without MCP where its extra is missing: the server itself has to answer."""
    mcp = pytest.importorskip("mcp")
    from mcp.client.streamable_http import streamable_http_client

    async def ask() -> tuple[list[Any], Any]:
        async with (
            streamable_http_client(f"{live_space.url}gradio_api/mcp/") as (read, write, *_),
            mcp.ClientSession(read, write) as session,
        ):
            await session.initialize()
            tools = (await session.list_tools()).tools
            name = next(tool.name for tool in tools if tool.name.endswith("tally"))
            return tools, await session.call_tool(name, {})

    tools, answer = asyncio.run(ask())
    assert {tool.name.removeprefix("compare_page_") for tool in tools} >= {"compare", "vote", "tally"}
    compare = next(tool for tool in tools if tool.name.endswith("compare"))
    assert "without their names" in (compare.description or "")
    assert not answer.isError
    assert "win_rate_of" in answer.content[0].text
