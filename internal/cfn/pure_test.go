package cfn

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	cfntypes "github.com/aws/aws-sdk-go-v2/service/cloudformation/types"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestStatus(t *testing.T) {
	t.Parallel()
	// Every status CloudFormation knows, so that a new one is noticed.
	tests := map[Status]string{
		"CREATE_IN_PROGRESS": "in progress", "CREATE_FAILED": "paused", "CREATE_COMPLETE": "succeeded",
		"ROLLBACK_IN_PROGRESS": "in progress", "ROLLBACK_FAILED": "unusable", "ROLLBACK_COMPLETE": "unusable",
		"DELETE_IN_PROGRESS": "in progress", "DELETE_FAILED": "paused", "DELETE_COMPLETE": "deleted",
		"UPDATE_IN_PROGRESS": "in progress", "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS": "in progress", "UPDATE_COMPLETE": "succeeded",
		"UPDATE_FAILED": "paused", "UPDATE_ROLLBACK_IN_PROGRESS": "in progress", "UPDATE_ROLLBACK_FAILED": "paused",
		"UPDATE_ROLLBACK_COMPLETE_CLEANUP_IN_PROGRESS": "in progress", "UPDATE_ROLLBACK_COMPLETE": "ended",
		"REVIEW_IN_PROGRESS": "review", "IMPORT_IN_PROGRESS": "in progress", "IMPORT_COMPLETE": "succeeded",
		"IMPORT_ROLLBACK_IN_PROGRESS": "in progress", "IMPORT_ROLLBACK_FAILED": "paused", "IMPORT_ROLLBACK_COMPLETE": "ended",
	}
	for _, s := range cfntypes.StackStatus("").Values() {
		require.Contains(t, tests, Status(s))
	}
	for s, want := range tests {
		got := "ended"
		switch {
		case s.InProgress():
			got = "in progress"
		case s.Reviewing():
			got = "review"
		case s.Deleted():
			got = "deleted"
		case s.Unusable():
			got = "unusable"
		case s.Paused():
			got = "paused"
		case s.Succeeded():
			got = "succeeded"
		}
		require.Equal(t, want, got, s)
		require.Equal(t, want != "in progress" && want != "review", s.Terminal(), s)
	}
	require.False(t, Status("").Terminal())
}

func live(parameters ...cfntypes.Parameter) *cfntypes.Stack {
	return &cfntypes.Stack{StackStatus: cfntypes.StackStatusUpdateComplete, Parameters: parameters}
}

func value(key, value string) cfntypes.Parameter {
	return cfntypes.Parameter{ParameterKey: aws.String(key), ParameterValue: aws.String(value)}
}

func TestDiffers_OneCasePerReason(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		in   Input
		edit func(*cfntypes.Stack)
		p    parameters
		want string
	}{
		{name: "nothing", want: ""},
		{name: "force", in: Input{Force: true}, want: "forced"},
		{name: "tag added", in: Input{Tags: map[string]string{"a": "b"}}, want: "tags differ"},
		{name: "tag removed", edit: func(s *cfntypes.Stack) {
			s.Tags = []cfntypes.Tag{{Key: aws.String("a"), Value: aws.String("b")}}
		}, want: "tags differ"},
		{name: "same tags", in: Input{Tags: map[string]string{"a": "b"}}, edit: func(s *cfntypes.Stack) {
			s.Tags = []cfntypes.Tag{{Key: aws.String("a"), Value: aws.String("b")}}
		}, want: ""},
		{name: "notifications not specified", edit: func(s *cfntypes.Stack) { s.NotificationARNs = []string{"x"} }, want: ""},
		{name: "notifications removed", in: Input{NotificationARNs: []string{}}, edit: func(s *cfntypes.Stack) { s.NotificationARNs = []string{"x"} }, want: "notification ARNs differ"},
		{name: "no notifications wanted, none there", in: Input{NotificationARNs: []string{}}, want: ""},
		{name: "notifications in another order", in: Input{NotificationARNs: []string{"x", "y"}}, edit: func(s *cfntypes.Stack) { s.NotificationARNs = []string{"y", "x"} }, want: ""},
		{name: "parameters", p: parameters{changed: true}, want: "parameters may differ"},
		{name: "failed status", edit: func(s *cfntypes.Stack) { s.StackStatus = cfntypes.StackStatusUpdateRollbackFailed }, want: "the stack is UPDATE_ROLLBACK_FAILED"},
		{name: "rolled back", edit: func(s *cfntypes.Stack) { s.StackStatus = cfntypes.StackStatusUpdateRollbackComplete }, want: ""},
		{name: "protection is no reason", in: Input{TerminationProtection: true}, want: ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := live()
			if tt.edit != nil {
				tt.edit(s)
			}
			require.Equal(t, tt.want, differs(tt.in, s, tt.p))
		})
	}
}

