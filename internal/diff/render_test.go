package diff

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func parse(t *testing.T, text string) map[string]any {
	t.Helper()
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.UseNumber()
	var out map[string]any
	require.NoError(t, decoder.Decode(&out))
	return out
}

const before = `{
  "Description": "one",
  "Parameters": {"Size": {"Type": "Number", "Default": 1}, "Pass": {"Type": "String", "NoEcho": true, "Default": "hunter2"}},
  "Conditions": {"Big": {"Fn::Equals": [{"Ref": "Size"}, 9]}},
  "Mappings": {"Ami": {"eu-west-1": {"id": "ami-1"}}},
  "Resources": {
    "Same": {"Type": "AWS::SNS::Topic", "Properties": {"DisplayName": "gr????e"}},
    "Queue": {"Type": "AWS::SQS::Queue", "Properties": {"VisibilityTimeout": 30, "Tags": [{"Key": "a", "Value": "1"}, {"Key": "b", "Value": "2"}]}, "Metadata": {"aws:cdk:path": "Shop/Queue/Resource"}},
    "Db": {"Type": "AWS::RDS::DBInstance", "Properties": {"MasterUserPassword": {"Ref": "Pass"}, "DBInstanceClass": "db.t3.small"}},
    "Logs": {"Type": "AWS::S3::Bucket", "DeletionPolicy": "Retain", "Metadata": {"aws:cdk:path": "Shop/Logs/Resource"}},
    "Typed": {"Type": "AWS::SNS::Topic"},
    "Role": {"Type": "AWS::IAM::Role", "Properties": {
      "AssumeRolePolicyDocument": {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"Service": "lambda.amazonaws.com"}}]},
      "ManagedPolicyArns": ["arn:aws:iam::aws:policy/ReadOnlyAccess"], "PermissionsBoundary": "arn:aws:iam::aws:policy/Boundary"}},
    "Policy": {"Type": "AWS::IAM::Policy", "Properties": {"PolicyName": "p", "PolicyDocument": {"Statement": [
      {"Sid": "A", "Effect": "Allow", "Action": ["s3:Get*", "s3:List*"], "Resource": "*"},
      {"Effect": "Deny", "Action": "s3:DeleteObject", "Resource": "*"}]}}},
    "Group": {"Type": "AWS::EC2::SecurityGroup", "Properties": {"GroupDescription": "g", "SecurityGroupIngress": [{"IpProtocol": "tcp", "FromPort": 443, "ToPort": 443, "CidrIp": "10.0.0.0/8"}]}},
    "Long": {"Type": "AWS::CloudWatch::Dashboard", "Properties": {"DashboardBody": "LONGold"}}
  },
  "Outputs": {"Url": {"Value": "http://one"}}
}`

