package deploy

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/aphex-pipeline/aphex/internal/archive"
	"github.com/aphex-pipeline/aphex/internal/assembly"
	"github.com/aphex-pipeline/aphex/internal/awserr"
	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/record"
	"github.com/aphex-pipeline/aphex/internal/store"
)

// keptAssembly is the journal entry of an app's assembly. It is written once the
// assembly is in the bucket and before anything is deployed from it: whoever
// resumes the execution, in whichever pod, deploys the same one.
type keptAssembly struct {
	Key    string `json:"key"`
	SHA256 string `json:"sha256"`
}

// assembly returns the app's assembly: the one this execution has already
// made, if a process of it died, or a new one.
func (d *deployment) assembly(ctx context.Context, g group) (*assembly.Assembly, error) {
	sum := sha256.Sum256([]byte(g.app))
	entry := "assembly-" + hex.EncodeToString(sum[:8])
	known, ok, err := d.env.Effects.Get(ctx, entry)
	if err != nil {
		return nil, fmt.Errorf("read the journal: %w", err)
	}
	var k keptAssembly
	if ok && json.Unmarshal(known, &k) == nil && k.Key != "" {
		built, err := d.recover(ctx, g, k)
		if err != nil || built != nil {
			return built, err
		}
	}
	dir, err := d.synth(ctx, g)
	if err != nil {
		return nil, err
	}
	d.dirs = append(d.dirs, dir)
	if k, err = d.keep(ctx, dir); err != nil {
		return nil, err
	}
	value, err := json.Marshal(k)
	if err != nil {
		return nil, fmt.Errorf("encode the journal entry: %w", err)
	}
	if err := d.env.Effects.Put(ctx, entry, value); err != nil {
		return nil, fmt.Errorf("write the journal: %w", err)
	}
	// Under its digest it is found again by the next process of this pod.
	local := d.local(k)
	if err := errors.Join(os.RemoveAll(local), os.Rename(dir, local)); err != nil {
		return nil, d.broken(ctx, "keep the assembly", err)
	}
	d.dirs = append(d.dirs, local)
	return assembly.Load(local)
}

// synth makes the assembly of an app, from a view that no other app has used.
func (d *deployment) synth(ctx context.Context, g group) (dir string, err error) {
	d.env.Progress(fmt.Sprintf("%s: synthesizing %s", d.target.Name, appName(g.app)))
	if d.used {
		if err := d.reset(ctx); err != nil {
			return "", err
		}
	}
	d.used = true
	outputs, err := d.earlierOutputs(ctx)
	if err != nil {
		return "", err
	}
	return d.stage.cfg.Synth.Synth(ctx, SynthRequest{
		Environment: d.target, App: g.app, Stacks: namesOf(g.all), Artifacts: d.artifacts, Outputs: outputs, ID: d.req.Key() + " " + g.app,
	}, d.env.Output)
}

// recover returns the assembly that was made before; nil if it is gone or
// damaged, which is said.
func (d *deployment) recover(ctx context.Context, g group, k keptAssembly) (*assembly.Assembly, error) {
	local := d.local(k)
	if _, err := os.Stat(local); err != nil {
		err := d.fetch(ctx, k, local)
		if errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrDamaged) {
			d.say("warning: the assembly of %s that was made before cannot be used, making it anew: %v", appName(g.app), err)
			return nil, nil //nolint:nilnil // said and to be made anew
		}
		if err != nil {
			return nil, err
		}
	}
	d.dirs = append(d.dirs, local)
	d.say("going on with the assembly of %s that was made before", appName(g.app))
	return assembly.Load(local)
}

// local is where an assembly is in this pod. A folder of that name is whole.
func (d *deployment) local(k keptAssembly) string {
	return filepath.Join(d.stage.cfg.Private, "kept-"+k.SHA256)
}

// countersFile is what the CDK library measured while it synthesized: other
// numbers each time, which nothing is deployed from.
const countersFile = "performance-counters.json"

