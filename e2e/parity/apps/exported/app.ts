import { CfnOutput, Fn, Stack } from 'aws-cdk-lib';
import { Topic } from 'aws-cdk-lib/aws-sns';
import { StringParameter } from 'aws-cdk-lib/aws-ssm';
import { app, env, vary } from '../kit';

const first = vary(new Stack(app, 'exported-first', { env }));
const topic = new Topic(first, 'News', { topicName: 'exported-news' });
new CfnOutput(first, 'Arn', { value: topic.topicArn, exportName: 'exported:arn', description: 'the topic' });
const second = vary(new Stack(app, 'exported-second', { env }));
new StringParameter(second, 'Copy', { stringValue: Fn.importValue('exported:arn') });
second.addDependency(first);
