import { BootstraplessSynthesizer, Stack } from 'aws-cdk-lib';
import { Queue } from 'aws-cdk-lib/aws-sqs';
import { app, env, vary } from '../kit';

const stack = vary(new Stack(app, 'bootstrapless', { env, synthesizer: new BootstraplessSynthesizer() }));
new Queue(stack, 'Orders');
