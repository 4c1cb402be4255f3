"""The straightforward app that the documented API came from, written from its description.

FastAPI with `def` endpoints (which run in its thread pool), blocking PyMongo, one document a session with the array of
its messages, the openai SDK. One worker: `uvicorn app:app`.
"""

import os
from uuid import uuid4

from fastapi import FastAPI, HTTPException
from openai import OpenAI
from pydantic import BaseModel
from pymongo import MongoClient

app = FastAPI()
sessions = MongoClient(os.environ["MONGO_URI"])[os.environ["MONGO_DATABASE"]]["seed_sessions"]
client = OpenAI(api_key="key", base_url=os.environ["OPENAI_BASE_URL"])


class Message(BaseModel):
    role: str
    content: str


class SessionResponse(BaseModel):
    sessionId: str  # noqa: N815


class ChatRequest(BaseModel):
    sessionId: str  # noqa: N815
    message: str


class ChatResponse(BaseModel):
    response: str


class HistoryResponse(BaseModel):
    sessionId: str  # noqa: N815
    history: list[Message]


@app.post("/session")
def create_session() -> SessionResponse:
    session_id = uuid4().hex
    sessions.insert_one({"_id": session_id, "messages": []})
    return SessionResponse(sessionId=session_id)


@app.post("/chat")
def chat(request: ChatRequest) -> ChatResponse:
    user = {"role": "user", "content": request.message}
    messages = [*_messages(request.sessionId), user]
    completion = client.chat.completions.create(model="gpt-3.5-turbo", messages=messages)
    answer = completion.choices[0].message.content
    added = [user, {"role": "assistant", "content": answer}]
    sessions.update_one({"_id": request.sessionId}, {"$push": {"messages": {"$each": added}}})
    return ChatResponse(response=answer)


@app.get("/session/{session_id}/history")
def history(session_id: str) -> HistoryResponse:
    return HistoryResponse(sessionId=session_id, history=_messages(session_id))


def _messages(session_id: str) -> list[dict[str, str]]:
    session = sessions.find_one({"_id": session_id})
    if session is None:
        raise HTTPException(status_code=404, detail="Session not found")
    return session["messages"]
