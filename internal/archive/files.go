package archive

import (
	"archive/tar"
	"bytes"
	"io"
	"maps"
	"slices"
)

// Files is a tar stream of regular files, by name, sorted, which everybody may
// read.
func Files(contents map[string][]byte) (io.Reader, error) {
	var stream bytes.Buffer
	out := tar.NewWriter(&stream)
	for _, name := range slices.Sorted(maps.Keys(contents)) {
		content := contents[name]
		if err := out.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(content))}); err != nil {
			return nil, err
		}
		if _, err := out.Write(content); err != nil {
			return nil, err
		}
	}
	return &stream, out.Close()
}
