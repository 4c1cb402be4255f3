package main

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	chatsessionv1 "chatsession/gen/chatsession/v1"
)

// The models are those of the service's built-in demo server.
const slowAnswer = "word1 word2 word3 word4 word5 word6 word7 word8 "

const slowModel = "demo/slow:chunks=8,delay_ms=200"

type fixture struct {
	chatsessionv1.ChatSessionServiceClient
	ctx       context.Context
	sessionID string
}

func newFixture(t *testing.T, model string) fixture {
	t.Helper()
	server := os.Getenv("CHATSESSION_SERVER")
	if server == "" {
		t.Skip("CHATSESSION_SERVER is not set: host:port of a running service")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	conn, err := Dial(server)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	client := chatsessionv1.NewChatSessionServiceClient(conn)
	sessionID, err := CreateSession(ctx, client, model)
	if err != nil {
		t.Fatal(err)
	}
	return fixture{client, ctx, sessionID}
}

func (f fixture) request(message, requestID string) *chatsessionv1.SendMessageRequest {
	return &chatsessionv1.SendMessageRequest{SessionId: f.sessionID, Message: message, RequestId: requestID}
}

func (f fixture) messages(t *testing.T) []string {
	t.Helper()
	response, err := f.GetHistory(f.ctx, &chatsessionv1.GetHistoryRequest{SessionId: f.sessionID})
	if err != nil {
		t.Fatal(err)
	}
	var messages []string
	for _, message := range response.GetHistory() {
		messages = append(messages, message.GetRole()+": "+message.GetContent())
	}
	return messages
}

func assertHistory(t *testing.T, f fixture, want ...string) {
	t.Helper()
	if got := f.messages(t); strings.Join(got, "|") != strings.Join(want, "|") {
		t.Errorf("history %q, want %q", got, want)
	}
}

func TestRepeatWithTheSameRequestIDSendsOnce(t *testing.T) {
	f := newFixture(t, "demo/echo")
	for range 2 {
		answer, err := Send(f.ctx, f, f.request("hello", "id-1"))
		if err != nil || answer != "hello" {
			t.Fatalf("got %q, %v", answer, err)
		}
	}
	assertHistory(t, f, "user: hello", "assistant: hello")
}

func TestRepeatAfterADeadlineGetsTheAnswer(t *testing.T) {
	f := newFixture(t, slowModel)
	short, cancel := context.WithTimeout(f.ctx, 300*time.Millisecond)
	defer cancel()
	if _, err := f.SendMessage(short, f.request("hello", "id-1")); status.Code(err) != codes.DeadlineExceeded {
		t.Fatalf("got %v", err)
	}
	answer, err := Send(f.ctx, f, f.request("hello", "id-1"))
	if err != nil || answer != slowAnswer {
		t.Fatalf("got %q, %v", answer, err)
	}
	assertHistory(t, f, "user: hello", "assistant: "+slowAnswer)
}

func TestStreamGoesOnAfterABreak(t *testing.T) {
	f := newFixture(t, slowModel)
	answer := NewAnswer(f.sessionID, "hello")
	var shown strings.Builder
	broken, leave := context.WithCancel(f.ctx)
	err := answer.Read(broken, f, func(text string, replaces bool) {
		shown.WriteString(text)
		leave()
	})
	if broken.Err() == nil || answer.TurnID == "" || answer.Turn != nil || shown.String() == slowAnswer {
		t.Fatalf("not broken in the middle: %v, %+v", err, answer)
	}
	err = answer.Read(f.ctx, f, func(text string, replaces bool) {
		if replaces {
			t.Errorf("%q was sent again", text)
		}
		shown.WriteString(text)
	})
	if err != nil || shown.String() != slowAnswer || answer.Turn.GetState() != chatsessionv1.Turn_COMPLETED {
		t.Fatalf("got %q, %v, %v", shown.String(), answer.Turn, err)
	}
	assertHistory(t, f, "user: hello", "assistant: "+slowAnswer)
}

func TestErrorsSayReasonAndRetry(t *testing.T) {
	f := newFixture(t, "demo/echo")
	if _, err := Send(f.ctx, f, f.request("hello", "id-1")); err != nil {
		t.Fatal(err)
	}
	_, err := f.SendMessage(f.ctx, f.request("something else", "id-1"))
	details := DetailsOf(err)
	if status.Code(err) != codes.AlreadyExists || details.Retry != "NEW_REQUEST_ID" ||
		details.Reason != chatsessionv1.ErrorReason_REQUEST_ID_REUSED.String() {
		t.Errorf("got %v, %+v", err, details)
	}
	f.sessionID = "missing"
	_, err = f.SendMessage(f.ctx, f.request("hello", "id-1"))
	details = DetailsOf(err)
	if status.Code(err) != codes.NotFound || details.Retry != "NO" || details.Metadata["committed"] != "false" ||
		details.Reason != chatsessionv1.ErrorReason_SESSION_NOT_FOUND.String() {
		t.Errorf("got %v, %+v", err, details)
	}
}

func TestFailedTurnReturnsItsError(t *testing.T) {
	f := newFixture(t, "demo/error-429-quota")
	answer := NewAnswer(f.sessionID, "hello")
	err := answer.Read(f.ctx, f, func(string, bool) {})
	details := DetailsOf(err)
	if details.Reason != chatsessionv1.ErrorReason_MODEL_QUOTA_EXHAUSTED.String() || details.Metadata["committed"] != "true" {
		t.Errorf("got %v, %+v", err, details)
	}
	if answer.Turn.GetState() != chatsessionv1.Turn_FAILED || answer.Turn.GetEndTime() == nil {
		t.Errorf("got %v", answer.Turn)
	}
}

func TestErrorsOfConnectionsHaveNoDetails(t *testing.T) {
	err := status.Error(codes.Unavailable, "connection refused")
	if details := DetailsOf(err); details.Reason != "" || !mayRepeat(err) {
		t.Errorf("got %+v", details)
	}
}
