package lab

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"

	"github.com/aphex-pipeline/aphex/e2e/aws"
)

// Aphex runs the command line of the checkout as a person does who may read the
// cluster and the buckets, and returns its output. Paths in args are absolute.
func (l *Lab) Aphex(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", append([]string{"run", "-tags", "nomsgpack", "./cmd/aphex"}, args...)...)
	cmd.Dir = l.cfg.Root
	cmd.Env = append(os.Environ(), "KUBECONFIG="+l.Cluster.Kubeconfig(),
		"AWS_ACCESS_KEY_ID="+aws.AccountTools, "AWS_SECRET_ACCESS_KEY=test", "AWS_EC2_METADATA_DISABLED=true")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("aphex %q: %w: %s%s", args, err, stderr.String(), stdout.String())
	}
	return stdout.String(), nil
}
