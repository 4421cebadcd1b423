// A template that is too large for a request, of a stack that does not
// publish it as an asset.
import { BootstraplessSynthesizer, Stack } from 'aws-cdk-lib';
import { StringParameter } from 'aws-cdk-lib/aws-ssm';
import { app, env, vary } from '../kit';

const stack = vary(new Stack(app, 'oversize', { env, synthesizer: new BootstraplessSynthesizer() }));
for (let i = 0; i < 40; i++) {
  new StringParameter(stack, `P${i}`, { stringValue: 'x'.repeat(1500) });
}
