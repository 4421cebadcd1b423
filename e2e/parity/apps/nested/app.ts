import { CfnOutput, NestedStack, Stack } from 'aws-cdk-lib';
import { Queue } from 'aws-cdk-lib/aws-sqs';
import { StringParameter } from 'aws-cdk-lib/aws-ssm';
import { app, env, variant, vary } from '../kit';

const stack = vary(new Stack(app, 'nested', { env }));
const first = new NestedStack(stack, 'First', { parameters: { Size: variant } });
const queue = new Queue(first, 'Orders');
new StringParameter(first, 'Inner', { stringValue: variant });
const second = new NestedStack(first, 'Second');
new StringParameter(second, 'Deep', { stringValue: 'deep' });
new CfnOutput(stack, 'QueueUrl', { value: queue.queueUrl });
