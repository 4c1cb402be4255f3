package main

import (
	"context"
	"crypto/rand"
	"io"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	chatsessionv1 "chatsession/gen/chatsession/v1"
)

// CreateSession creates a session and returns its id. A repeat may leave an empty session behind, which does no harm;
// a session id or request id of the caller's own avoids even that, on servers that take them.
func CreateSession(ctx context.Context, client chatsessionv1.ChatSessionServiceClient, model string) (string, error) {
	request := &chatsessionv1.CreateSessionRequest{}
	if model != "" {
		request.Session = &chatsessionv1.Session{Settings: &chatsessionv1.ModelSettings{Model: &model}}
	}
	var sessionID string
	err := Repeat(ctx, func() error {
		response, err := client.CreateSession(ctx, request)
		sessionID = response.GetSessionId()
		return err
	})
	return sessionID, err
}

// Send sends a message and returns the whole answer. Its request id makes every repeat safe.
func Send(
	ctx context.Context, client chatsessionv1.ChatSessionServiceClient, request *chatsessionv1.SendMessageRequest,
) (string, error) {
	var answer string
	err := Repeat(ctx, func() error {
		response, err := client.SendMessage(ctx, request)
		answer = response.GetResponse()
		return err
	})
	return answer, err
}

// Answer is what has come of one turn. It knows where it stands, and goes on from there.
type Answer struct {
	Request *chatsessionv1.SendMessageRequest
	TurnID  string
	Cursor  string              // Of the last event.
	Text    string              // Up to the cursor.
	Turn    *chatsessionv1.Turn // Set when the turn is over.
}

// NewAnswer prepares a send with a fresh request id; nothing is sent before Read.
func NewAnswer(sessionID, message string) *Answer {
	return &Answer{Request: &chatsessionv1.SendMessageRequest{
		SessionId: sessionID, Message: message, RequestId: rand.Text(),
	}}
}

// Read hands on the text as it comes, until the turn is over; broken streams are mended behind it. It may be called
// again after an error, or after its context was cancelled: it goes on where it stopped. A turn that FAILED returns its
// error. A text that replaces takes the place of all that came before.
func (a *Answer) Read(
	ctx context.Context, client chatsessionv1.ChatSessionServiceClient, show func(text string, replaces bool),
) error {
	err := Repeat(ctx, func() error { return a.follow(ctx, client, show) })
	if err == nil && a.Turn.GetState() == chatsessionv1.Turn_FAILED {
		return status.ErrorProto(a.Turn.GetError())
	}
	return err
}

type eventStream interface {
	Recv() (*chatsessionv1.TurnEvent, error)
}

// follow makes one call and takes its events in: before the message is accepted the send itself, the same one every
// time, later an attach.
func (a *Answer) follow(
	ctx context.Context, client chatsessionv1.ChatSessionServiceClient, show func(text string, replaces bool),
) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // Gives up what is left of the call.
	stream, err := a.open(ctx, client)
	for err == nil && a.Turn == nil {
		var event *chatsessionv1.TurnEvent
		if event, err = stream.Recv(); err == nil {
			a.take(event, show)
		}
	}
	if err == io.EOF {
		// Without `ended` this means only: attach again.
		return status.Error(codes.Unavailable, "the stream ended before the turn")
	}
	return err
}

func (a *Answer) open(ctx context.Context, client chatsessionv1.ChatSessionServiceClient) (eventStream, error) {
	if a.TurnID == "" {
		return client.StreamMessage(ctx, a.Request)
	}
	return client.AttachTurn(ctx, &chatsessionv1.AttachTurnRequest{
		SessionId: a.Request.GetSessionId(), TurnId: a.TurnID, AfterCursor: a.Cursor,
	})
}

// take moves the cursor with every event, also those of a kind that is not known here.
func (a *Answer) take(event *chatsessionv1.TurnEvent, show func(text string, replaces bool)) {
	a.Cursor = event.GetCursor()
	switch event := event.GetEvent().(type) {
	case *chatsessionv1.TurnEvent_Accepted:
		a.TurnID = event.Accepted.GetTurn().GetTurnId()
	case *chatsessionv1.TurnEvent_Delta:
		a.become(a.Text+event.Delta.GetText(), show)
	case *chatsessionv1.TurnEvent_Snapshot:
		a.become(event.Snapshot.GetText(), show)
	case *chatsessionv1.TurnEvent_Ended:
		a.Turn = event.Ended.GetTurn()
		if a.Turn.GetState() != chatsessionv1.Turn_FAILED {
			a.become(a.Turn.GetResponse(), show)
		}
	}
}

// become takes all the text so far, and shows what of it is new.
func (a *Answer) become(text string, show func(text string, replaces bool)) {
	before := a.Text
	a.Text = text
	if rest, goesOn := strings.CutPrefix(text, before); !goesOn {
		show(text, true)
	} else if rest != "" {
		show(rest, false)
	}
}
