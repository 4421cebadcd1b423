package test

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// outputVariables are the stack outputs as environment variables. Where two
// have one variable, the last in the order of their names counts, so that every
// try sees the same.
func outputVariables(outputs map[string]map[string]string) map[string]string {
	vars := map[string]string{}
	for _, stack := range slices.Sorted(maps.Keys(outputs)) {
		for _, key := range slices.Sorted(maps.Keys(outputs[stack])) {
			vars[variableName(stack, key)] = outputs[stack][key]
		}
	}
	return vars
}

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
