package aws

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	cfnsdk "github.com/aws/aws-sdk-go-v2/service/cloudformation"
	cfntypes "github.com/aws/aws-sdk-go-v2/service/cloudformation/types"

	"github.com/aphex-pipeline/aphex/internal/awsauth"
)

const (
	// bootstrapStack is the name that CDK gives to its stack.
	bootstrapStack = "CDKToolkit"
	// templateFile is where an installation of the CDK command line keeps the
	// template of that stack.
	templateFile = "bootstrap.yaml"
	// executionPolicies is what the CDK command line chooses by itself when it
	// trusts nobody, and what must be said when it does.
	executionPolicies = "arn:aws:iam::aws:policy/AdministratorAccess"
	// bootstrapLimit bounds the wait for the stack; it takes 0.1 s on an idle
	// machine.
	bootstrapLimit = 2 * time.Minute
)

// Config returns a client configuration for an account, through Endpoint.
func (e *Emulator) Config(account, region string) awssdk.Config {
	return config(e.Endpoint(), account, region)
}

// DirectConfig returns a client configuration for an account, through
// DirectEndpoint.
func (e *Emulator) DirectConfig(account, region string) awssdk.Config {
	return config(e.DirectEndpoint(), account, region)
}

func config(endpoint, account, region string) awssdk.Config {
	return awssdk.Config{
		Region:       region,
		Credentials:  credentials.NewStaticCredentialsProvider(account, "test", ""),
		BaseEndpoint: awssdk.String(endpoint),
		APIOptions:   awsauth.APIOptions(),
	}
}

// Environment is the environment with which AWS and CDK command lines work in
// an account through endpoint, in full: HOME is a directory of the emulator
// and nothing of the caller's AWS configuration is in it.
func (e *Emulator) Environment(endpoint, account, region string) []string {
	return append(toolEnv(e.dir),
		"AWS_ACCESS_KEY_ID="+account,
		"AWS_SECRET_ACCESS_KEY=test",
		"AWS_REGION="+region,
		"AWS_DEFAULT_REGION="+region,
		"AWS_ENDPOINT_URL="+endpoint,
		"AWS_ENDPOINT_URL_S3_FOR_CLOUDFORMATION="+endpoint,
	)
}

// toolEnv is the environment of the CDK command line without an account.
func toolEnv(home string) []string {
	return []string{
		"PATH=" + os.Getenv("PATH"),
		"HOME=" + home,
		"LANG=C.UTF-8",
		"CI=true",
		"CDK_DISABLE_CLI_TELEMETRY=true",
		"AWS_EC2_METADATA_DISABLED=true",
		"AWS_CONFIG_FILE=" + os.DevNull,
		"AWS_SHARED_CREDENTIALS_FILE=" + os.DevNull,
	}
}

// CDK returns the path of the pinned CDK command line, installed on first use.
func (e *Emulator) CDK(ctx context.Context) (string, error) {
	e.bootstrapMu.Lock()
	defer e.bootstrapMu.Unlock()
	if e.cdkDir == "" {
		dir, err := installCDK(ctx, e.config.CacheDir, e.config.Log)
		if err != nil {
			return "", err
		}
		e.cdkDir = dir
	}
	return cdkPath(e.cdkDir), nil
}

func cdkPath(dir string) string { return filepath.Join(dir, "node_modules", ".bin", "cdk") }

// Bootstrap runs the real cdk bootstrap for an account and region. The
// accounts of trust may deploy into it. It takes some seconds; QuickBootstrap
// does the same in a fraction of one.
func (e *Emulator) Bootstrap(ctx context.Context, account, region string, trust []string) error {
	cdk, err := e.CDK(ctx)
	if err != nil {
		return err
	}
	args := []string{"--no-notices", "bootstrap", "aws://" + account + "/" + region}
	for _, other := range trust {
		args = append(args, "--trust", other)
	}
	args = append(args, "--cloudformation-execution-policies", executionPolicies)
	if err := runTo(ctx, e.config.Log, e.dir, e.Environment(e.direct, account, region), cdk, args...); err != nil {
		return fmt.Errorf("bootstrap account %s in %s: %w", account, region, err)
	}
	return nil
}

// QuickBootstrap leaves the same stack as Bootstrap without running the
// command line: the template it shows, with the parameters it gives. A test
// compares the two.
func (e *Emulator) QuickBootstrap(ctx context.Context, account, region string, trust []string) error {
	if _, err := e.CDK(ctx); err != nil {
		return err
	}
	template, err := os.ReadFile(filepath.Join(e.cdkDir, templateFile))
	if err != nil {
		return fmt.Errorf("read bootstrap template: %w", err)
	}
	client := cfnsdk.NewFromConfig(e.DirectConfig(account, region))
	given := map[string]string{
		"TrustedAccounts":                 strings.Join(trust, ","),
		"TrustedAccountsForLookup":        "",
		"CloudFormationExecutionPolicies": executionPolicies,
		"FileAssetsBucketKmsKeyId":        "AWS_MANAGED_KEY",
		"PublicAccessBlockConfiguration":  "true",
	}
	var parameters []cfntypes.Parameter
	for key, value := range given {
		parameters = append(parameters, cfntypes.Parameter{ParameterKey: awssdk.String(key), ParameterValue: awssdk.String(value)})
	}
	slices.SortFunc(parameters, func(a, b cfntypes.Parameter) int { return strings.Compare(*a.ParameterKey, *b.ParameterKey) })
	_, err = client.CreateStack(ctx, &cfnsdk.CreateStackInput{
		StackName:    awssdk.String(bootstrapStack),
		TemplateBody: awssdk.String(string(template)),
		Parameters:   parameters,
		Capabilities: []cfntypes.Capability{cfntypes.CapabilityCapabilityNamedIam, cfntypes.CapabilityCapabilityIam},
	})
	if err == nil {
		waiter := cfnsdk.NewStackCreateCompleteWaiter(client, func(o *cfnsdk.StackCreateCompleteWaiterOptions) {
			o.MinDelay, o.MaxDelay = healthPoll, time.Second
		})
		err = waiter.Wait(ctx, &cfnsdk.DescribeStacksInput{StackName: awssdk.String(bootstrapStack)}, bootstrapLimit)
	}
	if err != nil {
		return fmt.Errorf("bootstrap account %s in %s: %w", account, region, err)
	}
	return nil
}

// saveTemplate writes the template of the bootstrap stack into an installation
// of the command line.
func saveTemplate(ctx context.Context, dir string) error {
	template, err := run(ctx, dir, toolEnv(dir), cdkPath(dir), "--no-notices", "bootstrap", "--show-template")
	if err != nil {
		return err
	}
	// What else the command line left in its home is not part of the result.
	if err := os.RemoveAll(filepath.Join(dir, ".cdk")); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, templateFile), []byte(template+"\n"), 0o644)
}