func TestResolveParameters(t *testing.T) {
	t.Parallel()
	declared := map[string]declaration{
		"Plain": {Type: "String"}, "Default": {Type: "String", Default: "d"}, "EmptyDefault": {Type: "String", Default: ""},
	}
	ssm := map[string]declaration{"Ami": {Type: "AWS::SSM::Parameter::Value<String>", Default: "/ami"}}
	skip := map[string]declaration{"BootstrapVersion": {Type: "AWS::SSM::Parameter::Value<String>", Default: "/v", Description: "x. [cdk:skip]"}}
	previous := func(key string) cfntypes.Parameter {
		return cfntypes.Parameter{ParameterKey: aws.String(key), UsePreviousValue: aws.Bool(true)}
	}
	tests := []struct {
		name     string
		declared map[string]declaration
		supplied map[string]string
		live     []cfntypes.Parameter
		want     parameters
	}{
		{name: "new stack", declared: declared, want: parameters{missing: []string{"Plain"}}},
		{name: "supplied", declared: declared, supplied: map[string]string{"Plain": "a=b"}, want: parameters{values: []cfntypes.Parameter{value("Plain", "a=b")}, changed: true}},
		{name: "previous value", declared: declared, live: []cfntypes.Parameter{value("Plain", "x"), value("Default", "y")}, want: parameters{values: []cfntypes.Parameter{previous("Default"), previous("Plain")}}},
		{name: "supplied as before", declared: declared, supplied: map[string]string{"Plain": "x"}, live: []cfntypes.Parameter{value("Plain", "x")}, want: parameters{values: []cfntypes.Parameter{value("Plain", "x")}}},
		{name: "supplied anew", declared: declared, supplied: map[string]string{"Plain": "z"}, live: []cfntypes.Parameter{value("Plain", "x")}, want: parameters{values: []cfntypes.Parameter{value("Plain", "z")}, changed: true}},
		{name: "read from SSM", declared: ssm, live: []cfntypes.Parameter{value("Ami", "/ami")}, want: parameters{values: []cfntypes.Parameter{previous("Ami")}, changed: true}},
		{name: "read from SSM but marked", declared: skip, live: []cfntypes.Parameter{value("BootstrapVersion", "/v")}, want: parameters{values: []cfntypes.Parameter{previous("BootstrapVersion")}}},
		{name: "unknown to the template", supplied: map[string]string{"X": "1", "Y": ""}, want: parameters{values: []cfntypes.Parameter{value("X", "1")}, changed: true}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, tt.want, resolveParameters(tt.declared, tt.supplied, tt.live))
		})
	}
	resolved := value("Plain", "/path")
	resolved.ResolvedValue = aws.String("x")
	require.False(t, resolveParameters(declared, map[string]string{"Plain": "x"}, []cfntypes.Parameter{resolved}).changed, "the resolved value counts")
}

func TestCompare(t *testing.T) {
	t.Parallel()
	ours := `{"Resources": {"A": {"Type": "T", "Properties": {"N": 1, "S": "größe", "L": ["a", true, null]}}}}`
	tests := []struct {
		name, live string
		want       similarity
	}{
		{"same", ours, equal},
		{"other key order and space", `{"Resources":{"A":{"Properties":{"L":["a",true,null],"S":"größe","N":1},"Type":"T"}}}`, equal},
		{"YAML", "Resources:\n  A:\n    Type: T\n    Properties: {N: 1, S: größe, L: [a, true, null]}\n", equal},
		{"mangled by character", strings.NewReplacer("ö", "?", "ß", "?").Replace(ours), mangled},
		{"mangled by byte", strings.NewReplacer("ö", "??", "ß", "??").Replace(ours), mangled},
		{"other text", strings.Replace(ours, "größe", "gr?sse", 1), different},
		{"other number", strings.Replace(ours, `"N": 1`, `"N": 2`, 1), different},
		{"other list", strings.Replace(ours, `"a", true`, `true, "a"`, 1), different},
		{"more", strings.Replace(ours, `"N": 1`, `"N": 1, "M": 1`, 1), different},
		{"short tags", "Resources:\n  A: !Ref X\n", different},
		{"no template", "not: [a", different},
		{"more than a template", ours + "{}", different},
		{"empty", "", different},
	}
	mine, err := parseTemplate([]byte(ours))
	require.NoError(t, err)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, tt.want, mine.compare([]byte(tt.live)))
		})
	}
}

