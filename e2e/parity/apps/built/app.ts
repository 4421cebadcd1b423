import { readFileSync } from 'node:fs';
import { Stack } from 'aws-cdk-lib';
import { StringParameter } from 'aws-cdk-lib/aws-ssm';
import { app, env, vary } from '../kit';

const stack = vary(new Stack(app, 'built', { env }));
new StringParameter(stack, 'Made', { stringValue: readFileSync('made.txt', 'utf8').trim() });
