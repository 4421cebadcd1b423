package validate

import (
	"context"
	"fmt"
	"io"
	"regexp"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/aphex-pipeline/aphex/internal/awserr"
	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/pipeline"
)

// Credentials proves those of every environment, several at a time, and returns
// what is wrong, in the order of the environments; what is the same for several
// is one finding that names them. A line for each of the others goes to out,
// and what prove warns of.
//
// Errors: Cancelled, since what is unanswered is no finding, and those of out.
func Credentials(ctx context.Context, targets []pipeline.Environment, prove func(context.Context, pipeline.Environment) (string, error), out io.Writer) (findings []error, err error) {
	const atOnce = 10
	proofs, warnings := make([]error, len(targets)), make([]string, len(targets))
	var group errgroup.Group
	group.SetLimit(atOnce)
	for n, target := range targets {
		group.Go(func() error {
			warnings[n], proofs[n] = prove(ctx, target)
			return nil
		})
	}
	_ = group.Wait() // the errors are beside it
	if ctx.Err() != nil {
		return nil, awserr.Ended(ctx, opValidate)
	}
	for n, target := range targets {
		if proofs[n] != nil {
			continue
		}
		text := fmt.Sprintf("%s: credentials reach account %s in %s\n", target.Name, target.Account, target.Region)
		if warnings[n] != "" {
			text += fmt.Sprintf("warning: %s: %s\n", target.Name, warnings[n])
		}
		if _, err := io.WriteString(out, text); err != nil {
			return nil, fmt.Errorf("write the log: %w", err)
		}
	}
	return together(targets, proofs), nil
}

// requestID is what differs between two answers of AWS that say the same.
var requestID = regexp.MustCompile(` \(request [^()]*\)`)

// together makes one finding of those that say the same.
func together(targets []pipeline.Environment, proofs []error) []error {
	var order []string
	first, names := map[string]error{}, map[string][]string{}
	for n, err := range proofs {
		if err == nil {
			continue
		}
		text := requestID.ReplaceAllString(fault.Message(err), "")
		if first[text] == nil {
			first[text] = err
			order = append(order, text)
		}
		names[text] = append(names[text], targets[n].Name)
	}
	findings := make([]error, 0, len(order))
	for _, text := range order {
		err := first[text]
		if len(names[text]) > 1 {
			f := fault.From(err)
			err = &fault.Fault{Class: f.Class, Reason: f.Reason, Op: "prove the credentials of " + strings.Join(names[text], ", "), Remedy: f.Remedy, Err: err}
		}
		findings = append(findings, err)
	}
	return findings
}
