const cdk = require('aws-cdk-lib');
const ssm = require('aws-cdk-lib/aws-ssm');
const app = new cdk.App();
const env = { account: process.env.CDK_DEFAULT_ACCOUNT, region: process.env.CDK_DEFAULT_REGION };
const stack = new cdk.Stack(app, 'Zones', { env });
new ssm.StringParameter(stack, 'Zone', { stringValue: stack.availabilityZones.join() });
new ssm.StringParameter(stack, 'Image', { stringValue: ssm.StringParameter.valueFromLookup(stack, '/shop/image') });
app.synth();
