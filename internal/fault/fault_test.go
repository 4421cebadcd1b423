package fault

import (
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestMessage(t *testing.T) {
	t.Parallel()
	cause := errors.New("memory 128000 MB exceeds 10240")
	tests := map[string]struct {
		err  error
		want string
	}{
		"everything": {
			err:  Newf(User, StackFailed, "deploy stack api", "Lower memorySize", "resource Fn: %w", cause),
			want: "deploy stack api: resource Fn: memory 128000 MB exceeds 10240. Lower memorySize [StackFailed]",
		},
		"without a remedy": {
			err:  Newf(Transient, AWSUnavailable, "describe stack api", "", "connection refused"),
			want: "describe stack api: connection refused [AWSUnavailable]",
		},
		"with context around it": {
			err:  fmt.Errorf("stage deploy-env: %w", Newf(User, RoleDenied, "assume role r", "Check its trust policy", "access denied")),
			want: "stage deploy-env: assume role r: access denied. Check its trust policy [RoleDenied]",
		},
		"an error nobody classified": {err: cause, want: "memory 128000 MB exceeds 10240 [Internal]"},
		"nothing":                    {err: nil, want: ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, tt.want, Message(tt.err))
		})
	}
}

func TestFault_MatchesByReasonAndUnwraps(t *testing.T) {
	t.Parallel()
	cause := errors.New("cause")
	err := fmt.Errorf("outer: %w", Newf(User, RoleDenied, "op", "", "%w", cause))
	require.ErrorIs(t, err, &Fault{Reason: RoleDenied})
	require.NotErrorIs(t, err, &Fault{Reason: StackFailed})
	require.ErrorIs(t, err, cause)
	require.Equal(t, User, From(err).Class)
	require.Equal(t, "RoleDenied", (&Fault{Reason: RoleDenied}).Error(), "a bare target must be printable")
	require.NoError(t, Wrap(User, RoleDenied, "op", "", nil))
}
