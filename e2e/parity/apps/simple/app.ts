import { CfnOutput, Stack } from 'aws-cdk-lib';
import { Queue } from 'aws-cdk-lib/aws-sqs';
import { app, env, vary } from '../kit';

const stack = vary(new Stack(app, 'simple', { env, description: 'one queue' }));
const queue = new Queue(stack, 'Orders');
new CfnOutput(stack, 'QueueUrl', { value: queue.queueUrl, description: 'where orders go' });
