package notify

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/arn"
	"github.com/aws/aws-sdk-go-v2/service/sns"
	snstypes "github.com/aws/aws-sdk-go-v2/service/sns/types"
	"github.com/hashicorp/go-retryablehttp"

	"github.com/aphex-pipeline/aphex/internal/awserr"
	"github.com/aphex-pipeline/aphex/internal/pipeline"
	"github.com/aphex-pipeline/aphex/internal/record"
	"github.com/aphex-pipeline/aphex/internal/secretref"
)

const (
	// Limit bounds the announcement to one channel, all tries included.
	Limit = 30 * time.Second
	// tries, waitMin and waitMax are those of one request over HTTP.
	tries   = 5
	waitMin = 300 * time.Millisecond
	waitMax = 5 * time.Second
	// requestLimit bounds one try.
	requestLimit = 10 * time.Second
	// maxAnswer bounds what is read of an answer, and maxQuote what is quoted.
	maxAnswer = 64 << 10
	maxQuote  = 200
	// maxSubject is the longest subject of a message of SNS.
	maxSubject = 100
)

// Config is what a Sender needs.
type Config struct {
	// Base is the process's own AWS identity. Required.
	Base func(ctx context.Context) (aws.Config, error)
	// Hide makes values unreadable wherever text is redacted. Required.
	Hide func(values ...string)
	// Redact replaces what was hidden. Required.
	Redact func(text string) string
	// Secrets is a folder with one folder for each Secret of the namespace that
	// channels may be reached with; empty for none.
	Secrets string
	// Version is that of this program.
	Version string
}

// Sender sends announcements. It is safe for concurrent use.
type Sender struct {
	cfg     Config
	http    *retryablehttp.Client
	secrets *secretref.Reader
}

// New returns a Sender.
func New(cfg Config) *Sender {
	client := retryablehttp.NewClient()
	client.Logger = nil // it would write addresses, which are secret
	client.RetryMax, client.RetryWaitMin, client.RetryWaitMax = tries-1, waitMin, waitMax
	client.HTTPClient.Timeout = requestLimit
	client.HTTPClient.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	client.ErrorHandler = retryablehttp.PassthroughErrorHandler
	return &Sender{cfg: cfg, http: client, secrets: secretref.New(secretref.Config{Base: cfg.Base, Hide: cfg.Hide, Mounted: cfg.Secrets})}
}

// Announce tells every channel that wants to hear of the event, all at once,
// and returns what came of each. skip reports whether a channel, by its place
// in the list, heard of it before; sent is called for each that has.
func (s *Sender) Announce(ctx context.Context, channels []pipeline.Notification, e Event, skip func(n int) bool, sent func(n int)) []record.Notification {
	results := make([]*record.Notification, len(channels))
	var wg sync.WaitGroup
	for n, channel := range channels {
		if !wanted(channel, e) {
			continue
		}
		results[n] = &record.Notification{Type: channel.Type, Target: channel.Target, Status: record.NotificationSent, Key: e.Key}
		if skip(n) {
			continue
		}
		wg.Go(func() {
			if err := s.send(ctx, channel, e); err != nil {
				results[n].Status, results[n].Error = record.NotificationFailed, s.cfg.Redact(err.Error())
				return
			}
			sent(n)
		})
	}
	wg.Wait()
	var list []record.Notification
	for _, result := range results {
		if result != nil {
			list = append(list, *result)
		}
	}
	return list
}

func (s *Sender) send(ctx context.Context, c pipeline.Notification, e Event) error {
	ctx, cancel := context.WithTimeout(ctx, Limit)
	defer cancel()
	switch c.Type {
	case pipeline.NotifySNS:
		return s.publish(ctx, c.Target, e)
	case pipeline.NotifyGitHub:
		to, err := statusURL(e.RepoURL, e.Commit)
		if err != nil {
			return err
		}
		token, err := s.secrets.Read(ctx, c.Target)
		if err != nil {
			return err
		}
		return s.post(ctx, to, commitStatus(e), e, http.Header{
			"Authorization": {"Bearer " + token}, "Accept": {"application/vnd.github+json"}, "X-GitHub-Api-Version": {"2022-11-28"},
		}, "")
	case pipeline.NotifySlack, pipeline.NotifyWebhook:
		to, err := s.address(ctx, c.Target)
		if err != nil {
			return err
		}
		if c.Type == pipeline.NotifySlack {
			return s.post(ctx, to.URL, slackMessage(e), e, nil, "")
		}
		return s.post(ctx, to.URL, e, e, nil, to.Secret)
	}
	return fmt.Errorf("the channel has the type %q, which this version does not know", c.Type)
}

// post sends body as JSON. With a secret the body is signed.
func (s *Sender) post(ctx context.Context, to string, body any, e Event, header http.Header, secret string) error {
	data, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("encode the announcement: %w", err)
	}
	request, err := retryablehttp.NewRequestWithContext(ctx, http.MethodPost, to, data)
	if err != nil {
		return errors.New("the address cannot be used for a request")
	}
	maps.Copy(request.Header, header)
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("User-Agent", "aphex/"+s.cfg.Version)
	request.Header.Set("Idempotency-Key", e.Key)
	request.Header.Set("X-Aphex-Event", e.Event)
	if secret != "" {
		mac := hmac.New(sha256.New, []byte(secret))
		mac.Write(data)
		request.Header.Set("X-Aphex-Signature-256", "sha256="+hex.EncodeToString(mac.Sum(nil)))
	}
	response, err := s.http.Do(request)
	if err != nil {
		return unaddressed(err)
	}
	defer func() { _ = response.Body.Close() }()
	answer, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("read the answer: %w", unaddressed(err))
	}
	if response.StatusCode < 200 || response.StatusCode > 299 {
		quote := cut(string(bytes.ToValidUTF8(bytes.TrimSpace(answer), []byte("?"))), maxQuote)
		return fmt.Errorf("the answer is %s: %s", response.Status, quote)
	}
	return nil
}

// unaddressed takes the address out of an error of net/http: it is a secret,
// or holds one.
func unaddressed(err error) error {
	if wrapped, ok := errors.AsType[*url.Error](err); ok {
		return wrapped.Err
	}
	return err
}

// publish sends the event to a topic of SNS.
func (s *Sender) publish(ctx context.Context, topic string, e Event) error {
	parsed, err := arn.Parse(topic)
	if err != nil {
		return fmt.Errorf("read the topic %q: %w", topic, err)
	}
	conf, err := s.cfg.Base(ctx)
	if err != nil {
		return err
	}
	conf.Region = parsed.Region
	data, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("encode the announcement: %w", err)
	}
	text := func(value string) snstypes.MessageAttributeValue {
		return snstypes.MessageAttributeValue{DataType: aws.String("String"), StringValue: aws.String(value)}
	}
	in := &sns.PublishInput{
		TopicArn: aws.String(topic), Subject: aws.String(subject(e)), Message: aws.String(string(data)),
		MessageAttributes: map[string]snstypes.MessageAttributeValue{"event": text(e.Event), "pipeline": text(e.Pipeline)},
	}
	if strings.HasSuffix(topic, ".fifo") {
		in.MessageGroupId, in.MessageDeduplicationId = aws.String(e.Pipeline), aws.String(e.Key)
	}
	if _, err := sns.NewFromConfig(conf).Publish(ctx, in); err != nil {
		return awserr.Fault(ctx, err, "publish to "+topic)
	}
	return nil
}

// subject is the event's title as SNS takes it: printable ASCII.
func subject(e Event) string {
	text := strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, e.title())
	return text[:min(len(text), maxSubject)]
}
