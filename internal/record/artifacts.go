package record

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/store"
)

// ArtifactType is what kind of file an artifact is.
type ArtifactType string

// The types, as in the founding document's data models.
const (
	LambdaLayer ArtifactType = "lambda-layer"
	Binary      ArtifactType = "binary"
	Package     ArtifactType = "package"
)

// Artifact describes one published file (ArtifactMetadata).
type Artifact struct {
	CommitSHA string `json:"commit_sha"`
	// Timestamp is when the bytes were stored, in UTC: earlier than the run if
	// an earlier build of the commit made the same.
	Timestamp time.Time `json:"timestamp"`
	// Path is the file's path below the folder of artifacts.
	Path string `json:"path"`
	// S3Path names the object: below the commit, or elsewhere if DiffersFrom
	// says why.
	S3Path       string       `json:"s3_path"`
	ArtifactType ArtifactType `json:"artifact_type"`
	SizeBytes    int64        `json:"size_bytes"`
	// Checksum is "sha256:" and 64 hexadecimal digits.
	Checksum string `json:"checksum"`
	// WorkflowID and WorkflowName are those of the run that built it.
	WorkflowID   string `json:"workflow_id"`
	WorkflowName string `json:"workflow_name"`
	// DiffersFrom is the object that an earlier build of the commit left at the
	// path's own place, if its bytes are others; empty otherwise.
	DiffersFrom string `json:"differs_from,omitempty"`
}

// Key is the object key of the artifact.
func (a *Artifact) Key() string {
	if a.DiffersFrom == "" {
		return ArtifactKey(a.CommitSHA, a.Path)
	}
	return VariantKey(a.CommitSHA, a.Path, strings.TrimPrefix(a.Checksum, checksumPrefix))
}

// Checksum is how a record writes a SHA-256 that is given in hexadecimal.
func Checksum(sha256 string) string { return checksumPrefix + sha256 }

const checksumPrefix = "sha256:"

// ArtifactTotal is how much a build published.
type ArtifactTotal struct {
	Count     int   `json:"count"`
	SizeBytes int64 `json:"size_bytes"`
}

// Total adds artifacts up.
func Total(artifacts []Artifact) ArtifactTotal {
	total := ArtifactTotal{Count: len(artifacts)}
	for i := range artifacts {
		total.SizeBytes += artifacts[i].SizeBytes
	}
	return total
}

// ArtifactsKey is the object key of the list of a run's artifacts.
func ArtifactsKey(uid string) string { return "runs/" + uid + "/artifacts.json" }

// ArtifactPrefix is the common prefix of a commit's artifacts.
func ArtifactPrefix(commit string) string { return commit + "/" }

// ArtifactKey is the object key of an artifact.
func ArtifactKey(commit, path string) string { return ArtifactPrefix(commit) + path }

// VariantKey is the object key of an artifact whose own key has other bytes:
// builds of one commit need not make the same. The digest is in the key, so
// that no two contents ever have one key.
func VariantKey(commit, path, sha256 string) string {
	return "variants/" + commit + "/" + sha256 + "/" + path
}

const artifactIndexPrefix = "index/artifacts/"

// artifactIndexKey is the key of an empty object that says which runs have
// artifacts of a commit, in the order in which they were triggered.
func artifactIndexKey(commit, uid string, triggered time.Time) string {
	return artifactIndexPrefix + commit + "/" + indexName(triggered, uid)
}

// PutArtifacts stores the list of what run uid built of commit, and makes it
// findable by the commit. A repeated build leaves what one build leaves: its
// list replaces the one before. at stands in for the time of the trigger in a
// run without a record.
//
// Errors: those of the bucket; ArtifactRefused if the list is too long.
func (r *Recorder) PutArtifacts(ctx context.Context, uid, commit string, at time.Time, artifacts []Artifact) error {
	if len(artifacts) > 0 {
		run, err := r.Run(ctx, uid)
		switch {
		case err == nil:
			at = run.TriggeredAt
		case !errors.Is(err, store.ErrNotFound):
			return err
		}
		if err := r.putIndex(ctx, artifactIndexKey(commit, uid, at)); err != nil {
			return err
		}
	}
	return r.putArtifacts(ctx, uid, artifacts)
}

