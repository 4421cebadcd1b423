package awsauth

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	ststypes "github.com/aws/aws-sdk-go-v2/service/sts/types"

	"github.com/aphex-pipeline/aphex/internal/fault"
)

// Role is a role to assume.
type Role struct {
	// ARN has no placeholders any more.
	ARN string
	// ExternalID is empty if none is asked for.
	ExternalID string
	// Chosen says that the configuration names the role: without it there is
	// no going on. The roles of the bootstrap are passed over where the
	// process's own credentials belong to the account, as the CDK does it.
	Chosen bool
	// Options are further parameters of AssumeRole by their API names, as a
	// cloud assembly carries them: Tags, TransitiveTagKeys, DurationSeconds,
	// Policy, PolicyArns, SerialNumber, SourceIdentity. Without
	// TransitiveTagKeys the keys of all Tags are transitive.
	Options map[string]any
}

// options is the typed form of Role.Options.
type options struct {
	Tags              []tag       `json:"Tags"`
	TransitiveTagKeys []string    `json:"TransitiveTagKeys"`
	DurationSeconds   int64       `json:"DurationSeconds"`
	Policy            string      `json:"Policy"`
	PolicyArns        []policyARN `json:"PolicyArns"`
	SerialNumber      string      `json:"SerialNumber"`
	SourceIdentity    string      `json:"SourceIdentity"`
}

type tag struct {
	Key   string `json:"Key"`
	Value string `json:"Value"`
}

type policyARN struct {
	ARN string `json:"arn"`
}

func (r Role) decode() (options, error) {
	var o options
	if len(r.Options) == 0 {
		return o, nil
	}
	data, err := json.Marshal(r.Options)
	if err != nil {
		return o, fmt.Errorf("additional options of role %s: %w", r.ARN, err)
	}
	decoder := json.NewDecoder(strings.NewReader(string(data)))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&o); err != nil {
		return o, fmt.Errorf("additional options of role %s: %w", r.ARN, err)
	}
	if len(o.TransitiveTagKeys) == 0 {
		for _, tag := range o.Tags {
			o.TransitiveTagKeys = append(o.TransitiveTagKeys, tag.Key)
		}
	}
	return o, nil
}

// Assume returns base's configuration with the credentials of role, in region
// (whose STS endpoint is used). The role is assumed when the credentials are
// first needed and again before they end; base must stay usable.
//
// Errors: AssemblyInvalid if the role's options cannot be understood.
func Assume(base aws.Config, role Role, region, sessionName string) (aws.Config, error) {
	o, err := role.decode()
	if err != nil {
		return aws.Config{}, fault.Wrap(fault.User, fault.AssemblyInvalid, "assume a role", "Use parameters of sts:AssumeRole only", err)
	}
	cfg := base.Copy()
	cfg.Region = region
	provider := stscreds.NewAssumeRoleProvider(client(cfg), role.ARN, func(a *stscreds.AssumeRoleOptions) {
		a.RoleSessionName = sessionName
		if role.ExternalID != "" {
			a.ExternalID = &role.ExternalID
		}
		for _, tag := range o.Tags {
			a.Tags = append(a.Tags, ststypes.Tag{Key: aws.String(tag.Key), Value: aws.String(tag.Value)})
		}
		a.TransitiveTagKeys = o.TransitiveTagKeys
		a.Duration = time.Duration(o.DurationSeconds) * time.Second
		if a.Duration == 0 {
			a.Duration = sessionDuration
		}
		if o.Policy != "" {
			a.Policy = &o.Policy
		}
		for _, policy := range o.PolicyArns {
			a.PolicyARNs = append(a.PolicyARNs, ststypes.PolicyDescriptorType{Arn: aws.String(policy.ARN)})
		}
		if o.SerialNumber != "" {
			a.SerialNumber = &o.SerialNumber
		}
		if o.SourceIdentity != "" {
			a.SourceIdentity = &o.SourceIdentity
		}
	})
	cfg.Credentials = aws.NewCredentialsCache(provider, func(c *aws.CredentialsCacheOptions) {
		c.ExpiryWindow = renewBefore
		c.ExpiryWindowJitterFrac = renewJitter
	})
	return cfg, nil
}

const (
	// sessionDuration is the most that a role assumed from another role's
	// session may last, whatever the role itself allows.
	sessionDuration = time.Hour
	renewJitter     = 0.5
)

// maxSessionName is STS's limit on session names.
const maxSessionName = 64

// SessionName is the session name of a stage: "aphex-<pipeline>-<run>-<stage>"
// in STS's alphabet, at most 64 characters. A name that has to be cut ends
// in a digest of the whole, so that two runs never share one.
func SessionName(pipeline, run, stage string) string {
	whole := "aphex-" + pipeline + "-" + run + "-" + stage
	name := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', strings.ContainsRune("_=,.@-", r):
			return r
		}
		return '-'
	}, whole)
	if len(name) <= maxSessionName {
		return name
	}
	sum := sha256.Sum256([]byte(whole))
	digest := "-" + hex.EncodeToString(sum[:4])
	tail := "-" + stage
	if len(tail) > 20 || !strings.HasSuffix(name, tail) {
		tail = ""
	}
	return name[:maxSessionName-len(digest)-len(tail)] + tail + digest
}

// BootstrapLookupRole is the role of an environment bootstrapped with the
// CDK's defaults that may only read.
func BootstrapLookupRole(partition, account, region string) string {
	return fmt.Sprintf("arn:%s:iam::%s:role/cdk-hnb659fds-lookup-role-%s-%s", partition, account, account, region)
}

// BootstrapDeployRole is the deploy role of an environment bootstrapped with
// the CDK's defaults.
func BootstrapDeployRole(partition, account, region string) string {
	return fmt.Sprintf("arn:%s:iam::%s:role/cdk-hnb659fds-deploy-role-%s-%s", partition, account, account, region)
}
