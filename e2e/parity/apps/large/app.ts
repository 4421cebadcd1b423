import { Stack } from 'aws-cdk-lib';
import { StringParameter } from 'aws-cdk-lib/aws-ssm';
import { app, env, vary } from '../kit';

const stack = vary(new Stack(app, 'large', { env }));
for (let i = 0; i < 120; i++) {
  new StringParameter(stack, `P${i}`, { stringValue: `${i} ${'y'.repeat(600)}` });
}
