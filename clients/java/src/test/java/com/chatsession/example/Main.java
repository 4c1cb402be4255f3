package com.chatsession.example;

import com.chatsession.v1.ChatSessionServiceGrpc;
import com.chatsession.v1.ChatSessionServiceGrpc.ChatSessionServiceBlockingStub;
import io.grpc.Context;
import io.grpc.Deadline;
import io.grpc.ManagedChannel;
import io.grpc.StatusRuntimeException;
import java.util.concurrent.TimeUnit;

/**
 * Sends a message, prints the answer as it is written, leaves the stream in the middle, and goes on where it stopped.
 * Arguments: the message and, if wanted, the model. The server is in CHATSESSION_SERVER.
 */
public final class Main {
  private Main() {}

  public static void main(String[] arguments) {
    String server = System.getenv().getOrDefault("CHATSESSION_SERVER", "127.0.0.1:50051");
    String message = arguments.length > 0 ? arguments[0] : "Hello";
    String model = arguments.length > 1 ? arguments[1] : "";
    ManagedChannel channel = Chat.connect(server);
    try {
      run(ChatSessionServiceGrpc.newBlockingStub(channel), message, model);
    } catch (StatusRuntimeException error) {
      ErrorDetails details = ErrorDetails.of(error);
      System.err.printf("%s (reason \"%s\", retry \"%s\")%n", error.getMessage(), details.reason(), details.retry());
      System.exit(1);
    } finally {
      channel.shutdownNow();
    }
  }

  private static void run(ChatSessionServiceBlockingStub stub, String message, String model) {
    Deadline deadline = Deadline.after(2, TimeUnit.MINUTES);
    Answer answer = new Answer(Chat.createSession(stub, deadline, model), message);

    // A break of the stream, made here by leaving at the first text. The turn goes on without us.
    try (var scope = Context.current().withCancellation()) {
      scope.run(
          () ->
              answer.read(
                  stub,
                  deadline,
                  (text, replaces) -> {
                    show(text, replaces);
                    scope.cancel(null);
                  }));
    } catch (StatusRuntimeException error) {
      if (answer.turnId().isEmpty()) {
        throw error;
      }
    }
    // Goes on after the last cursor: nothing is lost, said twice or paid twice.
    answer.read(stub, deadline, Main::show);
    System.out.printf("%n[%s]%n", answer.turn().getState());
  }

  private static void show(String text, boolean replaces) {
    System.out.print(replaces ? "\n[from the start]\n" + text : text);
    System.out.flush();
  }
}