func TestLikeText_Law(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		text := rapid.StringN(0, 20, -1).Draw(rt, "text")
		lost := regexp.MustCompile(`[^\x00-\x7f]`).ReplaceAllString(strings.ToValidUTF8(text, ""), "?")
		require.True(rt, likeText(strings.ToValidUTF8(text, ""), lost))
		require.Equal(rt, text == "", likeText(text, ""))
	})
}

func TestParseTemplate_Refuses(t *testing.T) {
	t.Parallel()
	for _, text := range []string{`{"a": `, `[]`, `{"Resources": []}`, "\t"} {
		_, err := parseTemplate([]byte(text))
		require.Error(t, err, text)
	}
}

// Names and tokens fit CloudFormation's alphabet and length whatever the
// execution is called, and differ whenever anything differs.
func TestIdentity_Laws(t *testing.T) {
	t.Parallel()
	name := regexp.MustCompile(`^[a-zA-Z][-a-zA-Z0-9]{0,127}$`)
	entry := regexp.MustCompile(`^[a-z0-9-]{1,63}$`)
	rapid.Check(t, func(rt *rapid.T) {
		draw := rapid.String()
		a := [4]string{draw.Draw(rt, "execution"), draw.Draw(rt, "account"), draw.Draw(rt, "region"), draw.Draw(rt, "stack")}
		b := a
		at := rapid.IntRange(0, 3).Draw(rt, "at")
		b[at] += "x"
		g := rapid.IntRange(1, maxAttempts).Draw(rt, "generation")
		one, two := newIdentity(a[0], a[1], a[2], a[3]), newIdentity(b[0], b[1], b[2], b[3])
		require.Regexp(rt, name, one.changeSet(g))
		require.Regexp(rt, name, one.token("execute", g))
		require.Regexp(rt, entry, entryName(a[1], a[2], a[3]))
		require.NotEqual(rt, one.changeSet(g), two.changeSet(g))
		require.NotEqual(rt, one.changeSet(g), one.changeSet(g+1))
		require.NotEqual(rt, one.token("execute", g), one.token("create", g))
		require.Equal(rt, one, newIdentity(a[0], a[1], a[2], a[3]))
	})
}

func TestDescription_DependsOnEveryInput(t *testing.T) {
	t.Parallel()
	base, err := parseTemplate([]byte(`{"Resources": {"A": {"Type": "T"}}}`))
	require.NoError(t, err)
	other, err := parseTemplate([]byte(`{"Resources": {"A": {"Type": "U"}}}`))
	require.NoError(t, err)
	seen := map[string]bool{description(Input{}, base): true}
	for _, in := range []Input{{Parameters: map[string]string{"a": "b"}}, {Tags: map[string]string{"a": "b"}}, {RoleARN: "r"}, {NotificationARNs: []string{}}, {NotificationARNs: []string{"n"}}} {
		text := description(in, base)
		require.False(t, seen[text])
		require.LessOrEqual(t, len(text), 1024)
		seen[text] = true
	}
	require.False(t, seen[description(Input{}, other)])
}

func TestTemplateURL(t *testing.T) {
	t.Parallel()
	tests := []struct{ region, endpoint, in, want string }{
		{"eu-west-1", "", "s3://b/k/t.json", "https://s3.eu-west-1.amazonaws.com/b/k/t.json"},
		{"cn-north-1", "", "s3://b/t.json", "https://s3.cn-north-1.amazonaws.com.cn/b/t.json"},
		{"us-gov-west-1", "", "s3://b/t.json", "https://s3.us-gov-west-1.amazonaws.com/b/t.json"},
		{"eu-west-1", "http://10.0.0.1:4566/", "s3://b/t.json", "http://10.0.0.1:4566/b/t.json"},
		{"eu-west-1", "http://x", "https://s3.eu-west-1.amazonaws.com/b/t.json", "https://s3.eu-west-1.amazonaws.com/b/t.json"},
	}
	for _, tt := range tests {
		d := New(Config{AWS: aws.Config{Region: tt.region}, TemplateEndpoint: tt.endpoint})
		got, err := d.templateURL(tt.in)
		require.NoError(t, err)
		require.Equal(t, tt.want, got)
	}
	_, err := New(Config{AWS: aws.Config{Region: "x"}}).templateURL("s3://bucket")
	require.ErrorContains(t, err, "s3://bucket")
}

// record makes a history of "second status type id reason" lines.
func record(lines ...string) *history {
	h := &history{}
	for _, line := range lines {
		f := strings.SplitN(line, " ", 5)
		at, err := time.Parse("05", f[0])
		if err != nil {
			panic(err)
		}
		e := Event{Time: at, Status: f[1], Type: f[2], LogicalID: f[3]}
		if len(f) == 5 {
			e.Reason = f[4]
		}
		h.add(e, f[2] == stackType, depthOf(f[3]))
	}
	return h
}

