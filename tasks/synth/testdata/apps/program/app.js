const cdk = require('aws-cdk-lib');
const ssm = require('aws-cdk-lib/aws-ssm');
const app = new cdk.App();
for (const name of ['Program', 'Other']) {
  const stack = new cdk.Stack(app, name);
  const made = stack.synthesizer.addFileAsset({
    sourceHash: `made-for-${name}`, executable: ['sh', 'make.sh', name, 'two words'],
  });
  new ssm.StringParameter(stack, 'Key', { stringValue: made.objectKey });
}
app.synth();
