package com.chatsession.example;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.chatsession.v1.ChatSessionServiceGrpc;
import com.chatsession.v1.ChatSessionServiceGrpc.ChatSessionServiceBlockingStub;
import com.chatsession.v1.ErrorReason;
import com.chatsession.v1.GetHistoryRequest;
import com.chatsession.v1.SendMessageRequest;
import com.chatsession.v1.Turn;
import io.grpc.Context;
import io.grpc.Deadline;
import io.grpc.ManagedChannel;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import java.util.List;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.condition.EnabledIfEnvironmentVariable;

/** Against a running service: CHATSESSION_SERVER is its host:port. The models are those of its built-in demo server. */
@EnabledIfEnvironmentVariable(named = "CHATSESSION_SERVER", matches = ".+")
@Timeout(30)
class ChatTest {
  private static final String SLOW_MODEL = "demo/slow:chunks=8,delay_ms=200";
  private static final String SLOW_ANSWER = "word1 word2 word3 word4 word5 word6 word7 word8 ";

  private static ManagedChannel channel;
  private static ChatSessionServiceBlockingStub stub;
  private final Deadline deadline = Deadline.after(20, TimeUnit.SECONDS);

  @BeforeAll
  static void connect() {
    channel = Chat.connect(System.getenv("CHATSESSION_SERVER"));
    stub = ChatSessionServiceGrpc.newBlockingStub(channel);
  }

  @AfterAll
  static void disconnect() {
    channel.shutdownNow();
  }

  private String newSession(String model) {
    return Chat.createSession(stub, deadline, model);
  }

  private static SendMessageRequest request(String sessionId, String message) {
    return SendMessageRequest.newBuilder()
        .setSessionId(sessionId)
        .setMessage(message)
        .setRequestId("id-1")
        .build();
  }

  private List<String> history(String sessionId) {
    var request = GetHistoryRequest.newBuilder().setSessionId(sessionId).build();
    return stub.withDeadline(deadline).getHistory(request).getHistoryList().stream()
        .map(message -> message.getRole() + ": " + message.getContent())
        .toList();
  }

  private StatusRuntimeException refused(Deadline deadline, SendMessageRequest request) {
    return assertThrows(
        StatusRuntimeException.class, () -> stub.withDeadline(deadline).sendMessage(request));
  }

  @Test
  void repeatWithTheSameRequestIdSendsOnce() {
    String sessionId = newSession("demo/echo");
    assertEquals("hello", Chat.send(stub, deadline, request(sessionId, "hello")));
    assertEquals("hello", Chat.send(stub, deadline, request(sessionId, "hello")));
    assertEquals(List.of("user: hello", "assistant: hello"), history(sessionId));
  }

  @Test
  void repeatAfterADeadlineGetsTheAnswer() {
    String sessionId = newSession(SLOW_MODEL);
    var error = refused(Deadline.after(300, TimeUnit.MILLISECONDS), request(sessionId, "hello"));
    assertEquals(Status.Code.DEADLINE_EXCEEDED, error.getStatus().getCode());
    assertEquals(SLOW_ANSWER, Chat.send(stub, deadline, request(sessionId, "hello")));
    assertEquals(List.of("user: hello", "assistant: " + SLOW_ANSWER), history(sessionId));
  }

  @Test
  void streamGoesOnAfterABreak() {
    String sessionId = newSession(SLOW_MODEL);
    var answer = new Answer(sessionId, "hello");
    var shown = new StringBuilder();
    try (var scope = Context.current().withCancellation()) {
      Answer.Listener leaving =
          (text, replaces) -> {
            shown.append(text);
            scope.cancel(null);
          };
      scope.run(() -> assertThrows(StatusRuntimeException.class, () -> answer.read(stub, deadline, leaving)));
    }
    assertFalse(answer.turnId().isEmpty());
    assertNull(answer.turn());
    assertNotEquals(SLOW_ANSWER, shown.toString());
    answer.read(
        stub,
        deadline,
        (text, replaces) -> {
          assertFalse(replaces);
          shown.append(text);
        });
    assertEquals(SLOW_ANSWER, shown.toString());
    assertEquals(Turn.State.COMPLETED, answer.turn().getState());
    assertEquals(List.of("user: hello", "assistant: " + SLOW_ANSWER), history(sessionId));
  }

  @Test
  void errorsSayReasonAndRetry() {
    String sessionId = newSession("demo/echo");
    Chat.send(stub, deadline, request(sessionId, "hello"));
    var reused = ErrorDetails.of(refused(deadline, request(sessionId, "something else")));
    assertEquals(ErrorReason.REQUEST_ID_REUSED.name(), reused.reason());
    assertEquals("NEW_REQUEST_ID", reused.retry());
    var missing = ErrorDetails.of(refused(deadline, request("missing", "hello")));
    assertEquals(ErrorReason.SESSION_NOT_FOUND.name(), missing.reason());
    assertEquals("NO", missing.retry());
    assertEquals("false", missing.metadata().get("committed"));
  }

  @Test
  void failedTurnThrowsItsError() {
    var answer = new Answer(newSession("demo/error-429-quota"), "hello");
    var error =
        assertThrows(StatusRuntimeException.class, () -> answer.read(stub, deadline, (text, replaces) -> {}));
    assertEquals(ErrorReason.MODEL_QUOTA_EXHAUSTED.name(), ErrorDetails.of(error).reason());
    assertEquals("true", ErrorDetails.of(error).metadata().get("committed"));
    assertEquals(Turn.State.FAILED, answer.turn().getState());
    assertTrue(answer.turn().hasEndTime());
  }

  @Test
  void errorsOfConnectionsHaveNoDetailsAndMayBeRepeated() {
    var error = Status.UNAVAILABLE.withDescription("connection refused").asRuntimeException();
    assertEquals("", ErrorDetails.of(error).reason());
    assertTrue(Repeats.mayRepeat(error));
  }
}
