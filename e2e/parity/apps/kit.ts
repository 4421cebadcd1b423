// What the apps of the conformance matrix share.
import { readFileSync } from 'node:fs';
import { App, CfnOutput, CfnResource, Environment, Stack } from 'aws-cdk-lib';
import { StringParameter } from 'aws-cdk-lib/aws-ssm';

/** The state of the app that is being deployed: "one", "two" or "bad". */
export const variant = readFileSync('variant', 'utf8').trim();

/** Account and region as a pipeline gives them. */
export const env: Environment = { account: process.env.CDK_DEFAULT_ACCOUNT, region: process.env.CDK_DEFAULT_REGION };

/** A stack that differs between the states, and cannot be deployed in "bad". */
export function vary(stack: Stack): Stack {
  const parameter = new StringParameter(stack, 'Variant', { stringValue: variant === 'bad' ? 'two' : variant });
  new CfnOutput(stack, 'VariantName', { value: parameter.parameterName });
  if (variant === 'bad') {
    const bad = new CfnResource(stack, 'Bad', { type: 'AWS::SSM::Parameter', properties: { Type: 'Bogus', Value: 'x' } });
    bad.node.addDependency(parameter);
  }
  return stack;
}

export const app = new App();
