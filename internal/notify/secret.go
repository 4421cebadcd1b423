package notify

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
)

// address is what a webhook's reference leads to: the address alone, or a JSON
// object with it and the secret that bodies are signed with.
type address struct {
	URL    string `json:"url"`
	Secret string `json:"secret"`
}

func (s *Sender) address(ctx context.Context, ref string) (address, error) {
	value, err := s.secrets.Read(ctx, ref)
	if err != nil {
		return address{}, err
	}
	a := address{URL: value}
	if strings.HasPrefix(value, "{") {
		a = address{}
		if err := json.Unmarshal([]byte(value), &a); err != nil {
			return address{}, fmt.Errorf("read %s: its value is neither an address nor a JSON object", ref)
		}
		s.cfg.Hide(a.URL, a.Secret)
	}
	if !strings.HasPrefix(a.URL, "https://") && !strings.HasPrefix(a.URL, "http://") {
		return address{}, fmt.Errorf("read %s: it has no http or https address (alone, or as \"url\" of a JSON object)", ref)
	}
	return a, nil
}
