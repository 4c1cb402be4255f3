// Sends a message, prints the answer as it is written, leaves the stream in the middle, and goes on where it stopped.
import { parseArgs } from "node:util";

import { Turn_State } from "../src/index.js";
import { Answer, connect, createSession, type Piece } from "./chat.js";
import { detailsOf } from "./errors.js";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    server: { type: "string", default: process.env["CHATSESSION_SERVER"] ?? "127.0.0.1:50051" },
    model: { type: "string" },
    "timeout-s": { type: "string", default: "120" },
  },
});

function show({ text, replaces }: Piece): void {
  process.stdout.write(replaces ? `\n[from the start]\n${text}` : text);
}

const client = connect(values.server);
const deadline = new Date(Date.now() + Number(values["timeout-s"]) * 1_000);
try {
  const sessionId = await createSession(client, deadline, values.model);
  const answer = new Answer(sessionId, positionals.join(" ") || "Hello");

  // A break of the stream, made here by leaving at the first text. The turn goes on without us.
  for await (const piece of answer.read(client, deadline)) {
    show(piece);
    break;
  }
  // Goes on after the last cursor: nothing is lost, said twice or paid twice.
  for await (const piece of answer.read(client, deadline)) {
    show(piece);
  }
  console.log(`\n[${Turn_State[answer.turn?.state ?? Turn_State.STATE_UNSPECIFIED]}]`);
} catch (error) {
  const { reason, retry } = detailsOf(error);
  console.error(`${error} (reason "${reason}", retry "${retry}")`);
  process.exitCode = 1;
} finally {
  client.close();
}
