package build

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"path"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/aphex-pipeline/aphex/internal/record"
)

// kindBytes is how much of a file its type is read from.
const kindBytes = 512

// kindOf reads the type of a file from its name and its beginning, to which it
// goes back. docs/spec/artifacts.md has the rules for people.
func kindOf(name string, content io.ReadSeeker) (record.ArtifactType, error) {
	head := make([]byte, kindBytes)
	n, err := io.ReadFull(content, head)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return "", err
	}
	if _, err := content.Seek(0, io.SeekStart); err != nil {
		return "", err
	}
	return artifactType(name, head[:n]), nil
}

// artifactType sorts a file into the three types of the record. What the
// content says goes before what the name says.
func artifactType(name string, head []byte) record.ArtifactType {
	name = strings.ToLower(name)
	switch {
	case isZip(head):
		if strings.Contains(name, "layer") || slices.Contains(layerFolders(), firstFolder(head)) {
			return record.LambdaLayer
		}
		return record.Package
	case isArchive(head):
		return record.Package
	case isProgram(head):
		return record.Binary
	case slices.Contains(programNames(), path.Ext(name)):
		return record.Binary
	case path.Ext(name) == "" && !isText(head):
		return record.Binary
	}
	return record.Package
}

// layerFolders are where the runtimes of Lambda look inside a layer, but for
// bin and lib, which any archive may have.
func layerFolders() []string { return []string{"python", "nodejs", "java", "ruby"} }

// programNames are the extensions of what a processor or a runtime executes.
func programNames() []string { return []string{".bin", ".exe", ".dll", ".so", ".dylib", ".wasm"} }

const (
	zipFile  = "PK\x03\x04"
	zipEmpty = "PK\x05\x06"
)

func isZip(head []byte) bool { return startsWith(head, zipFile, zipEmpty) }

// isArchive knows gzip, xz, zstd, bzip2, 7z and tar.
func isArchive(head []byte) bool {
	const tarMark = 257
	return startsWith(head, "\x1f\x8b", "\xfd7zXZ\x00", "\x28\xb5\x2f\xfd", "BZh", "7z\xbc\xaf\x27\x1c") ||
		len(head) > tarMark && startsWith(head[tarMark:], "ustar")
}

// isProgram knows ELF, Mach-O, Windows programs and WebAssembly.
func isProgram(head []byte) bool {
	if startsWith(head, "\x7fELF", "\xfe\xed\xfa\xce", "\xfe\xed\xfa\xcf", "\xce\xfa\xed\xfe", "\xcf\xfa\xed\xfe", "\x00asm") {
		return true
	}
	// Mach-O for several processors begins like a class of Java, but then has
	// their number instead of a version, which is at least 45.
	if startsWith(head, "\xca\xfe\xba\xbe") && len(head) >= 8 {
		return binary.BigEndian.Uint32(head[4:]) < 45
	}
	return startsWith(head, "MZ") && !isText(head)
}

func startsWith(head []byte, marks ...string) bool {
	return slices.ContainsFunc(marks, func(mark string) bool { return bytes.HasPrefix(head, []byte(mark)) })
}

// firstFolder is the top folder of the first entry of a zip archive.
func firstFolder(head []byte) string {
	const lengthAt, nameAt = 26, 30
	if !startsWith(head, zipFile) || len(head) < nameAt {
		return ""
	}
	name := head[nameAt:]
	name = name[:min(len(name), int(binary.LittleEndian.Uint16(head[lengthAt:])))]
	folder, _, inside := strings.Cut(string(name), "/")
	if !inside {
		return ""
	}
	return folder
}

// isText reports whether head is the beginning of a text.
func isText(head []byte) bool {
	if bytes.IndexByte(head, 0) >= 0 {
		return false
	}
	for range utf8.UTFMax - 1 { // the last character may be cut
		if utf8.Valid(head) || len(head) < kindBytes-utf8.UTFMax {
			break
		}
		head = head[:len(head)-1]
	}
	return utf8.Valid(head)
}