const after = `{
  "Description": "two",
  "Parameters": {"Size": {"Type": "Number", "Default": 2}, "Pass": {"Type": "String", "NoEcho": true, "Default": "hunter3"}},
  "Conditions": {"Big": {"Fn::Equals": [{"Ref": "Size"}, 10]}},
  "Mappings": {"Ami": {"eu-west-1": {"id": "ami-2"}}},
  "Resources": {
    "Same": {"Properties": {"DisplayName": "grüße"}, "Type": "AWS::SNS::Topic"},
    "Queue": {"Type": "AWS::SQS::Queue", "Properties": {"VisibilityTimeout": "30", "Tags": [{"Key": "new", "Value": "| @team </details> ` + "``` \\u001b[31m \\u202e" + `"}, {"Key": "a", "Value": "1"}, {"Key": "b", "Value": "2"}]}, "Metadata": {"aws:cdk:path": "Shop/Queue/Resource"}},
    "Db": {"Type": "AWS::RDS::DBInstance", "Properties": {"MasterUserPassword": "plain-text", "DBInstanceClass": "db.t3.large"}},
    "Typed": {"Type": "AWS::SQS::Queue"},
    "Role": {"Type": "AWS::IAM::Role", "Properties": {
      "AssumeRolePolicyDocument": {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"Service": "lambda.amazonaws.com"}},
        {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"AWS": "arn:aws:iam::999999999999:root"}}]},
      "ManagedPolicyArns": ["arn:aws:iam::aws:policy/AdministratorAccess"]}},
    "Policy": {"Type": "AWS::IAM::Policy", "Properties": {"PolicyName": "p", "PolicyDocument": {"Statement": [
      {"Sid": "B", "Effect": "Allow", "Action": ["s3:List*", "s3:Get*"], "Resource": ["*"]},
      {"Effect": "Allow", "Action": "s3:Put*", "Resource": {"Fn::GetAtt": ["Logs", "Arn"]}, "Condition": {"Bool": {"aws:SecureTransport": "true"}}}]}}},
    "Group": {"Type": "AWS::EC2::SecurityGroup", "Properties": {"GroupDescription": "g", "SecurityGroupIngress": [{"IpProtocol": "tcp", "FromPort": 443, "ToPort": 443, "CidrIp": "0.0.0.0/0"}]}},
    "Invoke": {"Type": "AWS::Lambda::Permission", "Properties": {"Action": "lambda:InvokeFunction", "FunctionName": "f", "Principal": "*"}},
    "BucketPolicy": {"Type": "AWS::S3::BucketPolicy", "Properties": {"Bucket": "b", "PolicyDocument": {"Statement": {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*", "Principal": "*"}}}},
    "Rules": {"Type": "AWS::WAFv2::WebACL", "Properties": {"Rules": [{"Statement": {"GeoMatchStatement": {"CountryCodes": ["AQ"]}}}]}},
    "Long": {"Type": "AWS::CloudWatch::Dashboard", "Properties": {"DashboardBody": "LONGnew"}}
  },
  "Outputs": {"Url": {"Value": "http://two"}, "More": {"Value": {"Ref": "Queue"}, "Export": {"Name": "more"}}}
}`

// nasty is a stack whose templates differ in everything there is.
func nasty(t *testing.T) (stack Stack, old, now map[string]any) {
	t.Helper()
	long := strings.Repeat("ü-", 200)
	old, now = parse(t, strings.Replace(before, "LONG", long, 1)), parse(t, strings.Replace(after, "LONG", long, 1))
	got := Compare(Input{
		Old: Side{Template: old, Values: map[string]string{"Size": "5", "Pass": "****"}, Tags: map[string]string{"team": "a", "gone": "x"}, Settings: map[string]any{"terminationProtection": true}},
		New: Side{Template: now, Tags: map[string]string{"team": "b"}, Settings: map[string]any{"notificationArns": []any{"arn:aws:sns:::t"}}},
		// As GetTemplate has it: any character beyond ASCII is a "?" or several.
		Same: func(ours, live string) bool { return ours == "grüße" && live == "gr????e" },
		ConstructPath: func(id string) string {
			if id == "Db" {
				return "Shop/Db"
			}
			return ""
		},
	})
	return Stack{
		Environment: "prod", Account: "222222222222", Region: "eu-west-1", Name: "shop", Path: "Prod/Shop", Status: "UPDATE_COMPLETE",
		Changes: got.Changes, Security: got.Security, Notes: got.Notes,
	}, old, now
}

func golden(t *testing.T, name string, report Report) {
	t.Helper()
	for ending, text := range renderings(t, report) {
		file := filepath.Join("testdata", name+"."+ending)
		if *update {
			require.NoError(t, os.MkdirAll("testdata", 0o750))
			require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
		}
		want, err := os.ReadFile(file)
		require.NoError(t, err)
		require.Equal(t, string(want), text, file)
		require.NotContains(t, text, "hunter", "a secret")
		require.NotContains(t, text, "plain-text", "a secret")
		if ending != "json" {
			require.NotContains(t, text, "\x1b")
			require.NotContains(t, text, "\u202e")
		}
	}
}

func TestGolden_TemplateDiff(t *testing.T) {
	t.Parallel()
	stack, _, _ := nasty(t)
	same := Stack{Environment: "dev", Account: "111111111111", Region: "eu-west-1", Name: "same", Path: "same", Status: "CREATE_COMPLETE", Changes: []Change{}, Security: []Security{}}
	golden(t, "template", New(Templates, []Stack{stack, same}))
}