// depthOf tells the depth of an event by its logical id, which is "root" for
// the stack itself.
func depthOf(id string) int {
	switch {
	case id == "root":
		return 0
	case strings.HasPrefix(id, "Nest"):
		return 1
	}
	return 0
}

func TestExplain(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		h      *history
		status Status
		want   string
	}{
		{"the first real failure", record(
			"01 CREATE_IN_PROGRESS AWS::CloudFormation::Stack root",
			"03 CREATE_FAILED AWS::Lambda::Function Fn Resource creation cancelled",
			"02 CREATE_FAILED AWS::S3::Bucket Bucket name is taken (Service: S3, HandlerErrorCode: AlreadyExists)",
			"04 CREATE_FAILED AWS::S3::Bucket Second also taken",
			"05 ROLLBACK_IN_PROGRESS AWS::CloudFormation::Stack root The following resource(s) failed to create: [Bucket, Fn].",
		), "ROLLBACK_COMPLETE", "resource Bucket (AWS::S3::Bucket) ended in CREATE_FAILED: name is taken (Service: S3, HandlerErrorCode: AlreadyExists); the stack is ROLLBACK_COMPLETE; first failing event 00:00:02Z; 1 more failure; 1 later event is a cancellation"},
		{"inside a nested stack", record(
			"02 CREATE_FAILED AWS::CloudFormation::Stack Nest Embedded stack arn:x was not successfully created",
			"01 CREATE_FAILED AWS::SSM::Parameter Nest/Inner bad type",
		), "UPDATE_ROLLBACK_COMPLETE", "resource Nest/Inner (AWS::SSM::Parameter) ended in CREATE_FAILED: bad type; the stack is UPDATE_ROLLBACK_COMPLETE; first failing event 00:00:01Z"},
		{"only the stack says why", record("02 ROLLBACK_IN_PROGRESS AWS::CloudFormation::Stack root Transform refused"), "ROLLBACK_COMPLETE", "the stack ended in ROLLBACK_COMPLETE: Transform refused"},
		{"nothing known", record(), "UPDATE_ROLLBACK_COMPLETE", "the stack ended in UPDATE_ROLLBACK_COMPLETE; its events name no cause"},
		{"no reason", record("01 UPDATE_FAILED AWS::X::Y A"), "UPDATE_ROLLBACK_COMPLETE", "resource A (AWS::X::Y) ended in UPDATE_FAILED: no reason given; the stack is UPDATE_ROLLBACK_COMPLETE; first failing event 00:00:01Z"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, tt.want, tt.h.explain(tt.status, "").text)
		})
	}
	require.Equal(t, []string{"resource Old (AWS::S3::Bucket) was replaced or removed but could not be deleted: not empty"},
		record("01 UPDATE_COMPLETE AWS::X::Y A", "02 DELETE_FAILED AWS::S3::Bucket Old not empty").leftovers())
}

// A long text beyond ASCII that differs at its end took longer than anybody
// waits when every way of losing its characters was tried.
func TestCompare_LongTextsTakeNoTime(t *testing.T) {
	t.Parallel()
	mine, err := parseTemplate([]byte(`{"Description":"` + strings.Repeat("説明", 5000) + `."}`))
	require.NoError(t, err)
	began := time.Now()
	require.Equal(t, different, mine.compare([]byte(`{"Description":"`+strings.Repeat("?", 20_000)+`!"}`)))
	require.Equal(t, mangled, mine.compare([]byte(`{"Description":"`+strings.Repeat("?", 20_000)+`."}`)))
	require.Less(t, time.Since(began), 20*time.Second)
}

// Each key that lost characters stands for one of ours.
func TestCompare_KeysAreMatchedOnce(t *testing.T) {
	t.Parallel()
	mine, err := parseTemplate([]byte(`{"é":1,"ö":1}`))
	require.NoError(t, err)
	require.Equal(t, mangled, mine.compare([]byte(`{"?":1,"??":1}`)))
	require.Equal(t, different, mine.compare([]byte(`{"?":1,"x":1}`)))
}

func TestParseTemplate_Bounds(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`{"Resources":` + strings.Repeat("[", 300) + strings.Repeat("]", 300) + `}`: "nested more than 256 levels deep",
		"a: " + strings.Repeat("[", 300) + strings.Repeat("]", 300):                 "nested more than 256 levels deep",
		`{"Resources":{}} {"Resources":{}}`:                                         "something follows its end",
		"":                                                                          "empty",
	} {
		_, err := parseTemplate([]byte(text))
		require.ErrorContains(t, err, want)
	}
}
