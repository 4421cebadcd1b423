import { Stack } from 'aws-cdk-lib';
import { app, env, vary } from '../kit';

vary(new Stack(app, 'throws', { env }));
throw new Error('the app cannot be synthesized');
