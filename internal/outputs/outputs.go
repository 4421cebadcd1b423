package outputs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"

	"github.com/aphex-pipeline/aphex/internal/archive"
	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/pipeline"
	"github.com/aphex-pipeline/aphex/internal/record"
	"github.com/aphex-pipeline/aphex/internal/store"
	"github.com/aphex-pipeline/aphex/internal/worker"
)

// The environment variables of commands that name the files.
const (
	// FileVariable names the file of the command's own environment.
	FileVariable = "APHEX_OUTPUTS_FILE"
	// DirVariable names the folder of all files.
	DirVariable = "APHEX_OUTPUTS_DIR"
)

// maxBytes bounds the outputs of an environment: CloudFormation allows 200
// outputs of 1 KiB a stack.
const maxBytes = 16 << 20

// FileName is the file of an environment in the folder.
func FileName(environment string) string { return environment + ".json" }

// Before lists what a run may have deployed before an environment, in order:
// the pipeline's own app, then what the configuration has before it.
func Before(cfg *pipeline.Config, environment string) []string {
	names := []string{pipeline.Own}
	for _, e := range cfg.Environments {
		if e.Name == environment {
			break
		}
		names = append(names, e.Name)
	}
	return names
}

// bucket has the outputs.
type bucket interface {
	Get(ctx context.Context, key string) (io.ReadCloser, store.Object, error)
}

// trees writes files of the worker.
type trees interface {
	WriteTree(ctx context.Context, dir string, tree io.Reader, opts worker.WriteOptions) error
}

// Writer puts outputs from the bucket where commands can read them.
type Writer struct {
	bucket bucket
	trees  trees
}

// NewWriter returns a Writer for the bucket and the worker's files.
func NewWriter(b bucket, t trees) *Writer { return &Writer{bucket: b, trees: t} }

// Write makes a folder of the worker's tree that holds the outputs of
// environments, as far as the run uid has deployed them, and nothing else. It
// returns the documents by environment.
//
// Errors: those of the bucket and the worker, and StoreFailed for a document
// beyond all bounds. An environment without outputs is none.
func (w *Writer) Write(ctx context.Context, uid string, environments []string, dir string) (map[string][]byte, error) {
	documents, files := map[string][]byte{}, map[string][]byte{}
	for _, environment := range environments {
		document, err := w.read(ctx, uid, environment)
		if errors.Is(err, store.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read the stack outputs of %s: %w", environment, err)
		}
		documents[environment], files[FileName(environment)] = document, document
	}
	tree, err := archive.Files(files)
	if err == nil {
		err = w.trees.WriteTree(ctx, dir, tree, worker.WriteOptions{Clean: true})
	}
	if err != nil {
		return nil, fmt.Errorf("write the stack outputs: %w", err)
	}
	return documents, nil
}

// read reads what the deployment of an environment stored.
func (w *Writer) read(ctx context.Context, uid, environment string) ([]byte, error) {
	key := record.OutputsKey(uid, environment)
	body, _, err := w.bucket.Get(ctx, key)
	if err != nil {
		return nil, err
	}
	document, err := io.ReadAll(io.LimitReader(body, maxBytes+1))
	if err := errors.Join(err, body.Close()); err != nil {
		return nil, err
	}
	if len(document) > maxBytes {
		return nil, fault.Newf(fault.System, fault.StoreFailed, "read "+key, "Find out what has written the object",
			"it has more than %d bytes, which no outputs of stacks have", maxBytes)
	}
	return document, nil
}

// Folder is the absolute path, for commands, of a folder that Write has made;
// root is the worker's root folder as they see it.
func Folder(root, dir string) string { return path.Join(root, dir) }
