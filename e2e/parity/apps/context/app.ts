// Prints all context it is given, and shows which file wins.
import { Stack } from 'aws-cdk-lib';
import { StringParameter } from 'aws-cdk-lib/aws-ssm';
import { app, env, vary } from '../kit';

const stack = vary(new Stack(app, 'context', { env }));
const shown = Object.entries(stack.node.getAllContext() as Record<string, unknown>).sort(([a], [b]) => (a < b ? -1 : 1));
new StringParameter(stack, 'All', { stringValue: JSON.stringify(shown) });
