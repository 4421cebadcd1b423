// The app reports an error and exits with 0: nothing may be deployed.
import { Annotations, Stack } from 'aws-cdk-lib';
import { app, env, vary } from '../kit';

vary(new Stack(app, 'annotated-good', { env }));
const bad = vary(new Stack(app, 'annotated-bad', { env }));
Annotations.of(bad).addError('this stack is not ready');
