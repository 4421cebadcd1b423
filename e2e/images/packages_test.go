package images

import (
	"archive/tar"
	"errors"
	"io"
	"path"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/stretchr/testify/require"
)

const dpkg = "var/lib/dpkg/"

// packages are the Debian packages of an image: version and files of each.
type packages struct {
	versions map[string]string
	files    map[string][]string
}

func packagesOf(t *testing.T, image v1.Image) packages {
	t.Helper()
	content := mutate.Extract(image)
	defer func() { require.NoError(t, content.Close()) }()
	p := packages{versions: map[string]string{}, files: map[string][]string{}}
	reader := tar.NewReader(content)
	for {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return p
		}
		require.NoError(t, err)
		file := strings.Trim(strings.TrimPrefix(header.Name, "./"), "/")
		list := strings.HasPrefix(file, dpkg+"info/") && strings.HasSuffix(file, ".list")
		if file != dpkg+"status" && !list {
			continue
		}
		text, err := io.ReadAll(reader)
		require.NoError(t, err)
		if list {
			name, _, _ := strings.Cut(strings.TrimSuffix(path.Base(file), ".list"), ":")
			p.files[name] = strings.Fields(string(text))
			continue
		}
		name := ""
		for line := range strings.Lines(string(text)) {
			if value, ok := strings.CutPrefix(line, "Package: "); ok {
				name = strings.TrimSpace(value)
			}
			if value, ok := strings.CutPrefix(line, "Version: "); ok {
				p.versions[name] = strings.TrimSpace(value)
			}
		}
	}
}

// dropUpdated removes from both lists of files what belongs to packages that
// Debian has updated between the two builds: the archive serves the newest
// version alone, so none can be pinned.
func dropUpdated(t *testing.T, a, b v1.Image, inA, inB map[string]string) {
	t.Helper()
	one, other := packagesOf(t, a), packagesOf(t, b)
	require.NotEmpty(t, one.versions)
	drop := func(file string) {
		delete(inA, file)
		delete(inB, file)
	}
	updated := false
	for name, version := range one.versions {
		if other.versions[name] == version {
			continue
		}
		updated = true
		t.Logf("Debian updated %s from %s to %s between the builds", name, other.versions[name], version)
		for _, file := range append(one.files[name], other.files[name]...) {
			drop(strings.Trim(file, "/"))
		}
		for _, found := range []map[string]string{inA, inB} {
			for file := range found {
				owner, ok := strings.CutPrefix(file, dpkg+"info/"+name)
				if ok && (owner[0] == '.' || owner[0] == ':') {
					drop(file)
				}
			}
		}
	}
	if updated {
		for _, file := range []string{dpkg + "status", dpkg + "status-old", "etc/ld.so.cache"} {
			drop(file)
		}
	}
}
