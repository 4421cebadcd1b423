package cfn

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// looks counts the looks at something that takes a while, with news in every
// one of them or in none, and returns the longest time between two.
func looks(takes time.Duration, news bool) (n int, longest time.Duration) {
	p := Limits{}.withDefaults().pause()
	for at := time.Duration(0); at < takes; n++ {
		if news {
			p.news()
		}
		next := p.advance()
		at, longest = at+next, max(longest, next)
	}
	return n, longest
}

// The CDK CLI reads events every 2 s and the stack every 5 s. Here it is the
// events, and the stack every 15 s.
func TestPause_FewerLooksThanTheCLI(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		takes := rapid.Custom(func(t *rapid.T) time.Duration {
			return time.Duration(rapid.Int64Range(int64(time.Minute), int64(2*time.Hour)).Draw(t, "ns"))
		}).Draw(t, "takes")
		n, longest := looks(takes, rapid.Bool().Draw(t, "news"))
		cli := int(takes/(2*time.Second)) + int(takes/(5*time.Second)) + 2
		require.LessOrEqual(t, n+int(takes/statusEvery)+1, cli)
		require.LessOrEqual(t, longest, 2*time.Second, "the end is seen soon")
	})
}

// What ends at once is seen at once, and what has just begun is looked at often.
func TestPause_ShortAtFirst(t *testing.T) {
	t.Parallel()
	quiet, _ := looks(6*time.Second, false)
	busy, _ := looks(6*time.Second, true)
	require.Equal(t, 6, quiet)
	require.Equal(t, 12, busy)
	p := Limits{}.withDefaults().pause()
	require.Equal(t, 200*time.Millisecond, p.advance())
}
