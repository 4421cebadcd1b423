import { CfnOutput, Stack } from 'aws-cdk-lib';
import { Asset } from 'aws-cdk-lib/aws-s3-assets';
import { app, env, vary } from '../kit';

const stack = vary(new Stack(app, 'assets', { env }));
const site = new Asset(stack, 'Site', { path: 'site' });
const data = new Asset(stack, 'Data', { path: 'data.json' });
new CfnOutput(stack, 'Keys', { value: [site.s3ObjectKey, data.s3ObjectKey].join(' ') });
new CfnOutput(stack, 'Bucket', { value: site.s3BucketName });
