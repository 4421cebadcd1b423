package build

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/redact"
	"github.com/aphex-pipeline/aphex/internal/secretref"
)

// maxSecret bounds a secret in bytes: Linux takes 128 KiB for one variable.
const maxSecret = 64 << 10

// secrets reads the secrets that build commands get, by the names of their
// variables. All that is wrong is reported at once.
//
// Errors: SecretDenied for a reference the installation does not allow;
// SecretUnusable; those of the reader.
func (s *Stage) secrets(ctx context.Context, refs map[string]string) (map[string]string, error) {
	values := make(map[string]string, len(refs))
	var problems []error
	for _, name := range slices.Sorted(maps.Keys(refs)) {
		value, err := s.secret(ctx, name, refs[name])
		if err != nil {
			problems = append(problems, err)
			continue
		}
		values[name] = value
	}
	return values, fault.Join("read the secrets of build.secrets", "Mend all of them, then retry the run", problems...)
}

func (s *Stage) secret(ctx context.Context, name, ref string) (string, error) {
	op := "give the build commands the secret " + name
	if whole := secretref.Whole(ref); !slices.Contains(s.cfg.AllowedSecrets, whole) {
		return "", fault.Newf(fault.User, fault.SecretDenied, op,
			"Let whoever administers the pipeline add "+whole+" to buildSecrets of its installation and apply the WorkflowTemplate again; a run that was started before does not see it",
			"the pipeline's installation does not allow %s", whole)
	}
	value, err := s.cfg.Secrets.Read(ctx, ref)
	if err != nil {
		f := fault.From(err)
		return "", fault.Wrap(f.Class, f.Reason, op, f.Remedy, err)
	}
	problem := ""
	switch {
	case len(value) < redact.MinLength:
		problem = fmt.Sprintf("its value has less than %d bytes and could not be hidden in logs", redact.MinLength)
	case len(value) > maxSecret:
		problem = fmt.Sprintf("its value has %d bytes; allowed are %d", len(value), maxSecret)
	case strings.ContainsRune(value, 0):
		problem = "its value has a NUL character, which no variable can take"
	default:
		return value, nil
	}
	return "", fault.Newf(fault.User, fault.SecretUnusable, op, "Give "+ref+" another value", "%s", problem)
}
