package cluster

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
)

// requirement is a program of the local provider and the Debian package that
// has it.
type requirement struct {
	pkg   string
	there func() bool
}

// requirements lists everything that the local provider needs of the
// distribution.
func requirements() []requirement {
	onPath := func(program string) func() bool {
		return func() bool {
			_, err := exec.LookPath(program)
			return err == nil
		}
	}
	return []requirement{
		{"containerd", onPath("containerd")},
		{"containerd", onPath("ctr")},
		{"runc", onPath("runc")},
		{"containernetworking-plugins", func() bool { return networkPlugins() != "" }},
		{"iptables", onPath("iptables")},
		{"iproute2", onPath("ip")},
		{"procps", onPath("sysctl")},
		{"util-linux", onPath("nsenter")},
	}
}

// missingPackages returns the packages whose programs are not there.
func missingPackages(needed []requirement) []string {
	var missing []string
	for _, r := range needed {
		if !r.there() && !slices.Contains(missing, r.pkg) {
			missing = append(missing, r.pkg)
		}
	}
	return missing
}

// requirePackages installs what is missing, or says what to install.
func requirePackages(ctx context.Context, log io.Writer, needed []requirement) error {
	missing := missingPackages(needed)
	if len(missing) == 0 {
		return nil
	}
	advice := "install what these Debian packages hold: " + strings.Join(missing, " ")
	if _, err := exec.LookPath("apt-get"); err != nil {
		return fmt.Errorf("programs are missing and there is no apt-get; %s", advice)
	}
	logf(log, "installing missing packages: %s", strings.Join(missing, " "))
	for _, args := range [][]string{{"update"}, append([]string{"install", "--yes", "--no-install-recommends"}, missing...)} {
		cmd := exec.CommandContext(ctx, "apt-get", args...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("apt-get %s: %w: %s; %s yourself", args[0], err, out[max(0, len(out)-2000):], advice)
		}
	}
	if missing := missingPackages(needed); len(missing) > 0 {
		return fmt.Errorf("programs of %s are missing although the packages were installed; %s", strings.Join(missing, " "), advice)
	}
	return nil
}
