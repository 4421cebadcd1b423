// Only a tag of the stack changes between the variants that can be deployed.
import { CfnResource, Stack } from 'aws-cdk-lib';
import { CfnTopic } from 'aws-cdk-lib/aws-sns';
import { app, env, variant } from '../kit';

const stack = new Stack(app, 'retagged', { env, tags: { stage: variant === 'one' ? 'first' : 'second', [`only-${variant}`]: 'x' } });
new CfnTopic(stack, 'News', { topicName: 'retagged-news' });
if (variant === 'bad') {
  new CfnResource(stack, 'Bad', { type: 'AWS::SSM::Parameter', properties: { Type: 'Bogus', Value: 'x' } });
}
