// Every setting that takes metadata out of the template.
import { Stack } from 'aws-cdk-lib';
import { Code, Function as Lambda, Runtime } from 'aws-cdk-lib/aws-lambda';
import { app, env, vary } from '../kit';

const stack = vary(new Stack(app, 'plain', { env }));
new Lambda(stack, 'Handler', { runtime: Runtime.PYTHON_3_12, handler: 'app.handler', code: Code.fromAsset('code') });
