package com.chatsession.example;

import io.grpc.Context;
import io.grpc.Deadline;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.TimeUnit;
import java.util.function.Supplier;

/** Repeats calls that failed. */
final class Repeats {
  private static final long FIRST_BACKOFF_MS = 200;
  private static final long MAX_BACKOFF_MS = 5_000;
  private static final int MAX_ATTEMPTS = 10;

  private Repeats() {}

  /**
   * Calls until there is an answer, an error that a repeat of the same request cannot mend, or no time left. For calls
   * that may be repeated: those that only read, and sends with a request id.
   */
  static <T> T repeat(Deadline deadline, Supplier<T> call) {
    long backoffMs = FIRST_BACKOFF_MS;
    for (int attempt = 1; ; attempt++) {
      try {
        return call.get();
      } catch (StatusRuntimeException error) {
        long delayMs =
            Math.max(
                ErrorDetails.of(error).delay().toMillis(),
                ThreadLocalRandom.current().nextLong(backoffMs / 2, backoffMs + 1));
        if (!mayRepeat(error)
            || attempt == MAX_ATTEMPTS
            || delayMs > deadline.timeRemaining(TimeUnit.MILLISECONDS)
            || Context.current().isCancelled()) {
          throw error;
        }
        sleep(delayMs, error);
        backoffMs = Math.min(2 * backoffMs, MAX_BACKOFF_MS);
      }
    }
  }

  static boolean mayRepeat(StatusRuntimeException error) {
    ErrorDetails details = ErrorDetails.of(error);
    Status.Code code = error.getStatus().getCode();
    if (!details.retry().isEmpty()) {
      return details.retry().equals("SAME_REQUEST");
    }
    if (!details.reason().isEmpty()) {
      return code == Status.Code.UNAVAILABLE || code == Status.Code.RESOURCE_EXHAUSTED;
    }
    // What gRPC and proxies make of a broken connection.
    return switch (code) {
      case UNAVAILABLE, CANCELLED, INTERNAL, UNKNOWN -> true;
      default -> false;
    };
  }

  private static void sleep(long delayMs, StatusRuntimeException error) {
    try {
      Thread.sleep(delayMs);
    } catch (InterruptedException interrupted) {
      Thread.currentThread().interrupt();
      throw error;
    }
  }
}
