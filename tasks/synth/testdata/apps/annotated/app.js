const cdk = require('aws-cdk-lib');
const ssm = require('aws-cdk-lib/aws-ssm');
const app = new cdk.App();
const good = new cdk.Stack(app, 'Good');
const bad = new cdk.Stack(app, 'Bad');
cdk.Annotations.of(new ssm.StringParameter(good, 'P', { stringValue: 'x' })).addWarning('think again');
cdk.Annotations.of(new ssm.StringParameter(bad, 'P', { stringValue: 'x' })).addError('never do this');
app.synth();
