package aws

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
)

// Fault is one fault that the proxy caused.
type Fault struct {
	// Rule is the number of the rule that fired, counted from 1 over the life
	// of the proxy.
	Rule int `json:"rule_id"`
	// Service and Operation are AWS's names, such as "cloudformation" and
	// "CreateChangeSet".
	Service   string `json:"service"`
	Operation string `json:"operation"`
	// Action is what was done, such as "error:AccessDenied".
	Action string `json:"action"`
	// Raw is the whole event.
	Raw json.RawMessage `json:"-"`
}

// Rules adds rules to the fault proxy: a JSON array in microburst's own
// language. Rules apply to calls through Endpoint from then on.
//
// Errors: the proxy's answer when it refuses a rule, and a key it does not
// know, which it would silently ignore.
func (e *Emulator) Rules(ctx context.Context, rules string) error {
	answer, err := request(ctx, http.MethodPatch, e.control+"/_microburst/rules", []byte(rules))
	if err == nil {
		err = checkAccepted([]byte(rules), answer)
	}
	if err != nil {
		return fmt.Errorf("add fault rules: %w", err)
	}
	return nil
}

// ClearRules removes all rules and the list of what they caused.
func (e *Emulator) ClearRules(ctx context.Context) error {
	_, err := request(ctx, http.MethodPost, e.control+"/_microburst/rules", []byte("[]"))
	if err == nil {
		_, err = request(ctx, http.MethodDelete, e.control+"/_microburst/fired", nil)
	}
	if err != nil {
		return fmt.Errorf("clear fault rules: %w", err)
	}
	return nil
}

// Fired lists the faults caused since the last ClearRules, oldest first. A
// test that sets a rule asserts on it, so that it cannot pass without its
// fault.
func (e *Emulator) Fired(ctx context.Context) ([]Fault, error) {
	body, err := request(ctx, http.MethodGet, e.control+"/_microburst/fired", nil)
	if err != nil {
		return nil, fmt.Errorf("list fired faults: %w", err)
	}
	return decodeFired(body)
}

// request makes one HTTP request and returns the body of a 2xx answer.
func request(ctx context.Context, method, url string, body []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode/100 != 2 {
		return nil, fmt.Errorf("%s %s: %s: %s", method, url, resp.Status, bytes.TrimSpace(data))
	}
	return data, nil
}
