// A stack that loses all its resources, and one that never had any.
import { CfnOutput, CfnResource, Stack } from 'aws-cdk-lib';
import { CfnTopic } from 'aws-cdk-lib/aws-sns';
import { app, env, variant } from '../kit';

new Stack(app, 'empty-always', { env });
const stack = new Stack(app, 'empty-later', { env });
if (variant !== 'two') {
  new CfnTopic(stack, 'News', { topicName: 'empty-news' });
}
if (variant === 'bad') {
  new CfnResource(stack, 'Bad', { type: 'AWS::SSM::Parameter', properties: { Type: 'Bogus', Value: 'x' } });
}
