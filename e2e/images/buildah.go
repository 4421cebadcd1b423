package images

import (
	"context"
	"embed"
	"errors"
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
type buildahEngine struct {
	// dir is where storages are made.
	dir string
}

func (buildahEngine) name() string { return "buildah" }

func (e buildahEngine) base() *toolcache.Recipe {
	return &toolcache.Recipe{
		Name:   "Debian base image",
		Module: baseFiles,
		Inputs: []string{suite, runtime.GOARCH, baseVersion},
		Build:  e.buildBase,
	}
}

func (e buildahEngine) build(ctx context.Context, d dockerfile, from base, out string, log io.Writer) error {
	storage, err := newStorage(e.dir)
	if err != nil {
		return err
	}
	return errors.Join(e.buildIn(ctx, storage, d, from, out, log), storage.remove())
}

func (e buildahEngine) buildIn(ctx context.Context, storage *storage, d dockerfile, from base, out string, log io.Writer) error {
	args := append([]string{"--pull-never", "--network", "host", "--file", d.path, "--tag", d.tag}, secrets()...)
	if d.target != "" {
		args = append(args, "--target", d.target)
	}
	if from.tar != "" {
		if err := storage.run(ctx, log, "pull", "--quiet", "docker-archive:"+from.tar); err != nil {
			return err
		}
		args = append(args, "--build-arg", "BASE="+from.tag)
	}
	if err := storage.run(ctx, log, "build", append(args, d.context)...); err != nil {
		return err
	}
	return storage.run(ctx, log, "push", "--quiet", d.tag, "docker-archive:"+out+":"+d.tag)
}

// buildBase makes the base image: a minimal Debian tree of the release with
// its security updates, without what no container reads.
func (e buildahEngine) buildBase(ctx context.Context, module, out string, log io.Writer) error {
	storage, err := newStorage(e.dir)
	if err != nil {
		return err
	}
	raw := filepath.Join(out, "raw.tar")
	settings := filepath.Join(module, "base", "dpkg.cfg")
	if err := errors.Join(e.buildBaseIn(ctx, storage, settings, raw, log), storage.remove()); err != nil {
		return err
	}
	return pack(raw, filepath.Join(out, imageFile), baseTag)
}

func (e buildahEngine) buildBaseIn(ctx context.Context, storage *storage, settings, out string, log io.Writer) error {
	// The tree is made in the storage because debootstrap mounts into it.
	tree, files := filepath.Join(storage.dir, "tree"), filepath.Join(storage.dir, "context")
	if err := os.Mkdir(files, 0o755); err != nil {
		return err
	}
	if err := baseTree(ctx, settings, tree, log); err != nil {
		return err
	}
	// A tar keeps owners, modes and links, which copying files would not.
	archive := filepath.Join(files, "tree.tar")
	pack := exec.CommandContext(ctx, "tar", "--create", "--numeric-owner", "--one-file-system", "--file", archive, "--directory", tree, ".")
	if err := runCommand(pack, log); err != nil {
		return err
	}
	file := filepath.Join(storage.dir, "Dockerfile")
	if err := os.WriteFile(file, []byte("FROM scratch\nADD tree.tar /\nCMD [\"bash\"]\n"), 0o644); err != nil {
		return err
	}
	return e.buildIn(ctx, storage, dockerfile{path: file, context: files, tag: baseTag}, base{}, out, log)
}

// baseTree fills tree with a Debian system.
func baseTree(ctx context.Context, settings, tree string, log io.Writer) error {
	bootstrap := exec.CommandContext(ctx, "debootstrap", "--variant=minbase", suite, tree)
	bootstrap.Env = append(os.Environ(), "DPKG_FORCE=unsafe-io") // a tree half written is thrown away anyway
	if err := runCommand(bootstrap, log); err != nil {
		return err
	}
	if err := addUpdates(filepath.Join(tree, "etc/apt/sources.list")); err != nil {
		return err
	}
	rules, err := os.ReadFile(settings)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(tree, "etc/dpkg/dpkg.cfg.d/aphex"), rules, 0o644); err != nil {
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
	// Names of this machine, and device nodes: both are the container engine's.
	for name, content := range map[string]string{"etc/resolv.conf": "", "etc/hostname": "localhost\n"} {
		if err := os.WriteFile(filepath.Join(tree, name), []byte(content), 0o644); err != nil {
			return err
		}
	}
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
