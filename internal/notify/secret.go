package notify

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/ssm"

	"github.com/aphex-pipeline/aphex/internal/awserr"
)

// resolve reads what a reference leads to: the whole value, or one field of a
// JSON object. Everything read is hidden from then on wherever text is
// redacted.
func (s *Sender) resolve(ctx context.Context, ref string) (string, error) {
	conf, err := s.cfg.Base(ctx)
	if err != nil {
		return "", err
	}
	kind, name, _ := strings.Cut(ref, ":")
	name, field, _ := strings.Cut(name, "#")
	op := "read " + kind + ":" + name
	var value string
	switch kind {
	case "secretsmanager":
		out, err := secretsmanager.NewFromConfig(conf).GetSecretValue(ctx, &secretsmanager.GetSecretValueInput{SecretId: aws.String(name)})
		if err != nil {
			return "", awserr.Fault(ctx, err, op)
		}
		value = aws.ToString(out.SecretString)
	case "ssm":
		out, err := ssm.NewFromConfig(conf).GetParameter(ctx, &ssm.GetParameterInput{Name: aws.String(name), WithDecryption: aws.Bool(true)})
		if err != nil {
			return "", awserr.Fault(ctx, err, op)
		}
		value = aws.ToString(out.Parameter.Value)
	default:
		return "", fmt.Errorf("the reference %q begins with %q; allowed are secretsmanager and ssm", ref, kind)
	}
	s.cfg.Hide(value)
	if field != "" {
		var fields map[string]any
		text, ok := "", json.Unmarshal([]byte(value), &fields) == nil
		if ok {
			text, ok = fields[field].(string)
		}
		if !ok {
			return "", fmt.Errorf("%s: its value is no JSON object with a text %q", op, field)
		}
		value = text
	}
	if value = strings.TrimSpace(value); value == "" {
		return "", fmt.Errorf("%s: the value is empty", op)
	}
	s.cfg.Hide(value)
	return value, nil
}

// address is what a webhook's reference leads to: the address alone, or a JSON
// object with it and the secret that bodies are signed with.
type address struct {
	URL    string `json:"url"`
	Secret string `json:"secret"`
}

func (s *Sender) address(ctx context.Context, ref string) (address, error) {
	value, err := s.resolve(ctx, ref)
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
