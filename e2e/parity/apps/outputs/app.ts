// Only an output changes between the variants that can be deployed.
import { CfnOutput, CfnResource, Stack } from 'aws-cdk-lib';
import { Queue } from 'aws-cdk-lib/aws-sqs';
import { app, env, variant } from '../kit';

const stack = new Stack(app, 'outputs', { env });
const queue = new Queue(stack, 'Orders');
new CfnOutput(stack, 'Url', { value: queue.queueUrl });
new CfnOutput(stack, 'Variant', { value: variant === 'one' ? 'first' : 'second' });
if (variant === 'bad') {
  new CfnResource(stack, 'Bad', { type: 'AWS::SSM::Parameter', properties: { Type: 'Bogus', Value: 'x' } });
}
