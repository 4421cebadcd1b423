package cluster

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// mount is a mount of this process's mount namespace.
type mount struct {
	point string
	kind  string
}

// readMounts returns the mounts in the order in which they were made.
func readMounts() ([]mount, error) {
	file, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	var mounts []mount
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		// 36 35 98:0 /root /point options optional... - kind source options
		front, back, ok := strings.Cut(lines.Text(), " - ")
		fields, kind := strings.Fields(front), strings.Fields(back)
		if !ok || len(fields) < 5 || len(kind) == 0 {
			return nil, fmt.Errorf("read /proc/self/mountinfo: line %q", lines.Text())
		}
		mounts = append(mounts, mount{point: unescape(fields[4]), kind: kind[0]})
	}
	return mounts, lines.Err()
}

// unescape undoes the kernel's \ooo for blanks and backslashes.
func unescape(path string) string {
	var b strings.Builder
	for i := 0; i < len(path); i++ {
		if path[i] == '\\' && i+3 < len(path) {
			if code, err := strconv.ParseUint(path[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(code))
				i += 3
				continue
			}
		}
		b.WriteByte(path[i])
	}
	return b.String()
}

// mountsBelow returns the mount points at or below any of the directories,
// the youngest first.
func mountsBelow(dirs ...string) ([]string, error) {
	mounts, err := readMounts()
	if err != nil {
		return nil, err
	}
	var points []string
	for _, m := range mounts {
		for _, dir := range dirs {
			if m.point == dir || strings.HasPrefix(m.point, dir+"/") {
				points = append(points, m.point)
				break
			}
		}
	}
	slices.Reverse(points)
	return points, nil
}

// unmountBelow detaches every mount at or below the directories.
func unmountBelow(dirs ...string) error {
	points, err := mountsBelow(dirs...)
	if err != nil {
		return err
	}
	var problems []error
	for _, point := range points {
		err := unix.Unmount(point, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			problems = append(problems, fmt.Errorf("unmount %s: %w", point, err))
		}
	}
	return errors.Join(problems...)
}
