import { Stack } from 'aws-cdk-lib';
import { CfnInclude } from 'aws-cdk-lib/cloudformation-include';
import { app, env, vary } from '../kit';

const stack = vary(new Stack(app, 'included', { env }));
new CfnInclude(stack, 'Template', { templateFile: 'template.yaml' });
