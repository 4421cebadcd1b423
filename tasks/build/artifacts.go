package build

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"time"

	"github.com/aphex-pipeline/aphex/internal/record"
	"github.com/aphex-pipeline/aphex/internal/store"
	"github.com/aphex-pipeline/aphex/internal/worker"
	"github.com/aphex-pipeline/aphex/tasks/task"
)

// publish stores every regular file below folder (relative to the checkout)
// under <commit>/, tagged with commit and time, and the list of them under the
// run's key. A folder that does not exist means no artifacts.
func (s *Stage) publish(ctx context.Context, req task.Request, folder string, out io.Writer) ([]record.Artifact, error) {
	dir := path.Join(worker.SourceDir, folder)
	found, err := s.cfg.Trees.Stat(ctx, []string{dir})
	if err != nil {
		return nil, err
	}
	artifacts := []record.Artifact{}
	if len(found) == 1 && found[0].Mode.IsDir() {
		if artifacts, err = s.upload(ctx, req, dir, out); err != nil {
			return nil, err
		}
	}
	list, err := json.MarshalIndent(artifacts, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode the list of artifacts: %w", err)
	}
	_, err = s.cfg.Store.Put(ctx, record.ArtifactsKey(req.Run.UID), bytes.NewReader(list), store.PutOptions{ContentType: "application/json"})
	return artifacts, err
}

func (s *Stage) upload(ctx context.Context, req task.Request, dir string, out io.Writer) ([]record.Artifact, error) {
	tree, err := s.cfg.Trees.ReadTree(ctx, dir, nil)
	if err != nil {
		return nil, err
	}
	artifacts, err := s.uploadTar(ctx, req, tree, out)
	return artifacts, errors.Join(err, tree.Close())
}

func (s *Stage) uploadTar(ctx context.Context, req task.Request, tree io.Reader, out io.Writer) ([]record.Artifact, error) {
	at := s.now().UTC()
	artifacts := []record.Artifact{}
	for files := tar.NewReader(tree); ; {
		header, err := files.Next()
		if errors.Is(err, io.EOF) {
			return artifacts, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read the artifacts: %w", err)
		}
		if header.Typeflag != tar.TypeReg {
			continue
		}
		name := path.Clean(header.Name)
		object, err := s.cfg.Store.Put(ctx, req.Commit+"/"+name, files, store.PutOptions{
			Tags: map[string]string{"commit-sha": req.Commit, "timestamp": at.Format(time.RFC3339)},
		})
		if err != nil {
			return nil, err
		}
		artifacts = append(artifacts, record.Artifact{
			CommitSHA: req.Commit, Timestamp: at, S3Path: object.URL, ArtifactType: artifactType(name),
			SizeBytes: object.Size, Checksum: "sha256:" + object.SHA256,
		})
		if _, err := fmt.Fprintf(out, "artifact %s (%s)\n", name, size(object.Size)); err != nil {
			return nil, fmt.Errorf("write the log: %w", err)
		}
	}
}

// artifactType sorts a file into the three kinds of the record's schema.
func artifactType(name string) string {
	switch ext := path.Ext(name); {
	case ext == ".zip" && strings.Contains(name, "layer"):
		return "lambda-layer"
	case ext == "" || ext == ".exe" || ext == ".bin":
		return "binary"
	default:
		return "package"
	}
}

// size renders a number of bytes for people: "812 B", "4.2 MiB".
func size(n int64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	value, exponent := float64(n)/unit, 0
	for value >= unit && exponent < 3 {
		value /= unit
		exponent++
	}
	return fmt.Sprintf("%.1f %ciB", value, "KMGT"[exponent])
}
