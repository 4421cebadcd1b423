package chaos

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestBoundary_ReadsWhatItWrites(t *testing.T) {
	t.Parallel()
	for _, b := range []Boundary{
		{Point: Point{Kind: KindAWS, Verb: "PutObject", Object: "bucket/runs/{uid}/run.json", Nth: 2}, Moment: After},
		{Point: Point{Kind: KindKube, Verb: "PUT", Object: "journal deploy-env-dev stack done+test-dev begin", Nth: 1}, Moment: Before},
	} {
		got, err := ParseBoundary(b.String())
		require.NoError(t, err)
		require.Equal(t, b, got)
	}
	_, err := ParseBoundary("during aws:PutObject:x#1")
	require.ErrorContains(t, err, "during")
}

func TestJournalNews_SayWhatAWriteAdds(t *testing.T) {
	t.Parallel()
	old := map[string]string{"writer": "{}", "execution.1": `{"stage":"deploy-env","environment":"dev","starts":1}`}
	now := map[string]string{
		"writer":      `{"generation":2}`,
		"execution.1": `{"stage":"deploy-env","environment":"dev","starts":1,"effects":{"stack-0123456789abcdef":{"step":"create-change-set"}},"final":{}}`,
		"execution.2": `{"stage":"build","starts":1}`,
	}
	require.Equal(t, []string{"build begin", "claim", "deploy-env-dev end", "deploy-env-dev stack create-change-set"}, news(old, now))
	require.Empty(t, news(now, now))
}

// behind serves a passage before a server that counts what reaches it.
func behind(t *testing.T, tp *tap) (address string, reached *atomic.Int32) {
	t.Helper()
	reached = &atomic.Int32{}
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if r.Method != http.MethodGet {
			reached.Add(1)
		}
		_, _ = w.Write(append([]byte("got "), body...))
	}))
	t.Cleanup(upstream.Close)
	target, err := url.Parse(upstream.URL)
	require.NoError(t, err)
	front := httptest.NewServer(&passage{
		tap: tp, target: target, transport: &http.Transport{DisableKeepAlives: true},
		name: func(r *http.Request, _ []byte) (kind, verb, object string, ok bool) {
			return KindAWS, r.Method, strings.TrimPrefix(r.URL.Path, "/"), true
		},
	})
	t.Cleanup(front.Close)
	return front.URL, reached
}

func put(t *testing.T, address string) (string, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, address, strings.NewReader("x"))
	require.NoError(t, err)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return string(body), resp.Body.Close()
}

func TestPassage_KillsBeforeOrAfterTheEffect(t *testing.T) {
	t.Parallel()
	for moment, want := range map[Moment]int32{Before: 1, After: 2} {
		t.Run(string(moment), func(t *testing.T) {
			t.Parallel()
			killed := make(chan Victim, 9)
			at := Boundary{Point: Point{Kind: KindAWS, Verb: "PUT", Object: "a", Nth: 2}, Moment: moment}
			tp := newTap(func(v Victim) error { killed <- v; return nil }, []Strike{{At: at, Victim: Sidecar}}, Point{})
			address, reached := behind(t, tp)
			body, err := put(t, address+"/a")
			require.NoError(t, err)
			require.Equal(t, "got x", body)
			require.Empty(t, killed)
			_, err = put(t, address+"/a")
			require.Error(t, err, "the one who asked is dead")
			require.Equal(t, Sidecar, <-killed)
			require.Equal(t, want, reached.Load())
			_, err = put(t, address+"/a")
			require.NoError(t, err, "once is enough")
			require.Empty(t, killed)
		})
	}
}

func TestPassage_LosesOneAnswerAfterItsEffect(t *testing.T) {
	t.Parallel()
	tp := newTap(nil, nil, Point{Kind: KindAWS, Verb: "PUT", Object: "a", Nth: 1})
	address, reached := behind(t, tp)
	_, err := put(t, address+"/a")
	require.Error(t, err)
	require.Equal(t, int32(1), reached.Load())
	_, err = put(t, address+"/a")
	require.NoError(t, err)
	require.Equal(t, []string{"answer lost, aws:PUT:a#1"}, tp.fired)
}

