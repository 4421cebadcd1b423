import { Stack } from 'aws-cdk-lib';
import { Code, Function as Lambda, LayerVersion, Runtime } from 'aws-cdk-lib/aws-lambda';
import { app, env, variant, vary } from '../kit';

const stack = vary(new Stack(app, 'functions', { env }));
const layer = new LayerVersion(stack, 'Layer', { code: Code.fromAsset('layer') });
new Lambda(stack, 'Handler', {
  runtime: Runtime.PYTHON_3_12, handler: 'index.handler', code: Code.fromAsset('handler'), layers: [layer], environment: { VARIANT: variant },
});
new Lambda(stack, 'Inline', { runtime: Runtime.PYTHON_3_12, handler: 'index.handler', code: Code.fromInline('def handler(e, c):\n    return 1\n') });
