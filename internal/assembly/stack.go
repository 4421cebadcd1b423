package assembly

import (
	"encoding/json"
	"strings"
)

// Stack is one CloudFormation stack of an assembly.
//
// Role ARNs, the template URL and asset destinations may hold placeholders;
// Placeholders.Replace fills them in.
type Stack struct {
	// ID is the artifact's id within its own manifest.
	ID string
	// HierarchicalID is the construct path, such as "Prod/Db".
	HierarchicalID string
	// Name is the stack's name in CloudFormation.
	Name string
	// Account and Region are where the app bound the stack; each is empty if
	// the app left it open.
	Account, Region string
	// TemplateFile is relative to the assembly's folder, slash-separated.
	TemplateFile string
	// Tags of the stack, by key.
	Tags map[string]string
	// TerminationProtection is the wanted state.
	TerminationProtection bool
	// NotificationARNs is nil if the app says nothing about notifications,
	// which leaves those of the live stack alone, and empty but not nil to
	// remove them.
	NotificationARNs []string
	// DeployRole is the role that reads and writes the stack; nil if the app
	// names none.
	DeployRole *Role
	// ExecutionRoleARN is the role CloudFormation itself uses; empty if none.
	ExecutionRoleARN string
	// LookupRole is the role for reading; nil if the app names none.
	LookupRole *Role
	// TemplateAssetURL is the s3://bucket/key of the template; empty if the
	// template is not an asset.
	TemplateAssetURL string
	// Bootstrap is what the stack asks of the environment.
	Bootstrap Bootstrap
	// Assets are the asset manifests the stack needs published.
	Assets []*AssetManifest
	// Dependencies are the stacks that must be deployed before this one, the
	// direct ones only.
	Dependencies []*Stack
	// Messages are the annotations the app attached to constructs.
	Messages []Message
	// LegacyAssets are the construct paths of assets in the form of CDK
	// version 1, which cannot be published.
	LegacyAssets []string

	logicalIDs map[string]string
	// sources are where the app made its constructs, by construct path.
	sources map[string]string
}

// Role is a role to assume.
type Role struct {
	// ARN may hold placeholders.
	ARN string
	// ExternalID is empty if none is asked for.
	ExternalID string
	// Options are further parameters of AssumeRole, such as Tags.
	Options map[string]any
	// Bootstrap is what using the role asks of the environment.
	Bootstrap Bootstrap
}

// Bootstrap is a demand on the environment's CDK bootstrap.
type Bootstrap struct {
	// Version is the lowest acceptable version; 0 means no demand.
	Version int
	// Parameter is the SSM parameter that holds the version; may be empty.
	Parameter string
}

// Level is the severity of a Message.
type Level string

// The levels.
const (
	LevelError   Level = "error"
	LevelWarning Level = "warning"
	LevelInfo    Level = "info"
)

// Message is one annotation of the app.
type Message struct {
	Level Level
	// Path is the construct path, without a leading slash.
	Path string
	Text string
}

// Errors returns the messages that forbid deploying the stack.
func (s *Stack) Errors() []Message { return s.messages(LevelError) }

// AnnotatedWarnings returns the messages that only warn.
func (s *Stack) AnnotatedWarnings() []Message { return s.messages(LevelWarning) }

func (s *Stack) messages(level Level) []Message {
	var out []Message
	for _, m := range s.Messages {
		if m.Level == level {
			out = append(out, m)
		}
	}
	return out
}

// String returns the hierarchical id, with the stack name in parentheses if
// it differs.
func (s *Stack) String() string {
	if s.HierarchicalID == s.Name {
		return s.Name
	}
	return s.HierarchicalID + " (" + s.Name + ")"
}

// Placeholders are the values for the placeholders of an assembly.
type Placeholders struct {
	Partition, Account, Region string
}

// The placeholders, as apps write them.
const (
	partitionPlaceholder = "${AWS::Partition}"
	accountPlaceholder   = "${AWS::AccountId}"
	regionPlaceholder    = "${AWS::Region}"
)

// Replace fills the placeholders in s wherever they occur.
func (p Placeholders) Replace(s string) string {
	return strings.NewReplacer(
		partitionPlaceholder, p.Partition,
		accountPlaceholder, p.Account,
		regionPlaceholder, p.Region,
	).Replace(s)
}

// Role returns r with its placeholders filled in; nil stays nil.
func (p Placeholders) Role(r *Role) *Role {
	if r == nil {
		return nil
	}
	filled := *r
	filled.ARN = p.Replace(r.ARN)
	filled.ExternalID = p.Replace(r.ExternalID)
	filled.Options = p.options(r.Options)
	return &filled
}

func (p Placeholders) options(in map[string]any) map[string]any {
	if in == nil {
		return nil
	}
	data, err := json.Marshal(in)
	if err != nil {
		return in
	}
	var out map[string]any
	if err := json.Unmarshal([]byte(p.Replace(string(data))), &out); err != nil {
		return in
	}
	return out
}

// Images returns the container image assets of the stack, in a fixed order.
func (s *Stack) Images() []ImageAsset {
	var out []ImageAsset
	for _, m := range s.Assets {
		out = append(out, m.Images...)
	}
	return out
}

// Files returns the file assets of the stack, in a fixed order.
func (s *Stack) Files() []FileAsset {
	var out []FileAsset
	for _, m := range s.Assets {
		out = append(out, m.Files...)
	}
	return out
}
