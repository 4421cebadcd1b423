// A CDK app whose mistakes are switched on by settings.json.
const fs = require('node:fs');
const { App, CfnOutput, CfnParameter, CfnResource, Stack } = require('aws-cdk-lib');

const settings = JSON.parse(fs.readFileSync('settings.json', 'utf8'));
if (settings.throw) {
  throw new Error(settings.throw);
}
const app = new App();
const stack = new Stack(app, settings.stack ?? 'app', { env: settings.env });
if (settings.needs) {
  // A parameter of the template whose value CloudFormation reads from SSM.
  new CfnParameter(stack, 'Needed', { type: 'AWS::SSM::Parameter::Value<String>', default: settings.needs });
}
const parameter = new CfnResource(stack, 'Value', {
  type: 'AWS::SSM::Parameter',
  properties: {
    Name: `/e2e/${stack.stackName}`,
    Type: settings.type ?? 'String',
    Value: settings.value ?? 'one',
  },
});
new CfnOutput(stack, 'Parameter', { value: parameter.ref });
