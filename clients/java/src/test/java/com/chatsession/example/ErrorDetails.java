package com.chatsession.example;

import com.google.protobuf.Any;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.rpc.ErrorInfo;
import com.google.rpc.RetryInfo;
import com.google.rpc.Status;
import io.grpc.protobuf.StatusProto;
import java.time.Duration;
import java.util.Map;

/**
 * What the service says of an error; empty for an error that gRPC made itself.
 *
 * @param reason name of a value of {@code ErrorReason}
 * @param retry SAME_REQUEST, NEW_REQUEST_ID or NO; only sends say it
 * @param delay to wait before a repeat
 * @param metadata see error_reason.proto
 */
record ErrorDetails(String reason, String retry, Duration delay, Map<String, String> metadata) {

  /** Reads the details of what a stub threw. */
  static ErrorDetails of(Throwable error) {
    Status status = StatusProto.fromThrowable(error);
    ErrorInfo info = ErrorInfo.getDefaultInstance();
    RetryInfo retryInfo = RetryInfo.getDefaultInstance();
    try {
      for (Any detail : status == null ? Status.getDefaultInstance().getDetailsList() : status.getDetailsList()) {
        if (detail.is(ErrorInfo.class) && detail.unpack(ErrorInfo.class).getDomain().equals("chatsession")) {
          info = detail.unpack(ErrorInfo.class);
        } else if (detail.is(RetryInfo.class)) {
          retryInfo = detail.unpack(RetryInfo.class);
        }
      }
    } catch (InvalidProtocolBufferException unreadable) {
      // As if there were no details.
    }
    var delay = retryInfo.getRetryDelay();
    return new ErrorDetails(
        info.getReason(),
        info.getMetadataOrDefault("retry", ""),
        Duration.ofSeconds(delay.getSeconds(), delay.getNanos()),
        info.getMetadataMap());
  }
}
