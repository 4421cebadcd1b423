package diff_test

import "fmt"

const roles = `"assumeRoleArn": "arn:${AWS::Partition}:iam::${AWS::AccountId}:role/cdk-hnb659fds-deploy-role-${AWS::AccountId}-${AWS::Region}",
      "cloudFormationExecutionRoleArn": "arn:${AWS::Partition}:iam::${AWS::AccountId}:role/cdk-hnb659fds-cfn-exec-role-${AWS::AccountId}-${AWS::Region}",
      "lookupRole": {"arn": "arn:${AWS::Partition}:iam::${AWS::AccountId}:role/cdk-hnb659fds-lookup-role-${AWS::AccountId}-${AWS::Region}",
        "requiresBootstrapStackVersion": 8, "bootstrapStackVersionSsmParameter": "/cdk-bootstrap/hnb659fds/version"}`

const manifest = `{"version": "55.0.0", "artifacts": {
  "data.assets": {"type": "cdk:asset-manifest", "properties": {"file": "data.assets.json", "requiresBootstrapStackVersion": 6, "bootstrapStackVersionSsmParameter": "/cdk-bootstrap/hnb659fds/version"}},
  "data": {"type": "aws:cloudformation:stack", "environment": "aws://unknown-account/unknown-region", "dependencies": ["data.assets"], "displayName": "Shop/Data",
    "properties": {"templateFile": "data.template.json", "stackName": "shop-data", "tags": {"team": "shop"}, ` + roles + `,
      "stackTemplateAssetObjectUrl": "s3://cdk-hnb659fds-assets-${AWS::AccountId}-${AWS::Region}/diff/data.json"}},
  "api": {"type": "aws:cloudformation:stack", "environment": "aws://unknown-account/unknown-region", "displayName": "Shop/Api",
    "properties": {"templateFile": "api.template.json", "stackName": "shop-api", "terminationProtection": true, ` + roles + `}}}}`

// assetsOf is an asset manifest of one file.
func assetsOf(path, key string) string {
	return fmt.Sprintf(`{"version": "55.0.0", "files": {%s}, "dockerImages": {}}`, asset("one", path, key))
}

func asset(id, path, key string) string {
	return fmt.Sprintf(`%q: {"displayName": %q, "source": {"path": %q, "packaging": "file"},
    "destinations": {"current": {"bucketName": "cdk-hnb659fds-assets-${AWS::AccountId}-${AWS::Region}", "objectKey": %q,
    "assumeRoleArn": "arn:${AWS::Partition}:iam::${AWS::AccountId}:role/cdk-hnb659fds-file-publishing-role-${AWS::AccountId}-${AWS::Region}"}}}`, id, path, path, key)
}

const dataTemplate = `{"Resources": {
  "Param": {"Type": "AWS::SSM::Parameter", "Properties": {"Type": "String", "Name": "/shop/new", "Value": "one"}, "Metadata": {"aws:cdk:path": "Shop/Data/Param/Resource"}},
  "Topic": {"Type": "AWS::SNS::Topic", "Properties": {"DisplayName": "grüße"}},
  "Role": {"Type": "AWS::IAM::Role", "Properties": {"AssumeRolePolicyDocument": {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"Service": "lambda.amazonaws.com"}}]},
    "Policies": [{"PolicyName": "p", "PolicyDocument": {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}}]}}},
  "Parameters": {"Secret": {"Type": "String", "NoEcho": true, "Default": "hunter3"}},
  "Outputs": {"Name": {"Value": {"Ref": "Param"}}}}`

// oldData is dataTemplate as it was deployed.
const oldData = `{"Resources": {
  "Param": {"Type": "AWS::SSM::Parameter", "Properties": {"Type": "String", "Name": "/shop/old", "Value": "one"}, "Metadata": {"aws:cdk:path": "Shop/Data/Param/Resource"}},
  "Topic": {"Type": "AWS::SNS::Topic", "Properties": {"DisplayName": "gr??e"}},
  "Gone": {"Type": "AWS::SQS::Queue"},
  "Role": {"Type": "AWS::IAM::Role", "Properties": {"AssumeRolePolicyDocument": {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"Service": "lambda.amazonaws.com"}}]},
    "Policies": [{"PolicyName": "p", "PolicyDocument": {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:Get*", "Resource": "*"}]}}]}}},
  "Parameters": {"Secret": {"Type": "String", "NoEcho": true, "Default": "hunter2"}}}`

const apiTemplate = `{"Resources": {"Copy": {"Type": "AWS::SSM::Parameter", "Properties": {"Type": "String", "Value": "copy"}, "Metadata": {"aws:cdk:path": "Shop/Api/Copy/Resource"}}}}`
