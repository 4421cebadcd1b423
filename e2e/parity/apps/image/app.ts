// An image that is in its repository: the emulator says so of every one.
import { CfnOutput, Stack } from 'aws-cdk-lib';
import { DockerImageAsset } from 'aws-cdk-lib/aws-ecr-assets';
import { app, env, vary } from '../kit';

const stack = vary(new Stack(app, 'image', { env }));
const api = new DockerImageAsset(stack, 'Api', { directory: 'api', buildArgs: { WHO: 'shop' }, target: 'made' });
new CfnOutput(stack, 'Uri', { value: api.imageUri });
