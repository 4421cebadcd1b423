import { Stack } from 'aws-cdk-lib';
import { app, env, variant, vary } from '../kit';

vary(new Stack(app, 'locked', { env, terminationProtection: true }));
vary(new Stack(app, 'locked-later', { env, terminationProtection: variant === 'two' }));
