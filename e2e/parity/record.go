package parity

import (
	"embed"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
)

//go:embed all:recorded
var recordings embed.FS

// recordVersion is part of every fingerprint: raise it when a snapshot says
// something else than before.
const recordVersion = 1

// recording is what the command line does with one app.
type recording struct {
	// Fingerprint is what it was made from.
	Fingerprint string `json:"fingerprint"`
	// States are the results by prior state.
	States map[State]Snapshot `json:"states"`
}

// recorded returns what the command line left; ok is false if that is not
// known or no longer valid.
func recorded(app string, state State) (s Snapshot, ok bool, err error) {
	data, err := recordings.ReadFile(path.Join("recorded", app+".json"))
	if os.IsNotExist(err) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	var r recording
	if err := json.Unmarshal(data, &r); err != nil {
		return nil, false, fmt.Errorf("recording of %s: %w", app, err)
	}
	current, err := fingerprint(app)
	if err != nil {
		return nil, false, err
	}
	kept, ok := r.States[state]
	if !ok {
		return nil, false, nil
	}
	s = Snapshot{}
	for key, value := range kept { // what is taken for random may have grown since
		s[stable(key)] = stable(value)
	}
	return s, r.Fingerprint == current, nil
}

// Recorded returns the cells whose other side is recorded and still valid, and
// the apps whose recording is not valid any more.
func Recorded() (cells []Cell, stale []string, err error) {
	apps, err := Apps()
	if err != nil {
		return nil, nil, err
	}
	for _, app := range apps {
		known := 0
		for _, state := range States() {
			snapshot, ok, err := recorded(app, state)
			if err != nil {
				return nil, nil, err
			}
			if ok {
				cells = append(cells, Cell{app, state})
			} else if snapshot != nil {
				known++
			}
		}
		if known > 0 {
			stale = append(stale, app)
		}
	}
	return cells, stale, nil
}

// record writes what the command line did with an app below root, the
// package's folder. Results of the same fingerprint are kept.
func (r *Report) record(root, app string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.oracle[app]) == 0 {
		return nil
	}
	current, err := fingerprint(app)
	if err != nil {
		return err
	}
	file := filepath.Join(root, "recorded", app+".json")
	next := recording{Fingerprint: current, States: map[State]Snapshot{}}
	var old recording
	if data, err := os.ReadFile(file); err == nil && json.Unmarshal(data, &old) == nil && old.Fingerprint == current {
		next.States = old.States
	}
	maps.Copy(next.States, r.oracle[app])
	data, err := json.MarshalIndent(next, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(data, '\n'), 0o600)
}
