// Package version tells which build of aphex this is.
//
// It imports nothing of the module; everything may import it.
package version

import (
	"runtime/debug"
	"strings"
)

// Info describes a build.
type Info struct {
	// Version is the module version, or "devel" for a build from a checkout.
	Version string `json:"version"`
	// Commit is the revision the binary was built from, empty if unknown.
	// A "+dirty" suffix says that the tree had uncommitted changes.
	Commit string `json:"commit"`
	// Go is the version of the Go toolchain.
	Go string `json:"go"`
}

// Get returns what the Go toolchain recorded in the running binary.
// Source: runtime/debug.ReadBuildInfo.
func Get() Info {
	info := Info{Version: "devel"}
	build, ok := debug.ReadBuildInfo()
	if !ok {
		return info
	}
	info.Go = build.GoVersion
	if v := build.Main.Version; v != "" && v != "(devel)" {
		info.Version = v
	}
	dirty := false
	for _, s := range build.Settings {
		switch s.Key {
		case "vcs.revision":
			info.Commit = s.Value
		case "vcs.modified":
			dirty = s.Value == "true"
		}
	}
	if info.Commit != "" && dirty {
		info.Commit += "+dirty"
	}
	return info
}

// String returns one line for people: "aphex devel (commit 1a2b3c4, go1.26)".
func (i Info) String() string {
	var b strings.Builder
	b.WriteString("aphex " + i.Version)
	if i.Commit != "" {
		b.WriteString(" (commit " + i.Commit + ", " + i.Go + ")")
	} else {
		b.WriteString(" (" + i.Go + ")")
	}
	return b.String()
}
