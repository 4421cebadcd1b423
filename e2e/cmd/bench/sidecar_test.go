package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A command with blanks and parentheses in its name moves no field.
func TestStartOf_CountsFromTheBootOfTheMachine(t *testing.T) {
	t.Parallel()
	const seen = "1000000100.50\n5000.25 9000.00\n" +
		"1 (a ) (phex) S 0 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 9 0 499025 1271799808 9000 18446744073709551615\nVmRSS:\t   1024 kB\n"
	started, err := startOf(seen)
	require.NoError(t, err)
	require.WithinDuration(t, time.UnixMilli(1000000090500), started, 10*time.Millisecond)
	for _, broken := range []string{"", "1\n2\n", "x\ny\nz\n", "1.0\n2.0 3.0\n1 (aphex) S 0\n"} {
		_, err := startOf(broken)
		require.Error(t, err, "%q", broken)
	}
}

func TestReadyAt_FindsTheLineOfThePlugin(t *testing.T) {
	t.Parallel()
	at, err := readyAt("[s0] text\n{\"msg\":\"plugin composed\"}\n{\"time\":\"2026-11-24T10:00:00.25Z\",\"msg\":\"plugin ready\"}\n")
	require.NoError(t, err)
	require.Equal(t, time.Date(2026, 11, 24, 10, 0, 0, 250e6, time.UTC), at)
	_, err = readyAt("nothing\n")
	require.Error(t, err)
}
