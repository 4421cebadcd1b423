package cfn

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	cfnsdk "github.com/aws/aws-sdk-go-v2/service/cloudformation"
	cfntypes "github.com/aws/aws-sdk-go-v2/service/cloudformation/types"

	"github.com/aphex-pipeline/aphex/internal/awserr"
	"github.com/aphex-pipeline/aphex/internal/fault"
)

// stackAPI is what is asked of CloudFormation about stacks.
type stackAPI interface {
	DescribeStacks(ctx context.Context, in *cfnsdk.DescribeStacksInput, opts ...func(*cfnsdk.Options)) (*cfnsdk.DescribeStacksOutput, error)
	DescribeStackEvents(ctx context.Context, in *cfnsdk.DescribeStackEventsInput, opts ...func(*cfnsdk.Options)) (*cfnsdk.DescribeStackEventsOutput, error)
	GetTemplate(ctx context.Context, in *cfnsdk.GetTemplateInput, opts ...func(*cfnsdk.Options)) (*cfnsdk.GetTemplateOutput, error)
	DeleteStack(ctx context.Context, in *cfnsdk.DeleteStackInput, opts ...func(*cfnsdk.Options)) (*cfnsdk.DeleteStackOutput, error)
	UpdateTerminationProtection(ctx context.Context, in *cfnsdk.UpdateTerminationProtectionInput, opts ...func(*cfnsdk.Options)) (*cfnsdk.UpdateTerminationProtectionOutput, error)
}

// changeSetAPI is what is asked of CloudFormation about change sets.
type changeSetAPI interface {
	CreateChangeSet(ctx context.Context, in *cfnsdk.CreateChangeSetInput, opts ...func(*cfnsdk.Options)) (*cfnsdk.CreateChangeSetOutput, error)
	DescribeChangeSet(ctx context.Context, in *cfnsdk.DescribeChangeSetInput, opts ...func(*cfnsdk.Options)) (*cfnsdk.DescribeChangeSetOutput, error)
	ExecuteChangeSet(ctx context.Context, in *cfnsdk.ExecuteChangeSetInput, opts ...func(*cfnsdk.Options)) (*cfnsdk.ExecuteChangeSetOutput, error)
	DeleteChangeSet(ctx context.Context, in *cfnsdk.DeleteChangeSetInput, opts ...func(*cfnsdk.Options)) (*cfnsdk.DeleteChangeSetOutput, error)
}

var (
	_ stackAPI     = (*cfnsdk.Client)(nil)
	_ changeSetAPI = (*cfnsdk.Client)(nil)
)

// The retries of one request, as the CDK CLI makes them; one that is throttled
// has more.
const (
	requestAttempts = 7
	requestBackoff  = 15 * time.Second
)

// Config is where and how stacks are deployed.
type Config struct {
	// AWS has the credentials to use and the region. A BaseEndpoint is also
	// where CloudFormation is told to find templates. Required.
	AWS aws.Config
	// Account is the 12-digit id of the account AWS leads to. Required.
	Account string
	// Journal keeps intents. Required.
	Journal Journal
	// OnEvent receives every event of the deployed stack and of those nested
	// in it, in order; it must be quick. May be nil.
	OnEvent func(Event)
	// OnNote receives a sentence for the log. May be nil.
	OnNote func(string)
	// TemplateEndpoint replaces the S3 endpoint in template URLs; empty for
	// AWS.BaseEndpoint, else AWS's own.
	TemplateEndpoint string
	// Budget is shared with everybody else who deploys to the account and
	// region; nil for one of its own.
	Budget *Budget
	// Retryer repeats single requests; nil for 7 tries with up to 15 s between
	// them.
	Retryer aws.Retryer
	// Limits bound waiting; the zero value is the default of each.
	Limits Limits
}

// Limits bound how long and how often is waited.
type Limits struct {
	// Busy is how long an operation of somebody else is waited for; 0 means
	// 30 minutes.
	Busy time.Duration
	// PollMin and PollMax are the shortest and longest pause between two
	// looks; 0 means 200 ms and 2 s.
	PollMin, PollMax time.Duration
	// Outage is how long CloudFormation may fail to answer while a stack is
	// being watched; 0 means 5 minutes.
	Outage time.Duration
}

func (l Limits) withDefaults() Limits {
	for _, d := range []struct {
		value    *time.Duration
		standard time.Duration
	}{
		{&l.Busy, 30 * time.Minute},
		{&l.PollMin, 200 * time.Millisecond},
		{&l.PollMax, 2 * time.Second},
		{&l.Outage, 5 * time.Minute},
	} {
		if *d.value <= 0 {
			*d.value = d.standard
		}
	}
	return l
}

