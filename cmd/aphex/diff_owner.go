package main

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"

	"github.com/gofrs/flock"

	"github.com/aphex-pipeline/aphex/internal/fault"
)

// ownership is whose preview this is: --owner, else this machine and checkout.
// Names of change sets are derived from it, so that the next preview finds what
// a killed one left.
func (f *diffFlags) ownership(root string) (string, error) {
	if f.owner != "" {
		return "owner " + f.owner, nil
	}
	host, err := os.Hostname()
	if err != nil {
		return "", fault.Wrap(fault.System, fault.Internal, "find out the name of this machine", "Give --owner", err)
	}
	return "checkout " + host + " " + root, nil
}

// lockOwner lets one preview of an owner run at a time on this machine: they
// would remove each other's change sets. The lock goes with the process.
func lockOwner(owner string) (unlock func(), err error) {
	const op = "lock the preview"
	dir, err := os.UserCacheDir()
	if err != nil {
		dir = os.TempDir()
	}
	dir = filepath.Join(dir, "aphex")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fault.Wrap(fault.System, fault.WorkspaceFailed, op, "Make the folder writable, or set XDG_CACHE_HOME", err)
	}
	sum := sha256.Sum256([]byte(owner))
	lock := flock.New(filepath.Join(dir, "diff-"+hex.EncodeToString(sum[:8])+".lock"))
	locked, err := lock.TryLock()
	if err != nil {
		return nil, fault.Wrap(fault.System, fault.WorkspaceFailed, op, "Make the folder writable, or set XDG_CACHE_HOME", err)
	}
	if !locked {
		return nil, fault.Newf(fault.Transient, fault.StackBusy, op, "Wait until it has ended, or give each its own --owner",
			"another preview by change sets of %s is under way on this machine", owner)
	}
	return func() { _ = lock.Unlock() }, nil
}
