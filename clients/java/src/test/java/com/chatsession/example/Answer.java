package com.chatsession.example;

import com.chatsession.v1.AttachTurnRequest;
import com.chatsession.v1.ChatSessionServiceGrpc.ChatSessionServiceBlockingStub;
import com.chatsession.v1.SendMessageRequest;
import com.chatsession.v1.Turn;
import com.chatsession.v1.TurnEvent;
import io.grpc.Context;
import io.grpc.Deadline;
import io.grpc.Status;
import io.grpc.protobuf.StatusProto;
import java.util.Iterator;
import java.util.UUID;

/** What has come of one turn. It knows where it stands, and goes on from there. For one thread. */
final class Answer {
  /** Takes the text as it comes. A text that replaces takes the place of all that came before. */
  interface Listener {
    void onText(String text, boolean replaces);
  }

  private final SendMessageRequest request;
  private String turnId = "";
  private String cursor = "";
  private String text = "";
  private Turn turn;

  /** Prepares a send with a fresh request id; nothing is sent before {@link #read}. */
  Answer(String sessionId, String message) {
    request =
        SendMessageRequest.newBuilder()
            .setSessionId(sessionId)
            .setMessage(message)
            .setRequestId(UUID.randomUUID().toString())
            .build();
  }

  /** The turn, final; null until it is over. */
  Turn turn() {
    return turn;
  }

  /** The id of the turn; empty until the message is accepted. */
  String turnId() {
    return turnId;
  }

  /**
   * Hands on the text as it comes, until the turn is over; broken streams are mended behind it. It may be called again
   * after an error, or after its {@link Context} was cancelled: it goes on where it stopped. A turn that FAILED throws
   * its error.
   */
  void read(ChatSessionServiceBlockingStub stub, Deadline deadline, Listener listener) {
    Repeats.repeat(
        deadline,
        () -> {
          // Closing the context gives up what is left of the call.
          try (var scope = Context.current().withCancellation()) {
            scope.run(() -> follow(stub.withDeadline(deadline), listener));
          }
          return turn;
        });
    if (turn.getState() == Turn.State.FAILED) {
      throw StatusProto.toStatusRuntimeException(turn.getError());
    }
  }

  /**
   * Makes one call and takes its events in: before the message is accepted the send itself, the same one every time,
   * later an attach.
   */
  private void follow(ChatSessionServiceBlockingStub stub, Listener listener) {
    Iterator<TurnEvent> events = turnId.isEmpty() ? stub.streamMessage(request) : stub.attachTurn(attachRequest());
    while (turn == null && events.hasNext()) {
      take(events.next(), listener);
    }
    if (turn == null) {
      // Without `ended` this means only: attach again.
      throw Status.UNAVAILABLE.withDescription("the stream ended before the turn").asRuntimeException();
    }
  }

  private AttachTurnRequest attachRequest() {
    return AttachTurnRequest.newBuilder()
        .setSessionId(request.getSessionId())
        .setTurnId(turnId)
        .setAfterCursor(cursor)
        .build();
  }

  /** Moves the cursor with every event, also those of a kind that is not known here. */
  private void take(TurnEvent event, Listener listener) {
    cursor = event.getCursor();
    switch (event.getEventCase()) {
      case ACCEPTED -> turnId = event.getAccepted().getTurn().getTurnId();
      case DELTA -> become(text + event.getDelta().getText(), listener);
      case SNAPSHOT -> become(event.getSnapshot().getText(), listener);
      case ENDED -> {
        turn = event.getEnded().getTurn();
        if (turn.getState() != Turn.State.FAILED) {
          become(turn.getResponse(), listener);
        }
      }
      default -> {}
    }
  }

  /** Takes all the text so far, and hands on what of it is new. */
  private void become(String newText, Listener listener) {
    String before = text;
    text = newText;
    if (!newText.startsWith(before)) {
      listener.onText(newText, true);
    } else if (newText.length() > before.length()) {
      listener.onText(newText.substring(before.length()), false);
    }
  }
}
