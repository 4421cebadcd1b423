import { CliCredentialsStackSynthesizer, Stack } from 'aws-cdk-lib';
import { Asset } from 'aws-cdk-lib/aws-s3-assets';
import { StringParameter } from 'aws-cdk-lib/aws-ssm';
import { app, env, vary } from '../kit';

const stack = vary(new Stack(app, 'credentials', { env, synthesizer: new CliCredentialsStackSynthesizer() }));
const data = new Asset(stack, 'Data', { path: 'app.ts' });
new StringParameter(stack, 'Key', { stringValue: data.s3ObjectKey });