// Deployer deploys stacks to one account and region. It is safe for
// concurrent use with different stacks.
type Deployer struct {
	stacks     stackAPI
	changeSets changeSetAPI
	rollbacks  rollbackAPI
	diagnosis  diagnoseAPI
	cfg        Config
	region     string
}

// New returns a Deployer.
func New(cfg Config) *Deployer {
	cfg.Limits = cfg.Limits.withDefaults()
	if cfg.OnEvent == nil {
		cfg.OnEvent = func(Event) {}
	}
	if cfg.OnNote == nil {
		cfg.OnNote = func(string) {}
	}
	if cfg.TemplateEndpoint == "" {
		cfg.TemplateEndpoint = aws.ToString(cfg.AWS.BaseEndpoint)
	}
	if cfg.Retryer == nil {
		cfg.Retryer = awserr.Retryer(requestAttempts, requestBackoff)
	}
	if cfg.Budget == nil {
		cfg.Budget = newBudget()
	}
	client := cfg.client()
	return &Deployer{stacks: client, changeSets: client, rollbacks: client, diagnosis: client, cfg: cfg, region: cfg.AWS.Region}
}

// client sends requests with the retries and within the budget of c.
func (c Config) client() *cfnsdk.Client {
	return cfnsdk.NewFromConfig(c.AWS, func(o *cfnsdk.Options) {
		o.Retryer, o.APIOptions = c.Retryer, append(o.APIOptions, c.Budget.attach)
	})
}

// Output returns one output of a stack; ok is false if the stack or the
// output does not exist.
func (d *Deployer) Output(ctx context.Context, stackName, key string) (value string, ok bool, err error) {
	stack, err := d.describe(ctx, stackName, "read the outputs of stack "+stackName)
	if err != nil {
		return "", false, err
	}
	value, ok = outputs(stack)[key]
	return value, ok, nil
}

// describe returns a stack by name or ARN; nil if it does not exist.
func (d *Deployer) describe(ctx context.Context, ref, op string) (*cfntypes.Stack, error) {
	out, err := d.stacks.DescribeStacks(ctx, &cfnsdk.DescribeStacksInput{StackName: aws.String(ref)})
	if awserr.StackNotFound(err) {
		return nil, nil //nolint:nilnil // an absent stack is an ordinary answer, not an error
	}
	if err != nil {
		return nil, awserr.Fault(ctx, err, op)
	}
	if len(out.Stacks) == 0 || Status(out.Stacks[0].StackStatus).Deleted() {
		return nil, nil //nolint:nilnil // as above
	}
	return &out.Stacks[0], nil
}

// maxInlineTemplate is CloudFormation's limit on a template in a request, in
// bytes.
const maxInlineTemplate = 51200

// Inline returns a template as it is sent in a request: as it is, or without
// white space if only that fits. ok is false for one that has to be uploaded.
func Inline(template []byte) (body string, ok bool) {
	if len(template) <= maxInlineTemplate {
		return string(template), true
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, template); err != nil || compact.Len() > maxInlineTemplate {
		return "", false
	}
	return compact.String(), true
}

// templateURL turns an s3:// URL into the form CloudFormation accepts.
func (d *Deployer) templateURL(in string) (string, error) {
	rest, isS3 := strings.CutPrefix(in, "s3://")
	if !isS3 {
		return in, nil
	}
	bucket, key, ok := strings.Cut(rest, "/")
	if !ok || bucket == "" || key == "" {
		return "", fmt.Errorf("template URL %q is not of the form s3://<bucket>/<key>", in)
	}
	endpoint := strings.TrimSuffix(d.cfg.TemplateEndpoint, "/")
	if endpoint == "" {
		endpoint = "https://s3." + d.region + "." + dnsSuffix(d.region)
	}
	return endpoint + "/" + bucket + "/" + key, nil
}

// dnsSuffix is the domain of a region's endpoints.
func dnsSuffix(region string) string {
	for prefix, suffix := range map[string]string{
		"cn-": "amazonaws.com.cn", "us-iso-": "c2s.ic.gov", "us-isob-": "sc2s.sgov.gov", "us-isof-": "csp.hci.ic.gov", "eu-isoe-": "cloud.adc-e.uk",
	} {
		if strings.HasPrefix(region, prefix) {
			return suffix
		}
	}
	return "amazonaws.com"
}

// ended is the fault for ctx that ended while op was going on.
func ended(ctx context.Context, op string, status Status) error {
	f := fault.From(awserr.Ended(ctx, op))
	if status == "" {
		return f
	}
	return &fault.Fault{
		Class: f.Class, Reason: f.Reason, Op: op,
		Remedy: "CloudFormation goes on by itself: a retry of the run waits for it",
		Err:    fmt.Errorf("the stack was left in %s: %w", status, f.Err),
	}
}
