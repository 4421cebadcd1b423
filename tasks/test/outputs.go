package test

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"strings"
)

// variableName is the environment variable of one stack output:
// APHEX_OUTPUT_<STACK>_<KEY> in capitals, every other character replaced by
// "_".
func variableName(stack, key string) string {
	return "APHEX_OUTPUT_" + strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		case r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
			return r
		}
		return '_'
	}, stack+"_"+key)
}

// singleFile is a tar stream of one file.
func singleFile(name string, content []byte) (io.Reader, error) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	if err := w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(content))}); err != nil {
		return nil, fmt.Errorf("write %s: %w", name, err)
	}
	if _, err := w.Write(content); err != nil {
		return nil, fmt.Errorf("write %s: %w", name, err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("write %s: %w", name, err)
	}
	return &buf, nil
}
