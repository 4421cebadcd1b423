import { CfnOutput, CfnParameter, Stack } from 'aws-cdk-lib';
import { StringParameter } from 'aws-cdk-lib/aws-ssm';
import { app, env, variant, vary } from '../kit';

const stack = vary(new Stack(app, 'parameters', { env }));
const size = new CfnParameter(stack, 'Size', { type: 'Number', default: 3, minValue: 1 });
const list = new CfnParameter(stack, 'Zones', { type: 'CommaDelimitedList', default: 'a,b' });
const secret = new CfnParameter(stack, 'Secret', { default: 'none', noEcho: true });
if (variant !== 'one') {
  const added = new CfnParameter(stack, 'Added', { default: 'added' });
  new StringParameter(stack, 'AddedValue', { stringValue: added.valueAsString });
}
new StringParameter(stack, 'All', { stringValue: `${size.valueAsString} ${list.valueAsList.length} ${secret.valueAsString}` });
new CfnOutput(stack, 'SizeIs', { value: size.valueAsString });
