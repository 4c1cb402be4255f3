package com.chatsession.example;

import com.chatsession.v1.ChatSessionServiceGrpc.ChatSessionServiceBlockingStub;
import com.chatsession.v1.CreateSessionRequest;
import com.chatsession.v1.SendMessageRequest;
import io.grpc.Deadline;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import java.util.concurrent.TimeUnit;

/** The calls of the example that answer at once. */
final class Chat {
  private Chat() {}

  /** Opens a channel; nothing is connected before the first call. Use TlsChannelCredentials outside of a trusted network. */
  static ManagedChannel connect(String target) {
    return Grpc.newChannelBuilder(target, InsecureChannelCredentials.create())
        // One connection reaches one worker only, so calls are spread over all addresses.
        .defaultLoadBalancingPolicy("round_robin")
        // A dead connection is noticed within 80 s.
        .keepAliveTime(60, TimeUnit.SECONDS)
        .keepAliveTimeout(20, TimeUnit.SECONDS)
        .maxInboundMessageSize(16 * 1024 * 1024)
        .build();
  }

  /**
   * Creates a session and returns its id; an empty model leaves it to the service. A repeat may leave an empty session
   * behind, which does no harm; a session id or request id of the caller's own avoids even that, on servers that take
   * them.
   */
  static String createSession(ChatSessionServiceBlockingStub stub, Deadline deadline, String model) {
    CreateSessionRequest.Builder request = CreateSessionRequest.newBuilder();
    if (!model.isEmpty()) {
      request.getSessionBuilder().getSettingsBuilder().setModel(model);
    }
    return Repeats.repeat(deadline, () -> stub.withDeadline(deadline).createSession(request.build())).getSessionId();
  }

  /** Sends a message and returns the whole answer. Its request id makes every repeat safe. */
  static String send(ChatSessionServiceBlockingStub stub, Deadline deadline, SendMessageRequest request) {
    return Repeats.repeat(deadline, () -> stub.withDeadline(deadline).sendMessage(request)).getResponse();
  }
}
