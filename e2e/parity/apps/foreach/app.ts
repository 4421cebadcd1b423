import { CfnParameter, Stack } from 'aws-cdk-lib';
import { app, env, variant, vary } from '../kit';

const stack = vary(new Stack(app, 'foreach', { env }));
stack.addTransform('AWS::LanguageExtensions');
new CfnParameter(stack, 'Names', { type: 'CommaDelimitedList', default: 'Red,Green' });
stack.templateOptions.metadata = { purpose: 'a transform', variant };
stack.node.addMetadata('parity', 'x');