func TestTap_SecondStrikeFollowsTheFirst(t *testing.T) {
	t.Parallel()
	killed := make(chan Victim, 2)
	at := Boundary{Point: Point{Kind: KindCommand, Verb: "begin", Object: "compile", Nth: 1}, Moment: Before}
	tp := newTap(func(v Victim) error { killed <- v; return nil }, []Strike{{At: at, Victim: Worker}, {Delay: time.Millisecond, Victim: Pod}}, Point{})
	p, _ := tp.begin(KindCommand, "begin", "compile")
	require.False(t, tp.reach(p, Before), "the worker's death does not cut the sidecar's calls")
	require.Equal(t, Worker, <-killed)
	require.Equal(t, Pod, <-killed)
}

func TestCompare_SeesWhatIsMissingAndWhatIsTooMuch(t *testing.T) {
	t.Parallel()
	base := func() *ledger {
		var l ledger
		require.NoError(t, json.Unmarshal([]byte(`{"executed":{"data":1},"stacks":{"data":"CREATE_COMPLETE"},"parameters":{"p":"version 1"},
			"objects":["a"],"record":"succeeded","revisions":"deployed","commands":{"compile":1}}`), &l))
		return &l
	}
	verdict, why := base().compare(base(), false)
	require.Equal(t, OK, verdict, why)
	for want, change := range map[Verdict][]func(*ledger){
		Doubled: {func(l *ledger) { l.Executed["data"] = 2 }},
		Lost: {
			func(l *ledger) { l.Executed = map[string]int{} },
			func(l *ledger) { l.Stacks["data"] = "ROLLBACK_COMPLETE" },
			func(l *ledger) { l.Parameters["p"] = "version 2" },
			func(l *ledger) { l.Objects = nil },
			func(l *ledger) { l.Objects = []string{"a", "b"} },
			func(l *ledger) { l.Record = "running" },
			func(l *ledger) { l.Commands = nil },
			func(l *ledger) { l.Waiting = []string{"data AVAILABLE"} },
		},
	} {
		for i, f := range change {
			l := base()
			f(l)
			verdict, why := l.compare(base(), false)
			require.Equal(t, want, verdict, "%d: %s", i, why)
		}
	}
	more := base()
	more.Objects = []string{"a", "b"}
	verdict, why = more.compare(base(), true)
	require.Equal(t, OK, verdict, why)
}

func TestDraw_SameSeedSameKills(t *testing.T) {
	t.Parallel()
	phases := []Phase{{Name: "build", Duration: time.Second}, {Name: "test", Duration: time.Second}, {Name: "finish", Duration: time.Second}}
	require.Equal(t, Random(phases, 12, 7), Random(phases, 12, 7))
	require.NotEqual(t, Random(phases, 12, 7), Random(phases, 12, 8))
	in := map[string]int{}
	for _, c := range Random(phases, 12, 7) {
		in[c.Group]++
	}
	require.Equal(t, map[string]int{"random, build": 4, "random, test": 4, "random, finish": 4}, in)
	for _, c := range Doubles(phases, 20, 7) {
		require.Len(t, c.Strikes, 2)
		require.Positive(t, c.Strikes[1].Delay)
	}
}

func TestSpread_KeepsEveryCase(t *testing.T) {
	t.Parallel()
	for n := range 40 {
		cases := make([]Case, n)
		for i := range cases {
			cases[i].Name = strings.Repeat("x", i)
		}
		require.ElementsMatch(t, cases, Spread(cases))
	}
}

// A second kill that comes between two pods waits for the next one; one that
// finds nobody before the run's end was none.
func TestTap_WaitsForAVictim(t *testing.T) {
	t.Parallel()
	first, absent := Boundary{Point: Point{Kind: KindKube, Verb: "PUT", Object: "journal", Nth: 1}, Moment: After}, 3
	tap := newTap(func(v Victim) error {
		if v == Worker && absent > 0 {
			absent--
			return errNobody
		}
		return nil
	}, []Strike{{At: first, Victim: Sidecar}, {Delay: time.Millisecond, Victim: Worker}}, Point{})
	require.True(t, tap.reach(first.Point, After))
	require.Eventually(t, func() bool {
		tap.mu.Lock()
		defer tap.mu.Unlock()
		return len(tap.fired) == 2
	}, 10*time.Second, time.Millisecond)
	tap.close()
	require.Empty(t, tap.errs)
	require.Empty(t, tap.strikes)

	tap = newTap(func(v Victim) error {
		if v == Worker {
			return errNobody
		}
		return nil
	}, []Strike{{At: first, Victim: Sidecar}, {Delay: time.Millisecond, Victim: Worker}}, Point{})
	require.True(t, tap.reach(first.Point, After))
	tap.close()
	require.Len(t, tap.fired, 1)
	require.Len(t, tap.strikes, 1, "the second one never happened")
}
