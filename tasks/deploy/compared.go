package deploy

import (
	"context"
	"fmt"
	"maps"
	"path"
	"slices"

	"github.com/aphex-pipeline/aphex/internal/assembly"
	"github.com/aphex-pipeline/aphex/internal/cfn"
	"github.com/aphex-pipeline/aphex/internal/diff"
)

// nestedType is the type of nested stacks.
const nestedType = "AWS::CloudFormation::Stack"

// compared is the comparison of one stack.
type compared struct {
	reader   *cfn.Previewer
	assembly *assembly.Assembly
	stack    *assembly.Stack
	paths    *assembly.Resources
	// deletes says that a stack without resources is deleted.
	deletes bool

	// template is the wanted one as the app wrote it, wanted the same parsed;
	// old is the live one, nil if there is none.
	template    []byte
	wanted, old map[string]any
	// nestedFiles are the templates of nested stacks, as files of the assembly.
	nestedFiles []string
	out         diff.Stack
}

// compare reads the live stack and compares it with the wanted one.
func (c *compared) compare(ctx context.Context) error {
	var err error
	if c.template, err = c.assembly.ReadFile(c.stack.TemplateFile); err != nil {
		return err
	}
	if c.wanted, err = cfn.ParseTemplate(c.template); err != nil {
		return err
	}
	live, err := c.reader.Look(ctx, c.stack.Name)
	if err != nil {
		return err
	}
	if live != nil {
		c.out.Status = string(live.Status)
	}
	c.describe(live)
	in := diff.Input{
		New:           diff.Side{Template: c.wanted, Tags: c.stack.Tags, Settings: map[string]any{}},
		ConstructPath: func(id string) string { return c.paths.Path(id) }, Same: cfn.SameText,
	}
	if c.stack.TerminationProtection {
		in.New.Settings["terminationProtection"] = true
	}
	if len(c.stack.NotificationARNs) > 0 {
		in.New.Settings["notificationArns"] = listOf(c.stack.NotificationARNs)
	}
	arn := ""
	if !c.out.New {
		if in.Old, err = c.oldSide(live); err != nil {
			return err
		}
		if c.stack.NotificationARNs == nil { // left alone
			delete(in.Old.Settings, "notificationArns")
		}
		c.old, arn = in.Old.Template, live.ARN
	}
	c.add(diff.Compare(in))
	return c.nested(ctx, arn, c.stack.TemplateFile, c.old, c.wanted, nil)
}

// oldSide is a stack as it is.
func (c *compared) oldSide(live *cfn.Live) (diff.Side, error) {
	template, err := cfn.ParseTemplate(live.Template)
	if err != nil {
		return diff.Side{}, fmt.Errorf("read the live template of stack %s: %w", c.stack.Name, err)
	}
	side := diff.Side{Template: template, Values: live.Parameters, Tags: live.Tags, Settings: map[string]any{}}
	if live.TerminationProtection {
		side.Settings["terminationProtection"] = true
	}
	if len(live.NotificationARNs) > 0 {
		side.Settings["notificationArns"] = listOf(live.NotificationARNs)
	}
	return side, nil
}

// listOf is a set of texts as a value of JSON.
func listOf(texts []string) []any {
	out := make([]any, 0, len(texts))
	for _, text := range slices.Compact(slices.Sorted(slices.Values(texts))) {
		out = append(out, text)
	}
	return out
}

// describe says what a deployment would do with a stack in its status.
func (c *compared) describe(live *cfn.Live) {
	note := func(format string, args ...any) { c.out.Notes = append(c.out.Notes, fmt.Sprintf(format, args...)) }
	if resources, _ := c.wanted["Resources"].(map[string]any); len(resources) == 0 && c.deletes {
		note("the template has no resources: a deployment deletes the stack (onEmpty: delete), and makes none")
	} else if len(resources) == 0 {
		note("the template has no resources: a deployment refuses to delete the stack for that, and makes none")
	}
	switch {
	case live == nil, live.Status.Reviewing():
		c.out.New = true
	case live.Status.Unusable():
		c.out.New = true
		note("the stack is %s: a deployment deletes it and makes it anew", live.Status)
	case live.Status.Paused():
		note("the stack is %s: a deployment fails, or rolls it back first (onFailedStack)", live.Status)
	case live.Status.InProgress():
		note("the stack is %s: what is compared may be on its way", live.Status)
	}
}

func (c *compared) add(r diff.Result) {
	c.out.Changes = append(c.out.Changes, r.Changes...)
	c.out.Security = append(c.out.Security, r.Security...)
	for _, note := range r.Notes {
		if !slices.Contains(c.out.Notes, note) {
			c.out.Notes = append(c.out.Notes, note)
		}
	}
}

// maxNesting is how deep nested stacks are followed.
const maxNesting = 8

// nested compares the stacks nested in one, whose template is file and whose
// ARN is empty if it does not exist. ids lead to it.
func (c *compared) nested(ctx context.Context, arn, file string, old, wanted map[string]any, ids []string) error {
	before, after := nestedIn(old), nestedIn(wanted)
	if len(before)+len(after) == 0 || len(ids) >= maxNesting {
		return nil
	}
	live := map[string]string{}
	if arn != "" && len(before) > 0 {
		var err error
		if live, err = c.reader.NestedStacks(ctx, arn); err != nil {
			return err
		}
	}
	all := maps.Clone(before)
	maps.Copy(all, after)
	for _, id := range slices.Sorted(maps.Keys(all)) {
		childFile := ""
		if source := after[id]; source != "" {
			childFile = path.Join(path.Dir(file), source)
		}
		_, isWanted := after[id]
		if isWanted && childFile == "" {
			c.out.Notes = append(c.out.Notes, fmt.Sprintf("nested stack %s: its template is not part of the app's output, and is not compared", id))
			continue
		}
		if err := c.child(ctx, live[id], childFile, append(slices.Clip(ids), id)); err != nil {
			return err
		}
	}
	return nil
}

// child compares one nested stack: arn is empty if it does not exist, file if
// it is not wanted any more.
func (c *compared) child(ctx context.Context, arn, file string, ids []string) error {
	in := diff.Input{ConstructPath: func(id string) string { return c.paths.Path(append(slices.Clip(ids), id)...) }, Same: cfn.SameText}
	for _, id := range ids {
		in.Within += id + "/"
	}
	if file != "" {
		data, err := c.assembly.ReadFile(file)
		if err != nil {
			return err
		}
		if in.New.Template, err = cfn.ParseTemplate(data); err != nil {
			return err
		}
		if !slices.Contains(c.nestedFiles, file) {
			c.nestedFiles = append(c.nestedFiles, file)
		}
	}
	if arn != "" {
		live, err := c.reader.Look(ctx, arn)
		if err != nil {
			return err
		}
		if live != nil && live.Template != nil {
			if in.Old.Template, err = cfn.ParseTemplate(live.Template); err != nil {
				return err
			}
		}
	}
	c.add(diff.Compare(in))
	return c.nested(ctx, arn, file, in.Old.Template, in.New.Template, ids)
}

// nestedIn returns the nested stacks of a template with the files of their
// templates, which are empty if the app does not say.
func nestedIn(template map[string]any) map[string]string {
	out := map[string]string{}
	resources, _ := template["Resources"].(map[string]any)
	for id, entry := range resources {
		resource, _ := entry.(map[string]any)
		if resource["Type"] != nestedType {
			continue
		}
		metadata, _ := resource["Metadata"].(map[string]any)
		file, _ := metadata["aws:asset:path"].(string)
		out[id] = file
	}
	return out
}