func TestGolden_ChangeSet(t *testing.T) {
	t.Parallel()
	stack, old, now := nasty(t)
	stack = stack.AddChangeSet(ChangeSet{Status: Created}, []ResourceInput{
		{ID: "Queue", Type: "AWS::SQS::Queue", ResourceChange: ResourceChange{
			Action: "Modify", Replacement: "Conditional", Scope: []string{"Properties"}, PhysicalID: "https://queue",
			Details: []ResourceDetail{{Attribute: "Properties", Path: "/Properties/QueueName", RequiresRecreation: "Conditionally", Evaluation: "Dynamic", Source: "ResourceReference", Cause: "Role.Arn", Before: "a", After: "b"}},
		}},
		{ID: "Db", Type: "AWS::RDS::DBInstance", ResourceChange: ResourceChange{
			Action: "Modify", Replacement: "True", PolicyAction: "ReplaceAndSnapshot", Scope: []string{"Properties"},
			Details: []ResourceDetail{
				{Attribute: "Properties", Path: "/Properties/MasterUserPassword", RequiresRecreation: "Always", Evaluation: "Static", Before: "hunter2", After: "plain-text"},
				{Attribute: "Properties", Path: "/Properties/DBInstanceClass", RequiresRecreation: "Never", Evaluation: "Static", Before: "db.t3.small", After: "db.t3.large"},
			},
		}},
		{ID: "Logs", Type: "AWS::S3::Bucket", ResourceChange: ResourceChange{Action: "Remove", PolicyAction: "Retain"}},
		{ID: "Same", Type: "AWS::SNS::Topic", ResourceChange: ResourceChange{
			Action: "Modify", Replacement: "False", Details: []ResourceDetail{{Attribute: "Properties", Path: "DisplayName", Evaluation: "Dynamic", Source: "ParameterReference", Cause: "Pass", Before: "hunter2", After: "hunter3"}},
		}},
		{ID: "Nest/Inner", Type: "AWS::SSM::Parameter", ResourceChange: ResourceChange{
			Action: "Modify", Replacement: "False", Details: []ResourceDetail{{Attribute: "Properties", Path: "/Properties/Value", Before: "hunter2", After: "hunter3"}},
		}},
	}, old, now)
	failed := Stack{Environment: "prod", Account: "222222222222", Region: "eu-west-1", Name: "web", Path: "Prod/Web", New: true, Changes: []Change{{Kind: Resource, Action: Add, ID: "Site", Type: "AWS::S3::Bucket"}}, Security: []Security{}}
	failed = failed.AddChangeSet(ChangeSet{Status: Failed, Reason: "No export named shop-Arn found."}, nil, nil, nil)
	empty := Stack{Environment: "prod", Name: "idle", Status: "UPDATE_COMPLETE", Changes: []Change{}, Security: []Security{}}
	empty = empty.AddChangeSet(ChangeSet{Status: Empty, Reason: "nothing"}, nil, nil, nil)
	golden(t, "changeset", New(ChangeSets, []Stack{stack, failed, empty}))
}

func TestMarkdown_FitsIntoAComment(t *testing.T) {
	t.Parallel()
	var stacks []Stack
	stack, _, _ := nasty(t)
	stack.Path = strings.Repeat("very/", 20)
	for range 900 {
		stacks = append(stacks, stack)
	}
	var out strings.Builder
	require.NoError(t, WriteMarkdown(&out, New(Templates, stacks)))
	text := out.String()
	require.Less(t, len(text), 65_536)
	require.True(t, strings.HasPrefix(text, Marker+"\n"))
	require.Contains(t, text, "too many for a comment")
	require.Contains(t, text, "more stacks do not fit into a comment")
	require.Equal(t, strings.Count(text, "<details>"), strings.Count(text, "</details>\n"), "none is cut open")
}

func TestReport_SaysWhetherThereIsAnything(t *testing.T) {
	t.Parallel()
	require.False(t, New(Templates, nil).Differences)
	require.JSONEq(t, `{"version": 1, "strength": "template", "differences": false, "stacks": []}`, string(encode(New(Templates, nil))))
	require.True(t, New(Templates, []Stack{{New: true}}).Differences, "a new stack, were it empty")
	stack, _, _ := nasty(t)
	require.True(t, New(Templates, []Stack{stack}).Security())
}
