package awsauth

import (
	"cmp"
	"context"
	"fmt"
	"path"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/arn"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/aphex-pipeline/aphex/internal/awserr"
	"github.com/aphex-pipeline/aphex/internal/fault"
)

// fallbackRegion is where STS is asked if nothing names a region. Every
// account of the standard partition has it.
const fallbackRegion = "us-east-1"

const (
	// requestAttempts and requestBackoff are the retries of one request to
	// any service that does not say otherwise.
	requestAttempts = 5
	requestBackoff  = 10 * time.Second
	// stsAttempts is the number of tries of one STS request, as the CDK CLI
	// makes them.
	stsAttempts = 3
)

const credentialsRemedy = "Give the service account an AWS identity (IRSA or EKS Pod Identity), or set AWS_ROLE_ARN and AWS_WEB_IDENTITY_TOKEN_FILE"

// Options are the settings of the base identity. The zero value leaves
// everything to the SDK's default chain.
type Options struct {
	// Region is the default region; empty means what the chain finds, else
	// us-east-1.
	Region string
	// EndpointURL replaces the endpoint of every service; empty means AWS's
	// own, or AWS_ENDPOINT_URL where that is set.
	EndpointURL string
	// RoleARN and TokenFile, if set, replace the chain: the role is assumed
	// with the service account's token in the file.
	RoleARN, TokenFile string
}

// Base returns the configuration of the process's own identity: environment,
// web identity, profile files, container endpoint, instance metadata, in the
// SDK's order. It asks nobody for credentials yet.
func Base(ctx context.Context, o Options) (aws.Config, error) {
	load := []func(*config.LoadOptions) error{
		config.WithRetryer(func() aws.Retryer { return awserr.Retryer(requestAttempts, requestBackoff) }),
		config.WithHTTPClient(Connections()), config.WithAPIOptions(APIOptions()),
	}
	if o.Region != "" {
		load = append(load, config.WithRegion(o.Region))
	}
	if o.EndpointURL != "" {
		load = append(load, config.WithBaseEndpoint(o.EndpointURL), config.WithWebIdentityRoleCredentialOptions(o.webIdentity))
	}
	if o.RoleARN != "" {
		identity := client(aws.Config{Region: cmp.Or(o.Region, fallbackRegion), BaseEndpoint: endpoint(o.EndpointURL)})
		load = append(load, config.WithCredentialsProvider(aws.NewCredentialsCache(
			stscreds.NewWebIdentityRoleProvider(identity, o.RoleARN, stscreds.IdentityTokenFile(o.TokenFile)),
		)))
	}
	cfg, err := config.LoadDefaultConfig(ctx, load...)
	if err != nil {
		return aws.Config{}, fault.Newf(fault.User, fault.CredentialsMissing, "read the AWS configuration", credentialsRemedy, "%w", err)
	}
	if cfg.Region == "" {
		cfg.Region = fallbackRegion
	}
	return cfg, nil
}

// webIdentity sends AssumeRoleWithWebIdentity to the endpoint as well. The SDK
// makes that client before it knows the endpoint, and with AWS_ENDPOINT_URL set
// asks the public one.
//
// Source: config v1.33.16, resolve order of credentials and base endpoint, and
// sts v1.51.9, resolveBaseEndpoint.
func (o Options) webIdentity(w *stscreds.WebIdentityRoleOptions) {
	w.Client = client(aws.Config{Region: cmp.Or(o.Region, fallbackRegion), BaseEndpoint: &o.EndpointURL})
}

// endpoint is the SDK's form of an endpoint that may be empty.
func endpoint(url string) *string {
	if url == "" {
		return nil
	}
	return &url
}

// Identity is who a set of credentials belongs to.
type Identity struct {
	// Account is the 12-digit account id.
	Account string
	// ARN is the caller's ARN.
	ARN string
	// Partition is "aws", "aws-cn", "aws-us-gov", …
	Partition string
	// Skew is by how much AWS's clock is ahead of this machine's, to about a
	// second; zero if AWS did not tell its time.
	Skew time.Duration
}

