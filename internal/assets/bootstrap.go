package assets

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	ssmtypes "github.com/aws/aws-sdk-go-v2/service/ssm/types"

	"github.com/aphex-pipeline/aphex/internal/awserr"
	"github.com/aphex-pipeline/aphex/internal/fault"
)

// ToolkitStack is the name of the stack that bootstraps an environment.
const ToolkitStack = "CDKToolkit"

// trustedOutput is the first version from which the bootstrap roles may read
// the version parameter. From then on the stack's output is not believed in
// place of an unreadable parameter.
const trustedOutput = 5

// Requirement is a demand on the bootstrap version of an environment.
type Requirement struct {
	// Version is the lowest acceptable one; 0 demands nothing.
	Version int
	// Parameter is the SSM parameter that holds the version; empty to read
	// the output of the toolkit stack.
	Parameter string
}

// CheckBootstrap checks that the environment of cfg is bootstrapped with at
// least the required version. output reads the toolkit stack's
// BootstrapVersion; ok is false if there is none.
//
// Errors: NotBootstrapped says what was found and what to run; AWSRejected;
// AWSUnavailable.
func CheckBootstrap(ctx context.Context, cfg aws.Config, account string, r Requirement, output func(ctx context.Context) (value string, ok bool, err error)) error {
	if r.Version == 0 {
		return nil
	}
	op := fmt.Sprintf("check the bootstrap of account %s in %s", account, cfg.Region)
	remedy := fmt.Sprintf("Bootstrap the environment: cdk bootstrap aws://%s/%s", account, cfg.Region)
	value, source, err := bootstrapVersion(ctx, cfg, r, output, op)
	if err != nil {
		return err
	}
	if value == "" {
		return fault.Newf(fault.User, fault.NotBootstrapped, op, remedy, "%s does not exist; the stacks need bootstrap version %d", source, r.Version)
	}
	version, err := strconv.Atoi(strings.TrimSpace(value))
	if err != nil {
		return fault.Newf(fault.User, fault.NotBootstrapped, op, remedy, "%s is %q, not a number", source, value)
	}
	if version < r.Version {
		return fault.Newf(fault.User, fault.NotBootstrapped, op, remedy, "%s says version %d, but the stacks need %d", source, version, r.Version)
	}
	return nil
}

// guardedPublishing is the first version whose publishing role itself is bound
// to buckets of its own account.
const guardedPublishing = 21

// ForeignBucketsAllowed reports whether assets may go to buckets of another
// account, as the CDK CLI decides it: unless the bootstrap has a bucket and is
// older than the version whose roles refuse that by themselves. output reads
// an output of the toolkit stack; one that cannot be read forbids nothing.
func ForeignBucketsAllowed(ctx context.Context, output func(ctx context.Context, key string) (value string, ok bool, err error)) (bool, error) {
	bucket, hasBucket, bucketErr := output(ctx, "BucketName")
	text, hasVersion, versionErr := output(ctx, "BootstrapVersion")
	if ctx.Err() != nil {
		return false, awserr.Ended(ctx, "read the bootstrap")
	}
	unreadable := bucketErr != nil || versionErr != nil
	if unreadable || !hasBucket || !hasVersion || strings.Trim(bucket, "-*") == "" {
		return true, nil
	}
	if version, err := strconv.Atoi(text); err == nil {
		return version >= guardedPublishing, nil
	}
	return true, nil
}

// bootstrapVersion returns the version as text and where it stands; empty if
// it stands nowhere.
func bootstrapVersion(ctx context.Context, cfg aws.Config, r Requirement, output func(context.Context) (string, bool, error), op string) (value, source string, err error) {
	fromStack := "output BootstrapVersion of stack " + ToolkitStack
	if r.Parameter == "" {
		value, _, err = output(ctx)
		return value, fromStack, err
	}
	source = "SSM parameter " + r.Parameter
	out, err := ssm.NewFromConfig(cfg).GetParameter(ctx, &ssm.GetParameterInput{Name: aws.String(r.Parameter)})
	if _, absent := errors.AsType[*ssmtypes.ParameterNotFound](err); absent {
		return "", source, nil
	}
	if err == nil {
		return aws.ToString(out.Parameter.Value), source, nil
	}
	denied := awserr.Fault(ctx, err, op+": read "+source)
	if !awserr.AccessDenied(err) {
		return "", source, denied
	}
	value, ok, err := output(ctx)
	if version, convErr := strconv.Atoi(value); err == nil && ok && convErr == nil && version < trustedOutput {
		return value, fromStack, nil
	}
	return "", source, denied
}
