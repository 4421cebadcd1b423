package artifacts

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"path"
	"time"

	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/record"
	"github.com/aphex-pipeline/aphex/internal/worker"
)

// Variable is the environment variable of commands that names the folder of
// artifacts.
const Variable = "APHEX_ARTIFACTS"

// Folder is the absolute path, for commands, of the configured folder of
// artifacts; root is the worker's root folder as they see it.
func Folder(root, configured string) string {
	return path.Join(root, worker.SourceDir, configured)
}

// trees reads files of the worker.
type trees interface {
	Stat(ctx context.Context, paths []string) ([]worker.Entry, error)
	ReadTree(ctx context.Context, dir string, paths []string) (io.ReadCloser, error)
}

// commit reads files of the commit.
type commit interface {
	File(ctx context.Context, path string) ([]byte, error)
}

// lists has the lists of artifacts.
type lists interface {
	Artifacts(ctx context.Context, uid string) ([]record.Artifact, error)
}

// Verifier compares what the workspace has with what was published.
type Verifier struct {
	trees  trees
	commit commit
	lists  lists
}

// NewVerifier returns a Verifier for the worker's files, the commit they come
// from and the lists of runs.
func NewVerifier(t trees, c commit, l lists) *Verifier {
	return &Verifier{trees: t, commit: c, lists: l}
}

// Verify reads every file of the configured folder and compares its SHA-256
// with the list of the run uid that built it. Files that the snapshot leaves
// out are as the commit has them, or missing; both is said in out. A folder
// that does not exist is fine.
//
// The workspace has just been reset to commit and snapshot.
//
// Errors: SnapshotInvalid names a file that is not the one published; those of
// the worker and the bucket.
func (v *Verifier) Verify(ctx context.Context, uid, configured string, out io.Writer) error {
	began := time.Now()
	dir := path.Join(worker.SourceDir, configured)
	found, err := v.trees.Stat(ctx, []string{dir})
	if err != nil || len(found) == 0 || !found[0].Mode.IsDir() {
		return err
	}
	list, err := v.lists.Artifacts(ctx, uid)
	if err != nil {
		return fmt.Errorf("read the list of artifacts: %w", err)
	}
	expected := make(map[string]record.Artifact, len(list))
	for i := range list {
		expected[list[i].Path] = list[i]
	}
	tree, err := v.trees.ReadTree(ctx, dir, nil)
	if err != nil {
		return err
	}
	c := &comparison{verifier: v, folder: path.Clean(configured), expected: expected}
	if err := errors.Join(c.all(ctx, tree), tree.Close()); err != nil {
		return err
	}
	return c.report(out, time.Since(began))
}

// comparison is one call of Verify.
type comparison struct {
	verifier *Verifier
	folder   string
	// expected are the artifacts that have not been met yet.
	expected map[string]record.Artifact
	equal    int
	// committed counts files that are the commit's.
	committed int
}

func (c *comparison) all(ctx context.Context, tree io.Reader) error {
	for files := tar.NewReader(tree); ; {
		header, err := files.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read the artifacts: %w", err)
		}
		if header.Typeflag != tar.TypeReg {
			continue
		}
		if worker.IsSparse(header) {
			return fault.Newf(fault.System, fault.SnapshotInvalid, "verify the artifacts", "Find out what answers for the worker", "%q was sent with holes", header.Name)
		}
		hash := sha256.New()
		if _, err := io.Copy(hash, files); err != nil { //nolint:gosec // G110: it is not kept
			return fmt.Errorf("read artifact %s: %w", header.Name, err)
		}
		if err := c.one(ctx, path.Clean(header.Name), hex.EncodeToString(hash.Sum(nil))); err != nil {
			return err
		}
	}
}

func (c *comparison) one(ctx context.Context, name, sum string) error {
	artifact, published := c.expected[name]
	delete(c.expected, name)
	if artifact.Checksum == record.Checksum(sum) {
		c.equal++
		return nil
	}
	full := path.Join(c.folder, name)
	if content, err := c.verifier.commit.File(ctx, full); err == nil {
		if committed := sha256.Sum256(content); hex.EncodeToString(committed[:]) == sum {
			c.committed++
			return nil
		}
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	expected := "it was not published"
	if published {
		expected = "published was " + artifact.Checksum
	}
	return fault.Newf(fault.System, fault.SnapshotInvalid, "verify the artifacts",
		"Start a new run of this commit; if that fails too, find out what writes to the folder after the build commands", "%q has %s, but %s", full, record.Checksum(sum), expected)
}

// report says what was found in one line.
func (c *comparison) report(out io.Writer, took time.Duration) error {
	text := fmt.Sprintf("artifacts: %d verified in %s", c.equal, took.Round(time.Millisecond))
	if left := len(c.expected); left > 0 {
		text += fmt.Sprintf(", %d not in the snapshot", left)
	}
	if c.committed > 0 {
		text += fmt.Sprintf(", %d as the commit has them", c.committed)
	}
	if _, err := fmt.Fprintln(out, text); err != nil {
		return fmt.Errorf("write the log: %w", err)
	}
	return nil
}
