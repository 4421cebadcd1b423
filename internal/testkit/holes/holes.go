// Package holes makes archives that are small and mean much. Imported by tests
// only.
package holes

import (
	"archive/tar"
	"bytes"
	"fmt"
	"strconv"
	"testing"
)

// Archive is a tar archive with one file, "big", that is a hole of 1 TiB, in the
// form of PAX 0.1. The library writes none, so the header is made by hand.
func Archive(tb testing.TB) []byte {
	tb.Helper()
	record := func(key, value string) string {
		body := " " + key + "=" + value + "\n"
		n := len(body) + 2
		for len(strconv.Itoa(n))+len(body) != n {
			n++
		}
		return strconv.Itoa(n) + body
	}
	text := record("GNU.sparse.size", "1099511627776") + record("GNU.sparse.numblocks", "1") + record("GNU.sparse.map", "1099511627776,0") + record("GNU.sparse.major", "0") + record("GNU.sparse.minor", "1")
	out := oneFile(tb, "pax", text)
	out = out[:len(out)-1024] // without the end
	out[156] = tar.TypeXHeader
	sum := 0
	for i := range 512 {
		c := int(out[i])
		if i >= 148 && i < 156 {
			c = ' '
		}
		sum += c
	}
	copy(out[148:156], fmt.Sprintf("%06o\x00 ", sum))
	return append(out, oneFile(tb, "big", "")...)
}

func oneFile(tb testing.TB, name, content string) []byte {
	tb.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	if err := w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(content))}); err != nil {
		tb.Fatal(err)
	}
	if _, err := w.Write([]byte(content)); err != nil {
		tb.Fatal(err)
	}
	if err := w.Close(); err != nil {
		tb.Fatal(err)
	}
	return out.Bytes()
}
