package build

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/aphex-pipeline/aphex/internal/record"
)

// zipped is a zip archive with empty files of the names.
func zipped(t *testing.T, names ...string) string {
	t.Helper()
	var out bytes.Buffer
	w := zip.NewWriter(&out)
	for _, name := range names {
		_, err := w.Create(name)
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	return out.String()
}

func TestArtifactType(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	require.NoError(t, err)
	program, err := os.ReadFile(self)
	require.NoError(t, err)
	class := "\xca\xfe\xba\xbe\x00\x00\x00\x41"
	fat := "\xca\xfe\xba\xbe\x00\x00\x00\x02"
	tar := strings.Repeat("\x00", 257) + "ustar"
	for name, tt := range map[string]struct {
		content string
		want    record.ArtifactType
	}{
		"layer by its name":       {zipped(t, "x.py"), "lambda-layer"},
		"layers/deps.zip":         {zipped(t, "x.py"), "lambda-layer"},
		"deps.zip":                {zipped(t, "python/x.py", "README"), "lambda-layer"},
		"node-deps.zip":           {zipped(t, "nodejs/node_modules/a.js"), "lambda-layer"},
		"app.jar":                 {zipped(t, "META-INF/MANIFEST.MF"), "package"},
		"function.zip":            {zipped(t, "python.py"), "package"},
		"empty.zip":               {zipped(t), "package"},
		"layer.zip is none":       {"layer\n", "package"},
		"layer.tar.gz":            {"\x1f\x8b\x08", "package"},
		"x.tar":                   {tar, "package"},
		"fw.bin is an archive":    {"\x28\xb5\x2f\xfd\x00", "package"},
		"app":                     {string(program), "binary"},
		"app.txt":                 {string(program), "binary"},
		"win/app.exe":             {"MZ\x90\x00", "binary"},
		"fw.bin":                  {"\xff\x01", "binary"},
		"lib/libx.so":             {"", "binary"},
		"module":                  {"\x00asm\x01", "binary"},
		"universal":               {fat, "binary"},
		"A.class":                 {class, "package"},
		"blob":                    {"\x01\x02\xff", "binary"},
		"LICENSE":                 {"MZungu public licence\n", "package"},
		"run":                     {"#!/bin/sh\n", "package"},
		"index.html":              {"<h1>", "package"},
		"nothing":                 {"", "package"},
		"v1.2/text of characters": {strings.Repeat("ü€", kindBytes), "package"},
	} {
		got, err := kindOf(name, strings.NewReader(tt.content))
		require.NoError(t, err)
		require.Equal(t, tt.want, got, name)
	}
}

// TestKindOf_AnyContent: whatever stands in a file, it has one of the three
// types, and is read from its beginning afterwards.
func TestKindOf_AnyContent(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		content := rapid.OneOf(
			rapid.SliceOfN(rapid.Byte(), 0, 2*kindBytes),
			rapid.Map(rapid.Uint16(), func(length uint16) []byte {
				return binary.LittleEndian.AppendUint16([]byte(zipFile+strings.Repeat("\x00", 22)), length)
			}),
		).Draw(t, "content")
		source := bytes.NewReader(content)
		kind, err := kindOf(rapid.String().Draw(t, "name"), source)
		require.NoError(t, err)
		require.Contains(t, []record.ArtifactType{record.LambdaLayer, record.Binary, record.Package}, kind)
		rest, err := io.ReadAll(source)
		require.NoError(t, err)
		require.True(t, bytes.Equal(content, rest))
	})
}
