package assets

import (
	_ "embed"
	"path"
	"strings"
	"sync"
)

// mediaTypes are the types that the CDK command line knows, those of the npm
// module mime 2.6.0: a type and its extensions per line. Those of the machine
// differ from place to place.
//
//go:embed media.types
var mediaTypes string

//nolint:gochecknoglobals // read once, never changed
var typesByExtension = sync.OnceValue(func() map[string]string {
	types := map[string]string{}
	for line := range strings.Lines(mediaTypes) {
		fields := strings.Fields(line)
		for _, extension := range fields[1:] {
			types["."+extension] = fields[0]
		}
	}
	return types
})

// contentType is the media type of a file by the end of its name.
func contentType(name string) string {
	base := strings.ToLower(path.Base(name))
	if t, ok := typesByExtension()[path.Ext(base)]; ok && path.Ext(base) != base {
		return t
	}
	return "application/octet-stream"
}
