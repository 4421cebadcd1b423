// An asset that a program makes.
import { CfnOutput, Stack } from 'aws-cdk-lib';
import { app, env, vary } from '../kit';

const stack = vary(new Stack(app, 'program', { env }));
const location = stack.synthesizer.addFileAsset({
  sourceHash: 'made-by-a-program', executable: ['sh', `${process.cwd()}/make.sh`],
});
new CfnOutput(stack, 'Key', { value: location.objectKey });