// Is reports whether the identity is a session of the role with that ARN. Roles
// of an account are told apart by their names, which a path precedes in the
// role's ARN and a session's name follows in the caller's.
func (id Identity) Is(role string) bool {
	caller, callerErr := arn.Parse(id.ARN)
	other, roleErr := arn.Parse(role)
	session := strings.Split(caller.Resource, "/")
	return callerErr == nil && roleErr == nil && caller.AccountID == other.AccountID && len(session) == 3 && session[0] == "assumed-role" &&
		strings.HasPrefix(other.Resource, "role/") && session[1] == path.Base(other.Resource)
}

// Caller asks STS who cfg's credentials belong to.
//
// Errors: CredentialsMissing if there are none or they have expired,
// AWSUnavailable if STS does not answer, AWSRejected.
func Caller(ctx context.Context, cfg aws.Config) (Identity, error) {
	const op = "find out the AWS account"
	if err := retrieve(ctx, cfg, op); err != nil {
		return Identity{}, err
	}
	out, err := client(cfg).GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
	if err != nil {
		return Identity{}, awserr.Fault(ctx, err, op)
	}
	id := Identity{Account: aws.ToString(out.Account), ARN: aws.ToString(out.Arn), Partition: "aws"}
	id.Skew, _ = awsmiddleware.GetAttemptSkew(out.ResultMetadata)
	if parsed, err := arn.Parse(id.ARN); err == nil {
		id.Partition = parsed.Partition
	}
	return id, nil
}

// retrieve gets the credentials themselves, to tell "none" from "refused".
func retrieve(ctx context.Context, cfg aws.Config, op string) error {
	if cfg.Credentials == nil {
		return fault.Newf(fault.User, fault.CredentialsMissing, op, credentialsRemedy, "no AWS credentials are configured")
	}
	_, err := cfg.Credentials.Retrieve(ctx)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return awserr.Ended(ctx, op)
	case awserr.Code(err) != "":
		return fault.Newf(fault.User, fault.CredentialsMissing, op, credentialsRemedy, "AWS refuses the identity of this process: %w", awserr.Brief(err))
	case awserr.Unreachable(err) && !strings.Contains(err.Error(), "no EC2 IMDS role found"):
		return awserr.Fault(ctx, err, op)
	default:
		return fault.Newf(fault.User, fault.CredentialsMissing, op, credentialsRemedy, "no AWS credentials were found: %w", err)
	}
}

// Target is the account and region that credentials are wanted for.
type Target struct {
	// Environment is the configured name, for messages; may be empty.
	Environment string
	Account     string
	Region      string
}

// String is "dev (account 111111111111, eu-west-1)".
func (t Target) String() string {
	place := fmt.Sprintf("account %s, %s", t.Account, t.Region)
	if t.Environment == "" {
		return place
	}
	return t.Environment + " (" + place + ")"
}

// AssertAccount proves that cfg's credentials belong to the target's account.
// via says where they come from: a role ARN, or empty for the process's own.
//
// Errors: AccountMismatch names both accounts, the region and the role; those
// of Caller.
func AssertAccount(ctx context.Context, cfg aws.Config, target Target, via string) error {
	id, err := Caller(ctx, cfg)
	if err != nil {
		return err
	}
	return target.match(id, via)
}

func (t Target) match(id Identity, via string) error {
	if id.Account == t.Account {
		return nil
	}
	op := "prove the account of " + t.String()
	if via == "" {
		return fault.Newf(fault.User, fault.AccountMismatch, op,
			fmt.Sprintf("Set roleArn of the environment to a role in account %s, or correct its account", t.Account),
			"the credentials of this process (%s) belong to account %s, not %s, and no role leads there", id.ARN, id.Account, t.Account)
	}
	return fault.Newf(fault.User, fault.AccountMismatch, op, "Correct roleArn or account of the environment",
		"role %s leads to account %s, not %s", via, id.Account, t.Account)
}

func client(cfg aws.Config) *sts.Client {
	return sts.NewFromConfig(cfg, func(o *sts.Options) {
		o.RetryMaxAttempts = stsAttempts
	})
}

// renewBefore is how long before their end credentials are renewed: longer
// than any single request with its retries.
const renewBefore = 3 * time.Minute
