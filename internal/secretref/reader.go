package secretref

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/ssm"

	"github.com/aphex-pipeline/aphex/internal/awserr"
	"github.com/aphex-pipeline/aphex/internal/fault"
)

// The stores a reference can lead to: what stands before its first colon.
const (
	KindSecretsManager = "secretsmanager"
	KindSSM            = "ssm"
	// KindKubernetes is a Secret of the pipeline's namespace, mounted where
	// Config.Mounted says.
	KindKubernetes = "kubernetes"
)

// Config is what a Reader needs.
type Config struct {
	// Base is the process's own AWS identity. Required.
	Base func(ctx context.Context) (aws.Config, error)
	// Hide makes values unreadable wherever text is redacted. Required.
	Hide func(values ...string)
	// Mounted is a folder with one folder for each Secret of the namespace that
	// may be read, named like it; empty for none.
	Mounted string
}

// Reader reads secrets. It is safe for concurrent use.
type Reader struct{ cfg Config }

// New returns a Reader.
func New(cfg Config) *Reader { return &Reader{cfg: cfg} }

// Whole returns a reference without its field: what an installation lists.
func Whole(ref string) string {
	whole, _, _ := strings.Cut(ref, "#")
	return whole
}

// Read returns what a reference leads to: "secretsmanager:<name or ARN>" or
// "ssm:<name>", the whole value or, with "#<field>", one text of a JSON object;
// "kubernetes:<name>#<key>", one key of a Secret. White space around it is cut
// off. Everything read is hidden from then on wherever text is redacted.
//
// Errors: SecretMissing, SecretDenied, SecretUnusable; those of internal/awserr.
func (r *Reader) Read(ctx context.Context, ref string) (string, error) {
	kind, name, _ := strings.Cut(ref, ":")
	name, field, _ := strings.Cut(name, "#")
	op := "read " + kind + ":" + name
	value, err := r.whole(ctx, kind, name, field, op)
	if err != nil {
		return "", err
	}
	r.cfg.Hide(value)
	if field != "" && kind != KindKubernetes {
		var fields map[string]any
		text, ok := "", json.Unmarshal([]byte(value), &fields) == nil
		if ok {
			text, ok = fields[field].(string)
		}
		if !ok {
			return "", fault.Newf(fault.User, fault.SecretMissing, op, "Correct the field behind # in the reference, or the secret's value",
				"its value is no JSON object with a text %q", field)
		}
		value = text
	}
	if value = strings.TrimSpace(value); value == "" {
		return "", fault.Newf(fault.User, fault.SecretUnusable, op, "Give the secret a value", "the value is empty")
	}
	r.cfg.Hide(value)
	return value, nil
}

// whole reads the value that name has, in the store of that kind.
func (r *Reader) whole(ctx context.Context, kind, name, field, op string) (string, error) {
	switch kind {
	case KindSecretsManager, KindSSM:
	case KindKubernetes:
		return r.mounted(name, field, op)
	default:
		return "", fault.Newf(fault.User, fault.SecretUnusable, op, "Correct the reference",
			"the reference begins with %q; allowed are %s, %s and %s", kind, KindSecretsManager, KindSSM, KindKubernetes)
	}
	conf, err := r.cfg.Base(ctx)
	if err != nil {
		return "", err
	}
	if kind == KindSSM {
		out, err := ssm.NewFromConfig(conf).GetParameter(ctx, &ssm.GetParameterInput{Name: aws.String(name), WithDecryption: aws.Bool(true)})
		if err != nil {
			return "", refused(ctx, err, op, "ssm:GetParameter")
		}
		return aws.ToString(out.Parameter.Value), nil
	}
	out, err := secretsmanager.NewFromConfig(conf).GetSecretValue(ctx, &secretsmanager.GetSecretValueInput{SecretId: aws.String(name)})
	if err != nil {
		return "", refused(ctx, err, op, "secretsmanager:GetSecretValue")
	}
	return aws.ToString(out.SecretString), nil
}

// mounted reads a key of a Secret of the namespace. The kubelet mounts a Secret
// that does not exist as an empty folder.
func (r *Reader) mounted(name, key, op string) (string, error) {
	if !filepath.IsLocal(name) || !filepath.IsLocal(key) || strings.ContainsRune(name+key, filepath.Separator) {
		return "", fault.Newf(fault.User, fault.SecretUnusable, op, "Write kubernetes:<name of the Secret>#<key>", "%q is no key of a Secret", name+"#"+key)
	}
	if r.cfg.Mounted == "" {
		return "", fault.Newf(fault.User, fault.SecretMissing, op, "", "there are no Secrets of a namespace here")
	}
	dir := filepath.Join(r.cfg.Mounted, name)
	value, err := os.ReadFile(filepath.Join(dir, key))
	if err == nil {
		return string(value), nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", fault.Wrap(fault.System, fault.SecretDenied, op, "Look at the mounts of the pod", err)
	}
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", fault.Newf(fault.User, fault.SecretMissing, op, "Start another run: the pod of this one was made before the installation named the Secret",
			"the Secret is not mounted in this pod")
	case err != nil:
		return "", fault.Wrap(fault.System, fault.SecretDenied, op, "Look at the mounts of the pod", err)
	case !slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return !strings.HasPrefix(e.Name(), "..") }):
		return "", fault.Newf(fault.User, fault.SecretMissing, op, "Create it in the pipeline's namespace, then retry the run",
			"there is no Secret %s, or it has no keys", name)
	}
	return "", fault.Newf(fault.User, fault.SecretMissing, op, "Correct the key behind # in the reference, or the Secret, then retry the run",
		"the Secret %s has no key %q", name, key)
}

// refused says what an answer means for the reader of the message.
func refused(ctx context.Context, err error, op, permission string) error {
	switch code := awserr.Code(err); {
	case slices.Contains([]string{"ResourceNotFoundException", "ParameterNotFound"}, code):
		return fault.Newf(fault.User, fault.SecretMissing, op, "Create it in the account and region of the pipeline's own identity, or correct the reference", "%w", awserr.Brief(err))
	case awserr.AccessDenied(err):
		return fault.Newf(fault.User, fault.SecretDenied, op, "Allow "+permission+" (and kms:Decrypt for a key of your own) to the identity of the pipeline", "%w", awserr.Brief(err))
	}
	return awserr.Fault(ctx, err, op)
}
