import { CfnOutput, Stack } from 'aws-cdk-lib';
import { StringParameter } from 'aws-cdk-lib/aws-ssm';
import { app, env, vary } from '../kit';

const stack = vary(new Stack(app, 'unicode', { env, description: 'Größe, 大きさ, 🙂' }));
new StringParameter(stack, 'Word', { stringValue: 'naïve – 日本語 <&> \\ " é' });
new CfnOutput(stack, 'Echo', { value: 'Straße', description: 'eine Straße' });
