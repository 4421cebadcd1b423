package stagelog

import (
	"context"
	"io"
	"path"

	"github.com/aphex-pipeline/aphex/internal/store"
)

// How a growing log becomes objects. A part is written again as it grows, so
// that a slow log does not become thousands of objects, and is left alone
// when it is large, or has been written often, so that little is sent twice.
const (
	// sealBytes is the size at which a part is left alone.
	sealBytes = 64 << 10
	// sealPuts is how often a part is written, at most. With DefaultEvery that
	// is one object for 36 seconds of a slow log, each of whose bytes is sent
	// 6.5 times on average.
	sealPuts = 12
	// maxPart bounds a part, and so the memory of an upload.
	maxPart = 4 << 20
)

// upload is how far the file of the start-th process has come. It is used by
// one goroutine at a time.
type upload struct {
	start int
	// begin is where the open part begins, sent is where it ends in the bucket.
	begin, sent int64
	puts        int
}

// send uploads file up to size. After an error it can be called again.
func (u *upload) send(ctx context.Context, s Store, id ID, file io.ReaderAt, size int64) error {
	for u.sent < size {
		end := min(size, u.begin+maxPart)
		body := io.NewSectionReader(file, u.begin, end-u.begin)
		if _, err := s.Put(ctx, id.partKey(u.start, u.begin), body, store.PutOptions{ContentType: contentType}); err != nil {
			return err
		}
		u.sent = end
		if u.puts++; u.puts == sealPuts || end-u.begin >= sealBytes {
			u.begin, u.puts = end, 0
		}
	}
	return nil
}

// parts lists what is in the bucket of a log that is being written, in order.
func (id ID) parts(ctx context.Context, s Store) ([]part, error) {
	objects, err := s.List(ctx, livePrefix(id.RunUID)+id.path()+"/")
	if err != nil {
		return nil, err
	}
	return partsOf(objects), nil
}

func partsOf(objects []store.Object) []part {
	var parts []part
	for _, o := range objects {
		if start, offset, ok := parsePart(path.Base(o.Key)); ok {
			parts = append(parts, part{start: start, offset: offset, size: o.Size, key: o.Key})
		}
	}
	return parts
}
