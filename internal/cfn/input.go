package cfn

import (
	"context"
	"time"
)

// Input is everything about one stack that is to be deployed.
type Input struct {
	// StackName is the name in CloudFormation.
	StackName string
	// Template is the template itself, JSON. Required, also with a URL.
	Template []byte
	// TemplateURL is where CloudFormation finds the same template: an https
	// URL, or s3://bucket/key. Empty to send the template in the request.
	TemplateURL string
	// Parameters are values for template parameters.
	Parameters map[string]string
	// Tags of the stack.
	Tags map[string]string
	// RoleARN is the role CloudFormation uses; empty for none.
	RoleARN string
	// NotificationARNs is nil to leave those of the live stack alone, and
	// empty but not nil to remove them.
	NotificationARNs []string
	// TerminationProtection is the wanted state.
	TerminationProtection bool
	// Execution identifies the attempt: equal values join each other, and a
	// different value never touches another's change set. Required.
	Execution string
	// ImportExisting takes resources that exist already under the name the
	// template gives them into the stack.
	ImportExisting bool
	// Force creates a change set even if nothing seems to have changed.
	Force bool
	// RollBackPaused rolls back a stack that stands in a failed state before
	// it is deployed; otherwise such a stack is an error.
	RollBackPaused bool
	// DeleteEmpty deletes a stack whose template has no resources any more;
	// otherwise such a template is an error.
	DeleteEmpty bool
	// ConstructPath returns the construct path of a resource for messages, or
	// "". The last logical id is the resource, those before it are the nested
	// stacks it is in. May be nil.
	ConstructPath func(logicalIDs ...string) string
	// Source returns the line of the app that made a resource, such as
	// "bin/shop.ts:12:3", or "". It takes what ConstructPath takes. May be nil.
	Source func(logicalIDs ...string) string
}

// Outcome says what a deployment did.
type Outcome string

// The outcomes.
const (
	// Created is a stack that did not exist.
	Created Outcome = "created"
	// Recreated is a stack whose earlier creation had failed.
	Recreated Outcome = "recreated"
	// Updated is a stack that was changed.
	Updated Outcome = "updated"
	// NoChange is a stack that was already as wanted.
	NoChange Outcome = "no change"
	// Skipped is a template without resources for a stack that does not exist.
	Skipped Outcome = "skipped"
	// Deleted is a stack whose template has no resources any more.
	Deleted Outcome = "deleted"
)

// Result is a stack that is as wanted.
type Result struct {
	Outcome Outcome
	// StackARN is empty for Skipped, and of what was there for Deleted.
	StackARN string
	// Outputs of the stack by key. Never nil.
	Outputs map[string]string
	// Warnings are remarks for the log, such as a resource that could not be
	// cleaned up.
	Warnings []string
}

// Event is one step of a resource.
type Event struct {
	Time time.Time
	// Stack is the name of the stack being deployed.
	Stack string
	// Status is the resource's status, such as CREATE_COMPLETE.
	Status string
	// Type is the resource type, such as AWS::SSM::Parameter.
	Type string
	// LogicalID is the resource's id, below those of its nested stacks,
	// separated by "/".
	LogicalID string
	// Path is the construct path; empty if unknown.
	Path string
	// Source is the line of the app that made the resource; empty if unknown.
	Source string
	// Reason is what CloudFormation says about the status, without what signed
	// URLs are signed with; often empty.
	Reason string
}

// Journal keeps what an execution is about to do, outside the process.
type Journal interface {
	// Put stores value under name and returns when it is durable.
	Put(ctx context.Context, name string, value []byte) error
	// Get returns the value of this execution, by whichever process.
	Get(ctx context.Context, name string) (value []byte, ok bool, err error)
	// Earlier returns the values of earlier tries of this execution.
	Earlier(ctx context.Context, name string) ([][]byte, error)
}
