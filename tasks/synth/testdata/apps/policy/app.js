const cdk = require('aws-cdk-lib');
const ssm = require('aws-cdk-lib/aws-ssm');

class Rule {
  name = 'shop-rules';
  validate(context) {
    const violations = context.templatePaths
      .filter((file) => file.includes('Db') || file.includes('Bad'))
      .map((templatePath) => ({
        ruleName: 'no-parameters',
        description: 'parameters are not allowed',
        violatingResources: [{ resourceLogicalId: 'P', templatePath, locations: ['Properties'] }],
      }));
    return { success: violations.length === 0, violations };
  }
}

const app = new cdk.App({ policyValidationBeta1: [new Rule()] });
for (const [scope, id] of [[app, 'Good'], [app, 'Bad'], [new cdk.Stage(app, 'Prod'), 'Db']]) {
  const parameter = new ssm.StringParameter(new cdk.Stack(scope, id), 'P', { stringValue: 'x' });
  parameter.node.defaultChild.overrideLogicalId('P');
}
app.synth();
