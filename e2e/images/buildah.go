package images

import (
	"context"
	"embed"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/aphex-pipeline/aphex/e2e/toolcache"
)

const (
	// suite is the Debian release that the Dockerfiles start from.
	suite = "trixie"
	// baseTag is the name of the base image made here; it is not the official
	// one and does not pretend to be.
	baseTag = "localhost/aphex/debian:" + suite + "-slim"
	// baseVersion is raised when baseTree makes something else of the same
	// inputs.
	baseVersion = "1"
)

//go:embed base
var baseFiles embed.FS

// buildahEngine builds with Debian's buildah, without a container runtime, in
// a storage of its own that is removed afterwards.
type buildahEngine struct{}

func (buildahEngine) name() string { return "buildah" }

func (e buildahEngine) base() *toolcache.Recipe {
	return &toolcache.Recipe{
		Name:   "Debian base image",
		Module: baseFiles,
		Inputs: []string{suite, runtime.GOARCH, baseVersion},
		Build:  e.buildBase,
	}
}

func (e buildahEngine) build(ctx context.Context, d dockerfile, base, out string, log io.Writer) error {
	storage, err := newStorage(filepath.Dir(out))
	if err != nil {
		return err
	}
	defer storage.remove()
	args := append([]string{"build", "--pull-never", "--network", "host", "--file", d.path, "--tag", d.tag}, secrets()...)
	if d.target != "" {
		args = append(args, "--target", d.target)
	}
	if base != "" {
		if err := storage.run(ctx, log, "pull", "--quiet", "docker-archive:"+base); err != nil {
			return err
		}
		args = append(args, "--build-arg", "BASE="+baseTag)
	}
	if err := storage.run(ctx, log, append(args, d.context)...); err != nil {
		return err
	}
	return storage.run(ctx, log, "push", "--quiet", d.tag, "docker-archive:"+out+":"+d.tag)
}

// buildBase makes the base image: a minimal Debian tree of the release with
// its security updates, without what no container reads.
func (e buildahEngine) buildBase(ctx context.Context, module, out string, log io.Writer) error {
	work := filepath.Join(out, "work")
	tree := filepath.Join(work, "context", "tree")
	if err := os.MkdirAll(filepath.Dir(tree), 0o755); err != nil {
		return err
	}
	if err := baseTree(ctx, filepath.Join(module, "base", "dpkg-excludes"), tree, log); err != nil {
		return err
	}
	// A tar keeps owners, modes and links, which copying files would not.
	archive := filepath.Join(work, "context", "tree.tar")
	if err := runCommand(exec.CommandContext(ctx, "tar", "--create", "--numeric-owner", "--file", archive, "--directory", tree, "."), log); err != nil {
		return err
	}
	if err := os.RemoveAll(tree); err != nil {
		return err
	}
	file := filepath.Join(work, "Dockerfile")
	if err := os.WriteFile(file, []byte("FROM scratch\nADD tree.tar /\nCMD [\"bash\"]\n"), 0o644); err != nil {
		return err
	}
	raw := filepath.Join(out, "raw.tar")
	if err := e.build(ctx, dockerfile{path: file, context: filepath.Dir(archive), tag: baseTag}, "", raw, log); err != nil {
		return err
	}
	if err := os.RemoveAll(work); err != nil {
		return err
	}
	return pack(raw, filepath.Join(out, imageFile), baseTag)
}

// baseTree fills tree with a Debian system.
func baseTree(ctx context.Context, excludes, tree string, log io.Writer) error {
	if err := runCommand(exec.CommandContext(ctx, "debootstrap", "--variant=minbase", suite, tree), log); err != nil {
		return err
	}
	if err := addUpdates(filepath.Join(tree, "etc/apt/sources.list")); err != nil {
		return err
	}
	rules, err := os.ReadFile(excludes)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(tree, "etc/dpkg/dpkg.cfg.d/excludes"), rules, 0o644); err != nil {
		return err
	}
	script := `set -e
export DEBIAN_FRONTEND=noninteractive
apt-get update --quiet
apt-get upgrade --quiet --yes
apt-get clean
rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/apt /var/log/*.log /var/cache/debconf/*-old
find /usr/share/doc -type f ! -name copyright -delete
find /usr/share/doc -depth -type d -empty -delete
rm -rf /usr/share/man/* /usr/share/info/* /usr/share/locale/* /usr/share/lintian`
	if err := runCommand(exec.CommandContext(ctx, "chroot", tree, "sh", "-c", script), log); err != nil {
		return err
	}
	// Device nodes are the container engine's; debootstrap makes some.
	return emptyDir(filepath.Join(tree, "dev"))
}

// addUpdates adds the release's updates and security updates to the archive
// that debootstrap wrote down. By Debian's convention the security archive
// lies beside the main one.
func addUpdates(path string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	fields := strings.Fields(string(data))
	if len(fields) < 4 || fields[0] != "deb" {
		return fmt.Errorf("%s: want one line \"deb URL %s main\", got %q", path, suite, data)
	}
	archive := strings.TrimSuffix(fields[1], "/")
	list := fmt.Sprintf("deb %[1]s %[2]s main\ndeb %[1]s %[2]s-updates main\ndeb %[1]s-security %[2]s-security main\n", archive, suite)
	return os.WriteFile(path, []byte(list), 0o644)
}

func emptyDir(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if err := os.RemoveAll(filepath.Join(dir, entry.Name())); err != nil {
			return err
		}
	}
	return nil
}

// storage is a place where buildah keeps images.
type storage struct{ dir string }

func newStorage(parent string) (storage, error) {
	dir, err := os.MkdirTemp(parent, "storage-")
	if err != nil {
		return storage{}, err
	}
	// Nothing is pulled from anywhere, so there is nothing to sign or verify.
	policy := []byte(`{"default": [{"type": "insecureAcceptAnything"}]}`)
	return storage{dir}, os.WriteFile(filepath.Join(dir, "policy.json"), policy, 0o644)
}

func (s storage) run(ctx context.Context, log io.Writer, args ...string) error {
	global := []string{"--root", filepath.Join(s.dir, "root"), "--runroot", filepath.Join(s.dir, "run"), "--storage-driver", "overlay"}
	// Options that only some subcommands know follow the subcommand.
	if args[0] != "rm" {
		args = append([]string{args[0], "--signature-policy", filepath.Join(s.dir, "policy.json")}, args[1:]...)
	}
	cmd := exec.CommandContext(ctx, "buildah", append(global, args...)...)
	cmd.Env = append(os.Environ(), "BUILDAH_ISOLATION=chroot", "BUILDAH_LAYERS=false")
	return runCommand(cmd, log)
}

// remove unmounts and removes everything. What a killed build left mounted is
// unmounted first.
func (s storage) remove() {
	_ = s.run(context.Background(), nil, "rm", "--all")
	_ = os.RemoveAll(s.dir)
}
