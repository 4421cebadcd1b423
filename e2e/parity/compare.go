package parity

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

//go:embed allowed.json
var allowedJSON []byte

// Allowed is a difference that is meant.
type Allowed struct {
	// Path is a pattern of paths of a snapshot; "*" stands for anything.
	Path string `json:"path"`
	// App and State restrict it; empty means all.
	App   string `json:"app"`
	State State  `json:"state"`
	// Missing restricts it to what the command line did not leave.
	Missing bool `json:"missing"`
	// Reason says why the difference is right.
	Reason string `json:"reason"`
}

// AllowList returns the differences that are meant.
func AllowList() ([]Allowed, error) {
	var out []Allowed
	if err := json.Unmarshal(allowedJSON, &out); err != nil {
		return nil, fmt.Errorf("allowed.json: %w", err)
	}
	for _, a := range out {
		if a.Path == "" || a.Reason == "" {
			return nil, fmt.Errorf("allowed.json: an entry needs path and reason: %+v", a)
		}
	}
	return out, nil
}

func (a Allowed) covers(app string, state State, d Difference) bool {
	if a.App != "" && a.App != app || a.State != "" && a.State != state || a.Missing && d.CDK != "" && d.CDK != absent {
		return false
	}
	pattern := "^" + strings.ReplaceAll(regexp.QuoteMeta(a.Path), `\*`, ".*") + "$"
	return regexp.MustCompile(pattern).MatchString(d.Path)
}

// Difference is one place where two snapshots differ.
type Difference struct {
	Path string
	// CDK and Aphex are the values; empty for a path that is not there.
	CDK, Aphex string
	// Allowed is the reason why it is right; empty if it is not.
	Allowed string
}

// differences compares what the command line left with what aphex left.
func differences(app string, state State, cdk, aphex Snapshot, allowed []Allowed) []Difference {
	paths := map[string]bool{}
	for path := range cdk {
		paths[path] = true
	}
	for path := range aphex {
		paths[path] = true
	}
	var out []Difference
	for _, path := range slices.Sorted(maps.Keys(paths)) {
		want, known := cdk[path]
		got, found := aphex[path]
		if want == got && known == found {
			continue
		}
		d := Difference{Path: path, CDK: want, Aphex: got}
		for _, a := range allowed {
			if a.covers(app, state, d) {
				d.Allowed = a.Reason
				break
			}
		}
		out = append(out, d)
	}
	return out
}
