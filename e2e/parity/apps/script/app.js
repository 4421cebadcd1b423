// A script that is not executable: Node runs it.
const { readFileSync } = require('node:fs');
const { App, Stack } = require('aws-cdk-lib');
const { StringParameter } = require('aws-cdk-lib/aws-ssm');

const env = { account: process.env.CDK_DEFAULT_ACCOUNT, region: process.env.CDK_DEFAULT_REGION };
const app = new App();
const stack = new Stack(app, 'script', { env });
const variant = readFileSync('variant', 'utf8').trim();
new StringParameter(stack, 'Variant', { stringValue: variant });
if (variant === 'bad') {
  new StringParameter(stack, 'Bad', { stringValue: 'x' }).node.defaultChild.addPropertyOverride('Type', 'Bogus');
}
