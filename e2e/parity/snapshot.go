package parity

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	cfnsdk "github.com/aws/aws-sdk-go-v2/service/cloudformation"
	cfntypes "github.com/aws/aws-sdk-go-v2/service/cloudformation/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"go.yaml.in/yaml/v3"
)

// Snapshot is what an app left in its account, by path: "stacks/shop/tags/team"
// is "web". Values that are random by nature are replaced by a word.
type Snapshot map[string]string

// absent stands for the content of an object that was asked for and is not
// there.
const absent = "absent"

// snapshot looks at the stacks of an app and at the objects that its
// deployments asked for.
func snapshot(ctx context.Context, cfg awssdk.Config, app string, calls []request, last []request) (Snapshot, error) {
	s := Snapshot{}
	client := cfnsdk.NewFromConfig(cfg)
	pages := cfnsdk.NewDescribeStacksPaginator(client, &cfnsdk.DescribeStacksInput{})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, fmt.Errorf("list the stacks: %w", err)
		}
		for i := range page.Stacks {
			if stack := &page.Stacks[i]; belongs(awssdk.ToString(stack.StackName), app) {
				if err := s.stack(ctx, client, stack); err != nil {
					return nil, err
				}
			}
		}
	}
	if err := s.objects(ctx, cfg, calls); err != nil {
		return nil, err
	}
	s.sent(last)
	return s, nil
}

// belongs says whether a stack is one of the app's. Every app names its stacks
// after itself.
func belongs(stack, app string) bool { return stack == app || strings.HasPrefix(stack, app+"-") }

func (s Snapshot) put(value string, path ...string) {
	s[stable(strings.Join(path, "/"))] = stable(value)
}

// stable replaces what is random in identifiers of the emulator.
func stable(text string) string {
	text = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`).ReplaceAllString(text, "UUID")
	// The names of nested stacks end in twelve characters of one. Names made
	// from those are cut to eighty, thirteen of them a digest of the name, so
	// that eleven characters of it are left.
	text = regexp.MustCompile(`\b[0-9a-f]{8}-[0-9a-f]{2}[0-9A-F]{13}\b`).ReplaceAllString(text, "RANDOM")
	text = regexp.MustCompile(`\b[0-9a-f]{8}-[0-9a-f]{3}\b`).ReplaceAllString(text, "RANDOM")
	// Names of permissions of functions end in eight more.
	text = regexp.MustCompile(`([0-9A-F]{8})-[0-9a-f]{8}\b`).ReplaceAllString(text, "$1-RANDOM")
	return regexp.MustCompile(`http://[0-9.]+:\d+`).ReplaceAllString(text, "ENDPOINT")
}

func (s Snapshot) stack(ctx context.Context, client *cfnsdk.Client, stack *cfntypes.Stack) error {
	name := awssdk.ToString(stack.StackName)
	at := func(value string, path ...string) { s.put(value, append([]string{"stacks", name}, path...)...) }
	at(string(stack.StackStatus), "status")
	at(awssdk.ToString(stack.RoleARN), "role")
	at(awssdk.ToString(stack.Description), "description")
	at(strconv.FormatBool(awssdk.ToBool(stack.EnableTerminationProtection)), "protected")
	at(strings.Join(stack.NotificationARNs, " "), "notifications")
	at(strconv.FormatBool(awssdk.ToBool(stack.DisableRollback)), "rollback disabled")
	capabilities := make([]string, 0, len(stack.Capabilities))
	for _, c := range stack.Capabilities {
		capabilities = append(capabilities, string(c))
	}
	slices.Sort(capabilities)
	at(strings.Join(capabilities, " "), "capabilities")
	for _, p := range stack.Parameters {
		at(awssdk.ToString(p.ParameterValue)+" "+awssdk.ToString(p.ResolvedValue), "parameters", awssdk.ToString(p.ParameterKey))
	}
	for _, tag := range stack.Tags {
		at(awssdk.ToString(tag.Value), "tags", awssdk.ToString(tag.Key))
	}
	for _, o := range stack.Outputs {
		at(fmt.Sprintf("%s (%s) exported as %q", awssdk.ToString(o.OutputValue), awssdk.ToString(o.Description), awssdk.ToString(o.ExportName)), "outputs", awssdk.ToString(o.OutputKey))
	}
	if err := s.template(ctx, client, name, stack); err != nil {
		return err
	}
	resources, err := client.DescribeStackResources(ctx, &cfnsdk.DescribeStackResourcesInput{StackName: stack.StackId})
	if err != nil {
		return fmt.Errorf("list the resources of %s: %w", name, err)
	}
	for _, r := range resources.StackResources {
		at(fmt.Sprintf("%s %s %s", awssdk.ToString(r.ResourceType), awssdk.ToString(r.PhysicalResourceId), r.ResourceStatus), "resources", awssdk.ToString(r.LogicalResourceId))
	}
	sets, err := client.ListChangeSets(ctx, &cfnsdk.ListChangeSetsInput{StackName: stack.StackName})
	if err != nil {
		return fmt.Errorf("list the change sets of %s: %w", name, err)
	}
	left := 0
	for _, set := range sets.Summaries {
		// An executed change set stays listed in the emulator.
		if set.ExecutionStatus != cfntypes.ExecutionStatusExecuteComplete && set.ExecutionStatus != cfntypes.ExecutionStatusExecuteFailed {
			left++
		}
	}
	at(strconv.Itoa(left), "change sets left")
	return nil
}

