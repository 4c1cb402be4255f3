package main

import (
	"context"
	"math/rand/v2"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const (
	firstBackoff = 200 * time.Millisecond
	maxBackoff   = 5 * time.Second
	maxAttempts  = 10
)

// Details is what the service says of an error; empty for an error that gRPC made itself.
type Details struct {
	Reason   string            // Name of a value of chatsessionv1.ErrorReason.
	Retry    string            // SAME_REQUEST, NEW_REQUEST_ID or NO; only sends say it.
	Delay    time.Duration     // To wait before a repeat.
	Metadata map[string]string // See error_reason.proto.
}

// DetailsOf reads the details of what a call returned.
func DetailsOf(err error) Details {
	var details Details
	for _, detail := range status.Convert(err).Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			if detail.GetDomain() == "chatsession" {
				details.Reason, details.Metadata = detail.GetReason(), detail.GetMetadata()
				details.Retry = details.Metadata["retry"]
			}
		case *errdetails.RetryInfo:
			details.Delay = detail.GetRetryDelay().AsDuration()
		}
	}
	return details
}

// Repeat calls until there is an answer, an error that a repeat of the same request cannot mend, or no time left.
// For calls that may be repeated: those that only read, and sends with a request id.
func Repeat(ctx context.Context, call func() error) error {
	backoff := firstBackoff
	for attempt := 1; ; attempt++ {
		err := call()
		if err == nil || attempt == maxAttempts || !mayRepeat(err) {
			return err
		}
		delay := max(DetailsOf(err).Delay, backoff/2+rand.N(backoff/2))
		select {
		case <-ctx.Done():
			return err
		case <-time.After(delay):
			backoff = min(2*backoff, maxBackoff)
		}
	}
}

func mayRepeat(err error) bool {
	details, code := DetailsOf(err), status.Code(err)
	switch {
	case details.Retry != "":
		return details.Retry == "SAME_REQUEST"
	case details.Reason != "":
		return code == codes.Unavailable || code == codes.ResourceExhausted
	default:
		// What gRPC and proxies make of a broken connection.
		return code == codes.Unavailable || code == codes.Canceled || code == codes.Internal || code == codes.Unknown
	}
}
