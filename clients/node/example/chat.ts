import { randomUUID } from "node:crypto";

import { type ChannelCredentials, credentials, Metadata, type ServiceError, status as Code } from "@grpc/grpc-js";

import {
  ChatSessionServiceClient,
  CreateSessionRequest,
  type CreateSessionResponse,
  SendMessageRequest,
  type SendMessageResponse,
  Status,
  type Turn,
  Turn_State,
  type TurnEvent,
} from "../src/index.js";
import { repeat, TurnError, waitOrThrow } from "./errors.js";

/** Opens a channel; nothing is connected before the first call. Give `credentials.createSsl()` outside of a trusted network. */
export function connect(
  target: string,
  channelCredentials: ChannelCredentials = credentials.createInsecure(),
): ChatSessionServiceClient {
  return new ChatSessionServiceClient(target, channelCredentials, {
    // One connection reaches one worker only, so calls are spread over all addresses.
    "grpc.service_config": JSON.stringify({ loadBalancingConfig: [{ round_robin: {} }] }),
    // A dead connection is noticed within 80 s.
    "grpc.keepalive_time_ms": 60_000,
    "grpc.keepalive_timeout_ms": 20_000,
    "grpc.max_receive_message_length": 16 * 1024 * 1024,
  });
}

/** Turns a call with a callback into a promise. */
export function unary<T>(start: (done: (error: ServiceError | null, response: T) => void) => void): Promise<T> {
  return new Promise((resolve, reject) => start((error, response) => (error ? reject(error) : resolve(response))));
}

/**
 * Creates a session and returns its id. A repeat may leave an empty session behind, which does no harm; a session id
 * or request id of the caller's own avoids even that, on servers that take them.
 */
export async function createSession(client: ChatSessionServiceClient, deadline: Date, model?: string): Promise<string> {
  const request = CreateSessionRequest.fromPartial(model ? { session: { settings: { model } } } : {});
  const response = await repeat(deadline, () =>
    unary<CreateSessionResponse>((done) => client.createSession(request, new Metadata(), { deadline }, done)),
  );
  return response.sessionId;
}

/** Sends a message and returns the whole answer. Its request id makes every repeat safe. */
export async function send(
  client: ChatSessionServiceClient,
  deadline: Date,
  request: SendMessageRequest,
): Promise<string> {
  const response = await repeat(deadline, () =>
    unary<SendMessageResponse>((done) => client.sendMessage(request, new Metadata(), { deadline }, done)),
  );
  return response.response;
}

/** A piece of an answer; one that replaces takes the place of all that came before. */
export interface Piece {
  text: string;
  replaces: boolean;
}

/** What has come of one turn. It knows where it stands, and goes on from there. */
export class Answer {
  readonly request: SendMessageRequest;
  turnId = "";
  /** Of the last event. */
  cursor = "";
  /** Up to the cursor. */
  text = "";
  /** Set when the turn is over. */
  turn?: Turn;

  /** Prepares a send with a fresh request id; nothing is sent before `read`. */
  constructor(sessionId: string, message: string) {
    this.request = SendMessageRequest.fromPartial({ sessionId, message, requestId: randomUUID() });
  }

  /**
   * Yields the text as it comes, until the turn is over; broken streams are mended behind it. Leaving the loop leaves
   * the stream, not the turn: another `read` goes on where this one stopped. A turn that FAILED throws its error.
   */
  async *read(client: ChatSessionServiceClient, deadline: Date): AsyncGenerator<Piece, void, void> {
    for (let failures = 1; !this.turn; failures += 1) {
      try {
        yield* this.#follow(client, deadline);
      } catch (error) {
        await waitOrThrow(error, failures, deadline);
      }
    }
    if (this.turn.state === Turn_State.FAILED) {
      throw new TurnError(this.turn.error ?? Status.fromPartial({ code: Code.UNKNOWN, message: "no error given" }));
    }
  }

  /**
   * Makes one call and takes its events in: before the message is accepted the send itself, the same one every time,
   * later an attach.
   */
  async *#follow(client: ChatSessionServiceClient, deadline: Date): AsyncGenerator<Piece, void, void> {
    const { sessionId } = this.request;
    const call = this.turnId
      ? client.attachTurn({ sessionId, turnId: this.turnId, afterCursor: this.cursor }, { deadline })
      : client.streamMessage(this.request, { deadline });
    // Without a listener the error of a call that was left would end the process.
    call.on("error", () => {});
    try {
      for await (const event of call as AsyncIterable<TurnEvent>) {
        yield* this.#take(event);
        if (this.turn) {
          return;
        }
      }
    } finally {
      call.cancel();
    }
    // Without `ended` this means only: attach again.
    throw new TurnError(Status.fromPartial({ code: Code.UNAVAILABLE, message: "the stream ended before the turn" }));
  }

  /** Moves the cursor with every event, also those of a kind that is not known here. */
  *#take({ cursor, event }: TurnEvent): Generator<Piece> {
    this.cursor = cursor;
    switch (event?.$case) {
      case "accepted":
        this.turnId = event.accepted.turn?.turnId ?? "";
        break;
      case "delta":
        yield* this.#become(this.text + event.delta.text);
        break;
      case "snapshot":
        yield* this.#become(event.snapshot.text);
        break;
      case "ended":
        this.turn = event.ended.turn;
        if (this.turn && this.turn.state !== Turn_State.FAILED) {
          yield* this.#become(this.turn.response);
        }
        break;
    }
  }

  /** Takes all the text so far, and yields what of it is new. */
  *#become(text: string): Generator<Piece> {
    const before = this.text;
    this.text = text;
    if (!text.startsWith(before)) {
      yield { text, replaces: true };
    } else if (text !== before) {
      yield { text: text.slice(before.length), replaces: false };
    }
  }
}
