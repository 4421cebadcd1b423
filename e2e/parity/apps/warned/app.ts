import { Annotations, Stack } from 'aws-cdk-lib';
import { app, env, vary } from '../kit';

const stack = vary(new Stack(app, 'warned', { env }));
Annotations.of(stack).addWarningV2('parity:old', 'this is old');
Annotations.of(stack).addInfo('this is information');
