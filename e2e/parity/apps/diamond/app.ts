import { Stack } from 'aws-cdk-lib';
import { Topic } from 'aws-cdk-lib/aws-sns';
import { StringParameter } from 'aws-cdk-lib/aws-ssm';
import { app, env, vary } from '../kit';

const stack = (name: string) => vary(new Stack(app, `diamond-${name}`, { env }));
const bottom = stack('zero');
const topic = new Topic(bottom, 'News');
const left = stack('b');
new StringParameter(left, 'Where', { stringValue: topic.topicArn });
const right = stack('a');
new StringParameter(right, 'Where', { stringValue: topic.topicName });
const top = stack('top');
top.addDependency(left);
top.addDependency(right);
