const cdk = require('aws-cdk-lib');
const app = new cdk.App();
const stack = new cdk.Stack(app, 'Environment');
const names = ['only-saved', 'order', 'both', 'big0', 'big149', 'number', 'flag', 'aws:cdk:enable-path-metadata', 'aws:cdk:enable-asset-metadata',
  'aws:cdk:version-reporting', 'aws:cdk:disable-version-reporting', 'aws:cdk:bundling-stacks', 'aws:cdk:disable-asset-staging', '@aws-cdk/core:failSynthOnValidationErrors'];
const context = Object.fromEntries(names.map((name) => [name, stack.node.tryGetContext(name) ?? null]));
new cdk.CfnOutput(stack, 'Context', { value: JSON.stringify(context) });
new cdk.CfnOutput(stack, 'Env', { value: JSON.stringify(process.env) });
app.synth();