// template notes the template's bytes, and its content apart from them.
func (s Snapshot) template(ctx context.Context, client *cfnsdk.Client, name string, stack *cfntypes.Stack) error {
	out, err := client.GetTemplate(ctx, &cfnsdk.GetTemplateInput{StackName: stack.StackId, TemplateStage: cfntypes.TemplateStageOriginal})
	if err != nil {
		return fmt.Errorf("read the template of %s: %w", name, err)
	}
	body := awssdk.ToString(out.TemplateBody)
	var document any
	if err := yaml.Unmarshal([]byte(body), &document); err != nil {
		return fmt.Errorf("read the template of %s: %w", name, err)
	}
	canonical, err := json.Marshal(document)
	if err != nil {
		return fmt.Errorf("read the template of %s: %w", name, err)
	}
	s.put(fmt.Sprintf("%d bytes %s", len(body), digest([]byte(body))), "stacks", name, "template bytes")
	s.put(digest(canonical), "stacks", name, "template content")
	return nil
}

func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// objects notes the objects of the staging bucket that were looked for or
// written.
func (s Snapshot) objects(ctx context.Context, cfg awssdk.Config, calls []request) error {
	client := s3.NewFromConfig(cfg, func(o *s3.Options) { o.UsePathStyle = true })
	for _, r := range calls {
		bucket, key, _ := strings.Cut(strings.TrimPrefix(r.Path, "/"), "/")
		if r.Operation != "" || !strings.HasPrefix(bucket, "cdk-") {
			continue
		}
		if key == "" {
			key = r.Query.Get("prefix")
		}
		if key == "" {
			continue
		}
		path := bucket + "/" + key
		if _, known := s["objects/"+path+"/content"]; known {
			continue
		}
		out, err := client.GetObject(ctx, &s3.GetObjectInput{Bucket: &bucket, Key: &key})
		if err != nil {
			s.put(absent, "objects", path, "content")
			continue
		}
		data, err := io.ReadAll(out.Body)
		_ = out.Body.Close()
		if err != nil {
			return fmt.Errorf("read %s: %w", path, err)
		}
		s.put(digest(data), "objects", path, "bytes")
		s.put(content(data), "objects", path, "content")
		s.put(awssdk.ToString(out.ContentType), "objects", path, "type")
		s.put(string(out.ServerSideEncryption)+" "+awssdk.ToString(out.SSEKMSKeyId), "objects", path, "encryption")
	}
	return nil
}

// content is a digest of the bytes, for an archive of names, modes, times and
// bytes of its entries: two archives of the same files need not be the same
// bytes.
func content(data []byte) string {
	archive, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		return digest(data)
	}
	// The command line's entries are in the order of its walk.
	slices.SortFunc(archive.File, func(a, b *zip.File) int { return strings.Compare(a.Name, b.Name) })
	sum := sha256.New()
	for _, f := range archive.File {
		r, err := f.Open()
		if err != nil {
			return "broken: " + err.Error()
		}
		entry, err := io.ReadAll(r)
		_ = r.Close()
		if err != nil {
			return "broken: " + err.Error()
		}
		_, _ = fmt.Fprintf(sum, "%s %o %d\n%s\n", f.Name, f.Mode().Perm(), len(entry), entry)
	}
	return fmt.Sprintf("archive of %d entries %s", len(archive.File), hex.EncodeToString(sum.Sum(nil)))
}

// sent notes the calls that change a stack, by stack and operation, and the
// roles assumed.
func (s Snapshot) sent(calls []request) {
	count := map[string]int{}
	for _, r := range calls {
		if r.Operation == "AssumeRole" {
			s.put("assumed", "roles", r.Form.Get("RoleArn"), r.Form.Get("ExternalId"))
			continue
		}
		if !slices.Contains([]string{
			"CreateChangeSet", "ExecuteChangeSet", "DeleteChangeSet", "DeleteStack", "CreateStack", "UpdateStack", "UpdateTerminationProtection",
			"RollbackStack", "ContinueUpdateRollback", "SetStackPolicy",
		}, r.Operation) {
			continue
		}
		stack := r.Form.Get("StackName")
		if parts := strings.Split(stack, "/"); len(parts) > 1 {
			stack = parts[1]
		}
		count[stack+r.Operation]++
		call := fmt.Sprintf("%s %d", r.Operation, count[stack+r.Operation])
		for key, value := range members(r.Form) {
			s.put(value, "sent", stack, call, key)
		}
	}
}

// members returns the parameters of a call; the entries of a list are named by
// their key or joined, since their order does not matter.
func members(form map[string][]string) map[string]string {
	out := map[string]string{}
	lists := map[string][]string{}
	entry := regexp.MustCompile(`^(\w+)\.member\.(\d+)(?:\.(\w+))?$`)
	for key, values := range form {
		value := strings.Join(values, " ")
		m := entry.FindStringSubmatch(key)
		switch {
		case key == "Action" || key == "Version" || key == "StackName":
		case m == nil:
			out[key] = value
		case m[3] == "":
			lists[m[1]] = append(lists[m[1]], value)
		case m[3] == "ParameterKey" || m[3] == "Key":
		default:
			prefix := m[1] + ".member." + m[2] + "."
			name := strings.Join(append(form[prefix+"ParameterKey"], form[prefix+"Key"]...), "")
			out[m[1]+" "+name+" "+m[3]] = value
		}
	}
	for name, values := range lists {
		slices.Sort(values)
		out[name] = strings.Join(values, " ")
	}
	return out
}
