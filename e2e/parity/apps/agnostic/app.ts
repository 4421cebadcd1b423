// A stack that is bound to no account and region.
import { Aws, CfnOutput, Stack } from 'aws-cdk-lib';
import { Asset } from 'aws-cdk-lib/aws-s3-assets';
import { app, vary } from '../kit';

const stack = vary(new Stack(app, 'agnostic'));
const data = new Asset(stack, 'Data', { path: 'cdk.json' });
new CfnOutput(stack, 'Where', { value: `${Aws.ACCOUNT_ID} ${Aws.REGION} ${Aws.PARTITION} ${data.s3BucketName}` });
