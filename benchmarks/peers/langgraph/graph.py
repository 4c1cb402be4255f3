"""A graph of one node that answers with the model, for LangGraph Server."""

import os
from typing import Any

from langgraph.graph import END, START, MessagesState, StateGraph
from openai import AsyncOpenAI

_client = AsyncOpenAI(api_key="key", base_url=os.environ["OPENAI_BASE_URL"])
_ROLES = {"human": "user", "ai": "assistant"}


async def _answer(state: MessagesState) -> dict[str, Any]:
    messages = [{"role": _ROLES[message.type], "content": message.content} for message in state["messages"]]
    completion = await _client.chat.completions.create(model="gpt-3.5-turbo", messages=messages)
    return {"messages": [{"role": "assistant", "content": completion.choices[0].message.content}]}


_builder = StateGraph(MessagesState)
_builder.add_node("answer", _answer)
_builder.add_edge(START, "answer")
_builder.add_edge("answer", END)
graph = _builder.compile()