// InheritArtifacts makes the artifacts of run from those of run to as well: for
// a successor, which takes over a build. They stay the first one's by name.
//
// Errors: those of the bucket; one that wraps store.ErrNotFound if there is no
// list.
func (r *Recorder) InheritArtifacts(ctx context.Context, from, to string) error {
	artifacts, err := r.Artifacts(ctx, from)
	if err != nil {
		return err
	}
	return r.putArtifacts(ctx, to, artifacts)
}

func (r *Recorder) putArtifacts(ctx context.Context, uid string, artifacts []Artifact) error {
	if artifacts == nil {
		artifacts = []Artifact{}
	}
	err := r.put(ctx, ArtifactsKey(uid), artifacts)
	if errors.Is(err, errTooLarge) {
		return fault.Newf(fault.User, fault.ArtifactRefused, "store the list of artifacts",
			"Pack them into archives", "%d files are too many: %w", len(artifacts), err)
	}
	return err
}

// Artifacts returns what a run's build published, sorted by path; the error
// wraps store.ErrNotFound if it has not.
func (r *Recorder) Artifacts(ctx context.Context, uid string) ([]Artifact, error) {
	var artifacts []Artifact
	if err := r.get(ctx, ArtifactsKey(uid), &artifacts); err != nil {
		return nil, err
	}
	for i := range artifacts {
		if artifacts[i].Path == "" { // a list of the first version, in a run that is under way
			_, artifacts[i].Path, _ = strings.Cut(artifacts[i].S3Path, "/"+ArtifactPrefix(artifacts[i].CommitSHA))
		}
	}
	slices.SortFunc(artifacts, func(a, b Artifact) int { return strings.Compare(a.Path, b.Path) })
	return artifacts, nil
}

// total is how much a run's build published; nil if it has not, or if its list
// cannot be read: that is no reason to leave a record open.
func (r *Recorder) total(ctx context.Context, uid string) (*ArtifactTotal, error) {
	artifacts, err := r.Artifacts(ctx, uid)
	switch {
	case errors.Is(err, &fault.Fault{Reason: fault.StoreFailed}):
		return nil, nil //nolint:nilnil // documented
	case err != nil:
		return nil, err
	}
	return new(Total(artifacts)), nil
}

// ArtifactsOf returns what builds of a commit published, one of each content,
// sorted by path; of several for one path the first built comes first. commit
// may be abbreviated: the commits that fit are returned as well, and with more
// than one of them no artifacts.
func (r *Recorder) ArtifactsOf(ctx context.Context, commit string) (artifacts []Artifact, commits []string, err error) {
	listed, err := r.store.List(ctx, artifactIndexPrefix+commit)
	if err != nil {
		return nil, nil, fmt.Errorf("list the builds of commit %s: %w", commit, err)
	}
	uids, fitting := []string{}, map[string]struct{}{}
	for _, object := range listed {
		full, rest, _ := strings.Cut(strings.TrimPrefix(object.Key, artifactIndexPrefix), "/")
		uid := uidOf(rest)
		fitting[full] = struct{}{}
		if !slices.Contains(uids, uid) { // built again by a retry
			uids = append(uids, uid)
		}
	}
	commits = slices.Sorted(maps.Keys(fitting))
	if len(commits) != 1 {
		return nil, commits, nil
	}
	lists, err := r.artifactLists(ctx, uids)
	if err != nil {
		return nil, nil, err
	}
	seen := map[string]struct{}{}
	for i := range lists {
		if _, again := seen[lists[i].S3Path]; !again {
			seen[lists[i].S3Path] = struct{}{}
			artifacts = append(artifacts, lists[i])
		}
	}
	slices.SortStableFunc(artifacts, func(a, b Artifact) int {
		return cmp.Or(strings.Compare(a.Path, b.Path), strings.Compare(a.DiffersFrom, b.DiffersFrom))
	})
	return artifacts, commits, nil
}

// artifactLists reads the lists of runs, one after the other in the result.
func (r *Recorder) artifactLists(ctx context.Context, uids []string) ([]Artifact, error) {
	lists := make([][]Artifact, len(uids))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(readAtOnce)
	for i, uid := range uids {
		group.Go(func() error {
			list, err := r.Artifacts(ctx, uid)
			if errors.Is(err, store.ErrNotFound) { // died in between, or was deleted
				return nil
			}
			lists[i] = list
			return err
		})
	}
	err := group.Wait()
	return slices.Concat(lists...), err
}
