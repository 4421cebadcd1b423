package worker

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// Install copies the program src to dst, mode 0755, so that another container
// can run it: dst is the old file, or the complete new one, or missing, never
// a part. The folder of dst must exist.
func Install(src, dst string) (err error) {
	in, err := os.Open(src)
	if err != nil {
		return fmt.Errorf("install %s: %w", dst, err)
	}
	defer func() { _ = in.Close() }()
	out, err := os.CreateTemp(filepath.Dir(dst), ".install-*")
	if err != nil {
		return fmt.Errorf("install %s: %w", dst, err)
	}
	defer func() {
		if err != nil {
			_ = os.Remove(out.Name())
			err = fmt.Errorf("install %s: %w", dst, err)
		}
	}()
	_, err = io.Copy(out, in)
	if err == nil {
		err = out.Chmod(0o755)
	}
	if err == nil {
		err = out.Sync()
	}
	if err = errors.Join(err, out.Close()); err != nil {
		return err
	}
	if err = os.Rename(out.Name(), dst); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(dst))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
