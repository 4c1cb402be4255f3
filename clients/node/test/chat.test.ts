import assert from "node:assert/strict";
import { after, test } from "node:test";

import { Metadata, status as Code } from "@grpc/grpc-js";

import { Answer, connect, createSession, send, unary } from "../example/chat.js";
import { detailsOf, mayRepeat } from "../example/errors.js";
import {
  ErrorReason,
  GetHistoryRequest,
  type GetHistoryResponse,
  SendMessageRequest,
  type SendMessageResponse,
  Turn_State,
} from "../src/index.js";

// The models are those of the service's built-in demo server.
const SLOW_MODEL = "demo/slow:chunks=8,delay_ms=200";
const SLOW_ANSWER = "word1 word2 word3 word4 word5 word6 word7 word8 ";

const server = process.env["CHATSESSION_SERVER"];
const options = { skip: server ? false : "CHATSESSION_SERVER is not set: host:port of a running service", timeout: 30_000 };
const client = connect(server ?? "127.0.0.1:1");
after(() => client.close());

function inSeconds(seconds: number): Date {
  return new Date(Date.now() + seconds * 1_000);
}

function sendOnce(request: SendMessageRequest, deadline = inSeconds(20)): Promise<SendMessageResponse> {
  return unary((done) => client.sendMessage(request, new Metadata(), { deadline }, done));
}

async function history(sessionId: string): Promise<string[]> {
  const request = GetHistoryRequest.fromPartial({ sessionId });
  const response = await unary<GetHistoryResponse>((done) => client.getHistory(request, done));
  return response.history.map(({ role, content }) => `${role}: ${content}`);
}

test("a repeat with the same request id sends once", options, async () => {
  const sessionId = await createSession(client, inSeconds(20), "demo/echo");
  const request = SendMessageRequest.fromPartial({ sessionId, message: "hello", requestId: "id-1" });
  assert.equal(await send(client, inSeconds(20), request), "hello");
  assert.equal(await send(client, inSeconds(20), request), "hello");
  assert.deepEqual(await history(sessionId), ["user: hello", "assistant: hello"]);
});

test("a repeat after a deadline gets the answer", options, async () => {
  const sessionId = await createSession(client, inSeconds(20), SLOW_MODEL);
  const request = SendMessageRequest.fromPartial({ sessionId, message: "hello", requestId: "id-1" });
  await assert.rejects(sendOnce(request, inSeconds(0.3)), { code: Code.DEADLINE_EXCEEDED });
  assert.equal(await send(client, inSeconds(20), request), SLOW_ANSWER);
  assert.deepEqual(await history(sessionId), ["user: hello", `assistant: ${SLOW_ANSWER}`]);
});

test("a stream goes on after a break", options, async () => {
  const sessionId = await createSession(client, inSeconds(20), SLOW_MODEL);
  const answer = new Answer(sessionId, "hello");
  let shown = "";
  for await (const { text } of answer.read(client, inSeconds(20))) {
    shown += text;
    break;
  }
  assert.ok(answer.turnId && shown !== SLOW_ANSWER, "not broken in the middle");
  for await (const { text, replaces } of answer.read(client, inSeconds(20))) {
    assert.equal(replaces, false);
    shown += text;
  }
  assert.equal(shown, SLOW_ANSWER);
  assert.equal(answer.turn?.state, Turn_State.COMPLETED);
  assert.deepEqual(await history(sessionId), ["user: hello", `assistant: ${SLOW_ANSWER}`]);
});

test("errors say reason and retry", options, async () => {
  const sessionId = await createSession(client, inSeconds(20), "demo/echo");
  const request = SendMessageRequest.fromPartial({ sessionId, message: "hello", requestId: "id-1" });
  await send(client, inSeconds(20), request);
  await assert.rejects(sendOnce({ ...request, message: "something else" }), (error) => {
    const { reason, retry } = detailsOf(error);
    assert.deepEqual({ reason, retry }, { reason: ErrorReason[ErrorReason.REQUEST_ID_REUSED], retry: "NEW_REQUEST_ID" });
    return true;
  });
  await assert.rejects(sendOnce({ ...request, sessionId: "missing" }), (error) => {
    const { reason, retry, metadata } = detailsOf(error);
    assert.deepEqual({ reason, retry }, { reason: ErrorReason[ErrorReason.SESSION_NOT_FOUND], retry: "NO" });
    assert.equal(metadata["committed"], "false");
    return true;
  });
});

test("a failed turn throws its error", options, async () => {
  const sessionId = await createSession(client, inSeconds(20), "demo/error-429-quota");
  const answer = new Answer(sessionId, "hello");
  await assert.rejects(answer.read(client, inSeconds(20)).next(), (error) => {
    const { reason, metadata } = detailsOf(error);
    assert.equal(reason, ErrorReason[ErrorReason.MODEL_QUOTA_EXHAUSTED]);
    assert.equal(metadata["committed"], "true");
    return true;
  });
  assert.equal(answer.turn?.state, Turn_State.FAILED);
  assert.ok(answer.turn?.endTime);
});

test("errors of connections have no details and may be repeated", async () => {
  const error = Object.assign(new Error("connection refused"), { code: Code.UNAVAILABLE, metadata: new Metadata() });
  assert.equal(detailsOf(error).reason, "");
  assert.ok(mayRepeat(error));
});
