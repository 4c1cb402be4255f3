import { setTimeout as sleep } from "node:timers/promises";

import { status as Code, type ServiceError } from "@grpc/grpc-js";

import { ErrorInfo, RetryInfo, Status } from "../src/index.js";

const FIRST_BACKOFF_MS = 200;
const MAX_BACKOFF_MS = 5_000;
const MAX_ATTEMPTS = 10;

/** An error that does not come from a call itself: of a turn that FAILED, or of a stream that ended too early. */
export class TurnError extends Error {
  readonly code: Code;

  constructor(readonly status: Status) {
    super(status.message);
    this.code = status.code;
  }
}

/** What the service says of an error; empty for an error that gRPC made itself. */
export interface Details {
  /** Name of a value of ErrorReason. */
  reason: string;
  /** SAME_REQUEST, NEW_REQUEST_ID or NO; only sends say it. */
  retry: string;
  /** To wait before a repeat. */
  delayMs: number;
  /** See error_reason.proto. */
  metadata: { [key: string]: string };
}

/** Reads the details of what a call threw. */
export function detailsOf(error: unknown): Details {
  const details: Details = { reason: "", retry: "", delayMs: 0, metadata: {} };
  for (const { typeUrl, value } of statusOf(error).details) {
    if (typeUrl.endsWith("/google.rpc.ErrorInfo")) {
      const info = ErrorInfo.decode(value);
      if (info.domain === "chatsession") {
        Object.assign(details, { reason: info.reason, retry: info.metadata["retry"] ?? "", metadata: info.metadata });
      }
    } else if (typeUrl.endsWith("/google.rpc.RetryInfo")) {
      const { seconds, nanos } = RetryInfo.decode(value).retryDelay ?? { seconds: 0, nanos: 0 };
      details.delayMs = seconds * 1_000 + nanos / 1_000_000;
    }
  }
  return details;
}

function statusOf(error: unknown): Status {
  if (error instanceof TurnError) {
    return error.status;
  }
  const [wire] = (error as Partial<ServiceError>).metadata?.get("grpc-status-details-bin") ?? [];
  return wire instanceof Uint8Array ? Status.decode(wire) : Status.create();
}

/**
 * Calls until there is an answer, an error that a repeat of the same request cannot mend, or no time left.
 * For calls that may be repeated: those that only read, and sends with a request id.
 */
export async function repeat<T>(deadline: Date, call: () => Promise<T>): Promise<T> {
  for (let failures = 1; ; failures += 1) {
    try {
      return await call();
    } catch (error) {
      await waitOrThrow(error, failures, deadline);
    }
  }
}

/** Waits until the request that failed may be repeated; throws its error if it must not, or there is no time. */
export async function waitOrThrow(error: unknown, failures: number, deadline: Date): Promise<void> {
  const backoffMs = Math.min(MAX_BACKOFF_MS, FIRST_BACKOFF_MS * 2 ** (failures - 1));
  const delayMs = Math.max(detailsOf(error).delayMs, backoffMs * (0.5 + Math.random() / 2));
  if (!mayRepeat(error) || failures >= MAX_ATTEMPTS || Date.now() + delayMs > deadline.getTime()) {
    throw error;
  }
  await sleep(delayMs);
}

export function mayRepeat(error: unknown): boolean {
  const { reason, retry } = detailsOf(error);
  const code = (error as Partial<ServiceError>).code;
  if (retry) {
    return retry === "SAME_REQUEST";
  }
  if (reason) {
    return code === Code.UNAVAILABLE || code === Code.RESOURCE_EXHAUSTED;
  }
  // What gRPC and proxies make of a broken connection.
  return code === Code.UNAVAILABLE || code === Code.CANCELLED || code === Code.INTERNAL || code === Code.UNKNOWN;
}
