import { Stack, Tags } from 'aws-cdk-lib';
import { Topic } from 'aws-cdk-lib/aws-sns';
import { app, env, variant, vary } from '../kit';

const stack = vary(new Stack(app, 'tagged', { env, tags: { team: 'shop', empty: '' } }));
new Topic(stack, 'News');
Tags.of(app).add('stage', variant);
Tags.of(stack).add('owner', 'größe & co', { excludeResourceTypes: ['AWS::SSM::Parameter'] });
