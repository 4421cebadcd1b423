import { DefaultStackSynthesizer, Stack } from 'aws-cdk-lib';
import { Asset } from 'aws-cdk-lib/aws-s3-assets';
import { app, env, vary } from '../kit';

const synthesizer = new DefaultStackSynthesizer({
  bucketPrefix: 'team/shop/', deployRoleExternalId: 'deploy-id', fileAssetPublishingExternalId: 'publish-id',
  deployRoleArn: 'arn:${AWS::Partition}:iam::${AWS::AccountId}:role/own-deploy-${AWS::Region}',
  cloudFormationExecutionRole: 'arn:${AWS::Partition}:iam::${AWS::AccountId}:role/own-exec',
});
const stack = vary(new Stack(app, 'synthesizer', { env, synthesizer }));
new Asset(stack, 'Data', { path: 'cdk.json' });