// keep stores an assembly in the bucket and returns when it is durable. Equal
// assemblies have equal keys.
func (d *deployment) keep(ctx context.Context, dir string) (keptAssembly, error) {
	const op = "store the assembly"
	if err := os.MkdirAll(d.stage.cfg.Private, 0o700); err != nil {
		return keptAssembly{}, d.broken(ctx, op, err)
	}
	file, err := os.CreateTemp(d.stage.cfg.Private, "assembly-*.tar.zst")
	if err != nil {
		return keptAssembly{}, d.broken(ctx, op, err)
	}
	defer func() { _ = file.Close(); _ = os.Remove(file.Name()) }()
	if err := os.RemoveAll(filepath.Join(dir, countersFile)); err != nil {
		return keptAssembly{}, d.broken(ctx, op, err)
	}
	digest, err := pack(ctx, dir, file)
	if err != nil {
		return keptAssembly{}, d.broken(ctx, op, err)
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return keptAssembly{}, d.broken(ctx, op, err)
	}
	key := record.AssemblyKey(d.req.Run.UID, digest)
	object, err := d.stage.cfg.Store.Put(ctx, key, file, store.PutOptions{ContentType: "application/zstd"})
	if err != nil {
		return keptAssembly{}, fmt.Errorf("%s: %w", op, err)
	}
	if object.SHA256 != digest {
		return keptAssembly{}, fault.Newf(fault.System, fault.StoreFailed, op, "Retry the run",
			"the stored assembly has SHA-256 %s, the written one %s", object.SHA256, digest)
	}
	return keptAssembly{Key: key, SHA256: digest}, nil
}

// epoch is the time of every file in a stored assembly: equal trees have equal
// archives.
func epoch() time.Time { return time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC) }

// pack writes dir as a compressed archive and returns its SHA-256.
func pack(ctx context.Context, dir string, dst io.Writer) (string, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return "", err
	}
	defer func() { _ = root.Close() }()
	hash := sha256.New()
	compressed, err := zstd.NewWriter(io.MultiWriter(dst, hash), zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1))
	if err != nil {
		return "", err
	}
	_, err = archive.Create(ctx, compressed, root, archive.CreateOptions{ModTime: epoch()})
	if err = errors.Join(err, compressed.Close()); err != nil {
		return "", err
	}
	return hex.EncodeToString(hash.Sum(nil)), nil
}

// fetch brings a stored assembly back to dir, which is there afterwards only
// if it is whole.
func (d *deployment) fetch(ctx context.Context, k keptAssembly, dir string) error {
	const op = "restore the assembly"
	body, object, err := d.stage.cfg.Store.Get(ctx, k.Key)
	if err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	defer func() { _ = body.Close() }()
	if object.SHA256 != k.SHA256 {
		return fault.Newf(fault.System, fault.StoreFailed, op, "Find out what changed the object",
			"%w: %s has SHA-256 %s, the journal says %s", store.ErrDamaged, k.Key, object.SHA256, k.SHA256)
	}
	fresh := dir + ".new"
	if err := errors.Join(os.RemoveAll(fresh), os.MkdirAll(fresh, 0o700)); err != nil {
		return d.broken(ctx, op, err)
	}
	if err := unpack(ctx, body, fresh); err != nil {
		return d.broken(ctx, op, err)
	}
	if err := os.Rename(fresh, dir); err != nil {
		return d.broken(ctx, op, err)
	}
	return nil
}

func unpack(ctx context.Context, src io.Reader, dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	plain, err := zstd.NewReader(src, zstd.WithDecoderConcurrency(1))
	if err != nil {
		return err
	}
	defer plain.Close()
	if _, err := archive.Extract(ctx, root, plain, archive.Limits{}); err != nil {
		return err
	}
	// To its end, where the store compares the digest.
	_, err = io.Copy(io.Discard, plain)
	return err
}

// broken makes a fault of what the file system or an archive says.
func (d *deployment) broken(ctx context.Context, op string, err error) error {
	if ctx.Err() != nil {
		return awserr.Ended(ctx, op)
	}
	if f, ok := errors.AsType[*fault.Fault](err); ok {
		return f
	}
	return fault.Wrap(fault.System, fault.WorkspaceFailed, op, "", err)
}

// removeAssemblies removes the assemblies of an execution that ended. Nothing
// is lost with a folder that stays behind: it goes with the pod.
func (d *deployment) removeAssemblies() {
	for _, dir := range d.dirs {
		if err := os.RemoveAll(dir); err != nil {
			d.env.Logger.Warn("assembly not removed", "err", err)
		}
	}
}
